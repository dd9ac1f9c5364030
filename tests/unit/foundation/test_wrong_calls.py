"""A wrong call says which class and method it was, and what was probably meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memories import (
    DistributedMemoryManager,
    InvalidOptionTypeError,
    MemoryManager,
    MigrationSettings,
    Rule,
)

manager: Any  # The tests make wrong calls, which a type checker would refuse.
Make: Any = MemoryManager

Nodes: Any = DistributedMemoryManager
Settings: Any = MigrationSettings
MakeRule: Any = Rule

CALLS: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: Make(hot_size=1),
        "MemoryManager() got an unexpected option 'hot_size'; did you mean 'hot_memory_size'?",
    ),
    (lambda: Make(storage_option={}), "did you mean 'storage_options'?"),
    (lambda: Make(1, 2, 3, True, "/tmp/x"), "MemoryManager(): too many positional arguments"),
    (lambda: Make(xyz=1), "'xyz'; its options are cold_memory_size, compression, "),
    (lambda: Nodes(), "DistributedMemoryManager(): missing a required argument: 'nodes'"),
    (lambda: Nodes(nodes=["a:1"], replication=1), "did you mean 'replication_factor'?"),
    (lambda: Nodes(nodes=["a:1"], write_trough=1), "did you mean 'write_through'?"),
    (
        lambda: Settings(interval=1),
        "MigrationSettings() got an unexpected option 'interval'; did you mean 'interval_seconds'?",
    ),
    (lambda: Settings(high_watermark="0.9"), "high_watermark='0.9' must be a number"),
    (lambda: Settings(promote=1), "promote=1 must be True or False"),
    (
        lambda: MakeRule(prefx="a"),
        "Rule() got an unexpected option 'prefx'; did you mean 'prefix'?",
    ),
    (
        lambda: manager.store_many({}, teir="hot"),
        "MemoryManager.store_many() got an unexpected option 'teir'; did you mean 'tier'?",
    ),
    (
        lambda: manager.cache(tll=3),
        "MemoryManager.cache() got an unexpected option 'tll'; did you mean 'ttl'?",
    ),
    (
        lambda: manager.get_tier(),
        "MemoryManager.get_tier(): missing 1 required positional argument: 'key'",
    ),
    (
        lambda: manager.get_tier("a", "b"),
        "MemoryManager.get_tier(): takes 2 positional arguments but 3 were given",
    ),
    (lambda: manager.create_snapshot("a", bas="b"), "did you mean 'base'?"),
    (lambda: manager.dashboard(prot=3), "did you mean 'port'?"),
]


@pytest.fixture(autouse=True)
def _manager() -> Any:
    global manager
    with MemoryManager("1 MB", "1 MB", "10 MB") as manager:
        yield


@pytest.mark.parametrize(("call", "message"), CALLS, ids=range(len(CALLS)))
def test_a_wrong_call_is_explained(call: Callable[[], Any], message: str) -> None:
    """It is a TypeError, as Python's own error, and an error of this package."""
    with pytest.raises(InvalidOptionTypeError) as caught:
        call()
    assert message in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


def test_a_type_error_of_the_users_own_function_passes_through() -> None:
    """Only the call itself is explained, not what happens within."""

    def failing(value: int) -> int:
        return value + "1"  # type: ignore[operator]

    manager.store("a", 1)
    with pytest.raises(TypeError, match="unsupported operand") as caught:
        manager.modify("a", failing)
    assert type(caught.value) is TypeError


@pytest.mark.parametrize("call", [lambda: manager.store("a", 1, teir="hot"),
                                  lambda: manager.retrieve("a", defualt=1)])  # fmt: skip
def test_the_errors_of_short_ways_name_the_method(call: Callable[[], Any]) -> None:
    """They are Python's own, or the compiler's, so that the calls stay as fast as they are."""
    with pytest.raises(TypeError, match=r"(store|retrieve)\(\)|\b(teir|defualt)\b") as caught:
        call()
    assert "ShortWays" not in str(caught.value)
