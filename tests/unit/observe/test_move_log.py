"""The latest moves of keys: entered many at once, they are those that single ones would give."""

from __future__ import annotations

import random
from collections import OrderedDict, deque

import pytest

from memories.model.events import Moved, Removed
from memories.model.tiers import Cause, TierName
from memories.observe import move_log
from memories.observe.move_log import LATEST, MOVES_PER_KEY, MoveLog


def moved(key: str, at: float) -> Moved:
    return Moved(key, at, TierName.HOT, TierName.WARM, 1, Cause.IDLE, 0.0)


@pytest.mark.parametrize(("most", "keys_in_all"), [(4096, 6000), (40, 400)])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_known_of_each_key(
    monkeypatch: pytest.MonkeyPatch, seed: int, most: int, keys_in_all: int
) -> None:
    """Batches of any size, single moves, removals and questions, against a plain dict.

    Where few keys are remembered, moves that wait are displaced by later ones.
    """
    monkeypatch.setattr(move_log, "MOST_WAITING", 200)
    monkeypatch.setattr(move_log, "MAX_KEYS", most)
    chance, log, at = random.Random(seed), MoveLog(), 0
    known: OrderedDict[str, list[Moved]] = OrderedDict()
    every: dict[str, list[Moved]] = {}
    latest: deque[Moved] = deque(maxlen=LATEST)
    for turn in range(600):
        keys = chance.sample(range(keys_in_all), chance.choice([1, 1, 30, 300]))
        if turn % 7 == 0:
            gone = [Removed(f"k{n}", 0.0, TierName.HOT, 1, Cause.REMOVED) for n in keys[:5]]
            log.observe_batch(gone)
            for event in gone:
                known.pop(event.key, None)
                every.pop(event.key, None)
            continue
        moves = [moved(f"k{n}", at + number) for number, n in enumerate(keys)]
        at += len(moves)
        if len(moves) == 1:
            log.observe(moves[0])
        else:
            log.observe_batch(moves)
        latest.extend(moves)
        for one in moves:
            every.setdefault(one.key, []).append(one)
            known[one.key] = [*known.pop(one.key, []), one][-MOVES_PER_KEY:]
            while len(known) > most:
                known.popitem(last=False)
        if turn % 40 == 0:
            assert (len(known) == most) == log.is_full
            for n in range(0, keys_in_all, 7):
                found, wanted = log.moves(f"k{n}"), known.get(f"k{n}", [])
                # Some that were displaced for a moment are still known where all are entered later.
                assert wanted == found[len(found) - len(wanted) :]
                assert found == every.get(f"k{n}", [])[-len(found) :] if wanted else not found
    assert list(latest) == list(log.latest)
