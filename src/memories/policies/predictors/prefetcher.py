"""Propose keys to prefetch: guesses on grounds that were right often enough, within a budget.

Guesses below the threshold are not proposed, but it is recorded whether they came true ("silent"
guesses), so that a predictor that was switched off can be switched on again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from memories.policies.predictors.base import Guess, GuessScore, Predictor
from memories.policies.predictors.pattern import PatternPredictor
from memories.policies.predictors.stride import StridePredictor
from memories.policies.predictors.successor import SuccessorPredictor

_TRIAL = 16  # Guesses with a known outcome before a predictor may be switched off.


class PrefetchCounters(NamedTuple):
    """What became of the values fetched ahead."""

    issued: int
    used: int  # Read while they were there.
    late: int  # Read before the fetch had finished: the guess was right, the fetch too slow.
    wasted: int  # Left unread.

    @property
    def accuracy(self) -> float:
        """The share of guesses with a known outcome that were right; 1 before there is any."""
        judged = self.used + self.late + self.wasted
        return (self.used + self.late) / judged if judged else 1.0


class _Issued(NamedTuple):
    size: int
    sources: tuple[
        tuple[int, Hashable], ...
    ]  # Predictors that made the guess, and on what grounds; none once they were judged.
    deadline: int  # The observation from which it counts as wrong.


class Prefetcher:
    """Trains predictors and proposes what to fetch. The caller serialises the calls.

    The caller reports the reads that missed the fast tier, and the first reads of prefetched
    values; other hits need not be reported. For each proposal it later calls `record_outcome` or
    `withdraw` once.

    Args:
        predictors: The predictors to use; successor, stride and pattern unless given.
        budget_bytes: The most that may be fetched ahead and not yet read at any time.
        threshold: The confidence from which a guess is proposed.
        floor: The live accuracy below which a predictor proposes nothing.
        window: Observations after which a silent guess has failed.
    """

    def __init__(
        self,
        predictors: Sequence[Predictor] | None = None,
        *,
        budget_bytes: int,
        threshold: float = 0.75,
        floor: float = 0.7,
        window: int = 256,
    ) -> None:
        own = (SuccessorPredictor(), StridePredictor(), PatternPredictor())
        self._predictors = own if predictors is None else tuple(predictors)
        self._live = [GuessScore() for _ in self._predictors]
        self._silent: list[dict[str, tuple[Hashable, int]]] = [{} for _ in self._predictors]
        self._issued: dict[str, _Issued] = {}
        self._issued_bytes = 0
        self._deadlines: deque[tuple[int, str]] = deque()
        self._observed = 0
        self._counts = dict.fromkeys(PrefetchCounters._fields, 0)
        self.budget_bytes = budget_bytes
        self._threshold = threshold
        self._floor = floor
        self._window = window

    def observe(self, key: str, now: float) -> None:
        """Train the predictors with a read of `key` that was not a plain hit in the fast tier."""
        self._observed += 1
        self._expire_proposals()
        for at, predictor in enumerate(self._predictors):
            self._record_silent(at, key)
            predictor.observe(key, now)

    def _expire_proposals(self) -> None:
        """Count proposals that were not read within the window as wrong guesses.

        Their values may stay unread for as long as there is room; the outcome is recorded before.
        """
        while self._deadlines and self._deadlines[0][0] <= self._observed:
            _, key = self._deadlines.popleft()
            issued = self._issued.get(key)
            if issued is not None and issued.deadline <= self._observed:
                self._issued[key] = issued._replace(sources=())
                self._record_all(issued, came_true=False)

    def propose(
        self, key: str, size_of: Callable[[str], int | None], *, limit: int = 4
    ) -> list[Guess]:
        """Return the keys to fetch now that `key` was read, the surest first.

        Args:
            key: The key observed last.
            size_of: Returns the bytes of a key that exists in a slower tier, None for every other.
            limit: The most keys to return.
        """
        guesses: dict[str, Guess] = {}
        sources: dict[str, list[tuple[int, Hashable]]] = {}
        for at, predictor in enumerate(self._predictors):
            for guess in predictor.predict(key):
                if guess.key == key or guess.key in self._issued:
                    continue
                sources.setdefault(guess.key, []).append((at, guess.grounds))
                known = guesses.get(guess.key)
                if self._trusts(at, guess) and (not known or guess.confidence > known.confidence):
                    guesses[guess.key] = guess
        sizes = {other: size_of(other) for other in sources}
        chosen = self._choose(guesses, sizes, sources, limit)
        for other, size in sizes.items():
            if size is not None and other not in self._issued:
                self._keep_silent(other, sources[other])
        return chosen

    def _trusts(self, at: int, guess: Guess) -> bool:
        return guess.confidence >= self._threshold and self.enabled(at)

    def enabled(self, at: int) -> bool:
        """Return whether the predictor at this position is above the floor."""
        live = self._live[at]
        return live.judged < _TRIAL or live.accuracy >= self._floor

    def _choose(
        self,
        guesses: dict[str, Guess],
        sizes: dict[str, int | None],
        sources: dict[str, list[tuple[int, Hashable]]],
        limit: int,
    ) -> list[Guess]:
        chosen: list[Guess] = []
        for guess in sorted(guesses.values(), key=lambda guess: -guess.confidence):
            size = sizes[guess.key]
            if size is None or len(chosen) >= limit:
                continue
            if self._issued_bytes + size <= self.budget_bytes:
                deadline = self._observed + self._window
                self._issued[guess.key] = _Issued(size, tuple(sources[guess.key]), deadline)
                self._deadlines.append((deadline, guess.key))
                self._issued_bytes += size
                self._counts["issued"] += 1
                chosen.append(guess)
        return chosen

    def record_outcome(self, key: str, outcome: str) -> None:
        """Record what became of a proposal; other keys are ignored.

        Args:
            key: Its key.
            outcome: `"used"`, read after the fetch; `"late"`, read during the fetch; or `"wasted"`,
                never read.
        """
        issued = self._issued.pop(key, None)
        if issued is None:
            return
        self._issued_bytes -= issued.size
        self._counts[outcome] += 1
        self._record_all(issued, came_true=outcome != "wasted")

    def withdraw(self, key: str) -> None:
        """Cancel a proposal that was not fetched; it is kept as a silent guess."""
        issued = self._issued.pop(key, None)
        if issued is not None:
            self._issued_bytes -= issued.size
            self._counts["issued"] -= 1
            self._keep_silent(key, list(issued.sources))

    def start_over(self) -> None:
        """Replace the predictors by new ones and drop all proposals; the counters stay."""
        self._predictors = tuple(type(one)() for one in self._predictors)
        self._live = [GuessScore() for _ in self._predictors]
        self._silent = [{} for _ in self._predictors]
        self._issued, self._issued_bytes = {}, 0
        self._deadlines.clear()

    def knows(self, key: str) -> bool:
        """Return whether anything is remembered of `key`; from any thread."""
        return any(p.knows(key) for p in self._predictors) or any(
            key in silent for silent in self._silent
        )

    def forget(self, key: str) -> None:
        """Delete what is remembered of `key`, which was removed; a proposal of it stays open."""
        for predictor, silent in zip(self._predictors, self._silent, strict=True):
            predictor.forget(key)
            silent.pop(key, None)

    def _keep_silent(self, key: str, sources: list[tuple[int, Hashable]]) -> None:
        for at, grounds in sources:
            self._silent[at].setdefault(key, (grounds, self._observed + self._window))

    def _record_silent(self, at: int, key: str) -> None:
        silent = self._silent[at]
        found = silent.pop(key, None)
        if found is not None:
            self._record(at, found[0], came_true=True)
        while silent:
            oldest = next(iter(silent))
            grounds, deadline = silent[oldest]
            if deadline > self._observed:
                break
            del silent[oldest]
            self._record(at, grounds, came_true=False)

    def _record_all(self, issued: _Issued, *, came_true: bool) -> None:
        for at, grounds in issued.sources:
            self._record(at, grounds, came_true=came_true)

    def _record(self, at: int, grounds: Hashable, *, came_true: bool) -> None:
        predictor = self._predictors[at]
        if predictor.confidence(grounds) >= self._threshold:
            self._live[at].record_outcome(came_true=came_true)
        predictor.record_outcome(grounds, came_true=came_true)

    @property
    def counters(self) -> PrefetchCounters:
        """What became of the proposals so far."""
        return PrefetchCounters(**self._counts)

    def check(self) -> None:
        """Assert that bytes, counts and memory stay in their bounds."""
        outstanding = sum(issued.size for issued in self._issued.values())
        assert outstanding == self._issued_bytes <= self.budget_bytes
        counts = self.counters
        judged = counts.used + counts.late + counts.wasted
        assert counts.issued == judged + len(self._issued)
        most = self._window * 2 * max(len(self._predictors), 1) * 8
        assert all(len(silent) <= most for silent in self._silent)
