"""Replaces a damaged register on a node by a sound one, and nothing but the damage.

A damaged version cannot be compared, so the script that takes newer versions is of no use here; the
one idea is to name the damage by its digest, so that a write which came meanwhile stays.
"""

from __future__ import annotations

import hashlib

from memories.cluster.client import scripts
from memories.cluster.client.resp import ReplyError
from memories.cluster.incarnation import INCARNATION_KEY, JOINING, Incarnation
from memories.cluster.quorum.members import Members
from memories.cluster.quorum.rules import RegisterQuery
from memories.cluster.register_copy import read_copy
from memories.errors import CorruptDataError, UnavailableError


def repair_register(members: Members, name: str, query: RegisterQuery) -> bool:
    """Put the newest register of `query` in the place of a damaged one, and return whether it was.

    A node that does not answer keeps the damage, which the next reader or repair finds again.
    """
    data = query.newest.data
    assert data is not None
    node = members.nodes[name]
    try:
        with node.acquire() as connection:
            there = connection.call("GET", query.name)
            if _is_sound(query.name, there):
                return False
            accepted = Incarnation(JOINING, node.run_id_of(connection), members.epoch).accepted
            digest = hashlib.sha1(there).hexdigest()
            command = scripts.REPLACE.call([INCARNATION_KEY, query.name], *accepted, digest, data)
            replaced = bool(connection.call(*command) == 1)
    except (UnavailableError, ReplyError) as error:
        node.last_error = str(error)
        return False
    if replaced:
        query.record(name, query.newest, voting=name in query.voters)
    return replaced


def _is_sound(name: bytes, there: bytes | None) -> bool:
    try:
        read_copy(name, there, whole=True)
    except CorruptDataError:
        return False
    return True
