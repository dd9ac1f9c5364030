"""The four tiers, the forms in which they hold a value, and the causes of a move."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Literal, get_args

TierText = Literal["hot", "warm", "cold", "glacier"]


class TierName(StrEnum):
    """The four tiers, fastest first; comparison by `rank`."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"
    GLACIER = "glacier"

    __hash__ = str.__hash__  # That of `Enum` is a function in Python, called at every look-up.
    __repr__ = str.__repr__  # In a dict that a user prints, it is the text to give to `tier=`.

    rank: int  # 0 for the fastest tier, 3 for the slowest.
    durable: bool  # Whether what lies there survives the process.
    text: TierText  # The name as a plain `str`.


for _rank, _text in enumerate(get_args(TierText)):
    _name = TierName(_text)
    _name.rank, _name.text = _rank, _text
    _name.durable = _name in (TierName.COLD, TierName.GLACIER)


TierChoice = TierName | TierText  # How a caller names a tier.
StoreTier = TierChoice | Literal["auto"]  # Where a value is stored: `"auto"` is the fastest.


class Form(Enum):
    """The three shapes of a payload: in device memory, live in RAM, or as frame bytes."""

    DEVICE = "device"
    HOST = "host"
    ENCODED = "encoded"


class Cause(StrEnum):
    """Why an entry moved or left."""

    __repr__ = str.__repr__

    EXPLICIT = "explicit"
    REPLACED = "replaced"
    CAPACITY = "capacity"
    IDLE = "idle"
    HIT = "hit"
    PREFETCH = "prefetch"
    RULE = "rule"
    EXPIRED = "expired"
    REMOVED = "removed"
    RESTORED = "restored"
