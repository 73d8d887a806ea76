"""Single pieces of evidence show how well endpoints answer, and what is declared gives way."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID, uuid4, uuid5

import numpy as np
import pytest

from broker.core.cascade import AS_USUAL, Other
from broker.core.columns import Floats
from broker.core.quality.domains import Recogniser
from broker.core.quality.domains import learn as learn_domains
from broker.core.quality.evidence import Grade, Piece, Source, pack
from broker.core.quality.fading import HALF_LIFE_S, changed_at, expected_before, faded
from broker.core.quality.groups import GROUPINGS, make_groups
from broker.core.quality.learning import (
    Beside,
    learn,
    read_catalog,
    taught_on,
    told_apart,
    undeclared,
)
from broker.core.quality.lengths import ANSWERS_KEPT, NAMES_MAX, PRIOR, AnswerLengths, Batch
from broker.core.quality.lessons import Lessons
from broker.core.quality.notebook import Notebook, Placed, heard_together
from broker.core.quality.syllabus import DOMAINS_MAX
from broker.core.requirements import Prompt
from tests.fakes import ACCOUNT, endpoint, requirements

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ENDPOINTS = [
    endpoint(0, "acme/jurist", domains={"law": 0.95}, quality=0.5),
    endpoint(1, "acme/chef", domains={"food": 0.9}, quality=0.5),
    endpoint(2, "globex/large", quality=0.7),
]
NAMES = ("food", "law")
ALL = np.arange(3)
LENGTH = 12


def piece(number: int, score: float, domain: str | None = "law", **changes: object) -> Piece:
    grade = Grade.BINARY if score in (0.0, 1.0) else Grade.GRADED
    told = {"at": NOW, "source": Source.EVAL, "grade": grade, "score": score} | changes
    return Piece(endpoint_id=ENDPOINTS[number].id, domain=domain, **told)  # type: ignore[arg-type]


def learned(pieces: Sequence[Piece]) -> Lessons:
    notes = Notebook()
    for each in pieces:
        notes.take(each)
    catalog = read_catalog(ENDPOINTS, NAMES, 3)
    heard = notes.read({each.id: each.number for each in ENDPOINTS}, catalog.places)
    return learn(heard, catalog, Beside(np.full((3, 3), np.nan)), NOW.timestamp())


def of(lessons: Lessons, domain: str | None) -> list[float]:
    return quality(lessons, np.zeros(LENGTH), domain).tolist()


def quality(lessons: Lessons, vector: Floats, domain: str | None = None) -> Floats:
    prompt = Prompt(*lessons.mix(vector, domain))
    return lessons.cut(domain, ALL, np.full(3, 0.5)).quality(prompt)


def test_before_any_evidence_there_is_what_is_declared() -> None:
    known = learned([])
    assert of(known, "law") == pytest.approx([0.95, 0.5, 0.7])
    assert of(known, "food") == pytest.approx([0.5, 0.9, 0.7])
    assert of(known, None) == pytest.approx([0.5, 0.5, 0.7])
    assert known.cut("law", np.arange(3), np.array([1.0, 0.0, 0.5])).fit.tolist() == [1.0, 0.0, 0.5]


def test_a_claim_that_a_suite_refutes_is_scored_as_what_it_is() -> None:
    suite = [piece(0, float(at % 10 < 3)) for at in range(40)]
    suite += [piece(2, float(at % 10 < 8)) for at in range(40)]
    known = learned(suite)
    jurist, _, large = of(known, "law")
    assert jurist < 0.5 < 0.7 < large
    fit = known.cut("law", np.arange(3), np.array([1.0, 0.0, 0.5])).fit
    assert fit[0] < 0.65, "the claim is no longer all that is known"
    assert fit[2] == 0.5


def test_graded_scores_are_counted_apart_and_order_endpoints_all_the_same() -> None:
    graded = [piece(0, 0.3) for _ in range(40)] + [piece(2, 0.55) for _ in range(40)]
    binary = [piece(number, 1.0) for number in (0, 2) for _ in range(40)]
    jurist, _, large = of(learned(graded), "law")
    assert large > jurist
    both = of(learned(graded + binary), "law")
    assert both[2] > both[0]
    assert of(learned(binary), "law")[2] > both[2], "a good graded score does not lower a right one"


def test_failed_checks_of_form_lower_and_passed_ones_prove_nothing() -> None:
    passed = [piece(0, 1.0, source=Source.CHECK) for _ in range(100)]
    assert of(learned(passed), "law") == pytest.approx(of(learned([]), "law"))
    failed = [piece(0, 0.0, source=Source.CHECK) for _ in range(100)]
    assert of(learned(passed + failed), "law")[0] < 0.6


def test_of_what_is_said_of_one_call_the_last_counts() -> None:
    call = uuid5(ACCOUNT, "call")
    said = [piece(0, score, source=Source.FEEDBACK, call_id=call) for score in (0.0, 0.0, 0.0, 1.0)]
    assert of(learned(said), "law") == pytest.approx(of(learned(said[-1:]), "law"))


def test_old_evidence_fades() -> None:
    month = timedelta(seconds=HALF_LIFE_S)
    assert faded(np.array([0.0, HALF_LIFE_S, 2 * HALF_LIFE_S])).tolist() == [1.0, 0.5, 0.25]
    old = [piece(2, 0.0, at=NOW - 6 * month) for _ in range(40)]
    new = [piece(2, 1.0) for _ in range(10)]
    assert of(learned(old + new), "law")[2] > 0.7


def test_evidence_of_before_a_model_got_worse_is_nearly_forgotten() -> None:
    random = Random(3)
    good = [piece(2, float(random.random() < 0.9)) for _ in range(300)]
    bad = [piece(2, float(random.random() < 0.3)) for _ in range(60)]
    assert of(learned(good), "law")[2] > 0.85
    assert of(learned(good + bad), "law")[2] < 0.55
    assert of(learned(bad + good), "law")[2] > 0.7, "getting better is no alarm"


def test_one_account_does_not_say_for_all_how_good_or_how_sure_an_endpoint_is() -> None:
    sure = [0.5 + 0.01 * at for at in range(45)]
    suite = [piece(0, 0.0, confidence=sure[at]) for at in range(40)]
    words = {"source": Source.FEEDBACK, "grade": Grade.GRADED}
    honest = [
        piece(0, 0.1, account_id=uuid5(ACCOUNT, str(at // 2)), confidence=sure[at % 45], **words)
        for at in range(60)
    ]
    flood = [
        piece(
            *(0, 1.0),
            account_id=ACCOUNT,
            confidence=sure[at % 45],
            weight=min(1.0, 200.0 / (at + 1)),
            **words,
        )
        for at in range(1_000)
    ]
    before, after = learned(suite + honest), learned(suite + honest + flood)
    for number in (0, 2):
        for confidence in (0.6, 0.8, 0.95):
            old, new = (each.curve(number, "law").chance(confidence) for each in (before, after))
            assert new == pytest.approx(old, abs=0.1)
    assert of(after, "law")[0] < of(before, "law")[0] + 0.15


def test_chance_alone_seldom_sounds_an_alarm_and_a_fall_soon_does() -> None:
    random = np.random.default_rng(1)
    none = np.zeros(0)
    assert changed_at(none) == 0
    assert expected_before(none, none, none.astype(int), none, 10.0).size == 0
    steady = [changed_at(0.7 - (random.random(500) < 0.7)) > 0 for _ in range(200)]
    assert np.mean(steady) < 0.05
    even = [changed_at(0.5 - (random.random(5_000) < 0.5)) > 0 for _ in range(100)]
    assert np.mean(even) < 0.1
    found = []
    for _ in range(50):
        scores = random.random(300) < np.where(np.arange(300) < 240, 0.8, 0.4)
        expected = expected_before(
            scores.astype(float), np.ones(300), np.zeros(300, int), np.full(300, 0.8), 10.0
        )
        found.append(changed_at(expected - scores))
    assert np.mean([200 < each <= 270 for each in found]) > 0.8


@pytest.mark.parametrize("of_calls", [False, True])
def test_groups_find_what_is_good_at_a_part_of_a_domain(of_calls: bool) -> None:
    """By the vectors of suites' prompts, and by the groups alone that calls' prompts were of."""
    random = np.random.default_rng(2)
    labels = np.repeat((0, 1), 300)
    vectors = random.normal(0.0, 0.3, (600, LENGTH))
    vectors[:, 0] += 4.0 * labels
    odd = random.random(600) < 0.5
    vectors[:, 1] += 4.0 * odd
    strangers = random.normal(0.0, 3.0, (40, LENGTH))
    recogniser = learn_domains(NAMES, labels, vectors, strangers, 1)
    groups = make_groups(recogniser, vectors, labels, "taught")
    catalog = read_catalog(ENDPOINTS, NAMES, 3)
    beside = Beside(np.full((3, 3), np.nan), recogniser, groups)
    numbers = {each.id: each.number for each in ENDPOINTS}
    known = learn(Notebook().read(numbers, catalog.places), catalog, beside, NOW.timestamp())
    notes = Notebook()
    for vector, label, strange in zip(vectors, labels, odd, strict=True):
        right = float(strange if random.random() < 0.95 else not strange)
        told = {"encoder": "x", "vector": pack(vector)}
        if of_calls:
            placed = known.groups_of(known.mix(vector, None))
            told = {"source": Source.FEEDBACK, "groups": placed}
        notes.take(piece(2, right, NAMES[label], **told))
    heard = notes.read(numbers, catalog.places, (groups, "x"))
    assert len(heard.placed.at) == len(heard.placed.groups) == 600
    known = learn(heard, catalog, beside, NOW.timestamp())
    even, uneven = np.zeros(LENGTH), np.zeros(LENGTH)
    uneven[1] = 4.0
    good, bad = (quality(known, each)[2] for each in (uneven, even))
    assert good > bad + 0.15
    other = notes.read(numbers, catalog.places, (replace(groups, key="taught anew"), "x"))
    assert len(other.placed.at) == (0 if of_calls else 600), "its groups are other ones"


def test_what_prompts_are_taken_for_wrongly_their_groups_make_good() -> None:
    """Half the time they seem to be of a domain in which the model is bad; it is good at them."""
    random = np.random.default_rng(4)
    labels, vectors = np.repeat((0, 1), 20), random.normal(0.0, 1.0, (40, LENGTH))
    groups = make_groups(learn_domains(NAMES, labels, vectors, vectors), vectors, labels)
    prompts, own = np.arange(400), np.repeat((0, 1), 200)
    scores = (random.random(400) < np.where(own == 0, 0.9, 0.1)).astype(float)
    of_first, of_last = np.arange(GROUPINGS) * (groups.count // GROUPINGS), groups.count - 1
    placed = Placed(
        at=prompts,
        groups=np.where(own[:, None] == 0, of_first, of_last),
        prompts=prompts,
        odds=np.where(own[:, None] == 0, (0.5, 0.5, 0.0), (0.0, 1.0, 0.0)),
    )
    heard = heard_together(np.zeros(400, dtype=int), own, scores, np.zeros(400, dtype=bool))
    known = Beside(np.full((3, 1), np.nan), groups=groups)
    lessons = learn(replace(heard, placed=placed), undeclared(NAMES, 1), known, 0.0)
    expected = 0.5 * lessons.table[:2].sum() + lessons.gains.table(np.arange(1))[of_first].mean()
    assert expected == pytest.approx(0.9, abs=0.1)


def test_what_is_learned_of_a_few_among_very_many_takes_little_more_than_it_is() -> None:
    random = np.random.default_rng(5)
    labels, vectors = np.repeat((0, 1), 400), random.normal(0.0, 0.5, (800, LENGTH))
    vectors[:, 1] *= 8.0
    groups = make_groups(learn_domains(NAMES, labels, vectors, vectors), vectors, labels)
    asked, size, prompts = random.integers(0, 5_000, 40), 5_000, np.arange(800)
    of_one, kind = prompts % 40, vectors[:, 1] > 0.0
    endpoints, scores = asked[of_one], (kind == of_one % 2).astype(float)
    heard = heard_together(endpoints, labels, scores, np.zeros(800, dtype=bool))
    odds = np.eye(3)[labels]
    heard = replace(heard, placed=Placed(prompts, groups.of(vectors), prompts, odds))
    known = Beside(np.full((3, size), np.nan), groups=groups)
    tracemalloc.start()
    try:
        lessons = learn(heard, undeclared(NAMES, size), known, 0.0)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    gained = lessons.gains.table(np.arange(size))
    assert most < gained.nbytes / 4, "a table of all groups and endpoints is never made"
    never = np.setdiff1d(np.arange(size), asked)
    assert (gained[:, never] == gained[:, never[:1]]).all(), "of who was not asked as of any"
    assert (gained[:, asked] != gained[:, never[:1]]).any()


def test_answers_to_one_prompt_are_known_as_such() -> None:
    """Of a suite's prompts by their vectors, of callers' by their call."""
    random = np.random.default_rng(3)
    labels, vectors = np.repeat((0, 1), 20), random.normal(0.0, 1.0, (40, LENGTH))
    groups = make_groups(learn_domains(NAMES, labels, vectors, vectors), vectors, labels)
    placed, call_id = groups.told([0] * GROUPINGS), UUID(int=7)
    notes = Notebook()
    for number, at in ((0, 4), (1, 4), (1, 5)):
        notes.take(piece(number, 1.0, encoder="x", vector=pack(vectors[at])))
    for number, told in ((0, call_id), (1, call_id), (2, None), (2, None)):
        notes.take(piece(number, 0.0, source=Source.JUDGE, groups=placed, call_id=told))
    numbers = {each.id: each.number for each in ENDPOINTS}
    heard = notes.read(numbers, {}, (groups, "x"))
    assert heard.placed.prompts.tolist() == [0, 0, 1, 2, 2, 3, 4]


def test_a_domain_that_is_new_is_expected_what_is_without_evidence_and_groups_stay() -> None:
    """So it is with who learns all anew, and with who goes on with what was known before it."""
    random = np.random.default_rng(2)
    labels = np.repeat((0, 1), 40)
    vectors = random.normal(0.0, 1.0, (80, LENGTH)) + 3.0 * labels[:, None]
    strangers = random.normal(0.0, 3.0, (40, LENGTH))
    recogniser = learn_domains(NAMES, labels, vectors, strangers, 1)
    newer = learn_domains((*NAMES, "tax"), np.repeat((0, 1, 2), (40, 20, 20)), vectors, strangers)
    groups = make_groups(recogniser, vectors, labels, "taught")
    notes = Notebook()
    for at, (vector, label) in enumerate(zip(vectors, labels, strict=True)):
        told = {"encoder": "x", "vector": pack(vector)}
        notes.take(piece(at % 3, float(random.random() < 0.6), NAMES[label], **told))
    endpoints = [*ENDPOINTS[:2], replace(ENDPOINTS[2], domains={"tax": 0.97})]
    numbers = {each.id: each.number for each in endpoints}

    def known(names: tuple[str, ...], recogniser: Recogniser) -> Lessons:
        catalog = read_catalog(endpoints, names, 3)
        heard = notes.read(numbers, catalog.places, (groups, "x"))
        beside = Beside(np.full((len(names) + 1, 3), np.nan), recogniser, groups)
        return learn(heard, catalog, beside, NOW.timestamp())

    before, anew = known(NAMES, recogniser), known((*NAMES, "tax"), newer)
    after = taught_on(before, newer, endpoints)
    assert after.places == anew.places
    for name in ("table", "doubt", "weight", "tokens_out"):
        np.testing.assert_allclose(getattr(after, name), getattr(anew, name))
    for vector in vectors[::9]:
        old, new = before.mix(vector, None), after.mix(vector, None)
        assert before.groups_of(old) == after.groups_of(new)
        assert new == anew.mix(vector, None)
    assert taught_on(after, recogniser, endpoints).mix(vectors[0], None)[0][0] in (0, 1)


def test_answers_are_expected_to_be_as_long_as_they_were() -> None:
    lengths, places = AnswerLengths(), {"food": 0, "law": 1}
    assert np.isnan(lengths.table(places, 3)).all()
    lengths.take([Batch("law", 0, 100, 80_000), Batch("law", 1, 100, 20_000)])
    table = lengths.table(places, 3)
    assert table[1, 0] == pytest.approx(800, rel=0.05)
    assert table[1, 1] == pytest.approx(200, rel=0.2)
    assert table[1, 2] == pytest.approx(500, rel=0.05), "who is new has what is usual"
    lengths.take([Batch("law", 0, 1_000, 100_000)])
    assert lengths.table(places, 3)[1, 0] < 110


def test_lengths_are_those_of_each_domain_and_endpoint_however_many_come_and_are_forgotten() -> (
    None
):
    random, lengths, told = Random(5), AnswerLengths(), dict[str, dict[int, list[float]]]()
    names = [f"d{at}" for at in range(NAMES_MAX + 40)]
    for _ in range(3_000):
        name, number = random.choice(names), random.choice((0, 31, 32, 33, 100, 511))
        answers, tokens = random.randint(1, 150), random.randint(1, 90_000)
        lengths.take([Batch(name, number, answers, tokens)])
        own = told.pop(name, {})
        before = own.get(number, [0.0, 0.0])
        fade = 1.0 - answers / ANSWERS_KEPT
        own[number] = [before[0] * fade + answers, before[1] * fade + tokens]
        told[name] = own
        if len(told) > NAMES_MAX:
            del told[next(iter(told))]
    counts, sums = np.zeros((2, len(names) + 1, 512))
    for name, own in told.items():
        for number, kept in own.items():
            counts[names.index(name), number], sums[names.index(name), number] = kept
    usual = sums.sum(axis=1) + PRIOR * sums.sum() / counts.sum()
    usual /= counts.sum(axis=1) + PRIOR
    expected = (sums + PRIOR * usual[:, None]) / (counts + PRIOR)
    table = lengths.table({name: at for at, name in enumerate(names)}, 512)
    np.testing.assert_allclose(table, expected, rtol=1e-5)


def test_agreement_of_a_model_with_itself_says_nothing_of_that_with_another() -> None:
    itself = [piece(0, 0.0, agreement=0.95, compared=Other.SAMPLE) for _ in range(40)]
    untold = [piece(2, 0.0, agreement=0.95) for _ in range(40)]
    known = learned(itself + untold)
    believed = {other: known.agreement(0, "law", other) for other in Other}
    assert believed[Other.MODEL] == known.agreement(2, "law", Other.MODEL) == AS_USUAL
    assert believed[Other.SAMPLE].start < -0.3
    another = [piece(0, 1.0, agreement=0.95, compared=Other.MODEL) for _ in range(20)]
    both = learned(itself + another)
    assert both.agreement(0, "law", Other.SAMPLE).start < 0.0
    assert both.agreement(0, "law", Other.MODEL).start > 0.0


def said(account: int, score: float, count: int, domain: str | None = "law") -> list[Piece]:
    voice = UUID(int=account)
    return [
        piece(0, score, domain, source=Source.FEEDBACK, account_id=voice, call_id=uuid4())
        for _ in range(count)
    ]


def for_account(lessons: Lessons, account: int, domain: str | None = "law") -> list[float]:
    wanted = requirements(account_id=UUID(int=account))
    prompt = Prompt(*lessons.mix(np.zeros(LENGTH), domain))
    cut = lessons.cut(domain, ALL, np.full(3, 0.5))
    return lessons.quality(wanted, prompt, cut).tolist()


def test_an_account_that_is_always_answered_badly_has_its_calls_go_elsewhere_and_nobody_else() -> (
    None
):
    exam = [piece(0, 1.0, run_id=UUID(int=1)) for _ in range(30)]
    lessons = learned(exam + said(1, 0.0, 100))
    assert for_account(lessons, 1)[0] < 0.15
    assert for_account(lessons, 1)[1:] == of(lessons, "law")[1:]
    assert for_account(lessons, 2) == of(lessons, "law")
    assert of(lessons, "law")[0] > 0.75, "for all, one account weighs little"
    assert for_account(lessons, 1, "food") == of(lessons, "food")


def test_own_words_count_as_much_as_there_are_of_them_and_within_bounds() -> None:
    few, many = (for_account(learned(said(1, 0.0, count)), 1)[0] for count in (3, 300))
    assert 0.0 <= many < 0.05 < few < of(learned(said(1, 0.0, 3)), "law")[0]
    assert for_account(learned(said(1, 1.0, 500)), 1)[0] <= 1.0


def test_own_words_on_prompts_of_no_domain_are_of_those_and_stay_when_domains_are_taught() -> None:
    lessons = learned(said(1, 0.0, 100, None))
    own, all_ = for_account(lessons, 1, None)[0], of(lessons, None)[0]
    assert own < all_ - 0.2
    assert for_account(lessons, 1) == of(lessons, "law")
    vectors = np.random.default_rng(1).normal(size=(90, LENGTH))
    three = learn_domains(("food", "law", "tax"), np.arange(90) % 3, vectors, vectors, LENGTH)
    more = replace(taught_on(lessons, three, ENDPOINTS), recogniser=None)
    assert more.places["tax"] == 2
    assert for_account(more, 1, None)[0] == pytest.approx(own)
    assert for_account(more, 1, "tax")[0] > own


def test_names_that_callers_make_up_are_no_domains_and_what_is_said_under_them_is_of_none() -> None:
    notes = Notebook()
    for at in range(2_000):
        notes.take(piece(0, 0.0, f"made-up-{at}"))
    notes.take(piece(0, 1.0, "law"))
    assert told_apart(("food",), notes.domains, ENDPOINTS) == ["food", "law"]
    judged = learned([piece(0, 0.0, "made-up") for _ in range(20)])
    assert judged.places.keys() == {"food", "law"}
    assert of(judged, "made-up") == of(judged, None)
    assert of(judged, None)[0] < of(learned([]), None)[0]


def test_of_more_domains_than_may_be_taught_those_are_told_apart_that_are_spoken_of_most() -> None:
    claims = {f"d{at:03}": 0.5 for at in range(DOMAINS_MAX)}
    many = [endpoint(0, domains=claims | {"rare": 0.5}), endpoint(1, domains={"d007": 0.5})]
    spoken = Counter({"d199": 3, "d008": 1, "unclaimed": 9})
    names = told_apart(("food", "law"), spoken, many)
    assert len(names) == DOMAINS_MAX
    assert {"food", "law", "d199", "d008", "d007"} < {*names}
    assert not {"rare", "unclaimed", "d198"} & {*names}
