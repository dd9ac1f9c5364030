"""Gives nodes the member list: those of a change, and later any that a change did not reach.

All managers do this, whichever sees it first. A node gets a list only in the place of the older one
that it was seen with, and its incarnation of that list in the same step. So it never returns to an
older list, and what it becomes is decided by `next_incarnation` alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from memories.cluster.client import scripts
from memories.cluster.client.fanout import ask_nodes
from memories.cluster.client.node import Node
from memories.cluster.client.resp import Command
from memories.cluster.incarnation import INCARNATION_KEY, UP, Incarnation, next_incarnation
from memories.cluster.quorum.discovery import (
    DISCOVERY_SECONDS,
    DiscoveryReply,
    apply_newest,
    discover,
    pack_member_list,
    share_vouchers,
)
from memories.cluster.quorum.members import MEMBERS_KEY, NAME_KEY, MemberList, Members
from memories.cluster.reasons import join_reasons
from memories.errors import UnavailableError
from memories.foundation.logging import logger

_LOOKS = 4  # At a node that others give lists to at the same moment.
_OTHER_LIST = "another manager has changed the members at the same moment"
NONE_UNREADY: Mapping[str, str] = {}


class _Admission(NamedTuple):
    """What a node is to store, and has stored so far."""

    reply: DiscoveryReply
    incarnation: Incarnation


def publish(
    members: Members, member_list: MemberList, *, before: Collection[str]
) -> dict[str, str]:
    """Store a new member list on its members and on those `before`; return the errors by name.

    Raises:
        UnavailableError: a new node does not answer, or refuses, or another manager was faster; the
            members have not changed.
    """
    names = dict.fromkeys((*before, *member_list.all_names))
    discovered, reasons = discover(members, [members.nodes[name] for name in names])
    new = {name for name in names if name not in before}
    for reply in discovered:
        if _is_elsewhere(reply, member_list, new):
            raise UnavailableError(
                f"the members have not changed: {reply.node.name} has another list, because "
                f"{_OTHER_LIST}; call again"
            )
    unready = {name: reason for name, reason in reasons.items() if name in new}
    return reasons | give_first_list(members, discovered, member_list, new=new, unready=unready)


def give_first_list(
    members: Members,
    discovered: Sequence[DiscoveryReply],
    member_list: MemberList,
    *,
    new: Collection[str],
    unready: Mapping[str, str] = NONE_UNREADY,
) -> dict[str, str]:
    """Store a list that no node has yet; return why a node has not stored it, by its name.

    The nodes in `new`, which were never members, are up to date at once: they lack what they never
    had, and the list before is in force until they have got it. They store that first. Else another
    manager could see the list, and find a new node that looks as if it had restarted empty.

    Raises:
        UnavailableError: a new node does not answer, or refuses; the members have not changed.
    """
    welcomed, refusals = _welcome(
        members, [one for one in discovered if one.node.name in new], member_list
    )
    if unready or refusals:
        reasons = join_reasons({**unready, **refusals})
        raise UnavailableError(
            f"the members have not changed, because new ones are not ready: {reasons}"
        )
    others = [one for one in discovered if one.node.name not in new]
    states, refusals = give_list(
        members, others + welcomed, member_list, new=new, cause="a change of members"
    )
    share_vouchers(members, member_list, states)
    return refusals


def survey(
    members: Members, nodes: Sequence[Node], cause: str
) -> tuple[list[DiscoveryReply], dict[str, str]]:
    """Ask nodes as `discover` does, and let those that have an older list catch up.

    A newer list is applied first. Returns the states after that, and errors by name.
    """
    discovered, reasons = discover(members, nodes)
    apply_newest(members, discovered)
    member_list = members.current
    listed = set(member_list.all_names)
    states, refusals = give_list(
        members, [one for one in discovered if one.node.name in listed], member_list, cause=cause
    )
    for one in states:
        one.node.up_to_date = one.is_up_to_date(member_list.epoch)
    others = [one for one in discovered if one.node.name not in listed]
    return others + states, reasons | refusals


def admit(members: Members, node: Node, cause: str) -> DiscoveryReply:
    """Make a node accept writes under the newest member list, and return its state.

    Raises:
        UnavailableError: it does not answer, or refuses.
    """
    states, reasons = survey(members, [node], cause)
    if reasons or not states:
        raise UnavailableError(reasons[node.name])
    return states[0]


def give_list(
    members: Members,
    discovered: Sequence[DiscoveryReply],
    member_list: MemberList,
    *,
    new: Collection[str] = (),
    cause: str,
) -> tuple[list[DiscoveryReply], dict[str, str]]:
    """Store a member list on nodes that have an older one.

    Args:
        members: The nodes.
        discovered: What the nodes have.
        member_list: The list.
        new: The names of nodes that were never members.
        cause: For the log.

    Returns:
        The state of each node now, and why a node has not stored the list, by its name.
    """
    states = {reply.node.name: reply for reply in discovered}
    reasons: dict[str, str] = {}
    pending = list(states)
    for _ in range(_LOOKS):
        changed: list[str] = []
        wanted: dict[Node, _Admission] = {}
        for name in pending:
            reply = states[name]
            if _is_elsewhere(reply, member_list, new):
                reasons[name] = _OTHER_LIST
                continue
            incarnation = next_incarnation(
                reply.incarnation, reply.run_id, member_list.epoch, new=name in new
            )
            if (reply.member_list, reply.incarnation) != (member_list, incarnation):
                wanted[reply.node] = _Admission(reply, incarnation)
        for node, outcome in _store(members, wanted, member_list).items():
            if outcome is None:
                changed.append(node.name)
            elif isinstance(outcome, DiscoveryReply):
                states[node.name] = outcome
                _log(wanted[node].reply, outcome, cause)
            else:
                reasons[node.name] = outcome
        if not changed:
            return list(states.values()), reasons
        # Others have stored something there in between. They may have done just the same.
        again, silent = discover(members, [states[name].node for name in changed])
        states |= {reply.node.name: reply for reply in again}
        reasons |= silent
        pending = [reply.node.name for reply in again]
    reasons |= dict.fromkeys(pending, _OTHER_LIST)
    return list(states.values()), reasons


def _is_elsewhere(reply: DiscoveryReply, member_list: MemberList, new: Collection[str]) -> bool:
    """Return whether a node has a newer list, or another one of the same epoch."""
    known = _epoch(reply.member_list)
    if known > member_list.epoch or (
        known == member_list.epoch and reply.member_list != member_list
    ):
        return True
    incarnation = None if reply.node.name in new else reply.incarnation
    return incarnation is not None and incarnation.epoch > member_list.epoch


def _epoch(member_list: MemberList | None) -> int:
    return -1 if member_list is None else member_list.epoch


def _store(
    members: Members, wanted: dict[Node, _Admission], member_list: MemberList
) -> dict[Node, DiscoveryReply | str | None]:
    """Return for each node its new state, or why it has none; None if it had changed meanwhile."""
    text = pack_member_list(member_list)
    requests: list[tuple[Node, Sequence[Command]]] = []
    for node, (reply, incarnation) in wanted.items():
        arguments = (*reply.texts, text, incarnation.text)
        swap = scripts.ADMIT.evaluated([MEMBERS_KEY, INCARNATION_KEY], *arguments)
        requests.append((node, (("SET", NAME_KEY, node.name), swap)))
    outcomes: dict[Node, DiscoveryReply | str | None] = {
        node: f"the node {node.name} did not answer in time" for node in wanted
    }
    for answer in ask_nodes(requests, members.monotonic, DISCOVERY_SECONDS):
        reply, incarnation = wanted[answer.node]
        if (error := answer.first_error) is not None:
            outcomes[answer.node] = str(error)
        elif answer.replies[1] != 1:
            outcomes[answer.node] = None
        else:
            outcomes[answer.node] = reply._replace(
                member_list=member_list,
                incarnation=incarnation,
                name=answer.node.name,
                texts=(text, incarnation.text),
            )
    return outcomes


def _welcome(
    members: Members, new: Sequence[DiscoveryReply], member_list: MemberList
) -> tuple[list[DiscoveryReply], dict[str, str]]:
    """Let new nodes be up to date; return their states, and errors by name.

    They do not get the list yet: if the change does not begin, they were never members.
    """
    requests: list[tuple[Node, Sequence[Command]]] = []
    wanted: dict[Node, DiscoveryReply] = {}
    reasons: dict[str, str] = {}
    for reply in new:
        after = next_incarnation(reply.incarnation, reply.run_id, member_list.epoch, new=True)
        swap = scripts.SWAP.evaluated([INCARNATION_KEY], reply.texts[1], after.text)
        requests.append((reply.node, [swap]))
        texts = (reply.texts[0], after.text)
        wanted[reply.node] = reply._replace(incarnation=after, texts=texts)
        reasons[reply.node.name] = f"the node {reply.node.name} did not answer in time"
    for answer in ask_nodes(requests, members.monotonic, DISCOVERY_SECONDS):
        del reasons[answer.node.name]
        if (error := answer.first_error) is not None:
            reasons[answer.node.name] = str(error)
    return [one for one in wanted.values() if one.node.name not in reasons], reasons


def _log(before: DiscoveryReply, after: DiscoveryReply, cause: str) -> None:
    logger.debug(
        "%s: was %s under list %d, is %s under list %d: %s",
        after.node.name,
        _shown(before),
        _epoch(before.member_list),
        _shown(after),
        _epoch(after.member_list),
        cause,
    )


def _shown(reply: DiscoveryReply) -> str:
    incarnation = reply.incarnation
    if incarnation is None:
        return "without incarnation"
    if incarnation.run_id != reply.run_id:
        return "restarted"
    return "up to date" if incarnation.state == UP else "being brought up to date"
