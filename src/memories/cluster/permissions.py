"""The commands that a user of the nodes must be allowed, and which of them one server refuses.

Each command is tried in a form that changes nothing, because servers before version 7 cannot be
asked what a user may do.
"""

from __future__ import annotations

from memories.cluster.client.connection import Connection
from memories.cluster.client.resp import Command, ReplyError

_NAME = b"m:doctor"  # No such key exists.
_NO_SCRIPT = "0" * 40
# What is sent to every node, by the name of its permission in an ACL.
_ALWAYS: dict[str, Command] = {
    "ping": ("PING",),
    "info": ("INFO", "server"),
    "dbsize": ("DBSIZE",),
    "scan": ("SCAN", "0", "MATCH", _NAME, "COUNT", 1),
    "get": ("GET", _NAME),
    "getrange": ("GETRANGE", _NAME, 0, 1),
    "strlen": ("STRLEN", _NAME),
    "exists": ("EXISTS", _NAME),
    "set": ("SET", _NAME, "", "XX"),
    "unlink": ("UNLINK", _NAME),
    "expire": ("EXPIRE", _NAME, 1),
    "pexpire": ("PEXPIRE", _NAME, 1),
    "pttl": ("PTTL", _NAME),
    "eval": ("EVAL", "return 1", 0),
    "evalsha": ("EVALSHA", _NO_SCRIPT, 0),
    "script|load": ("SCRIPT", "LOAD", "return 1"),
}
_PLAIN: dict[str, Command] = {"mget": ("MGET", _NAME)}
_CLUSTER: dict[str, Command] = {
    "wait": ("WAIT", 0, 1),
    "readonly": ("READONLY",),
    "readwrite": ("READWRITE",),
    "asking": ("ASKING",),
    "cluster|info": ("CLUSTER", "INFO"),
    "cluster|slots": ("CLUSTER", "SLOTS"),
    "cluster|nodes": ("CLUSTER", "NODES"),
}
# Without these everything works, but repeated reads ask the nodes, and lists of clients no names.
_OPTIONAL: dict[str, Command] = {
    "client|setname": ("CLIENT", "SETNAME", "memories"),
    "client|tracking": ("CLIENT", "TRACKING", "OFF"),
}


def needed_permissions(*, clustered: bool) -> list[str]:
    """Return the commands as an ACL names them, those without which less works at the end."""
    return [*_ALWAYS, *(_CLUSTER if clustered else _PLAIN), *_OPTIONAL]


def missing_permissions(connection: Connection, *, clustered: bool) -> list[str]:
    """Return which of the commands the server does not allow the user of a connection.

    Raises:
        UnavailableError: it does not answer.
    """
    commands = {**_ALWAYS, **(_CLUSTER if clustered else _PLAIN), **_OPTIONAL}
    replies = connection.pipeline(list(commands.values()))
    return [
        name
        for name, reply in zip(commands, replies, strict=True)
        if isinstance(reply, ReplyError) and reply.code == "NOPERM"
    ]
