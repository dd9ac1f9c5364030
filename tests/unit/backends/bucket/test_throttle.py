"""The bound on requests at once: kept, and not used up by requests that never came back."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

from tests.support.interrupting import Interrupter

from memories.backends.bucket.directory import DirectoryStore
from memories.backends.bucket.throttle import ThrottledStore


def test_an_interrupt_at_any_line_uses_up_no_request(tmp_path: Path) -> None:
    """After as many as may be under way, every later one would wait for ever."""
    store, interrupter, at = ThrottledStore(DirectoryStore(tmp_path / "b"), 1), Interrupter(), 0
    store.put("name", [memoryview(b"data")])
    ended = True
    while ended:
        at += 1
        ended = interrupter.run(lambda: store.get("name"), at)
        other = threading.Thread(target=store.get, args=("name",), daemon=True)
        other.start()
        other.join(60)
        assert not other.is_alive(), interrupter.struck
    assert at > 5
    assert 1 == store._free.qsize()


def test_a_request_that_was_lost_comes_back_once(tmp_path: Path) -> None:
    """Neither fewer nor more may be under way afterwards."""
    store = ThrottledStore(DirectoryStore(tmp_path / "b"), 3)
    slot = store._free.get()
    del slot
    gc.collect()
    assert 3 == store._free.qsize()
