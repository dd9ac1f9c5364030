"""`memories key`: manages the keys that sign pickled objects, and those that encrypt stores.

Signed objects run code when they are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from memories.cli.output import escape, print_json
from memories.cli.store import configured_key, json_option, require_store
from memories.errors import InvalidOptionError

if TYPE_CHECKING:
    from memories.sealing.key_files import KeyRotation
    from memories.sealing.master_key import EncryptionKey, WrappedKey


@click.group()
def key() -> None:
    """Manage the keys that sign pickled objects, and those that encrypt stores."""


@key.command("generate")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", default="memories", show_default=True, help="What the key is called.")
@click.option("--add", is_flag=True, help="Add a new version to an existing FILE.")
@json_option
def generate_key(file: Path, name: str, add: bool, as_json: bool) -> None:
    """Write a new master key for encryption='file:FILE' to FILE, which only you can read.

    Keep a copy where the encrypted stores are not: without it, nothing in them can be read.
    """
    from memories.sealing.master_key import append_version, create_file

    made = append_version(file) if add else create_file(file, name)
    if as_json:
        print_json({"file": str(file), "name": made.name, "version": made.version})
    else:
        click.echo(f"{made.name}\t{made.version}")
    click.echo(f"{file} holds a secret; without a copy of it the data are lost with it", err=True)


@key.command("rotate")
@click.argument("store")
@click.option("--to", metavar="KEY", help="Another key that takes its place, as file:PATH.")
@json_option
def rotate_key(store: str, to: str | None, as_json: bool) -> None:
    """Wrap the data keys of the encrypted STORE with the newest version of its key.

    STORE is a store, a snapshot, or the URL of an archive; an archive within a store is rotated
    with it. The key is the one that MEMORIES_ENCRYPTION names. The store may be open, no value is
    written again, and the command may be interrupted and run again.
    """
    from memories.sealing.master_key import EncryptionKey

    configured, other = configured_key(), EncryptionKey.parse(to)
    if configured is None:
        raise InvalidOptionError(
            "set MEMORIES_ENCRYPTION to file:PATH or env:NAME, the present key"
        )
    done = _rotated(store, configured, other)
    if as_json:
        print_json(done._asdict())
    else:
        click.echo(
            f"{done.rewrapped} of {done.keys} data keys wrapped anew, all with version "
            f"{done.version} of {done.name}"
        )


@key.command("list")
@click.argument("store", required=False)
@json_option
def list_keys(store: str | None, as_json: bool) -> None:
    """Print the ids of the trusted signing keys; the first key of the file signs.

    With an encrypted STORE, a snapshot, or the URL of an archive: the ids of its data keys, each
    with the name and the version of the master key that wraps it. No key is needed for that.
    """
    from memories.frames.signing import Keyring

    if store is not None:
        _list_data_keys(store, as_json)
        return
    ring = Keyring()
    trusted = ring.keys()
    if as_json:
        print_json({"file": str(ring.path), "ids": [known.id for known in trusted]})
        return
    for known in trusted:
        click.echo(known.id)
    click.echo(f"from {ring.path}", err=True)


@key.command("export")
@json_option
def export_key(as_json: bool) -> None:
    """Print this user's own key, a secret that signs in this user's name."""
    from memories.frames.signing import Keyring

    secret = Keyring().export()
    if as_json:
        print_json({"secret": secret})
    else:
        click.echo(secret)
    click.echo("this is a secret; a user who imports it trusts what you store", err=True)


@key.command("import")
@click.argument("source", type=click.File("r"), default="-")
@json_option
def import_key(source: IO[str], as_json: bool) -> None:
    """Trust the key in SOURCE (a file, or the standard input): objects it signed may run code."""
    from memories.frames.signing import Keyring

    known = Keyring().trust(source.read())
    if as_json:
        print_json({"id": known.id, "trusted": True})
    else:
        click.echo(known.id)
        click.echo("trusted from now on", err=True)


def _rotated(store: str, configured: EncryptionKey, other: EncryptionKey | None) -> KeyRotation:
    """Rotate a snapshot, an archive, or a store with the archive in it."""
    from memories.backends.bucket import data_key
    from memories.backends.bucket.open_store import open_store
    from memories.backends.disk import data_keys
    from memories.snapshot.key_rotation import rotate_snapshot

    path = Path(store)
    if _is_archive(store):
        return data_key.rotate(open_store(store), configured, other)
    if path.is_file():
        return rotate_snapshot(path, configured, other)
    require_store(path)
    done = data_keys.rotate(path / "cold", configured, other)
    if _is_archive(path / "glacier"):
        done = done.plus(data_key.rotate(open_store(path / "glacier"), configured, other))
    return done


def _is_archive(store: str | Path) -> bool:
    """Return whether a URL or a path is that of an archive, and not of a store."""
    return "://" in str(store) or (Path(store) / "memories-1").is_dir()


def _data_keys(store: str) -> list[WrappedKey]:
    from memories.backends.bucket import data_key
    from memories.backends.bucket.open_store import open_store
    from memories.backends.disk import data_keys
    from memories.snapshot.key_rotation import wrapped_key

    path = Path(store)
    if _is_archive(store):
        return [data_key.wrapped_key(open_store(store))[0]]
    if path.is_file():
        return [wrapped_key(path)]
    require_store(path)
    found = data_keys.wrapped_keys(path / "cold")
    if _is_archive(path / "glacier"):
        found.append(data_key.wrapped_key(open_store(path / "glacier"))[0])
    return found


def _list_data_keys(store: str, as_json: bool) -> None:
    found = _data_keys(store)
    if as_json:
        rows = [
            {"id": one.id.hex(), "master_key": one.name, "version": one.version} for one in found
        ]
        print_json({"store": store, "data_keys": rows})
        return
    for one in found:
        click.echo(f"{one.id.hex()}\t{escape(one.name)}\t{one.version}")
