"""Notices that an array is gone from its source, whose chunks zarr would take for fill values."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from zarr.errors import NodeNotFoundError

from memories.foundation.bounded_dict import BoundedDict
from memories.integrations.read_through import ReadThrough
from memories.integrations.zarr.reads import array_of

LOOKED_EVERY = 1.0  # Seconds: an array that was there so recently is not looked for again.
REMEMBERED_ARRAYS = 1000
_DESCRIPTIONS = ("zarr.json", ".zarray", ".zmetadata")


class LostArrays:
    """Looks for the arrays of chunks that a source does not have.

    Args:
        kept: What is kept of the source.
        source: The store.
    """

    def __init__(self, kept: ReadThrough, source: Any) -> None:
        self._kept = kept
        self._source = source
        self._seen: BoundedDict[str, float] = BoundedDict(REMEMBERED_ARRAYS)
        self._questions: dict[str, asyncio.Task[None]] = {}  # Of arrays that are looked for now.

    async def require(self, key: str) -> bool:
        """Return whether the source was asked for the array of a chunk that is absent.

        It is asked at most once a second, by the first of the chunks that come at once, and only
        for an array whose description is kept. One that was never read here has nothing to be
        compared with.

        Raises:
            NodeNotFoundError: the source had the array, and does not have it any more.
        """
        array = array_of(key)
        seen = self._seen.get(array)
        if seen is not None and self._kept.now() - seen < LOOKED_EVERY:
            return False
        described = await asyncio.to_thread(self._described, array)
        if described is None:
            return False
        loop = asyncio.get_running_loop()
        question = self._questions.get(array)
        asks = question is None or question.get_loop() is not loop
        if question is None or asks:
            question = loop.create_task(self._look_for(array, described))
            self._questions[array] = question
        try:
            await asyncio.shield(question)  # A reader that is cancelled leaves it to the others.
        finally:
            if self._questions.get(array) is question and question.done():
                del self._questions[array]
        return asks

    async def _look_for(self, array: str, described: str) -> None:
        asked = self._kept.now()
        if await self._source.exists(described):
            self._seen.set(array, asked)
            return
        await asyncio.to_thread(self._kept.drop_object, described)
        raise NodeNotFoundError(
            f"{described!r} is gone from {self._source}: a chunk of its array is absent there, and "
            "not one of fill values"
        )

    def _described(self, array: str) -> str | None:
        """Return the key of what is kept of the description of an array; None if nothing is."""
        for key in descriptions(array):
            if self._kept.is_kept(ReadThrough.name_of(key)):
                return key
        return None


def descriptions(array: str) -> Iterator[str]:
    """Yield the keys that may describe an array: its own first, then those of groups around it."""
    names = array.split("/") if array else []
    for depth in range(len(names), -1, -1):
        for name in _DESCRIPTIONS:
            yield "/".join([*names[:depth], name])
