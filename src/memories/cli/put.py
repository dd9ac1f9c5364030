"""`memories put`: stores a file, or the standard input, as a value."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal

import click

from memories.cli.exit_codes import USAGE, CliFailure
from memories.cli.ls import facts
from memories.cli.output import escape, print_json, unescape
from memories.cli.store import json_option, opened, store_argument

_NPY = b"\x93NUMPY"


@click.command()
@store_argument
@click.argument("key")
@click.argument("source", type=click.File("rb"), default="-")
@click.option("-e", "--escaped", is_flag=True, help="KEY is escaped, as ls prints it.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "npy", "bytes", "text", "json"]),
    default="auto",
    help="The format of SOURCE; auto is npy if it begins like one, otherwise bytes.",
)
@click.option(
    "--tier", type=click.Choice(["cold", "glacier"]), default="cold", help="Where to store it."
)
@click.option("--ttl", type=float, help="Seconds to live.")
@click.option("--pin", is_flag=True, help="Forbid moving and evicting it.")
@click.option(
    "-m", "--metadata", multiple=True, metavar="NAME=VALUE", help="Metadata of the value."
)
@click.option("--create", is_flag=True, help="Create the store if it does not exist.")
@json_option
def put(
    store: Path,
    glacier: str | None,
    key: str,
    source: IO[bytes],
    escaped: bool,
    form: str,
    tier: Literal["cold", "glacier"],
    ttl: float | None,
    pin: bool,
    metadata: tuple[str, ...],
    create: bool,
    as_json: bool,
) -> None:
    """Store SOURCE (a file, or - for the standard input) under KEY.

    The value is durable when the command returns. The command fails while another process has the
    store open as its writer.
    """
    data = source.read()
    value = FORMS[_form_of(data) if form == "auto" else form](data)
    pairs = dict(_pair(one) for one in metadata)
    with opened(store, glacier, read_only=False, create=create) as manager:
        name = unescape(key) if escaped else key
        manager.store(name, value, tier, ttl=ttl, metadata=pairs or None, pin=pin)
        manager.flush()
        stored = manager.explain(name)
    if as_json:
        print_json(facts(stored))
    else:
        click.echo(f"{escape(name)}: {len(data):,} bytes into {stored.tier}", err=True)


def _form_of(data: bytes) -> str:
    return "npy" if data.startswith(_NPY) else "bytes"


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise CliFailure(f"--metadata {text!r} must be NAME=VALUE", exit_code=USAGE)
    return name, value


def _npy(data: bytes) -> Any:
    import numpy as np

    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise CliFailure(
            f"the source is not an array in npy format: {error}", exit_code=USAGE
        ) from error


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CliFailure(f"the source is not text in UTF-8: {error}", exit_code=USAGE) from error


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise CliFailure(f"the source is not JSON: {error}", exit_code=USAGE) from error


FORMS: dict[str, Callable[[bytes], Any]] = {
    "npy": _npy,
    "bytes": bytes,
    "text": _text,
    "json": _json,
}
