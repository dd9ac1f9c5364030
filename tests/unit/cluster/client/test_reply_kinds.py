"""Replies of the kind that their command has, and of all others."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from memories.cluster.client.reply_kinds import misfit
from memories.cluster.client.resp import ReplyError

REPLIES = (b"text", 5, None, [], [b"0", []], [b"0", [b"a"]], [b"0", [5]], [None, b"a"], [5, []])
FITTING: dict[str, tuple[Any, ...]] = {
    "INFO": (b"text",),
    "GET": (b"text", None),
    "DBSIZE": (5,),
    "MGET": ([], [None, b"a"]),
    "SCAN": ([b"0", []], [b"0", [b"a"]]),
    "EVALSHA": REPLIES,
}


@pytest.mark.parametrize(("word", "reply"), list(itertools.product(FITTING, REPLIES)))
def test_a_reply_of_another_kind_is_found(word: str, reply: Any) -> None:
    """Those of scripts may be anything; a refusal fits every command."""
    fits = any(reply == one and type(reply) is type(one) for one in FITTING[word])
    assert ("" if fits else word) == misfit([("PING",), (word, "x")], [b"PONG", reply])
    assert "" == misfit([(word, "x")], [ReplyError("ERR", "no")])


def test_commands_that_are_encoded_already_are_left_to_their_caller() -> None:
    """It compares the bytes of the reply."""
    assert "" == misfit([b"*1\r\n$4\r\nINFO\r\n"], [5])
