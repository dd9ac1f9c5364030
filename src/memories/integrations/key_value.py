"""A store of py-key-value (`key_value.aio`) in the tiers."""

from __future__ import annotations

from asyncio import to_thread
from itertools import islice
from typing import Any
from urllib.parse import quote, unquote

from key_value.aio.stores.base import (
    BaseDestroyCollectionStore,
    BaseDestroyStore,
    BaseEnumerateCollectionsStore,
    BaseEnumerateKeysStore,
)

from memories.errors import UnsupportedTypeError
from memories.integrations.byte_values import folder
from memories.integrations.cached_values import manager_for

_LIMIT = 10_000  # Names of one answer, as the stores of the package have it.


class KeyValueStore(
    BaseDestroyStore, BaseDestroyCollectionStore, BaseEnumerateCollectionsStore,
    BaseEnumerateKeysStore,
):  # fmt: skip
    """Keeps the entries of collections; calls run in threads, so that no event loop waits.

    Args:
        manager: A manager, shared or not; None for `memories.default()`.
        prefix: What its keys begin with.
        default_collection: The collection of calls that name none.
        seed: Entries that the store has at first, by collection and key.
    """

    def __init__(
        self,
        manager: Any = None,
        *,
        prefix: str = "key-value",
        default_collection: str | None = None,
        seed: Any = None,
    ) -> None:
        self.manager = manager_for(manager, None, {})
        self._prefix = folder(prefix)
        super().__init__(default_collection=default_collection, seed=seed, stable_api=True)

    async def _get_managed_entry(self, *, collection: str, key: str) -> Any:
        name = self._key(collection, key)
        kept = await to_thread(self.manager.retrieve, name, None)
        if not isinstance(kept, str | None):
            raise UnsupportedTypeError(
                f"{name!r} holds a {type(kept).__name__}, and an entry is a text: another program "
                "uses this prefix; give the store a prefix of its own"
            )
        return None if kept is None else self._serialization_adapter.load_json(json_str=kept)

    async def _put_managed_entry(self, *, collection: str, key: str, managed_entry: Any) -> None:
        text = self._serialization_adapter.dump_json(
            entry=managed_entry, key=key, collection=collection
        )
        ttl = managed_entry.ttl
        name = self._key(collection, key)
        if ttl is not None and ttl <= 0:
            await to_thread(self.manager.delete_many, [name])
        else:
            await to_thread(self.manager.store, name, text, ttl=ttl)

    async def _delete_managed_entry(self, *, collection: str, key: str) -> bool:
        return bool(await to_thread(self.manager.delete_many, [self._key(collection, key)]))

    async def _get_collection_keys(self, *, collection: str, limit: int | None = None) -> list[str]:
        folder_name = self._key(collection, "")
        names = await to_thread(self._listed, folder_name, None, limit)
        return [unquote(name.removeprefix(folder_name)) for name in names]

    async def _get_collection_names(self, *, limit: int | None = None) -> list[str]:
        names = await to_thread(self._listed, self._prefix, "/", limit)
        return [unquote(name.removeprefix(self._prefix).rstrip("/")) for name in names]

    async def _delete_collection(self, *, collection: str) -> bool:
        return bool(await to_thread(self.manager.delete_prefix, self._key(collection, "")))

    async def _delete_store(self) -> bool:
        await to_thread(self.manager.delete_prefix, self._prefix)
        return True

    def _listed(self, prefix: str, delimiter: str | None, limit: int | None) -> list[str]:
        return list(islice(self.manager.scan(prefix, delimiter), min(limit or _LIMIT, _LIMIT)))

    def _key(self, collection: str, key: str) -> str:
        """Return the key of an entry; both parts may have any characters."""
        return f"{self._prefix}{quote(collection, safe='')}/{quote(key, safe=' ')}"
