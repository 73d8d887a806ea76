"""A provider's file is read, or the reader is told which line or field to mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from provider_sdk.config import EXAMPLE, KEY_VARIABLE, ConfigWrong, load
from provider_sdk.protocol import CallBand, TokenBand


def write(folder: Path, text: str) -> Path:
    path = folder / "provider.toml"
    path.write_text(text)
    return path


def changed(old: str, new: str) -> str:
    assert old in EXAMPLE
    return EXAMPLE.replace(old, new, 1)


def test_the_example_is_right(tmp_path: Path) -> None:
    config = load(write(tmp_path, EXAMPLE), {})
    assert (config.broker, config.key) == ("https://broker.example", "bk_...")
    (deployment,) = config.deployments
    assert deployment.front == "0.0.0.0:9001"
    offer = deployment.offer()
    assert offer.capacity == 8
    assert offer.endpoints[0].domains == {"law": 0.9}
    assert isinstance(offer.endpoints[0].price, TokenBand)
    assert not hasattr(offer, "server")


def test_a_price_by_call_is_known_by_its_fields(tmp_path: Path) -> None:
    head, _price = EXAMPLE.split("[deployments.endpoints.price]")
    price = 'floor_call = "0.1"\nlist_call = "0.1"\nceiling_call = "2"\n'
    path = write(tmp_path, f"{head}[deployments.endpoints.price]\n{price}")
    assert isinstance(load(path, {}).deployments[0].endpoints[0].price, CallBand)


def test_the_key_may_come_from_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, changed('key = "bk_..."', "# "))
    assert load(path, {KEY_VARIABLE: "bk_env"}).key == "bk_env"
    with pytest.raises(ConfigWrong, match=f"field `key`.*{KEY_VARIABLE}"):
        load(path, {})


def test_a_tokenizer_is_read_from_the_file_beside(tmp_path: Path) -> None:
    (tmp_path / "tok.json").write_text('{"model": {}}')
    path = write(tmp_path, changed('# tokenizer = "tokenizer.json"', 'tokenizer = "tok.json" # '))
    assert load(path, {}).deployments[0].endpoints[0].tokenizer_json == '{"model": {}}'


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('broker = "https://broker.example"', "broker = ", r"line 1"),
        ("capacity = 8", 'capacity = "8"', r"field `deployments\[0\]\.capacity`.*int"),
        ("capacity = 8", "capacity = 0", r"field `deployments\[0\]\.capacity`.*>= 1"),
        ("capacity = 8", "# ", r"field `deployments\[0\]\.capacity`: missing"),
        ("capacity = 8", "capcity = 8", r"\[0\]\.capcity`: there is no such.*`capacity`\?"),
        ('kind = "openai"', 'kind = "vllm"', r"kind`: 'vllm' is none of openai, kserve"),
        ("# backend = ", 'backend = "vlm" #', r"'vlm' is none of auto, vllm, sglang"),
        ('name = "lawyer"', 'name = "law yer"', r"\[0\]\.name`: expected lower-case letters"),
        ('floor_in = "0.10"', 'floor_in = "ten"', r"floor_in`: expected a decimal in quotes"),
        ("gpu1.acme.example", "gpu1.acme.example/v1", r"\.url`: leave off /v1"),
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001/v1/", r"\.server`: leave off /v1"),
        ("https://broker.example", "https://broker.example/v1", r"`broker`: leave off /v1"),
        ("https://broker.example", "https://broker.example/api/", r"`broker`: leave off /api"),
        (
            'list_in = "0.20"',
            'list_in = "0.2"\nfloor_call = "1"',
            r"`: prices are by tokens.*or by",
        ),
        (
            'tasks = ["chat"]',
            'tasks = ["chat"]\ncapacity = 1',
            r"\.capacity`: does not belong here",
        ),
        ("# tiers = {", "tiers = { gold = '2' } # ", r"tiers`: 'gold' is none of priority, flex"),
        ('credential = "..."', 'proof = "credential" #', r"\[0\]\.credential`: missing.*`proof`"),
        ('name = "gpu1"', 'name = "GPU 1"', r"field `deployments\[0\]\.name`"),
        ('tasks = ["chat"]', 'tasks = ["sing"]', r"endpoints\[0\]\.tasks\[0\]`.*sing"),
        ('url = "https://gpu1', 'url = "gpu1', r"field `deployments\[0\]\.url`.*http"),
        ('front = "0.0.0.0:9001"', 'front = "9001"', r"field `deployments\[0\]\.front`"),
        ('list_in = "0.20"', 'list_in = "9"', r"endpoints\[0\]\.price`.*list_in <= ceiling_in"),
        ('list_in = "0.20"', "list_in = 0.2", r"endpoints\[0\]\.price\.list_in`.*str"),
        ('floor_in = "0.10"', 'floor_in = "0"', r"0 < floor_in"),
        ("# tokenizer =", "tokenizer =", r"endpoints\[0\]\.tokenizer`"),
        ('front = "0.0.0.0:9001"', 'receipts_key = "k"', r"deployments\[0\]\.receipts_key`.*front"),
        ('broker = "https:', 'broker = "ftp:', r"field `broker`"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(ConfigWrong, match=told):
        load(write(tmp_path, changed(old, new)), {})


def test_two_deployments_may_not_share_a_name_or_a_front(tmp_path: Path) -> None:
    body = EXAMPLE[EXAMPLE.index("[[deployments]]") :]
    with pytest.raises(ConfigWrong, match="the name 'gpu1'"):
        load(write(tmp_path, EXAMPLE + body), {})
    other = body.replace('name = "gpu1"', 'name = "gpu2"')
    with pytest.raises(ConfigWrong, match=r"the front '0\.0\.0\.0:9001'"):
        load(write(tmp_path, EXAMPLE + other), {})


def test_the_key_for_receipts_stands_beside_the_file_and_is_one_deployments_own(
    tmp_path: Path,
) -> None:
    text = changed("# receipts_key", "receipts_key")
    [deployment] = load(write(tmp_path, text), {}).deployments
    assert deployment.receipts_key == str(tmp_path / "gpu1-receipts.pem")
    body = text[text.index("[[deployments]]") :].replace('"gpu1"', '"gpu2"').replace("9001", "9002")
    with pytest.raises(ConfigWrong, match="the receipts_key"):
        load(write(tmp_path, text + body), {})


def test_a_missing_file_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(ConfigWrong, match="No such file"):
        load(tmp_path / "none.toml", {})
