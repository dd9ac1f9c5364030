"""Promise 12: `cleanup()` ends everything there and then, whatever kind of manager it is."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from tests.support.buckets import seaweed
from tests.support.buckets.fixtures import s3, s3_url  # noqa: F401
from tests.support.forking import in_child
from tests.support.holdings import holdings, nothing_left
from tests.support.nodes.fixtures import plain_nodes  # noqa: F401
from tests.support.nodes.patience import patient_clients  # noqa: F401

from memories import (
    DistributedMemoryManager,
    InvalidOptionError,
    MemoryManager,
    StorageError,
    StoreLockedError,
    TierFullError,
)
from memories.backends.disk import DiskBackend
from memories.cluster.local import LocalGroup
from memories.model.record import Record

LARGE = 300_000  # Numbers whose frame has a file of its own, and is mapped when it is read.
TIERS = ("hot", "warm", "cold", "glacier")
_numbers = count()
STEP = 37  # Lines of an end from one interrupt to the next in `make test`.


@contextmanager
def opened(path: Path | None, **options: Any) -> Iterator[MemoryManager]:
    """Give a manager with all four tiers, and values in each of them, small and large."""
    options = {"glacier_memory_enabled": True, "storage_path": path, **options}
    manager = MemoryManager("20 MB", "20 MB", "200 MB", **options)
    try:
        for tier in TIERS if options["glacier_memory_enabled"] else TIERS[:3]:
            for number in range(20):
                manager.store(f"{tier} {number}", [number], tier)
            manager.store(f"{tier} large", np.arange(LARGE), tier)
        yield manager
    finally:
        manager.cleanup()


def read_all(manager: MemoryManager) -> None:
    """Read everything there is, so that every file is opened that reading opens."""
    for key in list(manager):
        assert manager[key] is not None


def tiers(home: Path) -> None:
    """Use a manager with a name, in every way that leaves files open."""
    with opened(home / "store") as manager:
        read_all(manager)
        manager.flush()
        manager.migrate("cold large", "hot")
        manager.migrate("hot large", "glacier")
        manager.delete_prefix("warm")
        manager.retrieve("glacier large", region=np.s_[:10])
        assert [] == manager.check()
        manager.prefetch([f"cold {number}" for number in range(20)])


def reopened(home: Path) -> None:
    """Open a store that has a checkpoint, and one that a repair has gone over."""
    with opened(home / "store"):
        pass
    with opened(home / "store") as manager:
        read_all(manager)
        manager.check(repair=True)


def private(home: Path) -> None:
    """Use a manager without a name, whose directory goes with it."""
    del home
    with opened(None) as manager:
        read_all(manager)


def readers(home: Path) -> None:
    """Read beside a writer, from several readers."""
    with opened(home / "store") as manager:
        manager.flush()
        for _ in range(3):
            with MemoryManager(
                "9 MB", "9 MB", "9 MB", True, storage_path=home / "store", read_only=True
            ) as reader:
                read_all(reader)
                manager.store("later", 1, "cold")


def snapshots(home: Path) -> None:
    """Create and restore, whole and lazily, read from another directory, and incrementally."""
    with opened(home / "store") as manager:
        manager.create_snapshot(home / "full")
        manager.store("more", np.arange(LARGE), "cold")
        manager.create_snapshot(home / "increment", base=home / "full")
        manager.restore_snapshot(home / "increment", wait=True)
        read_all(manager)
        manager.restore_snapshot(home / "full", mode="merge", verify="lazy")
        read_all(manager)
    with opened(home / "other") as manager:
        manager.restore_snapshot(home / "increment", mode="keep")
        read_all(manager)


def pending_files(home: Path) -> None:
    """End while the files of a snapshot are pending, and nothing of them was read or copied yet."""
    with opened(home / "store") as manager:
        manager.create_snapshot(home / "full")
        manager.clear()
        manager.restore_snapshot(home / "full", verify="lazy")
        assert manager["cold large"].sum() == np.arange(LARGE).sum()
    with opened(home / "other") as manager:
        manager.restore_snapshot(home / "full", verify="lazy")


def watched(home: Path) -> None:
    """Sample, record a trace, plot nothing, and serve a page that a browser has open."""
    with opened(home / "store") as manager:
        manager.enable_analytics(interval=0.01)
        manager.record_trace(home / "trace.jsonl")
        served = manager.dashboard()
        with urllib.request.urlopen(served.url, timeout=60) as page:
            assert page.read()
        read_all(manager)
        manager.report(home / "report.html")


def refused(home: Path) -> None:
    """Fail to open what another manager writes, a store or an archive, and a missing store."""
    with opened(home / "store", glacier_url=home / "archive"):
        with pytest.raises(StoreLockedError):
            MemoryManager(1, 1, 1, storage_path=home / "store")
        with pytest.raises(StoreLockedError):
            MemoryManager(1, 1, 1, True, storage_path=home / "other", glacier_url=home / "archive")
    with pytest.raises(StorageError):
        MemoryManager(1, 1, 1, storage_path=home / "none", read_only=True)


KINDS = [tiers, reopened, private, readers, snapshots, pending_files, watched, refused]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_nothing_is_left_to_the_collector(kind: Callable[[Path], None], tmp_path: Path) -> None:
    """No descriptor, mapping, thread or lock is there after `cleanup()`, collector or not."""
    kind(_made(tmp_path))  # What the packages keep for the process is theirs from here on.
    with nothing_left():
        kind(_made(tmp_path))


def test_what_was_closed_is_free_though_a_child_has_its_descriptors(tmp_path: Path) -> None:
    """A child that another thread is starting has copies of them all, and with them the locks."""
    options: dict[str, Any] = {"storage_path": tmp_path / "s", "glacier_url": str(tmp_path / "g")}
    others = _descriptors()  # Another test of this process may have left a store open.
    with MemoryManager("1 MB", "1 MB", "9 MB", True, **options) as manager, MemoryManager(1, 1, 1):
        manager.store("a", 1, "cold")
        child = subprocess.Popen(["sleep", "60"], pass_fds=_descriptors() - others)
    try:
        with MemoryManager("1 MB", "1 MB", "9 MB", True, **options) as again:
            assert 1 == again["a"]
        locked = {path.read_text() for path in Path(f"/proc/{child.pid}/fdinfo").iterdir()}
        assert not any("FLOCK" in text for text in locked)
    finally:
        child.kill()
        child.wait()


def _descriptors() -> set[int]:
    """Return the open descriptors, without the one that lists the others."""
    return {int(path.name) for path in Path("/proc/self/fd").iterdir() if path.exists()}


@pytest.mark.server
@pytest.mark.parametrize("near_cache", [True, False])
def test_nothing_is_left_of_the_connections_to_nodes(
    plain_nodes: LocalGroup,  # noqa: F811
    tmp_path: Path,
    near_cache: bool,
) -> None:
    """Neither sockets nor the threads that listen, ask and repair; one node is away meanwhile."""

    def use() -> None:
        with DistributedMemoryManager(
            1, 1, 1, nodes=plain_nodes.names, near_cache=near_cache, storage_path=_made(tmp_path)
        ) as manager:
            manager.store_many_distributed({f"k{number}": number for number in range(50)})
            manager.store_distributed("large", np.random.default_rng(1).random(LARGE * 2))
            manager.retrieve_distributed("large")
            assert 50 == len(manager.retrieve_many_distributed(f"k{n}" for n in range(50)))
            assert manager.repair() is not None
            served = manager.dashboard()
            with urllib.request.urlopen(served.url, timeout=60) as page:
                assert page.read()
            manager.get_node_status()

    use()
    with nothing_left():
        use()
    plain_nodes.servers[0].stop()
    with (
        nothing_left(),
        DistributedMemoryManager(
            1, 1, 1, nodes=plain_nodes.names, near_cache=near_cache
        ) as manager,
    ):
        assert 7 == manager.retrieve_distributed("k7")


@pytest.mark.server
def test_nothing_is_left_of_the_connections_to_a_bucket(
    s3: seaweed.SeaweedServer,  # noqa: F811
    s3_url: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Connections that are kept for the next request are closed with the manager."""

    def use() -> None:
        with opened(
            _made(tmp_path), glacier_url=f"{s3_url}/{next(_numbers)}",
            storage_options=s3.storage_options(),
        ) as manager:  # fmt: skip
            read_all(manager)

    use()
    with nothing_left(seconds=30):  # The client closes its connections in threads of its own.
        use()


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_forked_child_lets_go_of_what_it_inherited(tmp_path: Path) -> None:
    """Its copies of the store's descriptors are its own to close; the parent notices nothing."""

    def end(manager: MemoryManager) -> list[str]:
        read_all(manager)
        manager.cleanup()
        return sorted(name for name in holdings() if str(tmp_path) in name)

    for path in (tmp_path / "store", None):
        with opened(path, glacier_memory_enabled=False) as manager:
            read_all(manager)
            # The child cannot close what a thread of the parent uses at this moment.
            assert any("[]" == in_child(partial(end, manager)) for _ in range(10))
            manager.store("later", 1, "cold")
    with MemoryManager(1, 1, 1, storage_path=tmp_path / "store") as again:
        assert 1 == again["later"]


def test_the_memory_of_values_is_given_back(tmp_path: Path) -> None:
    """Memory that only the manager holds is freed with this manager, not with the next one."""
    array = np.arange(LARGE)
    held = weakref.ref(array)
    with nothing_left(), opened(tmp_path) as manager:
        manager.store("mine", array, "hot", copy=False)
        del array
        assert held() is not None
        manager.cleanup()
        assert held() is None


def full(path: Path) -> MemoryManager:
    """Return a manager whose cold tier cannot take what is only in RAM."""
    manager = MemoryManager(
        "90 MB", "90 MB", "20 MB", storage_path=path, migration=False, prefetch="off"
    )
    manager["small"] = 1
    manager["large"] = np.random.default_rng(1).random(4_000_000)
    manager["last"] = 2
    return manager


def test_cleanup_that_finds_no_room_stays_open_and_says_what_to_do(tmp_path: Path) -> None:
    """Nothing is lost by it: what fits is durable, the rest can be read, and deleted."""
    manager = full(tmp_path)
    with pytest.raises(TierFullError, match=r"'large'.*stays open.*cleanup\(flush=False\)"):
        manager.cleanup()
    assert 4_000_000 == len(manager["large"])
    del manager["large"]
    manager.cleanup()
    with MemoryManager(1, 1, 1, storage_path=tmp_path) as again:
        assert {"small": 1, "last": 2} == dict(again)


def test_cleanup_may_give_up_what_is_only_in_ram(tmp_path: Path) -> None:
    """A store that is to be left must be left."""
    with nothing_left():
        manager = full(tmp_path)
        manager.store("cold", 3, "cold")
        manager.cleanup(flush=False)
    with MemoryManager(1, 1, 1, storage_path=tmp_path) as again:
        assert {"cold": 3} == dict(again)
        with pytest.raises(InvalidOptionError, match="flush"):
            again.cleanup(flush=None)  # type: ignore[arg-type]


def test_a_body_that_raises_keeps_its_own_exception(tmp_path: Path) -> None:
    """What went wrong first is what the caller must see; the end's failure is a note on it."""
    with pytest.raises(ZeroDivisionError) as caught, full(tmp_path) as manager:
        1 / 0  # noqa: B018
    assert "cleanup() after it: TierFullError: " in caught.value.__notes__[0]
    manager.cleanup(flush=False)
    with pytest.raises(TierFullError), full(tmp_path / "other") as manager:
        pass
    manager.cleanup(flush=False)
    with pytest.raises(ZeroDivisionError) as caught, opened(tmp_path / "third"):
        1 / 0  # noqa: B018
    assert not hasattr(caught.value, "__notes__")


def test_values_that_can_be_written_are_though_others_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that fail keep none of the others in RAM, and one error names them."""
    write, write_many = DiskBackend.write, DiskBackend.write_many

    def failing(self: DiskBackend, record: Record, frame: Sequence[memoryview]) -> Record:
        if record.key.startswith("broken"):
            raise StorageError(f"{record.key!r} lies on a bad block")
        return write(self, record, frame)

    def failing_many(
        self: DiskBackend, items: Sequence[tuple[Record, Sequence[memoryview]]]
    ) -> list[Record]:
        first = list(takewhile(lambda item: not item[0].key.startswith("broken"), items))
        if not first:
            raise StorageError(f"{items[0][0].key!r} lies on a bad block")
        return write_many(self, first)

    monkeypatch.setattr(DiskBackend, "write", failing)
    monkeypatch.setattr(DiskBackend, "write_many", failing_many)
    manager = MemoryManager(1, 1, 1, storage_path=tmp_path, migration=False, prefetch="off")
    for key in ("broken 1", "a", "broken 2", "b", "c"):
        manager[key] = key
    with nothing_left(), pytest.raises(StorageError, match=r"2 values .*'broken 1', 'broken 2'"):
        manager.cleanup()
    with MemoryManager(1, 1, 1, storage_path=tmp_path) as again:
        assert ["a", "b", "c"] == list(again)


def test_an_archive_that_cannot_be_reached_keeps_nothing_else_open(tmp_path: Path) -> None:
    """Every other part ends, what is in RAM is durable, and the store opens again at once."""
    with nothing_left():
        with (
            pytest.raises(
                OSError,
                match=r"21 small values .*'glacier 0'.* the next manager of the store uploads",
            ),
            opened(
                tmp_path / "store",
                glacier_url=tmp_path / "archive",
                migration=False,
                prefetch="off",
            ) as manager,
        ):
            (tmp_path / "archive").rename(tmp_path / "away")
            (tmp_path / "archive").touch()
            assert manager.dashboard() is not None
        manager.cleanup()
        with MemoryManager(1, 1, 1, storage_path=tmp_path / "store") as again:
            assert [3] == again["hot 3"]
    (tmp_path / "archive").unlink()
    (tmp_path / "away").rename(tmp_path / "archive")
    with MemoryManager(
        1, 1, 1, True, storage_path=tmp_path / "store", glacier_url=tmp_path / "archive"
    ) as again:
        assert [3] == again["glacier 3"]


def test_what_several_parts_could_not_save_is_said_in_one_error(tmp_path: Path) -> None:
    """Whatever failed, in the order of the end."""
    manager = MemoryManager(1, 1, 1, storage_path=tmp_path)
    for number in range(3):
        manager._lifecycle.ends_before(partial(_fail, f"part {number}"), "a part")
    with nothing_left(), pytest.raises(StorageError, match="part 0; part 1; part 2"):
        manager.cleanup()
    manager.cleanup()
    with MemoryManager(1, 1, 1, storage_path=tmp_path):
        pass


def test_an_interrupted_cleanup_goes_on_when_it_is_called_again(tmp_path: Path) -> None:
    """At whatever line of the end an interrupt strikes, the next call ends what is left."""
    end_interrupted(tmp_path, STEP)


@pytest.mark.torture
def test_a_cleanup_interrupted_at_every_line_goes_on(tmp_path: Path) -> None:
    """The same at all of them."""
    end_interrupted(tmp_path, 1)


def end_interrupted(path: Path, step: int) -> None:
    """Interrupt the end of a manager at every `step`-th line, and end it by a second call."""
    with nothing_left():
        for line in range(1, 10_000, step):
            manager = MemoryManager("9 MB", "9 MB", "90 MB", True, storage_path=path)
            manager[f"k{line}"] = line
            manager.store("cold", line, "cold")
            manager.store("archived", line, "glacier")
            try:
                interrupted_at(line, manager.cleanup)
            except KeyboardInterrupt:
                manager.cleanup()
            else:
                break
    with MemoryManager(1, 1, 1, True, storage_path=path) as again:
        assert len(again) == 2 + (line + step - 1) // step
    assert line > 60


def interrupted_at(line: int, action: Callable[[], object]) -> None:
    """Do something, with an interrupt at the `line`-th line that it executes in these modules."""
    modules = ("core/lifecycle.py", "core/finalizer.py", "disk/backend.py", "bucket/backend.py")
    left = count(line - 1, -1)

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.endswith(modules):
            return None
        if event == "line" and next(left) == 0:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(None)


def _fail(what: str) -> None:
    raise StorageError(what)


def _made(base: Path) -> Path:
    home = base / str(next(_numbers))
    home.mkdir()
    return home
