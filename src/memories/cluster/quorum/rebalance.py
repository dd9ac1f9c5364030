"""Adds and removes members while reads and writes go on; moves only keys whose nodes change.

During the move there are two member lists, and every read and write needs a quorum of both. So it
does not matter which keys have been moved already, and a move can be taken back at any time. Nodes
that fail meanwhile, or are dead for good, do not stop it while each list has fewer of them than
there are copies: every key is then on a node that answers, and is copied to enough others.

If that many are dead for good, some values are lost with them. The change names those nodes as
lost: of the older list every other node of a key must answer then, because any may be the only one
that is left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec
from msgspec.structs import replace

from memories.cluster.quorum.admission import publish, survey
from memories.cluster.quorum.discovery import refresh
from memories.cluster.quorum.members import MemberList, Members
from memories.cluster.reasons import join_reasons
from memories.cluster.repair_report import RepairReport
from memories.cluster.repair_walk import RepairWalk
from memories.errors import InvalidOptionError, UnavailableError
from memories.progress import Progress

NONE_SILENT: Mapping[str, str] = {}


def change_members(
    members: Members,
    names: Collection[str],
    repair: Callable[[], RepairWalk],
    progress: Progress | None,
    *,
    lost: Collection[str] = (),
) -> None:
    """Make `names` the members, and return once they have all of their registers and chunks.

    If an earlier change was interrupted, it must have been to the same members: it is finished; or
    `names` must be the members before it: it is taken back. Nodes that are `lost` are not waited
    for, and what only they had is given up; this replaces an interrupted change.

    Raises:
        InvalidOptionError: another change is in progress, too few members would be left, or a node
            that is named as lost has its values.
        UnavailableError: too many nodes do not answer. The change stays in progress: call again to
            finish it.
    """
    member_list, target = members.current, tuple(sorted(names))
    if len(target) < member_list.copies:
        raise InvalidOptionError(
            f"{len(target)} nodes cannot hold {member_list.copies} copies; add another node first"
        )
    if member_list.target and not lost and set(target) == set(member_list.nodes):
        abandon_change(members, repair)
        return
    given_up = frozenset(lost).intersection(member_list.nodes)
    continued = member_list.target == target and given_up <= member_list.lost_names
    if member_list.target and not continued and not lost:
        raise InvalidOptionError(
            f"the members are being changed to {', '.join(member_list.target)}; finish that "
            "change by repair(), or take it back by abandon_change()"
        )
    if not continued:
        _begin(members, target, given_up | member_list.lost_names)
    _finish(members, repair, progress)


def finish_change(
    members: Members, repair: Callable[[], RepairWalk], progress: Progress | None
) -> None:
    """Finish a change that was interrupted, if there is one; raises like `change_members`."""
    if members.current.target:
        _finish(members, repair, progress)


def abandon_change(members: Members, repair: Callable[[], RepairWalk]) -> None:
    """Take back a change that was interrupted: the members are those before it.

    Raises:
        InvalidOptionError: no change is in progress, or it gives nodes up as lost.
        UnavailableError: too few nodes answer.
    """
    member_list = members.current
    if not member_list.target:
        raise InvalidOptionError("no change of members is in progress")
    if member_list.lost_names:
        raise InvalidOptionError(
            f"the change gives up {', '.join(sorted(member_list.lost_names))}, and values have "
            "been stored without them since: it can only be finished, by repair()"
        )
    _publish(members, MemberList(member_list.epoch + 1, member_list.copies, member_list.nodes))
    repair().run()


def _begin(members: Members, target: tuple[str, ...], lost: frozenset[str]) -> None:
    """Store the second list beside the first; what an earlier change had begun is dropped."""
    member_list = members.current
    start = replace(member_list, target=())
    if lost:
        start = replace(start, lost=tuple(sorted(lost)))
        _require_lost(members, lost)
    if missing := _missing(members, start):
        hint = (
            "if they are dead for good too, name them in the same call"
            if lost
            else "call again when more nodes are up to date, or give up nodes that are dead for "
            "good by remove_node([...], lost=True) or replace_node([...], [...], lost=True)"
        )
        raise UnavailableError(
            f"the members cannot be changed now: {join_reasons(missing)}; nothing has changed; "
            + hint
        )
    _publish(members, replace(start, epoch=member_list.epoch + 1, target=target))


def _finish(members: Members, repair: Callable[[], RepairWalk], progress: Progress | None) -> None:
    """Copy what the second list lacks, and drop the first."""
    member_list = members.current
    target = member_list.target
    report = repair().run(progress)
    silent = _missing(members, member_list, report.silent) if report.silent else {}
    if silent or not _is_complete(report, member_list):
        reasons = join_reasons(report.silent, otherwise=str(len(report.unreadable)))
        raise UnavailableError(
            f"the move is not complete ({reasons}); nothing is lost; call again when more nodes "
            "answer"
        )
    refresh(members)
    member_list = members.current
    if member_list.target != target:
        if member_list.lists == (target,):
            return  # Another manager has finished the same change.
        raise InvalidOptionError("another manager has taken this change back; nothing is lost")
    _publish(members, MemberList(member_list.epoch + 1, member_list.copies, target))
    repair().run()  # Removes copies from nodes where they no longer belong.


def _is_complete(report: RepairReport, member_list: MemberList) -> bool:
    """Return whether all that can be read is on enough nodes of the second list."""
    return not report.short and (bool(member_list.lost_names) or not report.unreadable)


def _missing(
    members: Members, member_list: MemberList, silent: Mapping[str, str] = NONE_SILENT
) -> dict[str, str]:
    """Return the nodes that lack values, with reasons, where a value may be only on those.

    These are `silent` ones, those that do not answer, and those that restarted and are not up to
    date yet. Fewer of them in a list than there are copies are no harm, and none is returned.
    """
    nodes = [members.nodes[name] for name in member_list.all_names]
    discovered, reasons = survey(members, nodes, "a change of members")
    reasons = {**reasons, **silent}
    for one in discovered:
        if not one.is_up_to_date(member_list.epoch):
            reasons.setdefault(one.node.name, "it is not up to date")
    return reasons if member_list.needs(reasons) else {}


def _require_lost(members: Members, names: Collection[str]) -> None:
    """Raise `InvalidOptionError` if one of the nodes has all of its values."""
    nodes = [members.nodes[name] for name in names]
    discovered, _ = survey(members, nodes, "a change of members")
    for one in discovered:
        if one.is_up_to_date(members.epoch):
            raise InvalidOptionError(
                f"{one.node.name} answers and has its values: remove it without lost=True"
            )


def _publish(members: Members, member_list: MemberList) -> None:
    """Store a new list on all members, and apply it. Lost nodes that answer get it as well.

    Raises:
        UnavailableError: so few stored it that other clients might still use the old one, or a new
            member is not ready.
    """
    before = members.current
    if member_list.lost is not msgspec.UNSET:
        before = replace(before, lost=member_list.lost)
    names = (*before.all_names, *before.lost_names)
    reasons = publish(members, member_list, before=names)
    for one in (before, member_list):
        if one.needs(reasons.keys() - before.lost_names):
            raise UnavailableError(
                f"too few nodes have stored the new member list: {join_reasons(reasons)}"
            )
    members.apply(member_list)
