"""Predictors of the next reads, from the order and the names of keys."""

from __future__ import annotations

from memories.policies.predictors.base import Guess, Predictor
from memories.policies.predictors.pattern import PatternPredictor
from memories.policies.predictors.prefetcher import PrefetchCounters, Prefetcher
from memories.policies.predictors.stride import StridePredictor
from memories.policies.predictors.successor import SuccessorPredictor

PREDICTORS: dict[str, type[Predictor]] = {
    kind.name: kind for kind in (SuccessorPredictor, StridePredictor, PatternPredictor)
}

__all__ = [
    "PREDICTORS",
    "Guess",
    "PatternPredictor",
    "Predictor",
    "PrefetchCounters",
    "Prefetcher",
    "StridePredictor",
    "SuccessorPredictor",
]
