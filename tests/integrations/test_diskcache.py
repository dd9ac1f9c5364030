"""The interface of diskcache: the same calls give the same results, in several processes.

Random calls are made here and on diskcache itself, and compared.
"""

from __future__ import annotations

import collections
import io
import json
import multiprocessing
import os
import pickle
import random
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from memories import diskcache as dc
from memories.cli.app import app
from memories.errors import BusyError, InvalidKeyError, InvalidOptionError, KeyNotFoundError
from memories.integrations.diskcache.importing import import_directory


def run(*arguments: object) -> Result:
    """Run a command of the command line."""
    return CliRunner().invoke(app, [str(one) for one in arguments])


SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[dc.Cache]:
    """Return an empty cache."""
    with dc.Cache(tmp_path / "cache") as made:
        yield made


# No number above 0: there it changes which keys the queue without a name gets.
KEYS = st.sampled_from(
    [0, 0.0, -7, -(2**70), -1.5, "a", "b", "", b"a", None, ("a", 1), (1.0, None)]
)
VALUES = st.one_of(
    st.integers(-5, 5), st.text(max_size=3), st.binary(max_size=3), st.none(), st.floats(0, 1),
    st.lists(st.integers(0, 3), max_size=2),
)  # fmt: skip
TAGS = st.sampled_from([None, "red", 7, b"blue"])
PREFIXES = st.sampled_from([None, "q"])
SIDES = st.sampled_from(["front", "back"])


def result(call: Any) -> Any:
    """Return what a call gives, or the kind of its error."""
    try:
        return call()
    except (KeyError, TypeError) as error:
        return KeyError if isinstance(error, KeyError) else TypeError


def comparison(folder: Path) -> type[RuleBasedStateMachine]:
    """Return a machine that makes each call on both."""
    theirs = pytest.importorskip("diskcache", reason="needs diskcache to compare with")
    pair = dc.Cache(folder / "ours"), theirs.Cache(str(folder / "theirs"), sqlite_synchronous=0)

    class Comparison(RuleBasedStateMachine):
        both = pair
        agreed = True

        def __init__(self) -> None:
            super().__init__()
            for one in self.both:
                one.clear()

        def same(self, name: str, *args: Any, **options: Any) -> None:
            ours, its = (result(lambda c=c: getattr(c, name)(*args, **options)) for c in self.both)
            self.agreed = self.agreed and ours == its
            assert ours == its, (name, args, options)

        @rule(key=KEYS, value=VALUES, tag=TAGS)
        def set(self, key: Any, value: Any, tag: Any) -> None:
            self.same("set", key, value, tag=tag)

        @rule(key=KEYS, value=VALUES, name=st.sampled_from(["__setitem__", "add"]))
        def put(self, key: Any, value: Any, name: str) -> None:
            self.same(name, key, value)

        @rule(key=KEYS, name=st.sampled_from(["__getitem__", "__contains__", "pop", "delete"]))
        def one(self, key: Any, name: str) -> None:
            self.same(name, key)

        @rule(key=KEYS, name=st.sampled_from(["get", "pop"]))
        def with_tag(self, key: Any, name: str) -> None:
            ours, its = (
                getattr(one, name)(key, "absent", expire_time=True, tag=True) for one in self.both
            )
            self.agreed = self.agreed and ours[::2] == its[::2]
            assert ours[::2] == its[::2]
            assert pytest.approx(its[1] or 0, abs=60) == (ours[1] or 0)

        @rule(key=KEYS, delta=st.integers(-3, 3), default=st.sampled_from([0, 5, None]))
        def incr(self, key: Any, delta: int, default: Any) -> None:
            self.same("incr", key, delta, default)

        @rule(value=VALUES, prefix=PREFIXES, side=SIDES)
        def push(self, value: Any, prefix: Any, side: str) -> None:
            self.same("push", value, prefix, side)

        @rule(prefix=PREFIXES, side=SIDES, name=st.sampled_from(["pull", "peek"]))
        def take(self, prefix: Any, side: str, name: str) -> None:
            self.same(name, prefix, side=side)

        @rule(tag=TAGS)
        def evict(self, tag: Any) -> None:
            self.same("evict", tag)

        @rule(last=st.booleans())
        def peekitem(self, last: bool) -> None:
            self.same("peekitem", last)

        @rule(key=KEYS, expire=st.sampled_from([None, 1000.0, 0]))
        def touch(self, key: Any, expire: Any) -> None:
            self.same("touch", key, expire)
            for one in self.both:
                one.get(key)
                if expire == 0:
                    one.expire()

        @rule()
        def clear(self) -> None:
            self.same("clear")

        @rule(fails=st.booleans(), key=KEYS, value=VALUES)
        def transaction(self, fails: bool, key: Any, value: Any) -> None:
            for one in self.both:
                try:
                    with one.transact():
                        one.set(key, value)
                        one.push(value)
                        one.delete("a")
                        if fails:
                            raise ZeroDivisionError
                except ZeroDivisionError:
                    pass

        def check(self) -> None:
            ours, its = self.both
            assert list(ours) == list(its)
            assert list(reversed(ours)) == list(reversed(its))
            assert len(ours) == len(its)

        def teardown(self) -> None:
            if self.agreed:
                self.check()

    return Comparison


def test_random_calls_give_what_diskcache_gives(tmp_path: Path) -> None:
    """Values, tags, order, queues and transactions."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        comparison(tmp_path),
        settings=settings(
            max_examples=20, stateful_step_count=30, derandomize=True, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


@pytest.mark.torture
def test_many_random_calls_give_what_diskcache_gives(tmp_path: Path) -> None:
    """The campaign."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        comparison(tmp_path),
        settings=settings(
            max_examples=1000, stateful_step_count=50, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def count_up(folder: Path, times: int) -> None:
    """Add to a number and to a queue, as a worker."""
    with dc.Cache(folder) as cache:
        for _ in range(times):
            cache.incr("count", retry=True)
            cache.push(os.getpid(), retry=True)


def test_several_processes_change_one_cache(tmp_path: Path) -> None:
    """No change is lost, and each sees those of the others."""
    workers = [SPAWN.Process(target=count_up, args=(tmp_path / "c", 60)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(100)
        assert 0 == worker.exitcode
    with dc.Cache(tmp_path / "c") as cache:
        assert 180 == cache["count"]
        taken = [cache.pull()[1] for _ in range(180)]
        assert {60} == set(collections.Counter(taken).values())
        assert 1 == len(cache)


def hold(folder: Path, held: Any) -> None:
    """Begin a transaction that never ends."""
    cache = dc.Cache(folder)
    with cache.transact():
        cache["half"] = 1
        held.set()
        time.sleep(100)


def test_a_killed_process_frees_the_cache(tmp_path: Path) -> None:
    """Before that, changes of others time out; a `FanoutCache` says that they were not made."""
    held = SPAWN.Event()
    holder = SPAWN.Process(target=hold, args=(tmp_path / "c", held))
    holder.start()
    assert held.wait(60)
    try:
        with dc.Cache(tmp_path / "c", timeout=0.05) as cache:
            with pytest.raises(dc.Timeout, match="another process"):
                cache["a"] = 1 if cache.set("a", 1) else 2
            assert 1 == cache["half"], "reads do not wait"
        with dc.FanoutCache(tmp_path / "c", timeout=0.05) as fanout:
            assert not fanout.set("a", 1) and not fanout.delete("half")
            assert fanout.incr("n") is None and fanout.pop("half", 5) == 5
    finally:
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        holder.join(30)
    with dc.Cache(tmp_path / "c") as cache:
        assert cache.set("a", 1) and 1 == cache["a"]
        assert [] == cache.check()


def test_a_child_uses_the_cache_of_its_parent(cache: dc.Cache) -> None:
    """Its lock is its own."""
    cache["a"] = 1
    with cache.transact():  # The parent holds the lock while the child begins.
        child = os.fork()
        if not child:
            try:
                cache._items._depth = 0  # What `with` would do in a child of its own.
                os._exit(0 if cache.get("a") == 1 else 1)
            finally:
                os._exit(2)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    child = os.fork()
    if not child:
        try:
            cache["b"] = 2
            os._exit(0)
        finally:
            os._exit(2)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert 2 == cache["b"]


def test_the_size_is_a_limit(tmp_path: Path) -> None:
    """At every moment; the policy is the store's own."""
    with dc.Cache(tmp_path / "c", size_limit=20_000_000) as cache:
        for number in range(120):
            cache[number] = np.random.default_rng(number).bytes(500_000)
            assert cache.volume() <= 20_000_000
        assert 25 < len(cache) < 42
        assert 119 in cache and 0 not in cache
        cache.reset("size_limit", 10_000_000)
        assert cache.volume() <= 10_000_000
    with dc.Cache(tmp_path / "c") as cache:
        assert 10_000_000 == cache.size_limit


def test_values_expire(cache: dc.Cache) -> None:
    """By the clock of the store."""
    cache.set("a", 1, expire=0.05, tag="t")
    cache.set("b", 2, expire=100)
    value, ends = cache.get("b", expire_time=True)
    assert 2 == value and 90 < ends - time.time() <= 100
    time.sleep(0.1)
    assert "a" not in cache and cache.get("a") is None and ["b"] == list(cache)
    assert 6 == cache.incr("a", 6)


def test_files_are_stored_and_read(cache: dc.Cache) -> None:
    """Small values come as they are, as in diskcache."""
    cache.set("file", io.BytesIO(b"x" * 100_000), read=True)
    assert b"x" * 100_000 == cache["file"]
    with cache.get("file", read=True) as file:
        assert b"xx" == file.read(2)
    with cache.read("file") as file:
        assert 100_000 == len(file.read())
    cache["small"] = b"y"
    assert b"y" == cache.get("small", read=True)
    with cache.read("small") as file:
        assert b"y" == file.read()
    with pytest.raises(KeyNotFoundError, match="absent"):
        cache.read("absent")


def test_functions_are_kept(cache: dc.Cache) -> None:
    """By their arguments, arrays too; `__cache_key__` names a call."""
    calls: list[Any] = []

    @cache.memoize(expire=100, tag="f", ignore={"log"})
    def double(x: Any, log: Any = None) -> Any:
        calls.append(x)
        return x * 2

    assert 8 == double(np.arange(4), log=1).sum() - 4 == double(np.arange(4), log=2).sum() - 4
    assert 1 == len(calls)
    del cache[double.__cache_key__(np.arange(4))]  # type: ignore[attr-defined]
    double(np.arange(4))
    assert 2 == len(calls)
    assert 1 == cache.evict("f")
    with pytest.raises(InvalidOptionError, match="parentheses"):
        cache.memoize(double)  # type: ignore[arg-type]


def test_a_result_is_made_anew_before_it_expires(cache: dc.Cache) -> None:
    """By one thread, while the others are answered."""
    made = threading.Semaphore(0)

    @dc.memoize_stampede(cache, expire=100, beta=1e9)
    def slow(x: int) -> int:
        time.sleep(0.01)
        made.release()
        return x

    assert 3 == slow(3) == slow(3)
    assert made.acquire(timeout=10) and made.acquire(timeout=10)


def test_locks(cache: dc.Cache) -> None:
    """One of several threads has them."""
    running, most = 0, 0
    guards = [dc.Lock(cache, "l"), dc.RLock(cache, "r"), dc.BoundedSemaphore(cache, "s", 1)]

    def work(guard: Any) -> None:
        nonlocal running, most
        for _ in range(5):
            with guard:
                running += 1
                most = max(most, running)
                time.sleep(0.001)
                running -= 1

    for guard in guards:
        threads = [threading.Thread(target=work, args=(guard,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 1 == most
    with guards[1], guards[1]:
        pass
    with pytest.raises(BusyError, match="not held"):
        guards[1].release()
    average = dc.Averager(cache, "mean")
    for number in range(5):
        average.add(number)
    assert 2 == average.pop() and average.get() is None


def test_calls_are_throttled(cache: dc.Cache) -> None:
    """By a clock by hand: three at once, then one in each third of a second."""
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    @dc.throttle(cache, 3, 1.0, time_func=lambda: now, sleep_func=sleep)
    def ask() -> float:
        return now

    assert [0, 0, 0] == [ask() for _ in range(3)]
    assert pytest.approx([1 / 3, 2 / 3, 1]) == [ask() for _ in range(3)]


def test_an_index_is_an_ordered_mapping(tmp_path: Path) -> None:
    """As `OrderedDict`, by random calls."""
    index, model = dc.Index(tmp_path / "i"), collections.OrderedDict[str, int]()
    chance = random.Random(1)
    for step in range(200):
        key = chance.choice("abcdefgh")
        match chance.randrange(5):
            case 0 | 1:
                index[key] = model[key] = step
            case 2:
                assert index.pop(key, None) == model.pop(key, None)
            case 3:
                assert index.setdefault(key, step) == model.setdefault(key, step)
            case 4 if model:
                last = chance.random() < 0.5
                assert index.popitem(last) == model.popitem(last)
    assert index == model and list(index.items()) == list(model.items())
    assert list(reversed(index)) == list(reversed(model))
    assert pickle.loads(pickle.dumps(index)) == model
    with pytest.raises(KeyNotFoundError):
        index.pop("zz")
    index.clear()
    with pytest.raises(KeyNotFoundError, match="empty"):
        index.popitem()


def test_a_deque_is_a_deque(tmp_path: Path) -> None:
    """As that of `collections`, by random calls."""
    ours, model = dc.Deque(directory=tmp_path / "d", maxlen=6), collections.deque[int](maxlen=6)
    chance = random.Random(2)
    for step in range(200):
        match chance.randrange(7):
            case 0 | 1:
                ours.append(step), model.append(step)
            case 2:
                ours.appendleft(step), model.appendleft(step)
            case 3 if model:
                assert ours.pop() == model.pop()
            case 4 if model:
                assert ours.popleft() == model.popleft()
            case 5 if model:
                place = chance.randrange(-len(model), len(model))
                assert ours[place] == model[place]
                del ours[place], model[place]
            case 6:
                ours.rotate(step % 5 - 2), model.rotate(step % 5 - 2)
        assert list(ours) == list(model)
    ours.extend([1, 2, 1]), model.extend([1, 2, 1])
    ours.reverse(), model.reverse()
    assert ours == model and 2 <= ours.count(1) == model.count(1)
    ours.remove(1), model.remove(1)
    assert list(pickle.loads(pickle.dumps(ours))) == list(model)
    assert ours.peek() == model[-1] and ours.peekleft() == model[0]
    with pytest.raises(IndexError):
        ours[99]
    with pytest.raises(ValueError, match="not in the deque"):
        ours.remove(10**9)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (dc.Cache, {"directory": 7}, "directory=7 must be a path"),
        (dc.Cache, {"directory": b"x"}, "must be a path"),
        (dc.Cache, {"timeout": "x"}, "timeout='x' must be a number of seconds"),
        (dc.Cache, {"timeout": -1}, "timeout=-1 must be"),
        (dc.Cache, {"eviction_policy": []}, "must be one of none"),
        (dc.Cache, {"size_limit": float("nan")}, "size_limit=nan must be"),
        (dc.Cache, {"size_limit": True}, "size_limit=True must be"),
        (dc.Cache, {"cull_limit": "x"}, "cull_limit='x' must be a number"),
        (dc.Cache, {"statistics": {}}, "statistics={} must be a number"),
        (dc.Cache, {"sqlite_mmap_size": [1]}, "must be a number, or a text"),
        (dc.FanoutCache, {"shards": "x"}, "shards='x' must be a number"),
        (dc.FanoutCache, {"shards": 0}, "shards=0 must be a number, 1 or more"),
        (dc.Deque, {"iterable": 7}, "iterable=7 must be a list"),
        (dc.Deque, {"maxlen": "x"}, "maxlen='x' must be a number"),
        (dc.Deque, {"maxlen": -1}, "maxlen=-1 must be a number"),
        (dc.Index, {"directory": 7}, "directory=7 must be a path"),
    ],
)
def test_wrong_options_are_refused(
    tmp_path: Path, make: Any, options: dict[str, Any], message: str
) -> None:
    """Where they are given, with an error of ours, and nothing is left open."""
    with pytest.raises(InvalidOptionError, match=re.escape(message)):
        make(**{"directory": tmp_path / "c", **options})
    with dc.Cache(tmp_path / "c") as cache:
        assert cache.set("k", 1)


def test_what_it_refuses(tmp_path: Path) -> None:
    """In words that say what to do."""
    with pytest.raises(InvalidOptionError, match="register a codec"):
        dc.Cache(tmp_path / "a", disk=object)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="least-recently-used"):
        dc.Cache(tmp_path / "a", eviction_policy="fastest")
    with pytest.raises(InvalidOptionError, match="size_limit"):
        dc.Cache(tmp_path / "a", size_limit="1 GB")
    with dc.Cache(tmp_path / "a") as cache:
        with pytest.raises(InvalidKeyError, match="tuple"):
            cache[object()] = 1
        with pytest.raises(InvalidOptionError, match="must be one of"):
            cache.reset("speed", 1)
        with pytest.raises(InvalidOptionError, match="front"):
            cache.push(1, side="left")
        with pytest.raises(AttributeError):
            _ = cache.speed
        cache.close()
        cache["opened again"] = 1
    fanout = dc.FanoutCache(tmp_path / "f")
    with pytest.raises(InvalidOptionError, match="folders"):
        fanout.cache("../a")
    fanout.cache("x")["k"] = 1
    fanout.deque("y").append(2)
    fanout.index("z")["k"] = 3
    assert (1, 2, 3) == (fanout.cache("x")["k"], fanout.deque("y")[0], fanout.index("z")["k"])


def test_a_further_interrupt_lets_a_transaction_be_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C twice: the second one comes while the items get their earlier values."""
    interrupts = [KeyboardInterrupt, KeyboardInterrupt]
    with dc.Cache(tmp_path / "cache") as cache:
        cache["a"], cache["b"] = 1, 1
        write = cache._items.write

        def interrupted(*args: Any) -> None:
            write(*args)
            if interrupts:
                raise interrupts.pop()

        with pytest.raises(ZeroDivisionError), cache.transact():
            cache["a"], cache["b"] = 2, 2
            monkeypatch.setattr(cache._items, "write", interrupted)
            1 / 0  # noqa: B018
        assert (1, 1) == (cache["a"], cache["b"])
        assert [] == interrupts


def test_an_existing_directory_is_brought_over(tmp_path: Path) -> None:
    """Plain values with order, tags and times; pickles only for who trusts them; again at will."""
    theirs = pytest.importorskip("diskcache", reason="needs diskcache to make a directory")
    with theirs.Cache(str(tmp_path / "old"), size_limit=50_000_000) as old:
        old[3], old["text"], old[b"blob"] = 1.5, "ü" * 50_000, b"x" * 100_000
        old.set("tagged", 1, expire=1000, tag="red")
        old["pickle"], old["a", 1] = {"x": [1]}, "under a tuple"
        old.set("expired", 1, expire=0.001)  # The last one: a write removes what has expired.
        time.sleep(0.01)
    with pytest.raises(InvalidOptionError, match="memories import diskcache"):
        dc.Cache(tmp_path / "old")
    first = run("import", "diskcache", tmp_path / "old", tmp_path / "new", "--json")
    assert 0 == first.exit_code, first.output
    report = json.loads(first.stdout)
    assert (4, 0, 1, 2) == tuple(report[n] for n in ("imported", "present", "expired", "pickles"))
    with dc.Cache(tmp_path / "new") as new:
        assert [3, "text", b"blob", "tagged"] == list(new)
        assert "ü" * 50_000 == new["text"] and b"x" * 100_000 == new[b"blob"]
        _, ends, tag = new.get("tagged", expire_time=True, tag=True)
        assert "red" == tag and 900 < ends - time.time() <= 1000
        assert 50_000_000 == new.size_limit
        new["text"] = "newer"
    words = run("import", "diskcache", tmp_path / "old", tmp_path / "new", "--trust-pickles")
    assert 0 == words.exit_code and "imported  2" in words.stdout
    with dc.Cache(tmp_path / "new") as new:
        assert {"x": [1]} == new["pickle"] and "under a tuple" == new["a", 1]
        assert "newer" == new["text"]


def test_queues_are_brought_over_as_queues(tmp_path: Path) -> None:
    """What `push` has stored can be pulled, also after the import was killed; a deque is one."""
    theirs = pytest.importorskip("diskcache", reason="needs diskcache to make a directory")
    with theirs.Cache(str(tmp_path / "old")) as old:
        for value in ("a", "b", "c"):
            old.push(value, prefix="jobs-1")
        old.push("first", prefix="jobs-1", side="front")
        old[7], old["name-000000000000007"] = "a number", "a text"
    theirs.Deque([1, 2, 3], str(tmp_path / "deque")).appendleft(0)
    source, target = tmp_path / "old", dc.Cache(tmp_path / "new")
    with target, target.transact():
        import_directory(source, target)
        target._items.set_own({})  # As after a kill before the ends of the queue were kept.
        assert 6 == import_directory(source, target).present
        assert ("jobs-1-499999999999999", "first") == target.pull(prefix="jobs-1")
        assert ("jobs-1-500000000000002", "c") == target.pull(prefix="jobs-1", side="back")
        assert "jobs-1-500000000000002" == target.push("d", prefix="jobs-1")
        assert ["a", "b", "d"] == [target.pull(prefix="jobs-1")[1] for _ in range(3)]
        assert (None, None) == target.pull(prefix="jobs-1") == target.pull(prefix="name")
        assert (None, None) == target.pull()
        assert "a number" == target[7]
    run("import", "diskcache", tmp_path / "deque", tmp_path / "new-deque")
    deque = dc.Deque(directory=tmp_path / "new-deque")
    deque.append(4)
    assert [0, 1, 2, 3, 4] == list(deque)
    assert (4, 0) == (deque.pop(), deque.popleft())


def test_a_planted_directory_gives_errors_and_nothing_else(tmp_path: Path) -> None:
    """Files outside of it, pickles that run code, unknown modes, no table at all."""
    theirs = pytest.importorskip("diskcache", reason="needs diskcache to make a directory")
    (tmp_path / "secret").write_bytes(b"secret")
    with theirs.Cache(str(tmp_path / "old")) as old:
        for name in ("escape", "link", "mode", "good"):
            old[name] = b"x" * 50_000
    database = sqlite3.connect(tmp_path / "old" / "cache.db")
    link = database.execute("SELECT filename FROM Cache WHERE key = 'link'").fetchone()[0]
    (tmp_path / "old" / link).unlink()
    (tmp_path / "old" / link).symlink_to(tmp_path / "secret")
    database.execute("UPDATE Cache SET filename = '../secret' WHERE key = 'escape'")
    database.execute("UPDATE Cache SET mode = 9 WHERE key = 'mode'")
    code = b"cos\nmkdir\n(V" + str(tmp_path / "ran").encode() + b"\ntR."
    database.execute(
        "INSERT INTO Cache (key, raw, store_time, access_time, mode, value) VALUES (?,1,0,0,4,?)",
        ("code", code),
    )
    database.commit()
    database.close()
    found = run("import", "diskcache", tmp_path / "old", tmp_path / "new")
    assert 4 == found.exit_code
    assert "imported  1" in found.stdout and 3 == found.stdout.count("failed")
    assert not (tmp_path / "ran").exists()
    with dc.Cache(tmp_path / "new") as new:
        assert ["good"] == list(new)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "cache.db").write_bytes(b"not a table" * 100)
    assert 0 != run("import", "diskcache", tmp_path / "other", tmp_path / "n2").exit_code
    (tmp_path / "other" / "cache.db").unlink()
    assert 0 != run("import", "diskcache", tmp_path / "other", tmp_path / "n2").exit_code


def test_arguments_of_wrong_types_are_named(cache: dc.Cache, tmp_path: Path) -> None:
    """They change nothing."""
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("expire='x'", lambda: cache.set("a", 1, expire="x")),  # type: ignore[arg-type]
        ("expire='x'", lambda: cache.push(1, expire="x")),  # type: ignore[arg-type]
        ("must be a file, not 3", lambda: cache.set("a", 3, read=True)),
        ("maxlen='x'", lambda: dc.Deque(maxlen="x", directory=tmp_path)),  # type: ignore[arg-type]
    ]
    for message, call in calls:
        with pytest.raises(InvalidOptionError, match=message):
            call()
    assert 0 == len(cache)
