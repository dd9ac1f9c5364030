"""How a cluster of plain servers begins, and how a manager finds out who its members are.

Not the protocol of reads and writes. The one idea: the list of members lies on the nodes; what a
manager is given are places to ask for it, and only a cluster that has none takes the given list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from memories.cluster.client import scripts
from memories.cluster.client.fanout import Ask, Round
from memories.cluster.client.node import EvictingNodeError, Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.incarnation import JOINING, MARK, UP, Mark, read_mark
from memories.cluster.quorum.members import ROSTER, Members, Roster
from memories.errors import InvalidOptionError, UnavailableError
from memories.foundation.logging import logger

_GREETING_SECONDS = 1.5


class Hello(NamedTuple):
    """What a node says when it is first asked."""

    node: Node
    life: str
    roster: Roster | None
    mark: Mark | None


def found(members: Members) -> None:
    """Learn who the members are, or make the nodes that were given a cluster.

    Raises:
        UnavailableError: too few nodes answer to know.
        InvalidOptionError: the nodes are members of a cluster of another kind, or would lose data.
    """
    hellos, reasons = greet(members, list(members.nodes.values()))
    roster = newest_roster(hellos)
    if roster is None:
        _require_enough(members.roster, reasons)
        roster = msgspec.structs.replace(members.roster, epoch=1)
        for hello in hellos:
            install_one(hello, roster, UP)
    _check(roster, members)
    members.adopt(roster)
    hellos, reasons = greet(members, list(members.everyone()))
    _require_enough(roster, reasons)
    for hello in hellos:
        hello.node.well = is_up(hello, roster.epoch)


def refresh(members: Members) -> None:
    """Learn of a newer list of members from the nodes."""
    hellos, _ = greet(members, list(members.everyone()))
    roster = newest_roster(hellos)
    if roster is not None and roster.epoch > members.epoch:
        members.adopt(roster)


def greet(members: Members, nodes: Sequence[Node]) -> tuple[list[Hello], dict[str, str]]:
    """Ask nodes for what they know, and return it, and why others do not answer.

    Raises:
        EvictingNodeError: one would drop values silently.
    """
    hellos: list[Hello] = []
    reasons = {node.name: "it did not answer in time" for node in nodes}
    with Round(members.monotonic) as round_:
        for node in nodes:
            round_.ask(node, lambda life: [("GET", ROSTER), ("GET", MARK)])
        while answers := round_.wait(_GREETING_SECONDS):
            for answer in answers:
                _hear(answer, hellos, reasons)
    return hellos, reasons


def is_up(hello: Hello, epoch: int) -> bool:
    """Return whether a node says that it knows of all that was its to take."""
    return hello.mark == Mark(UP, hello.life, epoch)


def newest_roster(hellos: Sequence[Hello]) -> Roster | None:
    """Return the newest list of members that any node has."""
    known = [hello.roster for hello in hellos if hello.roster is not None]
    return max(known, key=lambda roster: roster.epoch, default=None)


def pack_roster(roster: Roster) -> bytes:
    """Return the list of members as it lies on a node."""
    return msgspec.json.encode(roster)


def read_roster(text: bytes | None) -> Roster | None:
    """Return the list of members in `text`; None if it is none."""
    try:
        return msgspec.json.decode(text or b"", type=Roster)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def install(
    members: Members, roster: Roster, *, everyone: Sequence[str], newcomers: str
) -> dict[str, str]:
    """Tell nodes of a new list of members, and return why some could not be told.

    A node that was up to date under the list before stays so, and one that was in no list before
    gets the state of `newcomers`; any other must be brought up to date first.
    """
    names = dict.fromkeys((*everyone, *roster.everyone))
    hellos, reasons = greet(members, [members.nodes[name] for name in names])
    for hello in hellos:
        fresh = hello.roster is None and hello.node.name not in everyone
        state = newcomers if fresh or is_up(hello, roster.epoch - 1) else JOINING
        try:
            install_one(hello, roster, state)
        except (UnavailableError, ReplyError) as error:
            reasons[hello.node.name] = str(error)
    return reasons


def install_one(hello: Hello, roster: Roster, state: str) -> None:
    """Give one node the list of members and its mark, unless somebody else has meanwhile.

    Raises:
        UnavailableError: it does not answer.
        ReplyError: it refuses.
    """
    old_roster = b"" if hello.roster is None else pack_roster(hello.roster)
    old_mark = b"" if hello.mark is None else hello.mark.text
    mark = Mark(state, hello.life, roster.epoch)
    hello.node.call(*scripts.SWAP.call([ROSTER], old_roster, pack_roster(roster)))
    hello.node.call(*scripts.SWAP.call([MARK], old_mark, mark.text))


def _hear(answer: Ask, hellos: list[Hello], reasons: dict[str, str]) -> None:
    name = answer.node.name
    if isinstance(answer.error, EvictingNodeError):
        raise answer.error
    if answer.error is not None:
        reasons[name] = str(answer.error)
        return
    roster, mark = answer.replies
    for reply in answer.replies:
        if isinstance(reply, ReplyError):
            reasons[name] = str(reply)
            return
    del reasons[name]
    hellos.append(Hello(answer.node, answer.life, read_roster(roster), read_mark(mark)))


def _require_enough(roster: Roster, reasons: dict[str, str]) -> None:
    for nodes in roster.lists:
        missing = sorted(reasons.keys() & set(nodes))
        if len(missing) >= max(1, roster.copies):
            said = "; ".join(f"{name}: {reasons[name]}" for name in missing)
            raise UnavailableError(
                f"{len(missing)} of {len(nodes)} nodes do not answer, and with {roster.copies} "
                f"copies at most {roster.copies - 1} may be missing: {said}"
            )


def _check(roster: Roster, members: Members) -> None:
    copies = members.roster.copies
    if roster.copies != copies:
        raise InvalidOptionError(
            f"replication_factor={copies}, but the values on these nodes have {roster.copies} "
            "copies; open them with that number"
        )
    strangers = sorted(members.nodes.keys() - set(roster.everyone))
    if strangers:
        logger.warning(
            "%s: no members of the cluster of %s, and not used; add_node() makes them so",
            ", ".join(strangers),
            ", ".join(roster.everyone),
        )
