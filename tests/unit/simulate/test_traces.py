from __future__ import annotations

import numpy as np
import pytest

from memories.errors import CorruptDataError, InvalidOptionError
from memories.simulate.traces import Access, jsonl_line, read_trace, trace_of, write_trace

ROWS = [Access(0.0, "a", 10), Access(0.5, 'tile/"ü"', 7), Access(0.75, "a", 30)]


@pytest.mark.parametrize("ending", ["npz", "jsonl"])
def test_what_was_written_is_read(tmp_path, ending):
    """A recorded trace is only worth something if it replays as it happened."""
    path = tmp_path / f"trace.{ending}"
    write_trace(path, ROWS)
    assert trace_of(ROWS) == read_trace(path)


def test_a_key_has_its_largest_size():
    """A tier holds a key once; a size that changed midway would break its accounts."""
    assert [30, 7, 30] == trace_of(ROWS).sizes
    assert 37 == trace_of(ROWS).footprint_bytes
    assert 2 == trace_of(ROWS).distinct_keys


def test_foreign_traces_with_numbered_keys_are_read(tmp_path):
    """Public traces name keys by numbers and may have no sizes."""
    arrays = {"time": [0.0, 1.0], "key": np.array([7, 2**63], np.uint64), "size": [0, 5]}
    np.savez(tmp_path / "t.npz", **arrays)
    read = read_trace(tmp_path / "t.npz")
    assert (["7", str(2**63)], [1, 5]) == (read.keys, read.sizes)


def test_a_trace_that_is_still_being_written_is_read_up_to_its_last_whole_line(tmp_path):
    """The program that writes it may be running, or may have been killed."""
    path = tmp_path / "t.jsonl"
    path.write_text("".join(map(jsonl_line, ROWS))[:-5], "utf-8")
    assert trace_of(ROWS[:2]) == read_trace(path)


@pytest.mark.parametrize(
    "line", ["nonsense\n", "{}\n", '{"time":"x","key":"a","size":1}\n', "[1,2,3]\n"]
)
def test_a_damaged_line_is_named(tmp_path, line):
    """Skipping it would make up an access pattern that never was."""
    path = tmp_path / "t.jsonl"
    path.write_text(jsonl_line(ROWS[0]) + line, "utf-8")
    with pytest.raises(CorruptDataError, match=r"line 2 of 't\.jsonl'"):
        read_trace(path)


def test_a_damaged_archive_is_named(tmp_path):
    """A truncated download looks like this."""
    path = tmp_path / "t.npz"
    write_trace(path, ROWS)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptDataError, match=r"t\.npz"):
        read_trace(path)
    np.savez(path, time=[0.0])
    with pytest.raises(CorruptDataError, match="the arrays time, key, size"):
        read_trace(path)
    np.savez(path, time=[0.0], key=["a", "b"], size=[1])
    with pytest.raises(CorruptDataError, match="differ in length"):
        read_trace(path)


def test_objects_in_an_archive_are_not_unpickled(tmp_path):
    """Nothing that was read can run code."""
    path = tmp_path / "t.npz"
    np.savez(path, time=[0.0], key=np.array([{}], object), size=[1])
    with pytest.raises(CorruptDataError):
        read_trace(path)


@pytest.mark.parametrize("use", [read_trace, lambda path: write_trace(path, ROWS)])
def test_another_ending_is_refused(tmp_path, use):
    """Guessing the form from the content would guess wrong one day."""
    with pytest.raises(InvalidOptionError, match=r"\.npz or \.jsonl"):
        use(tmp_path / "trace.csv")


def test_a_missing_trace_is_a_missing_file(tmp_path):
    """A mistyped path gives the usual error."""
    with pytest.raises(FileNotFoundError):
        read_trace(tmp_path / "none.npz")
