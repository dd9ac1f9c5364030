"""Runs a script on one node, also on a node that has forgotten its scripts.

SCRIPT FLUSH, and a restart, remove all scripts from a server, while connections to it may go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from memories.cluster.client.resp import Arg, ReplyError
from memories.cluster.client.scripts import Script


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
