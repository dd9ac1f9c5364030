"""Keys, values and items can be iterated while other threads remove keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memories.core.views import ItemView, KeyView, ValueView
from memories.errors import KeyNotFoundError


class Shrinking(dict[str, Any]):
    """A mapping whose key `gone` is listed, but was removed when it is read."""

    def scan(self) -> Iterator[str]:
        """Yield the keys, the removed one included."""
        yield from sorted({*self, "gone"})

    def retrieve(self, key: str) -> Any:
        """Return the value of a key that is still there."""
        try:
            return self[key]
        except KeyError:
            raise KeyNotFoundError(key) from None


def test_a_key_that_was_removed_since_it_was_listed_is_left_out() -> None:
    """A loop over the values must not fail because another thread deletes a key."""
    mapping = Shrinking(a=1, z=2)
    assert [("a", 1), ("z", 2)] == list(ItemView(mapping))
    assert [1, 2] == list(ValueView(mapping))
    assert 2 in ValueView(mapping) and 3 not in ValueView(mapping)


def test_the_keys_say_which_frame_lists_them() -> None:
    """`dict(manager)` lists the keys first and reads them afterwards; the manager must know."""
    frames: list[Any] = []
    assert ["a", "gone"] == list(KeyView(Shrinking(a=1), frames.append))
    assert [test_the_keys_say_which_frame_lists_them.__name__] == [
        frame.f_code.co_name for frame in frames
    ]
