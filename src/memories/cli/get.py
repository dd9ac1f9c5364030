"""`memories get`: writes one value in a format that other programs read."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from memories.cli.exit_codes import USAGE, CliFailure
from memories.cli.live_writer import not_found, writer_of
from memories.cli.ls import facts
from memories.cli.output import escape_lines, print_json, unescape
from memories.cli.store import opened, store_argument
from memories.errors import KeyNotFoundError, StorageError

describing_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the properties of KEY as JSON; needs --output."
)


@click.command()
@store_argument
@click.argument("key")
@click.option("-e", "--escaped", is_flag=True, help="KEY is escaped, as ls prints it.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file instead.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "npy", "bytes", "repr"]),
    default="auto",
    help="The output format; auto depends on the type.",
)
@describing_option
def get(
    store: Path,
    glacier: str | None,
    key: str,
    escaped: bool,
    output: Path | None,
    form: str,
    as_json: bool,
) -> None:
    """Print the value of KEY, or write it to a file.

    Only values on the disk or in the archive can be read, not those that are only in the RAM of the
    process that has the store open. Arrays are written as .npy, bytes and text unchanged,
    everything else as its Python repr. Binary data are not written to a terminal, and in text
    written to one, control characters are escaped.
    """
    check_describing(as_json, output)
    key = unescape(key) if escaped else key
    with opened(store, glacier) as manager:
        try:
            value = manager.retrieve(key)
        except KeyNotFoundError:
            raise not_found(key, writer_of(store)) from None
        write_value(value, form, output)
        if as_json:
            print_json(facts(manager.explain(key)) | {"output": str(output)})


def check_describing(as_json: bool, output: Path | None) -> None:
    """Refuse --json without --output: the standard output holds either the JSON or the value."""
    if as_json and output is None:
        raise click.UsageError("--json describes the value; give --output FILE for the value")


def write_value(value: Any, form: str, output: Path | None) -> None:
    """Write `value` in format `form` to a file, or to the standard output."""
    form = _form_of(value) if form == "auto" else form
    data = FORMS[form](value)
    if output is not None:
        _write(output, data)
    elif not sys.stdout.isatty():
        click.echo(data, nl=False)
    elif form == "repr" or isinstance(value, str):
        click.echo(escape_lines(data.decode("utf-8", "backslashreplace")), nl=False)
    else:
        raise CliFailure(
            f"the value is binary ({form}); write it to a file with -o FILE", exit_code=USAGE
        )


def _form_of(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, str)):
        return "bytes"
    return "npy" if hasattr(value, "__array_interface__") and not _has_objects(value) else "repr"


def _has_objects(value: Any) -> bool:
    return bool(value.dtype.hasobject)


def _npy(value: Any) -> bytes:
    import numpy as np

    if not hasattr(value, "__array__") or _has_objects(np.asarray(value)):
        raise CliFailure(
            f"a {type(value).__name__} cannot be written as npy; try --format repr",
            exit_code=USAGE,
        )
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(value), allow_pickle=False)
    return file.getvalue()


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    try:
        return memoryview(value).tobytes()
    except TypeError:
        raise CliFailure(
            f"a {type(value).__name__} is not a buffer of bytes; try --format repr",
            exit_code=USAGE,
        ) from None


def _repr(value: Any) -> bytes:
    return f"{value!r}\n".encode("utf-8", "backslashreplace")


FORMS: dict[str, Callable[[Any], bytes]] = {"npy": _npy, "bytes": _bytes, "repr": _repr}


def _write(output: Path, data: bytes) -> None:
    try:
        output.write_bytes(data)
    except OSError as error:
        raise StorageError(f"{str(output)!r} cannot be written: {error.strerror}") from error
