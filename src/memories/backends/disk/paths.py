"""The file names in a store's directory, and its small files: `FORMAT`, and who it is.

A number is used for one file only, ever.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from memories.backends.disk.files import Files, append
from memories.errors import CorruptDataError, StorageError
from memories.foundation.regular_file import read_regular

FORMAT_NAME = "memories cold log"
FORMAT_VERSION = 1
ENCRYPTED_VERSION = 2  # Of a store that is encrypted; see docs/format.md.
IDENTITY = "identity"  # The name of the identity among the statements.
IDENTITY_NBYTES = 16
_MAX_STATEMENT = 4096
_MOST_FORMAT_BYTES = 4096
DRAFT = ".tmp"  # The end of the name of a file that is not complete.
_WHOLE = {"FORMAT", "LOCK", "manifest"}  # What is written as a draft, besides numbered files.


class Format(msgspec.Struct, kw_only=True):
    """The content of `FORMAT`, as JSON."""

    format: str
    version: int


class StorePaths:
    """The paths of one store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "log"
        self.values = root / "values"
        self.index = root / "index"
        self.stores = root / "stores"
        self.keys = root / "keys"  # Of an encrypted store.
        self.format = root / "FORMAT"
        self.lock = root / "LOCK"
        self.reserve = root / "RESERVE"
        self.manifest = self.index / "manifest"

    def statement(self, name: str) -> Path:
        """Return the path of the identity of the store, or of a statement about another one."""
        return self.stores / name

    def key(self, number: int) -> Path:
        """Return the path of a data key."""
        return self.keys / f"{number:08d}.key"

    def segment(self, number: int) -> Path:
        """Return the path of a segment of the log."""
        return self.log / f"{number:08d}.seg"

    def value(self, number: int) -> Path:
        """Return the path of a file that holds one large value."""
        return self.values / f"{number:08d}.val"

    def pack(self, number: int) -> Path:
        """Return the path of an adopted file, which holds many frames."""
        return self.values / f"{number:08d}.pack"

    def run(self, number: int) -> Path:
        """Return the path of one sorted run of the index."""
        return self.index / f"{number:08d}.run"


def numbers(directory: Path, suffix: str) -> list[int]:
    """Return the numbers of the files in `directory` that have `suffix`, ascending."""
    if not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        stems = [entry.name[: -len(suffix)] for entry in entries if entry.name.endswith(suffix)]
    found = [int(stem) for stem in stems if stem.isascii() and stem.isdecimal()]
    named = {f"{number:08d}" for number in found}  # As we name files: `1.seg` is not ours.
    return sorted(int(stem) for stem in named.intersection(stems))


def drafts(paths: StorePaths) -> Iterator[Path]:
    """Yield what an interrupted or killed writer has left unfinished, and nothing else."""
    for directory in (paths.root, paths.log, paths.index, paths.stores, paths.keys):
        if not directory.is_dir():
            continue
        with os.scandir(directory) as entries:
            found = [one.name for one in entries if one.is_file(follow_symlinks=False)]
        for name in found:
            stem = name.removesuffix(DRAFT)
            number, _, kind = stem.partition(".")
            ours = stem in _WHOLE or (number.isdecimal() and kind in ("run", "seg", "key"))
            if stem != name and (ours or directory == paths.stores):
                yield directory / name


def require_own(paths: StorePaths) -> None:
    """Raise StorageError if a directory of the store is a link: what lies elsewhere is not ours."""
    for directory in (paths.log, paths.values, paths.index, paths.stores, paths.keys):
        if directory.is_symlink():
            raise StorageError(
                f"{directory} is a link, and files are removed in it: put the directory itself "
                "there, or make the path of the whole store a link"
            )


def require(paths: StorePaths) -> None:
    """Raise StorageError unless the directories in which values lie are there."""
    for directory in (paths.log, paths.values):
        if not directory.is_dir():
            raise StorageError(
                f"{directory} is not there, and the store had values in it; was it moved or "
                "unmounted? bring it back: nothing is given up meanwhile"
            )


def create(paths: StorePaths, files: Files, make_key: Callable[[], None] | None = None) -> None:
    """Create an empty store, unless there is one already.

    `make_key` makes the data key of an encrypted one; it is called once the identity is there.

    Raises:
        StorageError: a part of the store is missing.
    """
    paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    require_own(paths)
    if paths.format.exists():
        require(paths)  # They were made before it.
    for directory in (paths.log, paths.values, paths.index):
        files.mkdir(directory)
    if not paths.format.exists():
        files.mkdir(paths.stores)
        if make_key is None:
            write_whole(files, paths.statement(IDENTITY), os.urandom(IDENTITY_NBYTES))
            write_whole(files, paths.format, _format_bytes(FORMAT_VERSION))
        else:
            # What is there stays: a store that has lost only its FORMAT is whole with a new one.
            if read_statement(paths, IDENTITY) is None:
                write_whole(files, paths.statement(IDENTITY), os.urandom(IDENTITY_NBYTES))
            make_key()
            write_whole(files, paths.format, _format_bytes(ENCRYPTED_VERSION))
    files.sync_directory(paths.root)


def is_encrypted(paths: StorePaths) -> bool | None:
    """Return whether the store is encrypted; None if there is none. Raises like `verify`.

    One with data keys is, whatever has happened to its FORMAT.
    """
    version = verify(paths) if paths.format.exists() else None
    if version == ENCRYPTED_VERSION or numbers(paths.keys, ".key"):
        return True
    return None if version is None else False


def verify(paths: StorePaths) -> int:
    """Return the version of the store's format.

    Raises:
        StorageError: the directory holds no store of a version that this package reads.
    """
    require_own(paths)
    try:
        data = read_regular(paths.format, limit=_MOST_FORMAT_BYTES).data
        found = msgspec.json.decode(data, type=Format)
    except FileNotFoundError as error:
        raise StorageError(
            f"{paths.root} holds no store: it has no file FORMAT; check the path"
        ) from error
    except OSError as error:
        raise StorageError(f"{paths.format} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptDataError(
            f"{paths.format} is damaged: {error}; restore it from another store of this version"
        ) from error
    if found.format != FORMAT_NAME or found.version not in (FORMAT_VERSION, ENCRYPTED_VERSION):
        raise StorageError(
            f"{paths.root} has format {found.format!r} version {found.version}, and this "
            f"package reads {FORMAT_NAME!r} version {FORMAT_VERSION} and, where it is encrypted, "
            f"{ENCRYPTED_VERSION}; use a version that reads it"
        )
    return found.version


def read_statement(paths: StorePaths, name: str) -> bytes | None:
    """Return what is kept under `name`; None if nothing is.

    Raises:
        StorageError: it cannot be read, or something else than a small file lies there.
    """
    path = paths.statement(name)
    try:
        return read_regular(path, limit=_MAX_STATEMENT).data
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error


def statement_names(paths: StorePaths) -> list[str]:
    """Return the names of all statements, in order."""
    try:
        names = [path.name for path in paths.stores.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if not name.endswith(DRAFT))


def write_statement(paths: StorePaths, files: Files, name: str, data: bytes) -> None:
    """Keep `data` under `name`, in the place of what is kept there."""
    files.mkdir(paths.stores)
    write_whole(files, paths.statement(name), data)


def write_whole(files: Files, path: Path, data: bytes) -> None:
    """Write a small file so that it appears complete or not at all, also after a power cut."""
    draft = path.with_name(path.name + DRAFT)
    files.unlink(draft)
    try:
        descriptor = files.create(draft)
        try:
            append(files, descriptor, [data])
            files.sync(descriptor)
        finally:
            files.close(descriptor)
        files.rename(draft, path)
    except BaseException:
        files.unlink(draft)
        raise
    files.sync_directory(path.parent)


def _format_bytes(version: int) -> bytes:
    return msgspec.json.encode(Format(format=FORMAT_NAME, version=version)) + b"\n"
