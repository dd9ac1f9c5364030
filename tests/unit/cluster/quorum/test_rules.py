"""The quorum rules for one register."""

from __future__ import annotations

from memories.cluster.quorum.rules import RegisterQuery
from memories.cluster.register_copy import read_copy
from memories.cluster.register_format import RegisterKind, pack_register
from memories.cluster.rendezvous import prefer
from memories.cluster.versions import ABSENT, RegisterVersion
from memories.errors import CorruptDataError, UnavailableError

NODES = [f"node{number}:6379" for number in range(3)]


def query() -> RegisterQuery:
    """Return a query over three nodes, with two copies."""
    return RegisterQuery(b"m:r:key", [prefer(b"m:r:key", NODES, 2)])


def reply(version: RegisterVersion, *, whole: bool = True) -> bytes:
    """Return the reply of a node with that version."""
    return b"".join(pack_register(b"m:r:key", version, RegisterKind.VALUE, [memoryview(b"body")]))


def test_nodes_that_do_not_vote_do_not_make_a_key_absent() -> None:
    """Two nils of which one is from a restarted node count as one."""
    one = query()
    first, second, third = one.nodes
    assert [first, second] == one.next_nodes(hedge=False, among=lambda node: True)
    nothing = read_copy(one.name, None, whole=True)
    one.record(first, nothing, voting=True)
    one.record(second, nothing, voting=False)
    assert 1 == one.missing_answers
    assert isinstance(one.error(), UnavailableError)
    one.record(third, nothing, voting=True)
    assert (0, ABSENT, 0) == (one.missing_answers, one.version, one.missing_copies)


def test_the_newest_version_misses_copies_until_enough_nodes_have_it() -> None:
    """A value on one node may be a write in doubt: it is written back before it is returned."""
    one = query()
    first, second, third = one.nodes
    newer, older = RegisterVersion(2, 1), RegisterVersion(1, 9)
    one.record(first, read_copy(one.name, reply(older), whole=True), voting=True)
    one.record(second, read_copy(one.name, reply(newer), whole=True), voting=True)
    assert (newer, 1, [second], [first]) == (
        one.version,
        one.missing_copies,
        one.holders,
        one.outdated_nodes,
    )
    one.record(third, read_copy(one.name, reply(newer), whole=True), voting=True)
    assert 0 == one.missing_copies


def test_damage_differs_from_absence_and_from_no_answer() -> None:
    """The three need different actions."""
    one = query()
    first, second, _ = one.nodes
    one.record_damage(first)
    one.record_fault(second, "did not answer")
    assert 2 == one.missing_answers
    one.record_damage(second)
    assert isinstance(one.error(), CorruptDataError)


def test_the_error_names_the_action_the_numbers_and_each_node_once() -> None:
    """A failed write does not speak of reading."""
    one = query()
    first, second, third = one.nodes
    one.record(first, read_copy(one.name, None, whole=True), voting=True)
    one.record_fault(second, f"the node {second} did not answer")
    one.record_fault(third, "out of memory")
    reasons = sorted([f"{second} did not answer", f"{third}: out of memory"])
    assert f"cannot be written: 1 node answered, 2 are needed ({'; '.join(reasons)})" in str(
        one.error("written")
    )
    assert "cannot be read: 1 node answered" in str(one.error())
