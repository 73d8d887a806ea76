"""What is read of an OpenAI request, and what is refused, by name."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from broker.core.call import OpenAiBody, Payer
from broker.core.catalog import Task
from broker.core.metering import Delivered, Expected, meter
from broker.errors import ParameterMalformed, RequestMalformed, TooManyCalls, UnknownField
from broker.gateway.admit import Asked, admit, demands, require_room
from broker.gateway.openai import parse
from broker.gateway.refusals import openai_refusal
from broker.settings import Limits
from tests.fakes import ACCOUNT

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MESSAGES = [{"role": "user", "content": "Hello"}]


def parsed(path: str = CHAT, **members: Any) -> Asked:
    needed = {
        CHAT: {"messages": MESSAGES},
        COMPLETIONS: {"prompt": "a"},
        EMBEDDINGS: {"input": "a"},
    }
    body = {"model": "auto"} | needed[path] | members
    return read(json.dumps(body).encode(), path)


def read(body: bytes, path: str = CHAT, headers: list[tuple[bytes, bytes]] | None = None) -> Asked:
    return parse(path, headers or [], body)


def openai(asked: Asked) -> OpenAiBody:
    assert isinstance(asked.body, OpenAiBody)
    return asked.body


class TestRead:
    @pytest.mark.parametrize(
        ("path", "task"),
        [(CHAT, Task.CHAT), (COMPLETIONS, Task.COMPLETION), (EMBEDDINGS, Task.EMBEDDING)],
    )
    def test_the_path_says_the_task(self, path: str, task: Task) -> None:
        asked = parsed(path, model="acme/small")
        assert (asked.task, asked.model) == (task, "acme/small")
        assert openai(asked).path == path.encode()

    def test_a_limit_may_have_either_name_and_the_newer_wins(self) -> None:
        assert parsed().tokens_out_max is None
        assert parsed(max_tokens=10).tokens_out_max == 10
        assert parsed(max_completion_tokens=20).tokens_out_max == 20
        assert parsed(max_tokens=10, max_completion_tokens=20).tokens_out_max == 20
        assert parsed(max_tokens=10, max_completion_tokens=None).tokens_out_max == 10

    def test_an_embedding_has_no_output_limit_and_no_stream(self) -> None:
        asked = parsed(EMBEDDINGS, max_tokens=10, stream=True)
        assert asked.tokens_out_max is None
        assert not openai(asked).stream

    def test_a_stream_says_whether_usage_is_asked_for(self) -> None:
        assert not openai(parsed()).stream
        assert not openai(parsed(stream=None)).stream
        plain = openai(parsed(stream=True))
        assert (plain.stream, plain.usage_asked) == (True, False)
        with_usage = openai(parsed(stream=True, stream_options={"include_usage": True}))
        assert with_usage.usage_asked

    def test_each_choice_may_cost_the_limit(self) -> None:
        assert parsed().choices == 1
        assert parsed(n=3).choices == 3
        assert parsed(n=None).choices == 1
        assert parsed(EMBEDDINGS, input=["a", "b"], n=3).choices == 1

    def test_completions_that_are_thrown_away_cost_as_well(self) -> None:
        assert parsed(COMPLETIONS, n=2, best_of=5).choices == 5
        assert parsed(COMPLETIONS, n=5, best_of=None).choices == 5

    @pytest.mark.parametrize(
        ("prompt", "choices"),
        [
            ("text", 2),
            (["a"], 2),
            (["a", "b", "c"], 6),
            ([1, 2, 3], 2),
            ([[1, 2], [3]], 4),
            ([], 2),
        ],
    )
    def test_each_prompt_of_a_list_is_answered(self, prompt: Any, choices: int) -> None:
        assert parsed(COMPLETIONS, prompt=prompt, n=2).choices == choices

    def test_what_the_broker_does_not_know_is_kept_raw(self) -> None:
        asked = read(b'{"model":"auto","messages":[1],"logit_bias": {"1": -1.50}}')
        assert bytes(openai(asked).members["logit_bias"]) == b'{"1": -1.50}'

    def test_wishes_come_from_body_and_headers(self) -> None:
        body = b'{"model":"auto","messages":[1],"broker":{"domain":"law"}}'
        wishes = read(body, headers=[(b"x-broker-region", b"eu")]).wishes
        assert (wishes.domain, wishes.regions()) == ("law", {"eu"})


REFUSED: list[tuple[bytes, str]] = [
    (b"", "JSON"),
    (b"{", "JSON"),
    (b'{"model":"auto",}', "JSON"),
    (b"[]", "not a JSON object"),
    (b'"text"', "not a JSON object"),
    (b"null", "not a JSON object"),
    (b'{"messages":[1]}', "'model' is missing"),
    (b'{"model":"auto"}', "'messages' is missing"),
    (b'{"model":"","messages":[1]}', "'model'"),
    (b'{"model":3,"messages":[1]}', "'model'"),
    (b'{"model":null,"messages":[1]}', "'model'"),
    (b'{"model":"%b","messages":[1]}' % (b"x" * 201), "'model'"),
    (b'{"model":"auto","messages":[]}', "'messages'"),
    (b'{"model":"auto","messages":"Hello"}', "'messages'"),
    (b'{"model":"auto","messages":null}', "'messages'"),
    (b'{"model":"auto","messages":[1],"stream":"yes"}', "'stream'"),
    (b'{"model":"auto","messages":[1],"stream":true,"stream_options":3}', "'stream_options'"),
    (b'{"model":"auto","messages":[1],"n":0}', "'n'"),
    (b'{"model":"auto","messages":[1],"n":129}', "'n'"),
    (b'{"model":"auto","messages":[1],"n":"2"}', "'n'"),
    (b'{"model":"auto","messages":[1],"max_tokens":0}', "'max_tokens'"),
    (b'{"model":"auto","messages":[1],"max_tokens":-1}', "'max_tokens'"),
    (b'{"model":"auto","messages":[1],"max_tokens":1.5}', "'max_tokens'"),
    (b'{"model":"auto","messages":[1],"max_completion_tokens":1e99}', "'max_completion_tokens'"),
    (b'{"model":"auto","messages":["\xff"]}', "UTF-8"),
    (b'{"model":"auto","messages":["\xed\xa0\x80"]}', "UTF-8"),
]


@pytest.mark.parametrize(("body", "said"), REFUSED)
def test_what_makes_no_sense_is_refused_with_its_name(body: bytes, said: str) -> None:
    with pytest.raises(RequestMalformed, match=said):
        read(body)


@pytest.mark.parametrize(
    ("param", "value", "said"),
    [
        ("max_tokens", -1, "'max_tokens' must be at least 1."),
        ("max_tokens", 10**30, "'max_tokens' must be at most 10000000."),
        ("max_tokens", 1.5, "'max_tokens' must be a whole number or null, not a decimal number."),
        ("max_completion_tokens", 0.0, "'max_completion_tokens' must be a whole number or null"),
        ("max_tokens", "9", "'max_tokens' must be a whole number or null, not a text."),
        ("n", 129, "'n' must be at most 128."),
        ("model", "", "'model' must have at least 1 character."),
        ("stream", "yes", "'stream' must be true or false or null, not a text."),
        ("messages", [], "'messages' is empty."),
        ("fallbacks", ["x"], "'fallbacks' is not taken here"),
    ],
)
def test_a_parameter_that_is_wrong_is_named_as_clients_of_openai_read_it(
    param: str, value: object, said: str
) -> None:
    with pytest.raises(ParameterMalformed) as caught:
        parsed(**{param: value})
    assert caught.value.detail.startswith(said)
    status, _, body = openai_refusal(caught.value)
    error = msgspec.json.decode(body)["error"]
    assert (status, error["param"], error["type"]) == (400, param, "invalid_request_error")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_written_with_a_point_is_taken_and_sent_on_as_a_whole_number(name: str) -> None:
    asked = parsed(**{name: 16.0})
    assert asked.tokens_out_max == 16
    assert isinstance(asked.tokens_out_max, int)
    assert b'"%b":16}' % name.encode() in openai(asked).render("m", asked.tokens_out_max)


@pytest.mark.parametrize(("name", "better"), [("n_predict", "max_tokens"), ("n_cmpl", "n")])
def test_a_limit_by_a_name_that_overrules_the_held_one_is_refused(name: str, better: str) -> None:
    with pytest.raises(RequestMalformed, match=f"'{name}' is not taken here; say '{better}'"):
        parsed(max_tokens=1, **{name: 100_000})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Model", "model"),  # of two models on one server the dearer, at the price of the cheaper
        ("MAX_TOKENS", "max_tokens"),
        ("max_to\N{KELVIN SIGN}ens", "max_tokens"),
        ("\N{LATIN SMALL LETTER LONG S}tream", "stream"),
        ("N", "n"),
        ("N_predict", "n_predict"),
        ("Broker", "broker"),
    ],
)
def test_a_member_that_servers_which_fold_case_take_for_one_that_was_priced_is_refused(
    name: str, meant: str
) -> None:
    with pytest.raises(ParameterMalformed, match=f"'{name}' is '{meant}' to some servers"):
        parsed(**{name: 1})


def test_other_members_are_passed_on_in_whichever_case_they_are_written() -> None:
    own = {"topK": 4, "chatTemplateKwargs": {}, "größe": 1}
    body = parsed(**own).body
    assert isinstance(body, OpenAiBody)
    assert body.members.keys() >= own.keys()


@pytest.mark.parametrize(
    ("name", "better"), [("provider", "data_policy"), ("fallbacks", "'models'")]
)
def test_demands_in_the_words_of_other_gateways_are_refused_with_ours(
    name: str, better: str
) -> None:
    with pytest.raises(RequestMalformed, match=f"'{name}' is not taken here; say .*{better}"):
        parsed(**{name: {"data_collection": "deny"}})


@pytest.mark.parametrize("name", ["n_predict", "n_cmpl", "provider", "fallbacks"])
def test_what_is_not_taken_may_be_null_and_then_goes_to_nobody(name: str) -> None:
    body = parsed(**{name: None, "user": None}).body
    assert isinstance(body, OpenAiBody)
    assert name not in body.members
    assert "user" in body.members, "what the broker knows nothing of is the model's own business"


@pytest.mark.parametrize(
    ("model", "models", "chain"),
    [
        ("a", ["b", "c"], ["a", "b", "c"]),
        ("a", ["a", "b"], ["a", "b"]),
        ("auto", ["b", "c"], ["b", "c"]),
    ],
)
def test_several_models_are_a_chain_whose_answers_are_kept_whatever_they_are_worth(
    model: str, models: list[str], chain: list[str]
) -> None:
    asked = parsed(model=model, models=models)
    assert asked.wishes.cascade is not None
    cascade = asked.wishes.cascade.plan()
    assert cascade is not None
    assert [each.model for each in cascade.stages] == chain
    assert cascade.keeps_any
    assert cascade.keep_from is None, "so that none of them is flagged"
    assert "models" not in openai(asked).members


@pytest.mark.parametrize(("models", "model"), [([], "a"), (None, "a"), (["a"], "a")])
def test_no_further_model_is_no_chain(models: list[str] | None, model: str) -> None:
    asked = parsed(model=model, models=models)
    assert (asked.model, asked.wishes.cascade) == (model, None)


def test_of_one_model_beside_auto_that_one_is_asked() -> None:
    asked = parsed(models=["a"])
    assert (asked.model, asked.wishes.cascade) == ("a", None)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"models": "a"}, "'models' must be a list"),
        ({"models": list("bcdef")}, "at most 4"),
        ({"models": ["b", "c"], "broker": {"cascade": {"policy": "auto"}}}, "say either this"),
    ],
)
def test_models_that_make_no_chain_are_refused(members: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestMalformed, match=said):
        parsed(**members)


@pytest.mark.parametrize("name", ["n", "best_of"])
def test_completions_name_what_is_wrong_too(name: str) -> None:
    with pytest.raises(RequestMalformed, match=f"'{name}'"):
        parsed(COMPLETIONS, **{name: 0})


@pytest.mark.parametrize("prompt", [None, 3, {"text": "a"}])
def test_a_prompt_is_a_text_or_a_list(prompt: Any) -> None:
    with pytest.raises(RequestMalformed, match="'prompt'"):
        parsed(COMPLETIONS, prompt=prompt)


@pytest.mark.parametrize("where", ["messages", "metadata", "broker", "stream_options"])
def test_nesting_without_end_is_refused_or_left_alone_but_never_breaks(where: str) -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    members = {b"model": b'"auto"', b"messages": b"[1]", b"stream": b"true"}
    members[where.encode()] = deep
    body = b"{" + b",".join(b'"%b":%b' % each for each in members.items()) + b"}"
    try:
        read(body)
    except RequestMalformed:
        return
    assert where in ("metadata", "messages")


def test_a_wish_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(UnknownField, match="'domian'"):
        parsed(broker={"domian": "law"})


class TestAdmitted:
    runtime: Any = SimpleNamespace(
        traces=None,
        settings=SimpleNamespace(
            limits=Limits(deadline_s=100.0, deadline_s_max=200.0, calls_in_flight_max=2)
        ),
        now_s=lambda: 50.0,
        clock=lambda: datetime(2025, 1, 1, tzinfo=UTC),
        calls_in_flight=1,
    )
    payer = Payer(ACCOUNT, "key", ACCOUNT)

    def admitted(self, **wishes: Any) -> Any:
        return admit(parsed(max_tokens=10, n=2, broker=wishes), self.payer, self.runtime)

    @pytest.mark.parametrize(
        ("wishes", "deadline_s"),
        [({}, 150.0), ({"deadline_s": 5}, 55.0), ({"deadline_s": 200}, 250.0)],
    )
    def test_the_deadline_is_what_was_asked_for_or_the_usual_one(
        self, wishes: dict[str, Any], deadline_s: float
    ) -> None:
        assert self.admitted(**wishes).deadline_s == deadline_s

    def test_who_would_wait_longer_than_any_call_takes_is_told_how_long_that_is(self) -> None:
        with pytest.raises(RequestMalformed, match="deadline_s: a call takes 200 s at most"):
            self.admitted(deadline_s=200.1)

    @pytest.mark.parametrize(
        ("policy", "retention", "training"),
        [("any", True, True), ("no_training", True, False), ("no_retention", False, False)],
    )
    def test_a_data_policy_forbids_what_it_says(
        self, policy: str, retention: bool, training: bool
    ) -> None:
        wanted = self.admitted(data_policy=policy).wanted
        assert (wanted.allow_retention, wanted.allow_training) == (retention, training)

    @pytest.mark.parametrize(
        ("key", "said", "explores"),
        [
            (None, {}, False),
            (None, {"explore": True}, True),
            (True, {}, True),
            (True, {"explore": False}, False),
            (False, {"explore": True}, False),
        ],
    )
    def test_a_key_says_whether_its_calls_may_be_explored(
        self, key: bool | None, said: dict[str, Any], explores: bool
    ) -> None:
        payer = msgspec.structs.replace(self.payer, explore=key)
        assert admit(parsed(broker=said), payer, self.runtime).wanted.explore is explores

    def test_demands_carry_everything_that_was_asked_for(self) -> None:
        call = self.admitted(
            domain="law",
            max_price={"in": 1, "out": 2},
            max_cost="0.5",
            quality_min=0.5,
            latency_ms_max=900,
            region=["eu"],
            providers={"only": ["a"], "ignore": ["b"], "order": ["a"]},
            weights="cheap",
            task="triage",
            session_id="s",
            labels={"team": "a"},
        )
        wanted = call.wanted
        assert wanted.account_id == ACCOUNT
        assert (wanted.domain, wanted.quality_min, wanted.latency_ms_max) == ("law", 0.5, 900.0)
        assert (wanted.max_rate_in_micros, wanted.max_rate_out_micros) == (10**6, 2 * 10**6)
        assert wanted.max_cost_nanos == 5 * 10**8
        assert wanted.regions == {"eu"}
        assert (wanted.providers_only, wanted.providers_ignore) == ({"a"}, {"b"})
        assert wanted.providers_order == ("a",)
        assert (wanted.tokens_out_max, wanted.choices) == (10, 2)
        assert wanted.tokens_in_bound > call.body.size_bytes
        assert (call.task_label, call.session_id) == ("triage", "s")
        assert call.labels_json == '{"team":"a"}'

    def test_ids_rise(self) -> None:
        ids = [self.admitted().id for _ in range(50)]
        assert ids == sorted(set(ids))
        assert {each.version for each in ids} == {7}

    def test_there_is_room_until_the_most_calls_are_under_way(self) -> None:
        require_room(self.runtime)
        with pytest.raises(TooManyCalls):
            require_room(SimpleNamespace(**(vars(self.runtime) | {"calls_in_flight": 2})))


@pytest.mark.parametrize(
    "url", ["data:image/png;base64," + "iVBO" * 100_000, "https://a.example/b"]
)
def test_an_image_counts_by_what_models_make_of_one_wherever_its_bytes_are(url: str) -> None:
    image = {"type": "image_url", "image_url": {"url": url}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, image]}]
    sent = json.dumps({"model": "m", "messages": messages}).encode()
    asked = parse(CHAT, [], sent)
    assert isinstance(asked.body, OpenAiBody)
    wanted = demands(asked, ACCOUNT)
    assert 1_024 <= wanted.tokens_in_expected < 1_100, "a model of 2,048 tokens can be asked"
    assert 16_384 <= wanted.tokens_in_bound < 17_000
    assert asked.body.images == 1
    expected = Expected(wanted.tokens_in_bound, asked.body.size_bytes, 100, 4.0, 4.0)
    told = Delivered(claimed_in=10_000, claimed_out=5, text_bytes=20)
    assert meter(told, expected).tokens_in == 10_000, "what was claimed is paid"
    assert bytes(asked.body.members["messages"]) in sent
