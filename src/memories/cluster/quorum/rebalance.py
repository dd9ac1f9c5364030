"""Adds and removes members while everything stays answerable; moves only what changes its place.

Not the repair of faults. The one idea: for the time of the move there are two lists of members and
every read and write satisfies both, so that it does not matter how far the move has come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from memories.cluster.incarnation import UP
from memories.cluster.quorum import discovery
from memories.cluster.quorum.members import MemberList, Members
from memories.cluster.repair_walk import RepairWalk
from memories.errors import InvalidOptionError, UnavailableError
from memories.progress import Progress


def change_members(
    members: Members,
    names: Sequence[str],
    repair: Callable[[], RepairWalk],
    progress: Progress | None,
) -> None:
    """Make `names` the members, and return once they hold what is theirs.

    An earlier change that was broken off must have been to the same members; it is finished.

    Raises:
        InvalidOptionError: another change is under way, or too few members would be left.
        UnavailableError: a node that is needed does not answer. The change stays under way: call
            again, or let `repair()` be followed by another call.
    """
    member_list, target = members.current, tuple(sorted(names))
    if len(target) < member_list.copies:
        raise InvalidOptionError(
            f"{len(target)} nodes cannot hold {member_list.copies} copies; add another node first"
        )
    if member_list.target and member_list.target != target:
        raise InvalidOptionError(
            f"the members are being changed to {', '.join(member_list.target)}; finish that first"
        )
    if not member_list.target:
        _publish(members, replace(member_list, epoch=member_list.epoch + 1, target=target))
    report = repair().run(progress)
    if report.silent or report.unreadable:
        said = "; ".join(f"{name}: {reason}" for name, reason in report.silent.items())
        raise UnavailableError(
            f"the move is not complete ({said or len(report.unreadable)}); nothing is lost. Call "
            "again when all nodes answer"
        )
    member_list = members.current
    _publish(members, MemberList(member_list.epoch + 1, member_list.copies, target))
    repair().run()  # Removes the copies that are nobody's now.


def _publish(members: Members, member_list: MemberList) -> None:
    """Let all members know of a new list, and take it.

    Raises:
        UnavailableError: so few know that others might still read and write by the old one.
    """
    before = members.current
    reasons = discovery.publish(members, member_list, before=before.all_names, new_node_state=UP)
    for nodes in (*before.lists, *member_list.lists):
        if len(reasons.keys() & set(nodes)) >= max(1, member_list.copies):
            said = "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items()))
            raise UnavailableError(f"too few nodes took the new list of members: {said}")
    members.apply(member_list)
