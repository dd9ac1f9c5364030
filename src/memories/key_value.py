"""A store of py-key-value (the extra `key-value`)."""

from memories.integrations.key_value import KeyValueStore

__all__ = ["KeyValueStore"]
