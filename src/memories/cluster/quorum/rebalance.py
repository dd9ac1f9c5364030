"""Adds and removes members while reads and writes go on; moves only keys whose nodes change.

During the move there are two member lists, and every read and write needs a quorum of both. So it
does not matter which keys have been moved already, and a move can be taken back at any time. Nodes
that fail meanwhile, or are dead for good, do not stop it while each list has fewer of them than
there are copies: every key is then on a node that answers, and is copied to enough others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from memories.cluster.incarnation import UP
from memories.cluster.quorum import discovery
from memories.cluster.quorum.members import MemberList, Members
from memories.cluster.reasons import join_reasons
from memories.cluster.repair_walk import RepairWalk
from memories.errors import InvalidOptionError, UnavailableError
from memories.progress import Progress

NONE_SILENT: Mapping[str, str] = {}


def change_members(
    members: Members,
    names: Sequence[str],
    repair: Callable[[], RepairWalk],
    progress: Progress | None,
) -> None:
    """Make `names` the members, and return once they have all of their registers and chunks.

    If an earlier change was interrupted, it must have been to the same members: it is finished; or
    `names` must be the members before it: it is taken back.

    Raises:
        InvalidOptionError: another change is in progress, or too few members would be left.
        UnavailableError: too many nodes do not answer. The change stays in progress: call again to
            finish it.
    """
    member_list, target = members.current, tuple(sorted(names))
    if len(target) < member_list.copies:
        raise InvalidOptionError(
            f"{len(target)} nodes cannot hold {member_list.copies} copies; add another node first"
        )
    if member_list.target and set(target) == set(member_list.nodes):
        _publish(members, MemberList(member_list.epoch + 1, member_list.copies, target))
        repair().run()
        return
    if member_list.target and member_list.target != target:
        raise InvalidOptionError(
            f"the members are being changed to {', '.join(member_list.target)}; finish that "
            "change first, or take it back: remove what is being added, add what is being removed"
        )
    if not member_list.target:
        if missing := _missing(members):
            raise UnavailableError(
                f"the members cannot be changed now: {join_reasons(missing)}; nothing has changed; "
                "call again when more nodes are up to date"
            )
        _publish(members, replace(member_list, epoch=member_list.epoch + 1, target=target))
    report = repair().run(progress)
    if report.unreadable or (report.silent and _missing(members, report.silent)):
        reasons = join_reasons(report.silent, otherwise=str(len(report.unreadable)))
        raise UnavailableError(
            f"the move is not complete ({reasons}); nothing is lost; call again when more nodes "
            "answer"
        )
    discovery.refresh(members)
    member_list = members.current
    if member_list.target != target:
        if member_list.lists == (target,):
            return  # Another manager has finished the same change.
        raise InvalidOptionError("another manager has taken this change back; nothing is lost")
    _publish(members, MemberList(member_list.epoch + 1, member_list.copies, target))
    repair().run()  # Removes copies from nodes where they no longer belong.


def _missing(members: Members, silent: Mapping[str, str] = NONE_SILENT) -> dict[str, str]:
    """Return the nodes that lack values, with reasons, where a value may be only on those.

    These are `silent` ones, those that do not answer, and those that restarted and are not up to
    date yet. Fewer of them in a list than there are copies are no harm, and none is returned.
    """
    discovered, reasons = discovery.discover(members, list(members.all_members()))
    reasons = {**reasons, **silent}
    for one in discovered:
        if not one.is_up_to_date(members.epoch):
            reasons.setdefault(one.node.name, "it is not up to date")
    counts = [len(reasons.keys() & set(nodes)) for nodes in members.current.lists]
    return reasons if max(counts) >= max(1, members.current.copies) else {}


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
