"""Keeps the credentials of an archive out of pickles: a pickled manager only names them.

A pickle may be stored, logged or sent to another machine. The name leads to the options in the
process that has them and in its forks, and `multiprocessing` gets them for a process that it is
about to start, by a pipe. Any other process gets its credentials from the provider's usual chain.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import Any

# Options that are no secret, without which the archive would not be found.
_PLAIN = frozenset({
    "endpoint", "endpoint_url", "region", "region_name", "profile", "aws_profile", "allow_http",
    "anon", "skip_signature", "virtual_hosted_style_request", "concurrency", "bytes_per_second",
})  # fmt: skip


class KeptOptions:
    """The `storage_options` of a manager, which are pickled by their name."""

    def __init__(self, options: Mapping[str, Any], name: str | None = None) -> None:
        self.options = dict(options)
        self._name = name or os.urandom(16).hex()
        _kept[self._name] = self

    def __reduce__(self) -> tuple[Callable[..., KeptOptions], tuple[Any, ...]]:
        if _is_starting_process():
            return KeptOptions, (self.options, self._name)
        return _find, (self._name, {k: v for k, v in self.options.items() if _is_plain(k, v)})

    def __repr__(self) -> str:
        return f"<{len(self.options)} options>"


_kept: weakref.WeakValueDictionary[str, KeptOptions] = weakref.WeakValueDictionary()


def _find(name: str, plain: Mapping[str, Any]) -> KeptOptions:
    return _kept.get(name) or KeptOptions(plain)


def _is_starting_process() -> bool:
    """Return whether this thread starts a process of `multiprocessing`, which gets the pickle."""
    context = sys.modules.get("multiprocessing.context")  # Not imported, it starts none.
    return context is not None and context.get_spawning_popen() is not None


def _is_plain(name: str, value: Any) -> bool:
    """Return whether an option is known to be no secret; a URL may hold a password."""
    return name in _PLAIN and isinstance(value, (str, int, float)) and "@" not in str(value)
