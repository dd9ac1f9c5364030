"""Which kind of reply each command has: a node that sends another one cannot be understood.

What code of ours does with a reply relies on its kind. A server that is none, or that lies, must
not cause errors of Python there.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import NoneType
from typing import Any

from memories.cluster.client.resp import Command, Reply, ReplyError

_Kinds = frozenset[type]
_TEXT, _NUMBER, _ITEMS = _Kinds((bytes,)), _Kinds((int,)), _Kinds((list,))
_TEXT_OR_NONE = _Kinds((bytes, NoneType))
_KINDS: dict[Any, frozenset[type]] = {
    **dict.fromkeys(("INFO", "GETRANGE", "PING"), _TEXT),
    **dict.fromkeys(("GET", "SET"), _TEXT_OR_NONE),
    **dict.fromkeys(
        ("DBSIZE", "EXISTS", "STRLEN", "UNLINK", "PTTL", "EXPIRE", "PEXPIRE", "WAIT"), _NUMBER
    ),
    **dict.fromkeys(("MGET", "SCAN"), _ITEMS),
}


def misfit(commands: Iterable[Command], replies: Iterable[Reply]) -> str:
    """Return the first command whose reply is of another kind than it has; "" if there is none."""
    for command, reply in zip(commands, replies, strict=True):
        kinds = _KINDS.get(command[0]) if type(command) is tuple else None
        if kinds is not None and type(reply) not in kinds and type(reply) is not ReplyError:
            return str(command[0])
        if kinds is _ITEMS and type(reply) is list and not _fits_items(str(command[0]), reply):
            return str(command[0])
    return ""


def _fits_items(word: str, reply: list[Reply]) -> bool:
    if word == "MGET":
        return _TEXT_OR_NONE.issuperset(map(type, reply))
    if len(reply) != 2 or type(reply[0]) is not bytes or type(reply[1]) is not list:
        return False
    return _TEXT.issuperset(map(type, reply[1]))
