"""Compares the books with what callers were told, once all is quiet."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from tests.e2e.crash.callers import TOPUP_NANOS, Note
from tests.e2e.crash.yard import Death
from tests.e2e.harness import FUNDS_NANOS, Floor

_CALLS = """
SELECT s.call_id, s.kind, s.charge_nanos, s.settled_at, c.code, c.labels->>'note' AS note
  FROM settlements s LEFT JOIN calls c ON c.id = s.call_id
"""
_LINES = "SELECT call_id, attempt, tokens_out, charge_nanos FROM settlement_lines"
_SPENT = """
SELECT b.posted_nanos, b.held_nanos FROM balances b
  JOIN ledger_accounts a ON a.id = b.ledger_account_id WHERE a.kind = 'funds'
"""


@dataclass
class Books:
    """What was settled, by call and by the note that a call belongs to."""

    calls: dict[UUID, asyncpg.Record]
    lines: dict[UUID, list[asyncpg.Record]]
    by_note: dict[int, list[asyncpg.Record]]
    """Those that cost something."""

    @classmethod
    async def read(cls, floor: Floor) -> Books:
        rows = await floor.rows(_CALLS)
        calls = {row["call_id"]: row for row in rows}
        assert len(calls) == len(rows), "a call was settled twice"
        lines = defaultdict(list)
        for row in await floor.rows(_LINES):
            lines[row["call_id"]].append(row)
        by_note = defaultdict(list)
        for row in rows:
            if row["charge_nanos"]:
                assert row["note"] is not None, f"nobody knows what {row['call_id']} is charged for"
                by_note[int(row["note"])].append(row)
        return cls(calls, dict(lines), dict(by_note))


@dataclass
class Verdict:
    """What callers noted, what providers sent, and when brokers died."""

    books: Books
    sent: Counter[tuple[UUID, int]]
    deaths: Sequence[Death]

    def judge(self, notes: Iterable[Note]) -> list[str]:
        """Every fault in the books or in what callers were told."""
        known = {note.number: note for note in notes}
        faults = [f"{number}: charged to nobody" for number in self.books.by_note.keys() - known]
        for note in known.values():
            faults += [f"{fault}: {note}" for fault in self._faults_of(note)]
        return faults

    def _faults_of(self, note: Note) -> Iterable[str]:
        charged = self.books.by_note.get(note.number, [])
        if len(charged) > 1:
            yield f"charged {len(charged)} times"
        for call_id, cost_nanos in note.told.items():
            settled = self.books.calls.get(call_id)
            if settled is None or settled["charge_nanos"] != cost_nanos:
                yield f"told {cost_nanos}, in the books {settled}"
        if note.outcome in ("whole", "served before"):
            if [each["call_id"] for each in charged] != [note.calls[-1]]:
                yield f"served, and charged is {charged}"
        elif note.outcome in ("refused", "unreached", "never asked"):
            if charged:
                yield f"not served, and charged {charged}"
        else:
            yield from self._faults_of_broken(note, charged)

    def _faults_of_broken(self, note: Note, charged: list[asyncpg.Record]) -> Iterable[str]:
        """Of a call whose caller has not got all of it."""
        if note.outcome == "cut" and not self._broker_died(note):
            yield "cut, though its broker lived"
        for settled in charged:
            lines = self.books.lines[settled["call_id"]]
            heard = note.words if note.calls[-1:] == [settled["call_id"]] else 0
            for line in lines:
                sent = self.sent[line["call_id"], line["attempt"]]
                if line["tokens_out"] > sent:
                    yield f"charged for {line['tokens_out']} words, {sent} were sent"
            if sum(line["tokens_out"] for line in lines) < heard:
                yield f"charged for less than the {heard} words that were heard"
            if note.outcome == "cut" and settled["code"] not in ("served", "provider_cut_off"):
                yield f"charged in the midst of it, though its broker died: {settled}"
        if note.words and not charged and not self._broker_died(note) and note.outcome != "cut":
            yield f"heard {note.words} words for nothing"

    def _broker_died(self, note: Note) -> bool:
        """Whether a broker that served it died before it was over, or soon after."""
        return any(
            each.broker in note.brokers
            and note.begun_s <= each.until_s
            and each.at_s <= note.ended_s + 10.0
            for each in self.deaths
        )


async def funds_off_by(floor: Floor, books: Books, topups: int) -> tuple[int, int]:
    """How far the consumer's funds are from what they must be, and what is held of them."""
    [funds] = await floor.rows(_SPENT)
    charged = sum(row["charge_nanos"] for row in books.calls.values())
    right = FUNDS_NANOS + topups * TOPUP_NANOS - charged
    return funds["posted_nanos"] - right, funds["held_nanos"]


def tell(notes: Sequence[Note]) -> str:
    """How many calls of each kind ended how."""
    ends = Counter((note.kind, note.outcome, note.code) for note in notes)
    return "\n".join(f"{count:6} {' '.join(end)}" for end, count in sorted(ends.items()))
