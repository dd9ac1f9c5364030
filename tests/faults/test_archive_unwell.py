"""A manager whose archive was damaged or thinned out by others: the rest is there, and it is said.

What is lost is named, by key where anything still knows the key, and never passes for absent;
`check` finds it without being asked for it, and after a repair all readers agree.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tests.support.buckets.fixtures import every_warning  # noqa: F401

from memories import CorruptDataError, KeyNotFoundError, MemoryManager
from memories.cli.app import app

KEYS = [f"k{n}" for n in range(5)]


def value(key: str) -> np.ndarray:
    return np.random.default_rng(int(key[1:])).random(60_000)


def manager(root: Path, name: str, **options: object) -> MemoryManager:
    return MemoryManager(
        1, 1, 1, True, storage_path=root / name, glacier_url=str(root / "bucket"),
        migration=False, prefetch="off", **options,  # type: ignore[arg-type]
    )  # fmt: skip


def objects(root: Path) -> list[Path]:
    """The objects of the archive, in the order in which they were written."""
    found = (root / "bucket" / "memories-1" / "objects").iterdir()
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five archived values, each in an object of its own, and a writer that has closed."""
    with manager(tmp_path, "writer") as writer:
        for key in KEYS:
            writer.store(key, value(key), "glacier")
    return tmp_path


def forget_sums(root: Path) -> None:
    """As if the writer had been killed before it summed up what it had written."""
    for path in (root / "bucket" / "memories-1" / "manifests").iterdir():
        path.unlink()


def readable(reader: MemoryManager) -> list[str]:
    return [key for key in reader if np.array_equal(value(key), reader.retrieve(key))]


def test_deleted_objects_are_named_by_key_on_a_fresh_machine(
    root: Path,
    every_warning: pytest.LogCaptureFixture,  # noqa: F811
) -> None:
    """Three of five came back, and no message named the others."""
    first, _, third = objects(root)[:3]
    first.unlink()
    third.unlink()
    with manager(root, "fresh") as fresh:
        assert "2 values are missing" in every_warning.text
        assert "'k0', 'k2'" in every_warning.text
        for key in ("k0", "k2"):
            with pytest.raises(CorruptDataError, match=f"'{key}' .* there is none"):
                fresh.retrieve(key)
        assert np.array_equal(value("k1"), fresh.retrieve("k1"))
        assert ["k0", "k2"] == sorted(str(problem.key) for problem in fresh.check())
        problems = fresh.check(repair=True)
        assert ["k0", "k2"] == sorted(str(problem.key) for problem in problems)
        assert all(problem.what.endswith("the value is lost") for problem in problems)
        assert [] == fresh.check()
        with pytest.raises(KeyNotFoundError):
            fresh.retrieve("k0")
        fresh.store("k0", value("k0"), "glacier")
    with manager(root, "another") as another:
        assert ["k0", "k1", "k3", "k4"] == readable(another)
        assert [] == another.check()


def test_an_object_that_says_nothing_any_more_does_not_stop_the_adoption(
    root: Path,
    every_warning: pytest.LogCaptureFixture,  # noqa: F811
) -> None:
    """Which keys it held is unknown, so that a key that is nowhere is not called absent."""
    forget_sums(root)
    damaged = objects(root)[3]
    flip(damaged, -10)
    name = damaged.name
    with manager(root, "fresh") as fresh:
        assert name in every_warning.text
        assert ["k0", "k1", "k2", "k4"] == readable(fresh)
        with pytest.raises(CorruptDataError, match=f"'k3' .* may have been in .*{name}"):
            fresh.retrieve("k3")
        fresh.store("new", 1)
        assert 1 == fresh.retrieve("new")
        [problem] = fresh.check(repair=True)
        assert name in problem.what
        with pytest.raises(KeyNotFoundError):
            fresh.retrieve("k3")
    with manager(root, "another") as another:
        assert {"k0", "k1", "k2", "k4", "new"} >= set(another)
        assert [] == another.check()
    assert name in [path.name for path in objects(root)], "a repair deletes no damaged object"


def test_a_machine_with_a_map_mends_what_another_could_not_read(root: Path) -> None:
    """Its map still knows where each value lies, though the object does not say so any more."""
    flip(objects(root)[1], -10)
    with manager(root, "writer") as writer:
        [problem] = writer.check(repair=True)
        assert (None, True) == (problem.key, problem.repaired)
        assert KEYS == readable(writer)
        assert [] == writer.check()
    forget_sums(root)
    with manager(root, "fresh") as fresh:
        assert KEYS == readable(fresh)


def test_a_damaged_value_is_found_by_check_and_dropped_by_repair(root: Path) -> None:
    """A check that compares sizes would say that nothing is wrong."""
    flip(objects(root)[2], 5000)
    with manager(root, "writer") as writer:
        assert ["k2"] == [problem.key for problem in writer.check()]
        [problem] = writer.check(repair=True)
        assert "the value is lost" in problem.what
        assert [] == writer.check()
    with manager(root, "fresh") as fresh:
        assert ["k0", "k1", "k3", "k4"] == readable(fresh)
        assert [] == fresh.check()


def test_a_lost_archived_copy_is_made_anew_from_ram_and_from_cold(root: Path) -> None:
    """Losing one of two copies loses nothing."""
    with manager(root, "writer") as writer:
        writer.migrate("k0", "hot")
        writer.migrate("k1", "cold")
        for path in objects(root)[:2]:
            path.unlink()
        problems = writer.check(repair=True)
        assert ["k0", "k1"] == sorted(str(problem.key) for problem in problems)
        assert all("another copy" in problem.what for problem in problems)
        writer.migrate("k0", "glacier")
        writer.migrate("k1", "glacier")
        assert KEYS == readable(writer)
        assert [] == writer.check()
    with manager(root, "fresh") as fresh:
        assert KEYS == readable(fresh)


def test_a_bucket_without_objects_is_noticed_by_the_machine_that_wrote(root: Path) -> None:
    """The journal of this machine knows what the bucket should hold."""
    with manager(root, "other", takeover=True):
        for path in objects(root):
            path.unlink()
        forget_sums(root)
    with manager(root, "writer", takeover=True) as writer:
        assert KEYS == sorted(str(problem.key) for problem in writer.check())
        with pytest.raises(CorruptDataError):
            writer.retrieve("k0")


def test_a_plain_check_says_what_it_did_not_look_at(root: Path) -> None:
    """ "0 problems" of values that were never read is a lie that is believed for years."""
    plain = CliRunner().invoke(app, ["check", str(root / "writer")])
    assert 5 == plain.exit_code
    assert "5 archived values were not looked at" in plain.output
    assert "5 keys, no problem in what was checked, which was not everything" in plain.output
    assert "0 problems" not in plain.output
    url = str(root / "bucket")
    whole = CliRunner().invoke(app, ["check", str(root / "writer"), "--glacier", url])
    assert (0, True) == (whole.exit_code, "5 keys, 0 problems\n" in whole.output)
    objects(root)[0].unlink()
    damaged = CliRunner().invoke(app, ["check", str(root / "writer"), "--glacier", url])
    assert (4, True) == (damaged.exit_code, damaged.output.startswith("k0\t"))
    adopted = CliRunner().invoke(app, ["adopt", url])
    assert (4, True) == (adopted.exit_code, "missing   k0" in adopted.output)


def as_of_now(root: Path, *, sums: bool = True) -> MemoryManager:
    """A reader of a copy of the bucket, as if the writer were killed now."""
    copy = root / f"copy-{len(list(root.iterdir()))}"
    shutil.copytree(root / "bucket", copy)
    if not sums:
        shutil.rmtree(copy / "memories-1" / "manifests")
    return MemoryManager(
        1, 1, 1, True, glacier_url=str(copy), read_only=True, migration=False, prefetch="off"
    )  # fmt: skip


def test_reclaiming_leaves_nothing_that_looks_lost(root: Path) -> None:
    """A manifest must not name what the writer itself has unlinked, tombstones forgotten or not."""
    with manager(root, "writer") as writer:
        for key in KEYS[:3]:
            writer.delete(key)
        writer.store("k4", value("k3"), "glacier")
        bucket = writer._services.backends[-1]
        for _ in range(3):
            bucket.reclaim(grace_seconds=0)  # type: ignore[attr-defined]
            with as_of_now(root) as reader:
                assert ["k3", "k4"] == sorted(reader)
                assert [] == reader.check()
    with manager(root, "fresh") as fresh:
        assert ["k3", "k4"] == sorted(fresh)
        assert [] == fresh.check()


def test_a_lost_version_does_not_bring_an_older_one_back(root: Path) -> None:
    """The older one lies in the bucket for a week, and its object still says that it is there."""
    with manager(root, "writer") as writer:
        writer.store("k0", value("k1"), "glacier")
        objects(root)[-1].unlink()
        [problem] = writer.check(repair=True)
        assert "k0" == problem.key
        for sums in (True, False):
            with as_of_now(root, sums=sums) as reader:
                assert ["k1", "k2", "k3", "k4"] == readable(reader)
