"""Serves one trained pipeline in Triton's Python backend; copied there as `model.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# All three live in the environment `triton` only.
import joblib  # type: ignore[import-not-found]
import numpy as np
import triton_python_backend_utils as backend  # type: ignore[import-not-found]


def classify_topics(pipeline: Any, texts: Any) -> dict[str, Any]:
    """The likeliest topic of each text, shape [n, 1], and how sure the model is."""
    shares = pipeline.predict_proba([text.decode("utf-8", "replace") for text in texts.ravel()])
    topics = pipeline.classes_[shares.argmax(axis=1)]
    return {
        "TOPIC": np.array([[topic.encode()] for topic in topics], dtype=np.object_),
        "CONFIDENCE": shares.max(axis=1, keepdims=True).astype(np.float32),
    }


def read_digits(pipeline: Any, pixels: Any) -> dict[str, Any]:
    """The digit in each row of 64 pixels, shape [n, 1], and the probability of all ten."""
    shares = pipeline.predict_proba(pixels)
    return {
        "DIGIT": shares.argmax(axis=1).astype(np.int64)[:, None],
        "PROBABILITIES": shares.astype(np.float32),
    }


WORK = {"topic": ("TEXT", classify_topics), "digits": ("PIXELS", read_digits)}


class TritonPythonModel:
    """The name and the methods are Triton's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the pipeline that lies beside the version's folder."""
        self._input, self._answer = WORK[json.loads(args["model_config"])["name"]]
        self._pipeline = joblib.load(Path(args["model_repository"]) / "pipeline.joblib")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one batch by one pass through the pipeline."""
        inputs = [
            backend.get_input_tensor_by_name(request, self._input).as_numpy()
            for request in requests
        ]
        outputs = self._answer(self._pipeline, np.concatenate(inputs))
        ends = np.cumsum([len(rows) for rows in inputs])[:-1]
        parts = {name: np.split(values, ends) for name, values in outputs.items()}
        return [
            backend.InferenceResponse(
                [backend.Tensor(name, values[number]) for name, values in parts.items()]
            )
            for number in range(len(requests))
        ]
