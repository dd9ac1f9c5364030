"""Output of the commands: escaped keys, usage bars and JSON.

A key may contain a newline, a control sequence or a direction mark. A list must stay one key a line
and must not control the terminal.
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
    """Return `key` with unprintable characters escaped; `unescape` reverses it.

    Backslashes are doubled; characters that are not printable in the output's encoding become
    `\\n`, `\\x1b`, `\\u202e` and the like.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return "".join(_escaped(character, encoding) for character in key)


def escape_lines(text: str) -> str:
    """Return `text` with unprintable characters escaped, except for the ends of lines and tabs."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return "".join(
        character if character in "\n\t\\" else _escaped(character, encoding) for character in text
    )


def unescape(text: str) -> str:
    """Return the key from which `escape` made `text`.

    Raises:
        click.BadParameter: a backslash is not followed by an escape code.
    """
    try:
        # The codec decodes Latin-1 only, so characters beyond ASCII are escaped first.
        return text.encode("ascii", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{text!r} is not an escaped key: {error.reason}") from None


_TEXTUAL = (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID)


def print_json(document: Any) -> None:
    """Print one JSON document on one line, in ASCII."""
    click.echo(json.dumps(document, allow_nan=False, separators=(",", ":")))


def usage_bar(percent: float, cells: int) -> str:
    """Return a bar of `cells` characters."""
    filled = min(cells, round(percent / 100 * cells))
    return "█" * filled + "·" * (cells - filled)


def jsonable(value: Any) -> Any:
    """Return a metadata value for JSON: types that JSON lacks as text."""
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
