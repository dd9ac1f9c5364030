"""The map of the archive: a transaction is whole, and its lock is free afterwards."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
from tests.support.interrupting import Interrupter

from memories.backends.bucket.local_db import LocalDb
from memories.backends.bucket.object_index import ObjectIndex
from memories.backends.bucket.staging import StagedPacks
from memories.errors import StorageError


def test_an_interrupt_at_any_line_leaves_no_transaction_behind(tmp_path: Path) -> None:
    """The threads that renew the lease and ship would wait for its lock for ever."""
    state, interrupter, at = LocalDb(tmp_path / "map"), Interrupter(), 0
    done = 0

    def count() -> None:
        with state.transaction():
            state.set("count", done + 1)
            with state.transaction():
                state.set("inner", done + 1)

    while True:
        at += 1
        ended = interrupter.run(count, at)
        seen: list[tuple[int, int]] = []

        def look(seen: list[tuple[int, int]] = seen) -> None:
            with state.transaction():
                seen.append((state.number("count"), state.number("inner")))

        other = threading.Thread(target=look, daemon=True)
        other.start()
        other.join(60)
        assert seen in ([(done, done)], [(done + 1, done + 1)]), interrupter.struck
        done = seen[0][0]
        with pytest.raises(ZeroDivisionError), state.transaction():
            state.set("count", done + 7)
            raise ZeroDivisionError
        assert done == state.number("count"), f"no later one is whole: {interrupter.struck}"
        if not ended:
            break
    assert at > 10 and done >= 1
    state.close()


def test_an_interrupt_while_a_failed_transaction_is_undone(tmp_path: Path) -> None:
    """What comes later would be a part of it, and never be committed."""
    state, interrupter, at = LocalDb(tmp_path / "map"), Interrupter(), 0

    def fail() -> None:
        with contextlib.suppress(ZeroDivisionError), state.transaction():
            state.set("count", 7)
            raise ZeroDivisionError

    ended = True
    while ended:
        at += 1
        ended = interrupter.run(fail, at)
        with state.transaction():
            state.set("after", at)
        assert not state._db.in_transaction, interrupter.struck
        assert (0, at) == (state.number("count"), state.number("after")), interrupter.struck
    assert at > 10
    state.close()


def test_a_number_that_became_too_large_is_an_error_of_ours(tmp_path: Path) -> None:
    """One in a forged map may be the largest that SQLite holds."""
    state = LocalDb(tmp_path / "map")
    with state.transaction():
        state.set("physical", 2**63 - 1)
    with pytest.raises(StorageError, match="the archive's map"), state.transaction():
        state.add("physical", 1)
    assert 2**63 - 1 == state.number("physical")
    state.close()


def test_a_column_of_another_type_is_an_error_of_ours(tmp_path: Path) -> None:
    """SQLite gives what is in the file, whatever the table was made for."""
    state = LocalDb(tmp_path / "map")
    columns = {"version": b"1", "token": "t", "state": "s", "length": "much", "record": 3.5}
    for name, value in columns.items():
        fields = {"version": 1, "token": b"t", "state": 1, "length": 2, "record": None, name: value}
        state.run("DELETE FROM entry")
        state.run(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)", b"key",
            *(fields[one] for one in ("version", "token", "state", "length", "record")),
        )  # fmt: skip
        for read in (state.row, state.rows, state.one):
            with pytest.raises(StorageError, match=f"{name} is of another type"):
                read(f"SELECT {name} FROM entry WHERE key = ?", b"key")
    state.close()


def test_a_number_that_no_version_has_is_an_error_of_ours(tmp_path: Path) -> None:
    """The one before it could not be written to an object."""
    state = LocalDb(tmp_path / "map")
    state.run("INSERT INTO entry VALUES (?, ?, ?, 0, -2, NULL)", b"key", -(2**63), b"t")
    with pytest.raises(StorageError, match="version is out of range"):
        ObjectIndex(state).contents(b"t")
    state.run("UPDATE entry SET version = 1, length = -3")
    with pytest.raises(StorageError, match="length is out of range"):
        ObjectIndex(state).contents(b"t")
    state.run("UPDATE entry SET length = -2")
    assert [("key", 0)] == ObjectIndex(state).contents(b"t").removed
    state.close()


def test_a_total_of_another_type_is_an_error_of_ours(tmp_path: Path) -> None:
    """What is read of many rows at once is checked like what is read of one."""
    state = LocalDb(tmp_path / "map")
    index = ObjectIndex(state)
    state.run("INSERT INTO object VALUES (?, 1, 1, 5, 5, 'open', ?, NULL, NULL)", b"t", "then")
    state.run("INSERT INTO entry VALUES (?, ?, ?, 1, 5, NULL)", b"key", "much", b"t")
    with pytest.raises(StorageError, match="highest is of another type"):
        index.recompute(0.0)
    with pytest.raises(StorageError, match="oldest is of another type"):
        StagedPacks("memory://", state, index, pack_bytes=1, wall=lambda: 0.0).staged_since()
    state.close()
