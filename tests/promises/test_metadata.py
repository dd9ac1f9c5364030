"""What is said about a value comes back as it was said, and is found by the same words."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import math
import os
import subprocess
import sys
import tempfile
import uuid
import zoneinfo
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.promises.conftest import Make

from memories import InvalidOptionError, MemoryManager
from memories.backends.disk import log_format, run
from memories.cli.app import app
from memories.options.metadata import MAX_METADATA_BYTES, Unknown, matcher, pack, unpack
from memories.testing.codecs import identical


class Band(enum.Enum):
    """An enum of tuples."""

    RED = ("red", 1)


class Level(enum.StrEnum):
    """A str, too."""

    LOW = "low"


class Place(NamedTuple):
    """A named tuple."""

    x: int
    name: str


WORDS: dict[str, Any] = {
    "none": None,
    "bool": True,
    "int": 5,
    "big": 2**80,
    "float": 0.1,
    "nan": math.nan,
    "complex": 1 + 2j,
    "str": "ä" * 2000,
    "bytes": b"\xff" * 500,
    "tuple": ("red", "nir"),
    "empty": ((), [], {}, set()),
    "list": [1, ("a", [2.5])],
    "set": {"b", "a", 3},
    "frozenset": frozenset({(1, 2)}),
    "nested": {"box": (1, 2), "more": {"x": [{1, 2}, dt.date(2024, 1, 1)]}},
    "numbered": {1: "one", (2, 3): None, "4": 4},
    "date": dt.date(2024, 1, 1),
    "datetime": dt.datetime(2024, 1, 1, 12, 30, 5, 7),
    "utc": dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    "berlin": dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    "time": dt.time(1, 2, 3),
    "timedelta": dt.timedelta(days=1, microseconds=1),
    "uuid": uuid.UUID(int=1),
    "decimal": decimal.Decimal("1.50"),
    "signalling": decimal.Decimal("sNaN"),
    "fraction": fractions.Fraction(1, 3),
    "path": PurePosixPath("a/b"),
    "range": range(3),
    "enum": Band.RED,
    "strenum": Level.LOW,
    "named": Place(1, "here"),
    "float32": np.float32(0.1),
    "float64": np.float64(0.1),
    "datetime64": np.datetime64("2024-01-01T00:00:00", "ns"),
    "npstr": np.str_("a"),
}
TIERS = ("hot", "warm", "cold", "glacier")


def test_every_word_is_found_and_comes_back(make: Make, tmp_path: Path) -> None:
    """In every tier, after a reopening, and out of a snapshot: as what it was, not as its text."""
    manager = make()
    for number, (name, word) in enumerate(WORDS.items()):
        manager.store(name, number, TIERS[number % 4], metadata={"word": word, "name": name})

    def check(stored: MemoryManager) -> None:
        for name, word in WORDS.items():
            assert name in list(stored.find(word=word)), name
            assert [name] == list(stored.find(word=word, name=name)), name
            assert [] == list(stored.find(word=word, name="other"))
            assert identical({"word": word, "name": name}, stored.explain(name).metadata)
        assert [] == list(stored.find(word="nothing like it"))
        assert [] == list(stored.find(other=None))

    check(manager)
    manager.create_snapshot(tmp_path / "snapshot")
    manager.cleanup()
    reopened = make()
    check(reopened)
    reopened.clear()
    reopened.restore_snapshot(tmp_path / "snapshot")
    check(reopened)


def test_what_is_equal_is_found(manager: MemoryManager) -> None:
    """As Python compares: a search for 2 finds a stored 2.0, and sets have no order."""
    words: dict[str, Any] = {"n": 2.0, "d": decimal.Decimal("1.50"), "s": {1, 2, 3}}
    words["t"] = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    manager.store("k", 1, metadata=words)
    there = dt.datetime(2024, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    for words in (
        {"n": 2}, {"n": np.int8(2)}, {"d": decimal.Decimal("1.5")}, {"s": {3, 2, 1}},
        {"s": frozenset({1, 2, 3})}, {"t": there},
    ):  # fmt: skip
        assert ["k"] == list(manager.find(**words)), words
    for words in ({"n": "2.0"}, {"s": [1, 2, 3]}, {"t": dt.datetime(2024, 1, 1)}):
        assert [] == list(manager.find(**words)), words


@dataclass
class Mutable:
    """Nothing to be found by."""

    x: int


@pytest.mark.parametrize(
    "word",
    [
        np.arange(3),
        [np.arange(3)],
        Mutable(1),
        {"x": Mutable(1)},
        OrderedDict(a=1),
        bytearray(b"a"),
        object(),
        lambda: None,
        "a\udcff",
        {"\udcff": 1},
        {1: Mutable(1)},
        (Mutable(1),),
    ],
)
def test_what_cannot_be_a_word_is_refused_in_every_tier(manager: MemoryManager, word: Any) -> None:
    """Taken as something else, it would never be found again."""
    for tier in TIERS:
        with pytest.raises(InvalidOptionError, match="metadata"):
            manager.store("k", 1, tier, metadata={"x": word})
    with pytest.raises(InvalidOptionError, match="metadata"):
        manager.find(x=word)
    assert not manager.exists("k")


def test_names_are_texts_and_metadata_is_small_and_finite() -> None:
    """Each refusal says what would work."""
    cycle: list[Any] = []
    cycle.append(cycle)
    words: Any
    for words in ({1: 2}, {"a": ("x",) * MAX_METADATA_BYTES}, {"a": cycle}, 5):
        with pytest.raises(InvalidOptionError, match="metadata"):
            pack(words)


def test_what_is_given_back_is_the_readers_own(manager: MemoryManager) -> None:
    """The words lie with the key, in one place for all."""
    mine = {"list": [1, {"a": 2}], "set": {1}}
    manager.store("k", 1, metadata=mine)
    mine["list"].append(3)  # type: ignore[attr-defined]
    got = manager.explain("k").metadata
    got["list"][1]["a"] = 9
    got["set"].add(2)
    assert {"list": [1, {"a": 2}], "set": {1}} == manager.explain("k").metadata


SCRIPT = """
import enum, sys
from memories import MemoryManager
class Kind(enum.Enum): A = 1
with MemoryManager("5MB", "5MB", "50MB", storage_path=sys.argv[1]) as manager:
    manager.store("k", 1, "cold", metadata={"kind": Kind.A, "pair": (Kind.A, 2), "year": 2024})
    assert ["k"] == list(manager.find(kind=Kind.A))
"""


def test_a_word_of_a_class_that_is_not_there_hides_no_other(tmp_path: Path) -> None:
    """A reader without that class sees the rest, and the name of the missing class."""
    script, store = tmp_path / "script.py", tmp_path / "store"
    script.write_text(SCRIPT)
    subprocess.run(
        [sys.executable, script, store],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=60,
    )
    with MemoryManager("5MB", "5MB", "50MB", storage_path=store) as manager:
        found = manager.explain("k").metadata
        assert 2024 == found["year"]
        assert isinstance(found["kind"], Unknown)
        assert "__main__.Kind" in found["kind"].reason
        assert ["k"] == list(manager.find(year=2024))
    for command in (["stat", str(store), "k"], ["ls", str(store), "--json"]):
        done = CliRunner().invoke(app, command)
        assert 0 == done.exit_code, done.output
        assert "2024" in done.output
        assert "Kind" in done.output


def test_the_command_shows_words_as_text(make: Make, tmp_path: Path) -> None:
    """JSON knows no dates."""
    manager = make()
    words = {"day": dt.date(2024, 1, 1), "tags": {"b", "a"}, "pair": (1, decimal.Decimal("1.5"))}
    manager.store("k", 1, "cold", metadata=words)
    manager.cleanup()
    done = CliRunner().invoke(app, ["ls", str(tmp_path / "store"), "--json"])
    assert '"day":"2024-01-01"' in done.output
    assert '"tags":["a","b"]' in done.output
    assert '"pair":[1,"1.5"]' in done.output


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.binary(max_size=5) | st.dates() | st.datetimes() | st.timedeltas() | st.uuids()
    | st.decimals() | st.fractions() | st.complex_numbers()
)  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(TEXTS, inner, max_size=4)
        | st.sets(st.integers() | TEXTS, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200)
@given(st.dictionaries(TEXTS, TREES, max_size=4))
def test_whatever_is_said_comes_back_and_is_found(words: dict[str, Any]) -> None:
    """Type for type, whatever hypothesis says."""
    packed = pack(words)
    assert identical(words, unpack(packed))
    assert matcher(words)(packed)
    assert packed == pack(unpack(packed)) or "nan" in repr(words).lower()


KEYS = st.sampled_from([f"k{n}" for n in range(12)] + ["¨metadata", "a/metadata", "z¨metadata"])
SAID = st.sampled_from([None, {"x": 1}, {"x": 2, "¨metadata": "x"}])
STEPS = st.one_of(
    st.tuples(st.just("store"), KEYS, SAID),
    st.tuples(st.just("delete"), KEYS, st.none()),
    st.tuples(st.sampled_from(["write a run", "reopen"]), st.none(), st.none()),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_what_is_found_is_what_has_these_words(steps: list[Any]) -> None:
    """Whether its record lies in RAM, in one run of the index or in several, old or replaced."""
    expected: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        manager = MemoryManager("1 MB", "1 MB", "50 MB", storage_path=folder)
        for what, key, words in steps:
            if what == "store":
                manager.store(key, 1, "cold", metadata=words)
                expected[key] = words or {}
            elif what == "delete":
                manager.delete_many([key])
                expected.pop(key, None)
            elif what == "write a run":
                writer = manager._hierarchy.catalog.journal._writer
                assert writer is not None
                writer.checkpoint()
            else:
                manager.cleanup()
                manager = MemoryManager("1 MB", "1 MB", "50 MB", storage_path=folder)
            for x in (1, 2):
                found = [key for key in sorted(expected) if expected[key].get("x") == x]
                assert found == list(manager.find(x=x))
        manager.cleanup()


def test_a_search_decodes_only_what_has_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of thousands of keys at rest are found without a look at the others."""
    with MemoryManager("1 MB", "1 MB", "50 MB", storage_path=tmp_path) as manager:
        manager.store_many({f"k{n:05}": n for n in range(5000)}, "cold")
        for n in (7, 2500, 4999):
            manager.store(f"k{n:05}", n, "cold", metadata={"kind": "rare"})
    decoded: list[bytes] = []

    def decode(data: Any) -> Any:
        decoded.append(data)
        return log_format.decode_record(data)

    with MemoryManager("1 MB", "1 MB", "50 MB", storage_path=tmp_path) as manager:
        monkeypatch.setattr(run, "decode_record", decode)
        assert ["k00007", "k02500", "k04999"] == list(manager.find(kind="rare"))
        assert 3 <= len(decoded) < 50
