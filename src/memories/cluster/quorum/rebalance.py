"""Adds and removes members while reads and writes go on; moves only keys whose nodes change.

During the move there are two member lists, and every read and write needs a quorum of both. So it
does not matter which keys have been moved already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from memories.cluster.incarnation import UP
from memories.cluster.quorum import discovery
from memories.cluster.quorum.members import MemberList, Members
from memories.cluster.reasons import join_reasons
from memories.cluster.repair_walk import RepairWalk
from memories.errors import InvalidOptionError, UnavailableError
from memories.progress import Progress


def change_members(
    members: Members,
    names: Sequence[str],
    repair: Callable[[], RepairWalk],
    progress: Progress | None,
) -> None:
    """Make `names` the members, and return once they have all of their registers and chunks.

    If an earlier change was interrupted, it must have been to the same members; it is finished.

    Raises:
        InvalidOptionError: another change is in progress, or too few members would be left.
        UnavailableError: a node that is needed does not answer. The change stays in progress: call
            again to finish it.
    """
    member_list, target = members.current, tuple(sorted(names))
    if len(target) < member_list.copies:
        raise InvalidOptionError(
            f"{len(target)} nodes cannot hold {member_list.copies} copies; add another node first"
        )
    if member_list.target and member_list.target != target:
        raise InvalidOptionError(
            f"the members are being changed to {', '.join(member_list.target)}; finish that "
            "change first"
        )
    if not member_list.target:
        _publish(members, replace(member_list, epoch=member_list.epoch + 1, target=target))
    report = repair().run(progress)
    if report.silent or report.unreadable:
        reasons = join_reasons(report.silent, otherwise=str(len(report.unreadable)))
        raise UnavailableError(
            f"the move is not complete ({reasons}); nothing is lost; call again when all nodes "
            "answer"
        )
    member_list = members.current
    _publish(members, MemberList(member_list.epoch + 1, member_list.copies, target))
    repair().run()  # Removes copies from nodes where they no longer belong.


def _publish(members: Members, member_list: MemberList) -> None:
    """Store a new list on all members, and apply it.

    Raises:
        UnavailableError: so few stored it that other clients might still use the old one.
    """
    before = members.current
    reasons = discovery.publish(members, member_list, before=before.all_names, new_node_state=UP)
    for nodes in (*before.lists, *member_list.lists):
        if len(reasons.keys() & set(nodes)) >= max(1, member_list.copies):
            raise UnavailableError(
                f"too few nodes have stored the new member list: {join_reasons(reasons)}"
            )
    members.apply(member_list)
