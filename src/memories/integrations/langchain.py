"""A store and a cache of LangChain in the tiers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.stores import BaseStore

from memories.foundation.keys import check_name
from memories.integrations.byte_values import folder
from memories.integrations.cached_values import CachedValues, manager_for
from memories.options.settings import check_seconds


class LangchainStore(BaseStore[str, Any]):
    """Keeps values by key, of any type that a manager stores; nothing is dropped silently.

    Args:
        manager: A manager, shared or not; None for `memories.default()`.
        prefix: What its keys begin with.
    """

    def __init__(self, manager: Any = None, prefix: str = "langchain/store") -> None:
        self.manager = manager_for(manager, None, {})
        self._prefix = folder(prefix)

    def mget(self, keys: Sequence[str]) -> list[Any]:
        """Return the values of `keys`, None for those that are absent."""
        return [self.manager.retrieve(self._key(key), None) for key in keys]

    def mset(self, key_value_pairs: Sequence[tuple[str, Any]]) -> None:
        """Store values."""
        self.manager.store_many({self._key(key): value for key, value in key_value_pairs})

    def mdelete(self, keys: Sequence[str]) -> None:
        """Remove those `keys` that are present."""
        self.manager.delete_many([self._key(key) for key in keys])

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """Yield the keys that start with `prefix`, in order."""
        for key in self.manager.scan(self._key(prefix or "")):
            yield key.removeprefix(self._prefix)

    def _key(self, name: Any) -> str:
        """Return the key of a name.

        Raises:
            InvalidKeyTypeError: it is not a `str`.
        """
        return self._prefix + check_name(name)


class LangchainCache(BaseCache):
    """Keeps the answers of models: `set_llm_cache(LangchainCache(manager))`.

    An answer is found by the exact prompt and the exact settings of the model. It may be dropped
    for room.

    Args:
        manager: A manager, shared or not; None for `memories.default()`.
        prefix: What its keys begin with.
        ttl: Seconds for which an answer is kept; None for as long as there is room.
    """

    def __init__(
        self, manager: Any = None, prefix: str = "langchain/cache", ttl: float | None = None
    ) -> None:
        self.values = CachedValues(manager_for(manager, None, {}), folder(prefix))
        self._ttl = check_seconds("ttl", ttl)

    def lookup(self, prompt: str, llm_string: str) -> Any:
        """Return the answer to a prompt; None if there is none."""
        return self.values.get(_name_of(prompt, llm_string), None)

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Any]) -> None:
        """Keep the answer to a prompt."""
        self.values.put(_name_of(prompt, llm_string), list(return_val), self._ttl)

    def clear(self, **kwargs: Any) -> None:
        """Remove all answers."""
        del kwargs
        self.values.clear()


def _name_of(prompt: Any, llm_string: Any) -> str:
    """Return what no other prompt has: those who write prompts must not find a second one.

    Raises:
        InvalidKeyTypeError: one of the two is not a `str`.
    """
    digest = hashlib.sha256()
    for text in (prompt, llm_string):
        data = check_name(text).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
