"""What is printed, made fit for a terminal and for a line: keys escaped, JSON in one way.

A key may hold a newline, an escape sequence or a direction mark; a list of keys must stay one
key a line and must not drive the terminal.
"""

from __future__ import annotations

import datetime
import decimal
import json
import sys
import uuid
from typing import Any

import click


def escape(key: str) -> str:
    """Return `key` in printable characters of the output's encoding, and so that it can be undone.

    Backslashes are doubled; what is not printable becomes `\\n`, `\\x1b`, `\\u202e` and the like.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return "".join(_escaped(character, encoding) for character in key)


def unescape(text: str) -> str:
    """Return the key that `escape` made `text` of.

    Raises:
        click.BadParameter: a backslash is followed by what is no escape.
    """
    try:
        # Everything beyond ASCII is written as an escape first, for the codec knows Latin-1 only.
        return text.encode("ascii", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{text!r} is no escaped key: {error.reason}") from None


_TEXTUAL = (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID)


def print_json(document: Any) -> None:
    """Print one JSON document on one line, in ASCII."""
    click.echo(json.dumps(document, allow_nan=False, separators=(",", ":")))


def jsonable(value: Any) -> Any:
    """Return a word of metadata as JSON has it: what JSON does not know as its text."""
    if isinstance(value, dict):
        return {str(name): jsonable(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(one) for one in value]
    if isinstance(value, (set, frozenset)):
        return sorted((jsonable(one) for one in value), key=repr)
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float and value - value == 0:
        return value
    return str(value) if isinstance(value, _TEXTUAL) else repr(value)


def _escaped(character: str, encoding: str) -> str:
    if character == "\\":
        return "\\\\"
    printable = character.isprintable() and character == character.encode(
        encoding, "replace"
    ).decode(encoding)
    return character if printable else character.encode("unicode_escape").decode("ascii")
