"""Runs a script on one node, also on a node that has forgotten its scripts.

SCRIPT FLUSH, and a restart, remove all scripts from a server, while connections to it may go on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

from memories.cluster.client.resp import Arg, ReplyError
from memories.cluster.client.scripts import REPLACE, Script
from memories.cluster.incarnation import INCARNATION_KEY


class _Callable(Protocol):
    def call(self, *args: Any) -> Any:
        """Run one command."""


def run_script(target: _Callable, script: Script, keys: Sequence[bytes], *args: Arg) -> Any:
    """Run a script on a node, or by a connection to it, and return the reply.

    Raises:
        UnavailableError: the node did not answer.
        ReplyError: it refused the command.
    """
    try:
        return target.call(*script.call(list(keys), *args))
    except ReplyError as error:
        if error.code != "NOSCRIPT":
            raise
    return target.call(*script.evaluated(keys, *args))


def replace_copy(
    target: _Callable, name: bytes, there: bytes, data: Arg, accepted: Sequence[bytes] = ()
) -> bool:
    """Replace the copy of a register on a node if it is still `there`; return whether it was.

    The version of a damaged copy cannot be compared, so that the script compares the digest of its
    bytes instead: a write that came in between stays. Raises like `run_script`.

    Args:
        target: The node, or a connection to it.
        name: The register.
        there: What the node has.
        data: What it becomes.
        accepted: On plain servers, the incarnations of which the node must have one.
    """
    keys = [name, INCARNATION_KEY] if accepted else [name]
    digest = hashlib.sha1(there).hexdigest()
    return bool(run_script(target, REPLACE, keys, digest, data, *accepted) == 1)
