"""Fetches blocks of files, keeps them in the tiers, and finds them again.

A block is kept under the tag of its file: its ETag, or its time and size. Blocks of two versions of
a file therefore never meet.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, NamedTuple

from memories.errors import ConflictError, CorruptDataError
from memories.integrations.read_through import (
    FLIGHT_SECONDS,
    AbandonedError,
    KeepTerms,
    KeptState,
    ReadThrough,
)
from memories.integrations.tags import tag_of

TRUSTED_SECONDS = 1.0  # A file that was looked at so recently is not looked at after a fetch.
_FOR_EVER = KeepTerms(None, 0.0, None)  # A block belongs to one version of its file.


class FileVersion(NamedTuple):
    """The size of a file, and what changes when the file does."""

    size: int
    tag: str


class FileBlocks:
    """The blocks of the files of one file system.

    Args:
        kept: What is kept of its files.
        behind: Returns the file system, which is another one in a forked child.
        block_size: The bytes of a block.
        terms: How long what is kept of a file is served without looking at it.
    """

    def __init__(
        self, kept: ReadThrough, behind: Callable[[], Any], block_size: int, terms: KeepTerms
    ) -> None:
        self._kept = kept
        self._behind = behind
        self._block_size = block_size
        self._terms = terms

    def version(self, path: str) -> FileVersion | None:
        """Return the version of a file, from the tiers or from behind; None without a size.

        Raises:
            FileNotFoundError: it is absent.
        """
        name, began = ReadThrough.name_of(path), self._kept.now()
        while True:
            found = self._kept.look_up(name, self._terms)
            if found.state is KeptState.FRESH:
                return _version_from(path, found.content)
            fetch, mine = self._kept.begin_fetch(path, name)
            if not mine:
                done, content = self._wait(fetch, began)
                if done:
                    return _version_from(path, content)
                continue
            try:
                asked = self._kept.now()
                content = self._look_behind(path)
                if found.content not in (None, content):
                    self._kept.drop_folder(f"part/{path}/")  # FileBlocks of the version before.
                self._kept.keep(fetch, content, None, asked, self._terms)
            except BaseException as error:
                self._kept.fail_fetch(fetch, error)
                raise
            self._kept.end_fetch(fetch, content)
            return _version_from(path, content)

    def _look_behind(self, path: str) -> bytes | None:
        """Return the version of a file as bytes; None if it is absent."""
        self._behind().invalidate_cache(self._behind()._parent(path))  # Its listings may be old.
        try:
            info = self._behind().info(path)
        except FileNotFoundError:
            return None
        size = info.get("size")
        if info.get("type") == "directory":
            raise IsADirectoryError(path)
        # A file without a tag gets one here: what was kept of it before is not found any more.
        tag = tag_of(info) or uuid.uuid4().hex
        return json.dumps([size, tag]).encode()

    def _wait(self, fetch: Any, began: float) -> tuple[bool, Any]:
        """Wait for the request of another caller; return whether there is a result, and it."""
        try:
            return True, fetch.future.result(FLIGHT_SECONDS)
        except AbandonedError:
            return False, None  # Its call was interrupted.
        except Exception as error:
            if not fetch.future.done() and isinstance(error, FutureTimeoutError):
                self._kept.give_up(fetch)
            elif fetch.begun >= began:
                raise
            return False, None  # That request failed, but it was sent before this call.

    def read(self, path: str, version: FileVersion, start: int, stop: int, ahead: int = 0) -> bytes:
        """Return the bytes of a file from `start` to `stop`.

        Args:
            path: The file.
            version: Its version: blocks of another one are not used.
            start: The first byte.
            stop: The one after the last.
            ahead: Further blocks to fetch, if the last one must be fetched.

        Raises:
            ConflictError: the file has changed.
            CorruptDataError: the file system behind sent less than it said.
        """
        stop = min(stop, version.size)
        if stop <= start:
            return b""
        size = self._block_size
        numbers = range(start // size, (stop - 1) // size + 1)
        blocks = self._blocks(path, version, numbers, ahead)
        first = start - numbers[0] * size
        if len(blocks) == 1:
            return bytes(memoryview(blocks[0])[first : first + stop - start])
        return b"".join(blocks)[first : first + stop - start]

    def _blocks(self, path: str, version: FileVersion, numbers: range, ahead: int) -> list[Any]:
        """Return blocks of a file, fetching runs of those that are not kept."""
        found: dict[int, Any] = {}
        began = self._kept.now()
        while len(found) < len(numbers):
            mine: list[Any] = []
            others: list[Any] = []
            for number in numbers:
                if number in found:
                    continue
                name = self._block_name(path, version, number)
                kept = self._kept.look_up(name, _FOR_EVER)
                if kept.content is not None:
                    found[number] = kept.content
                    continue
                fetch, is_mine = self._kept.begin_fetch(path, name)
                (mine if is_mine else others).append((number, fetch))
            if mine:
                if mine[-1][0] == numbers[-1]:
                    mine += self._further(path, version, numbers[-1], ahead)
                found.update(self._fetch(path, version, mine))
            for number, fetch in others:
                done, content = self._wait(fetch, began)
                if done:
                    found[number] = content
        return [found[number] for number in numbers]

    def _further(self, path: str, version: FileVersion, last: int, ahead: int) -> list[Any]:
        """Begin to fetch the blocks behind the last, until one is kept or is being fetched."""
        further = []
        for number in range(last + 1, min(last + 1 + ahead, -(-version.size // self._block_size))):
            name = self._block_name(path, version, number)
            if self._kept.is_kept(name):
                break
            fetch, mine = self._kept.begin_fetch(path, name)
            if not mine:
                break
            further.append((number, fetch))
        return further

    def _fetch(self, path: str, version: FileVersion, wanted: list[Any]) -> dict[int, bytes]:
        """Fetch blocks, neighbours in one request; keep them, and give them to who waits."""
        size = self._block_size
        runs: list[list[int]] = []
        for number, _ in wanted:
            if runs and runs[-1][1] == number:
                runs[-1][1] = number + 1
            else:
                runs.append([number, number + 1])
        starts = [run[0] * size for run in runs]
        stops = [min(run[1] * size, version.size) for run in runs]
        fetched: dict[int, bytes] = {}
        try:
            asked = self._kept.now()
            parts = self._request(path, starts, stops)
            for run, start, stop, part in zip(runs, starts, stops, parts, strict=True):
                if len(part) != stop - start:
                    self._require_same(path, version)
                    raise CorruptDataError(
                        f"{path!r}: the file system behind sent {len(part)} bytes instead of "
                        f"{stop - start}: nothing of it was kept; read again"
                    )
                for number in range(*run):
                    fetched[number] = part[(number - run[0]) * size :][:size]
            if self._kept.checked_ago(ReadThrough.name_of(path)) > TRUSTED_SECONDS:
                self._require_same(path, version)
            for number, fetch in wanted:
                self._kept.keep(fetch, fetched[number], None, asked, self._terms)
        except BaseException as error:
            for _, fetch in wanted:
                self._kept.fail_fetch(fetch, error)
            raise
        for number, fetch in wanted:
            self._kept.end_fetch(fetch, fetched[number])
        return fetched

    def _request(self, path: str, starts: list[int], stops: list[int]) -> list[bytes]:
        if len(starts) == 1:
            return [bytes(self._behind().cat_file(path, start=starts[0], end=stops[0]))]
        paths = [path] * len(starts)
        return [
            bytes(part)
            for part in self._behind().cat_ranges(paths, starts, stops, on_error="raise")
        ]

    def _require_same(self, path: str, version: FileVersion) -> None:
        """Raise unless the file is still the one whose blocks were fetched."""
        found = self._look_behind(path)
        now = None if found is None else FileVersion(*json.loads(found))
        same_size = now is not None and now.size == version.size
        if same_size and (tag_is_made(version.tag) or now == version):
            return
        self._kept.drop_object(path)
        raise ConflictError(f"{path!r} changed while it was read: open it again")

    def _block_name(self, path: str, version: FileVersion, number: int) -> str:
        tag = hashlib.sha256(f"{version.tag}/{version.size}".encode()).hexdigest()[:16]
        return ReadThrough.name_of(path, f"{tag}-{self._block_size}-{number}")


def tag_is_made(tag: str) -> bool:
    """Return whether a tag was made here, for a file that has none."""
    return len(tag) == 32 and "/" not in tag


def _version_from(path: str, content: bytes | memoryview | None) -> FileVersion | None:
    if content is None:
        raise FileNotFoundError(path)
    size, tag = json.loads(bytes(content))
    return None if size is None else FileVersion(size, tag)
