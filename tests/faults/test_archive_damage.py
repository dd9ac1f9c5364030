"""Archives damaged at random, held against a dict: right, or said to be damaged, and never absent.

Objects are deleted, cut, flipped and replaced, or else the manifests are; everything in a closed
archive is recorded twice. The store itself, a fresh machine and a reader each get the newest value
of a key or `CorruptDataError`; after a repair all of them agree.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from memories import CorruptDataError, KeyNotFoundError, MemoryManager

KEYS = [f"k{n}" for n in range(12)]
SIZES = [10, 3000, 3000, 40_000, 400_000]

Truth = dict[str, bytes]


def manager(root: Path, name: str | None) -> MemoryManager:
    return MemoryManager(
        1, 1, 1, True, storage_path=None if name is None else root / name,
        glacier_url=str(root / "bucket"), read_only=name is None, migration=False, prefetch="off",
    )  # fmt: skip


def work(root: Path, chance: random.Random, truth: Truth) -> None:
    """Store, overwrite, delete and reclaim for a while, over several openings."""
    for _ in range(chance.randrange(1, 4)):
        with manager(root, "home") as writer:
            for _ in range(chance.randrange(1, 15)):
                key, action = chance.choice(KEYS), chance.random()
                if action < 0.2 and key in truth:
                    writer.delete(key)
                    del truth[key]
                elif action < 0.25:
                    writer._services.backends[-1].reclaim(grace_seconds=0)  # type: ignore[attr-defined]
                elif action < 0.35:
                    writer.flush()
                else:
                    truth[key] = chance.randbytes(chance.choice(SIZES))
                    writer.store(key, truth[key], "glacier")


def delete(path: Path, chance: random.Random) -> None:
    path.unlink()


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.randrange(1, 4)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def cut(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def append(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes() + chance.randbytes(chance.choice([1, 64, 1000])))


def replace(path: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(chance.choice([0, 64, 5000])))


HARM: list[Callable[[Path, random.Random], None]] = [delete, flip, flip, cut, append, replace]


def harm(root: Path, chance: random.Random) -> None:
    """Damage some objects, or some manifests: one of the two says what the other held."""
    where = root / "bucket" / "memories-1" / chance.choice(["objects", "objects", "manifests"])
    for path in sorted(where.iterdir()) if where.is_dir() else []:
        if chance.random() < 0.3:
            chance.choice(HARM)(path, chance)


def look(found: MemoryManager, truth: Truth) -> set[str]:
    """Return the keys that are damaged; all others are what they should be."""
    damaged = set()
    for key in KEYS:
        try:
            assert truth.get(key) == found.retrieve(key), f"{key} is not what it was last"
        except CorruptDataError:
            damaged.add(key)
        except KeyNotFoundError:
            assert key not in truth, "a damaged value passed for an absent one"
    return damaged


def campaign(root: Path, seed: int) -> None:
    chance, truth = random.Random(seed), Truth()
    work(root, chance, truth)
    harm(root, chance)
    if chance.random() < 0.5:
        with manager(root, None) as reader:
            look(reader, truth)
    name = chance.choice(["home", "fresh"])
    with manager(root, name) as found:
        damaged = look(found, truth)
        problems = found.check()
        assert damaged & set(truth) <= {problem.key for problem in problems} or any(
            problem.key is None for problem in problems
        )
        reported = {problem.key for problem in found.check(repair=True)}
        assert [] == found.check()
        for key in damaged & set(truth):
            assert key in reported or None in reported
            del truth[key]
        assert set() == look(found, truth)
        assert sorted(truth) == list(found)
        key = chance.choice(KEYS)
        truth[key] = chance.randbytes(5000)
        found.store(key, truth[key], "glacier")
    shutil.rmtree(root / "another", ignore_errors=True)
    with manager(root, "another") as another:
        assert set() == look(another, truth)
        assert sorted(truth) == list(another)
        assert [] == another.check()


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_archive_says_what_is_damaged_and_is_right_otherwise(
    tmp_path: Path, seed: int
) -> None:
    """A few of many; `make torture` runs the rest."""
    campaign(tmp_path, seed)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_many_damaged_archives(tmp_path: Path) -> None:
    """Rare places in rare objects need many runs."""
    for seed in range(100, 500):
        campaign(tmp_path / str(seed), seed)
        shutil.rmtree(tmp_path / str(seed))
