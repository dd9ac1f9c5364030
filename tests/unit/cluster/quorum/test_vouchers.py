"""Vouchers: by which key, for which address and password, and for how long."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from memories.cluster.client.address import NodeAddress
from memories.cluster.quorum.vouchers import (
    VALID_SECONDS,
    Signatures,
    Vouchers,
    read_vouchers,
)
from memories.core.distributed import voucher_keys
from memories.frames.signing import Keyring
from memories.testing.clock import ManualClock

DAY = 86_400.0
NAMES = ["a:1", "b:2"]
ADDRESS = NodeAddress.parse("redis://:secret@a:1")


def vouchers_of(clock: ManualClock, keyring: Keyring) -> Vouchers:
    """Return the vouchers of a manager that has named `a:1`."""
    return Vouchers(ADDRESS, voucher_keys(keyring), clock.wall)


def stored(vouchers: Vouchers, present: Signatures, named: set[str]) -> Signatures:
    """Return what a node has after a manager has seen what it had."""
    return read_vouchers(vouchers.pack(present, vouchers.missing(present, NAMES, named), NAMES))


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys")


def test_a_voucher_ends_after_thirty_days(keyring: Keyring) -> None:
    """A host that has left the cluster does not get the password for ever."""
    clock = ManualClock()
    first = vouchers_of(clock, keyring)
    made = stored(first, {}, set(NAMES))
    other = vouchers_of(clock, keyring)
    other.learn(made, NAMES)
    assert [True, True] == [other.accept(name) for name in NAMES]
    clock.advance(VALID_SECONDS - 1)
    late = vouchers_of(clock, keyring)
    late.learn(made, NAMES)
    assert late.accept("b:2") and other.accept("b:2")
    clock.advance(2)
    assert not late.accept("b:2") and not other.accept("b:2")
    again = vouchers_of(clock, keyring)
    again.learn(made, NAMES)
    assert not again.accept("b:2")


def test_a_manager_renews_what_its_user_has_vouched_for(keyring: Keyring) -> None:
    """Users who name one node find the others for as long as one of them comes by."""
    clock = ManualClock()
    present = stored(vouchers_of(clock, keyring), {}, set(NAMES))
    for _ in range(20):
        clock.advance(VALID_SECONDS * 0.45)
        present = stored(vouchers_of(clock, keyring), present, {"a:1"})
    seen = vouchers_of(clock, keyring)
    seen.learn(present, NAMES)
    assert seen.accept("b:2")
    assert {} == vouchers_of(clock, keyring).missing(present, NAMES, {"a:1"})


def test_what_has_expired_is_not_renewed_and_not_kept(keyring: Keyring) -> None:
    """Only a caller who names the node brings it back."""
    clock = ManualClock()
    present = stored(vouchers_of(clock, keyring), {}, set(NAMES))
    clock.advance(VALID_SECONDS + 1)
    present = stored(vouchers_of(clock, keyring), present, {"a:1"})
    assert ["a:1"] == [name for name in NAMES if present.get(name)]


def test_a_foreign_key_is_not_vouched_for_in_our_name(keyring: Keyring, tmp_path: Path) -> None:
    """Who trusts us does not trust all others that we trust."""
    clock = ManualClock()
    foreign = Keyring(tmp_path / "other")
    present = stored(vouchers_of(clock, foreign), {}, set(NAMES))
    trusting = Keyring(tmp_path / "keys", trusted=[foreign.export()])
    clock.advance(VALID_SECONDS * 0.9)
    ours = vouchers_of(clock, trusting)
    ours.learn(present, NAMES)
    assert ours.accept("b:2")
    assert ["a:1"] == [*ours.missing(present, NAMES, {"a:1"})]


@pytest.mark.parametrize("until", [0, -1, 2**62, 2**63 - 1, 1_800_000_000 + 400 * 86_400])
def test_a_time_that_no_manager_writes_counts_for_nothing(keyring: Keyring, until: int) -> None:
    """Neither by a changed number, nor by a clock that was years ahead when it was signed."""
    clock = ManualClock()
    (voucher,) = stored(vouchers_of(clock, keyring), {}, {"b:2"})["b:2"].values()
    changed: Signatures = {"b:2": {keyring.own_id(): (until, voucher[1])}}
    seen = vouchers_of(clock, keyring)
    seen.learn(changed, NAMES)
    assert not seen.accept("b:2")
    ahead = ManualClock(wall=1_800_000_000.0 + 400 * DAY)
    seen.learn(stored(vouchers_of(ahead, keyring), {}, {"b:2"}), NAMES)
    assert not seen.accept("b:2")


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"a:1": {"key": b"of the first form"}}),
        b"\x91" * 9999,
    ],
)
def test_what_is_no_voucher_is_none(data: bytes | None) -> None:
    """Damage, noise, and the form that had no end."""
    assert {} == read_vouchers(data)
