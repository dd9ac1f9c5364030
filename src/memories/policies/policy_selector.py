"""Compare the misses of several policies, and select another one if its lead is significant.

Every pair is compared by the accesses on which only one of the two missed, as in McNemar's test for
paired samples; the counts decay exponentially. A lead below three standard deviations, or below
0.5 % of all accesses, changes nothing. In the beginning one deviation is enough: the candidate that
is followed then is merely the first one, and nothing speaks for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_REVIEW_EVERY = 16  # Accesses.
_HALF_LIFE = 32_768  # Accesses after which a lead counts half.
_FADE = 0.5 ** (_REVIEW_EVERY / _HALF_LIFE)
_FIRST_DEVIATIONS = 1.0  # By how many standard deviations the leader must lead at first, ...
_DEVIATIONS = 3.0  # ... and from so many accesses on:
_SETTLED = 4096
_WORTHWHILE = 0.005  # And by at least this share of all accesses.


class PolicySelector:
    """Compares candidates pair by pair.

    `followed` is the candidate that the caller uses now, `leader` the one that it should use.
    """

    __slots__ = ("_accesses", "_leads", "_noise", "_until_review", "followed", "leader")

    def __init__(self, candidates: int) -> None:
        self.followed = 0
        self.leader = 0
        self._until_review = _REVIEW_EVERY
        self._accesses = 0.0
        # Misses that the row's candidate saved against the column's, and where the two differed.
        self._leads = [[0.0] * candidates for _ in range(candidates)]
        self._noise = [[0.0] * candidates for _ in range(candidates)]

    def record(self, missed: Sequence[bool]) -> bool:
        """Count one access, missed by some; return whether another candidate should be used now."""
        self._accesses += 1
        if True in missed and False in missed:
            self._compare(missed)
        self._until_review -= 1
        return not self._until_review and self._review()

    def _compare(self, missed: Sequence[bool]) -> None:
        losers = [candidate for candidate, miss in enumerate(missed) if miss]
        for winner, miss in enumerate(missed):
            if miss:
                continue
            for loser in losers:
                self._leads[winner][loser] += 1
                self._leads[loser][winner] -= 1
                self._noise[winner][loser] += 1
                self._noise[loser][winner] += 1

    def _review(self) -> bool:
        self._until_review = _REVIEW_EVERY
        leads = [row[self.followed] for row in self._leads]
        best = max(range(len(leads)), key=leads.__getitem__)
        noise = math.sqrt(self._noise[best][self.followed])
        share = min(1.0, self._accesses / _SETTLED)
        deviations = _FIRST_DEVIATIONS + share * (_DEVIATIONS - _FIRST_DEVIATIONS)
        better = leads[best] > max(deviations * noise, _WORTHWHILE * self._accesses)
        self.leader = best if better else self.followed
        self._fade()
        return better

    def _fade(self) -> None:
        self._accesses *= _FADE
        self._leads = [[lead * _FADE for lead in row] for row in self._leads]
        self._noise = [[noise * _FADE for noise in row] for row in self._noise]
