"""The numbers in a key: `tile/12/34` is `tile/*/*` with 12 and 34.

Every run of digits is a number. A key with one number changed is a neighbour; leading zeros are
kept.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_DIGITS = re.compile(r"\d{1,18}", re.ASCII)
_MAX_NUMBERS = 4


class KeyNumbers(NamedTuple):
    """A key as the text around its last numbers, and these numbers as they were written."""

    texts: tuple[str, ...]  # One more than there are numbers.
    digits: tuple[str, ...]

    def neighbour(self, at: int, step: int) -> str | None:
        """Return the key whose number at `at` is larger by `step`, or None below zero."""
        old = self.digits[at]
        value = int(old) + step
        if value < 0:
            return None
        padded = old.startswith("0") and len(old) > 1
        new = f"{value:0{len(old)}d}" if padded else str(value)
        digits = (*self.digits[:at], new, *self.digits[at + 1 :])
        pieces = [self.texts[0]]
        for text, number in zip(self.texts[1:], digits, strict=True):
            pieces += [number, text]
        return "".join(pieces)


def split_key(key: str) -> KeyNumbers:
    """Return the last few numbers in `key` and the text around them."""
    spans = [match.span() for match in _DIGITS.finditer(key)][-_MAX_NUMBERS:]
    starts = [0, *(end for _, end in spans)]
    ends = [*(start for start, _ in spans), len(key)]
    texts = tuple(key[start:end] for start, end in zip(starts, ends, strict=True))
    return KeyNumbers(texts, tuple(key[start:end] for start, end in spans))
