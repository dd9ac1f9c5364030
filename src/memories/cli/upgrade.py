"""`memories upgrade`: brings a store to the formats of this release, and verifies every value.

The parts that have a format of their own are listed in docs/compatibility.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import click

from memories.backends.base import Problem
from memories.cli.exit_codes import DAMAGED, UNAVAILABLE
from memories.cli.output import escape, print_json
from memories.cli.store import configured_key, json_option, opened, require_store
from memories.progress import bar, counted


class Part(NamedTuple):
    """A part of a store, the version of its format (0: it is not there), and the newest one."""

    name: str
    version: int
    newest: int


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--glacier", metavar="URL", help="The URL of its glacier tier, if that is not in the directory."
)
@click.option("--dry-run", is_flag=True, help="Verify, and only print what would be written anew.")
@json_option
@click.pass_context
def upgrade(
    context: click.Context, path: Path, glacier: str | None, dry_run: bool, as_json: bool
) -> None:
    """Bring the store, or check the snapshot file, at PATH to the formats of this release.

    Values stay as they are: every release reads those of all earlier ones. Every value is verified.
    A format of a later release is refused, and nothing is changed. The exit code is 4 if something
    is damaged, and 5 if it could not be verified; a snapshot file is never written.
    """
    before = _parts(path)
    problems: list[Problem] = []
    if path.is_file():
        keys = _verify_snapshot(path)
    else:
        with opened(path, glacier, read_only=dry_run) as manager:
            keys = len(manager)
            with bar("verified") as show:
                problems = manager.check(progress=show)
    after = _parts(path)
    if as_json:
        print_json(_document(path, before, after, keys, problems))
    else:
        for old, new in zip(before, after, strict=True):
            click.echo(f"{old.name:9} {_outcome(old, new)}")
        for problem in problems:
            key = "-" if problem.key is None else escape(problem.key)
            click.echo(f"{key}\t{escape(problem.what)}")
        click.echo(f"{keys:,} keys, {len(problems):,} problems", err=True)
    if any(not problem.unchecked for problem in problems):
        context.exit(DAMAGED)
    context.exit(UNAVAILABLE if problems else 0)


def _parts(path: Path) -> tuple[Part, ...]:
    """Return what has a format at `path`.

    Raises:
        StorageError: nothing of ours is there, or a store of a later release.
    """
    from memories.backends.disk import manifest, paths
    from memories.snapshot import FORMAT

    if path.is_file():
        return (Part("snapshot", FORMAT, FORMAT),)  # It can only be opened if it has that one.
    require_store(path)
    store = paths.StorePaths(path / "cold")
    log = paths.verify(store)
    index = manifest.version_of(store)
    identity = int(paths.read_statement(store, paths.IDENTITY) is not None)
    return (
        Part("log", log, log),  # An encrypted one has version 2, and another one is at 1.
        Part("index", index, manifest.VERSION),
        Part("identity", identity, 1),
    )


def _verify_snapshot(path: Path) -> int:
    """Verify every byte of a snapshot, and return how many keys it has."""
    from memories.snapshot.incremental_chain import IncrementalChain

    with IncrementalChain(path, (), configured_key()) as chain, bar("verified") as show:
        chain.verify(counted(show, chain.file_bytes))
        return chain.top.keys


def _outcome(old: Part, new: Part) -> str:
    """Return the words for what became of a part."""
    if old.version != new.version:
        was = f"had format {old.version}" if old.version else "was not there"
        return f"{was}, and was written in format {new.version}"
    if new.version == new.newest:
        return f"has format {new.version}, the newest"
    if new.name == "identity":
        return "is not there, and is written when a user with a signing key opens the store"
    was = f"has format {new.version}" if new.version else "is not there"
    return f"{was}, and will be written in format {new.newest}"


def _document(
    path: Path,
    before: tuple[Part, ...],
    after: tuple[Part, ...],
    keys: int,
    problems: list[Problem],
) -> dict[str, Any]:
    return {
        "path": str(path),
        "parts": {
            old.name: {"before": old.version, "after": new.version, "newest": new.newest}
            for old, new in zip(before, after, strict=True)
        },
        "keys": keys,
        "problems": [{"key": one.key, "what": one.what} for one in problems],
    }
