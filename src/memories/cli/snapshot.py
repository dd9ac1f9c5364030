"""`memories snapshot`: creates, inspects, verifies, compares and extracts snapshot files.

Only `create`, `restore` and `release` open a store; the others need only the file. Only `extract`
decodes a value.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from memories.cli.exit_codes import FAILED, USAGE, CliFailure
from memories.cli.get import check_describing, describing_option, write_value
from memories.cli.live_writer import writer_of
from memories.cli.output import escape, jsonable, print_json, unescape
from memories.cli.store import configured_key, json_option, opened, store_argument
from memories.errors import KeyNotFoundError
from memories.foundation.units import format_size
from memories.progress import bar, counted

if TYPE_CHECKING:
    from memories.snapshot import SnapshotFile, SnapshotRow

file_argument = click.argument("file", type=click.Path(path_type=Path))
base_option = click.option(
    "--base",
    "bases",
    multiple=True,
    type=click.Path(path_type=Path),
    help="An earlier snapshot that FILE builds on, if it was moved.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def snapshot() -> None:
    """Create, inspect, verify, compare and extract snapshot files."""


@snapshot.command()
@store_argument
@file_argument
@click.option("--prefix", default="", help="Only keys that start with this.")
@click.option(
    "--tier", "tiers", multiple=True, type=click.Choice(["cold", "glacier"]),
    help="Only values in this tier.",
)  # fmt: skip
@click.option(
    "--base", type=click.Path(path_type=Path), help="Write only what changed since this snapshot."
)
@click.option("--portable", is_flag=True, help="Write all values uncompressed, for other tools.")
@click.option("--reference", is_flag=True, help="Refer to archived values instead of copying them.")
@json_option
def create(
    store: Path,
    glacier: str | None,
    file: Path,
    prefix: str,
    tiers: tuple[Literal["cold", "glacier"], ...],
    base: Path | None,
    portable: bool,
    reference: bool,
    as_json: bool,
) -> None:
    """Write the current durable values of STORE into FILE."""
    from memories.snapshot import open_snapshot

    # A reference protects the archived values, which only the store's writer may do.
    with opened(store, glacier, read_only=not reference) as manager, bar("saved") as show:
        manager.create_snapshot(
            file,
            tiers=tiers or None,
            prefix=prefix,
            base=base,
            include_glacier="reference" if reference else True,
            portable=portable,
            progress=show,
        )
    with open_snapshot(file, configured_key()) as found:
        _print_summary(_summary(found), as_json)
    writer = writer_of(store)
    if writer is not None and writer.unwritten:
        click.echo(
            f"{writer.unwritten:,} values that are only in the RAM of pid {writer.pid} are not in "
            "it: call flush() there, or create_snapshot()", err=True,
        )  # fmt: skip


@snapshot.command()
@file_argument
@click.option("--keys", is_flag=True, help="List the keys.")
@json_option
def inspect(file: Path, keys: bool, as_json: bool) -> None:
    """Show the properties of FILE, or its keys; check its structure without reading values."""
    from memories.snapshot import open_snapshot

    with open_snapshot(file, configured_key()) as found:
        if not keys:
            _print_summary(_summary(found), as_json)
            return
        for row in found.rows():
            if as_json:
                print_json(_described(row))
            else:
                size = format_size(row.size)
                click.echo(f"{row.tier:8} {size:>9} {row.kind:12} {escape(row.key)}")


@snapshot.command()
@file_argument
@base_option
@json_option
def verify(file: Path, bases: tuple[Path, ...], as_json: bool) -> None:
    """Verify every byte of FILE, and of the snapshots it builds on; exit with 4 on damage."""
    from memories.snapshot.incremental_chain import IncrementalChain

    with IncrementalChain(file, bases, configured_key()) as chain:
        with bar("verified") as show:
            chain.verify(counted(show, chain.file_bytes))
        files, keys = [str(one.path) for one in chain.files], chain.top.keys
        size = chain.file_bytes
    if as_json:
        print_json({"files": files, "keys": keys, "bytes": size, "sound": True})
    else:
        click.echo(f"sound: {keys:,} keys, {format_size(size)} in {len(files)} file(s)")


@snapshot.command()
@file_argument
@store_argument
@click.option("--mode", type=click.Choice(["replace", "merge", "keep"]), default="keep")
@base_option
@click.option("--yes", is_flag=True, help="Do not ask before other keys are replaced.")
@json_option
def restore(
    file: Path,
    store: Path,
    glacier: str | None,
    mode: Any,
    bases: tuple[Path, ...],
    yes: bool,
    as_json: bool,
) -> None:
    """Restore FILE into STORE, which is created if it does not exist.

    By default keys that exist in STORE are kept; "merge" overwrites them, and "replace" also
    removes all other keys.
    """
    if mode != "keep" and not yes:
        click.confirm(f"Replace what {escape(str(store))} holds?", abort=True, err=True)
    with opened(store, glacier, read_only=False, create=True) as manager:
        with bar("verified") as show:
            manager.restore_snapshot(file, mode=mode, bases=bases, progress=show)
        keys = len(manager)
    if as_json:
        print_json({"file": str(file), "store": str(store), "mode": mode, "keys": keys})
    else:
        click.echo(f"{keys:,} keys in {escape(str(store))}", err=True)


@snapshot.command()
@store_argument
@click.argument("identity", metavar="[ID]", default="")
@json_option
def release(store: Path, glacier: str | None, identity: str, as_json: bool) -> None:
    """Release the archived objects that the snapshot ID refers to, after its file was deleted.

    Without ID, list the snapshots that refer to the archive of STORE, with their object counts.
    """
    with opened(store, glacier, read_only=not identity) as manager:
        if identity:
            held = {identity: manager.release_snapshot(identity)}
        else:
            held = manager.snapshots_in_archive()
    for one, count in held.items():
        if as_json:
            print_json({"id": one, "objects": count, "released": bool(identity)})
        else:
            click.echo(f"{one} {count:,} objects{' released' if identity else ''}")


@snapshot.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@json_option
@click.pass_context
def diff(context: click.Context, old: Path, new: Path, as_json: bool) -> None:
    """Show which keys were added (+), removed (-) or stored again (~) from OLD to NEW.

    The exit code is 1 if there are any, as for diff.
    """
    from memories.snapshot import open_snapshot

    count = 0
    key = configured_key()
    with open_snapshot(old, key) as before, open_snapshot(new, key) as after:
        for sign, name in _changes(before.rows(), after.rows()):
            count += 1
            if as_json:
                print_json({"change": CHANGES[sign], "key": name})
            else:
                click.echo(f"{sign} {escape(name)}")
    context.exit(FAILED if count else 0)


@snapshot.command()
@file_argument
@click.argument("key")
@click.option("-e", "--escaped", is_flag=True, help="KEY is escaped, as inspect prints it.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file instead.")
@click.option(
    "--format", "form", type=click.Choice(["auto", "npy", "bytes", "repr"]), default="auto"
)
@base_option
@describing_option
def extract(
    file: Path,
    key: str,
    escaped: bool,
    output: Path | None,
    form: str,
    bases: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Verify the value of KEY and write it, as `memories get` does."""
    check_describing(as_json, output)
    from memories import codecs
    from memories.frames.reader import open_frame
    from memories.snapshot.incremental_chain import IncrementalChain

    key = unescape(key) if escaped else key
    with IncrementalChain(file, bases, configured_key()) as chain:
        row = next((row for row in chain.rows() if row.key == key), None)
        if row is None:
            raise KeyNotFoundError(f"{key!r} is not in {file}")
        frame = chain.frame(row)
        if frame is None:
            raise CliFailure(f"{key!r} is in the archive; restore the snapshot", exit_code=USAGE)
        write_value(codecs.decode(open_frame(frame, key=key).parts()), form, output)
        if as_json:
            print_json(_described(row) | {"output": str(output)})


CHANGES = {"+": "added", "-": "removed", "~": "stored"}


def _changes(
    before: Iterator[SnapshotRow], after: Iterator[SnapshotRow]
) -> Iterator[tuple[str, str]]:
    """Compare two sequences in key order, in bounded memory."""
    old, new = next(before, None), next(after, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old.key < new.key):
            assert old is not None
            yield "-", old.key
            old = next(before, None)
        elif old is None or new.key < old.key:
            yield "+", new.key
            new = next(after, None)
        else:
            if (old.version, old.stored_at) != (new.version, new.stored_at):
                yield "~", new.key
            old, new = next(before, None), next(after, None)


def _summary(found: SnapshotFile) -> dict[str, Any]:
    created = datetime.datetime.fromtimestamp(found.root.created_at, datetime.UTC)
    return {
        "file": str(found.path),
        "id": found.root.id.hex(),
        "writer": found.root.writer,
        "created": created.isoformat(timespec="seconds"),
        "sequence": found.sequence,
        "keys": found.keys,
        "tiers": {str(tier): count for tier, count in found.tiers.items()},
        "value_bytes": sum(row.size for row in found.rows()),
        "file_bytes": found.file_bytes,
        "bases": [{"id": base.id.hex(), "file": base.name} for base in found.root.bases],
    }


def _described(row: SnapshotRow) -> dict[str, Any]:
    from memories.options.metadata import unpack

    return {
        "key": row.key,
        "tier": str(row.tier),
        "size": row.size,
        "version": row.version,
        "kind": row.kind,
        "metadata": jsonable(unpack(row.terms.metadata)) if row.terms else {},
        "where": type(row.where).__name__.lower(),
    }


def _print_summary(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    for name, value in summary.items():
        if name in ("value_bytes", "file_bytes"):
            name, value = name.replace("_bytes", ""), format_size(value)
        elif name == "tiers":
            value = ", ".join(f"{tier} {count:,}" for tier, count in value.items())
        elif name == "bases":
            value = ", ".join(base["file"] for base in value)
        if value != "":
            click.echo(f"{name:10} {escape(str(value))}")
