"""Registers on plain servers: each is an atomic register, replicated over a quorum of its nodes.

This is the multi-writer form of the ABD protocol (Attiya, Bar-Noy and Dolev 1995; Lynch and
Shvartsman 1997). It has two phases. A write reads the newest version from a quorum, and stores a
newer one on a quorum. A read takes the newest version from a quorum and, unless enough nodes have
it, writes it back before it returns it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.client.scan import scan_node
from memories.cluster.incarnation import JOINING, Incarnation
from memories.cluster.limits import BATCH, REPAIR_BATCH
from memories.cluster.manifest import ChunkUpload
from memories.cluster.quorum.admission import admit
from memories.cluster.quorum.members import Members
from memories.cluster.quorum.read import ALL_NODES, OutdatedMembersError, QuorumRead
from memories.cluster.quorum.rules import RegisterQuery
from memories.cluster.quorum.settle import settle
from memories.cluster.quorum.unanimous_read import UnanimousRead
from memories.cluster.quorum.unanimous_write import GivenVersion, UnanimousWrite
from memories.cluster.quorum.write import QuorumWrite, WriteJob
from memories.cluster.reasons import join_reasons
from memories.cluster.register_api import (
    FoundRegister,
    Registers,
    WrittenRegister,
    found_register,
)
from memories.cluster.register_copy import read_copy
from memories.cluster.register_format import (
    PREFIX,
    RegisterBody,
    key_text,
    pack_register,
)
from memories.cluster.run_script import replace_copy
from memories.cluster.versions import ABSENT, RegisterVersion, VersionMaker
from memories.errors import (
    CorruptDataError,
    InvalidOptionError,
    ReplicationError,
    UnavailableError,
)

_REFRESH_ATTEMPTS = 9  # The pauses between them add up to more than a list takes to spread.
_REFRESH_PAUSE_SECONDS = 0.005
_FETCH_ATTEMPTS = 4
T = TypeVar("T")
R = TypeVar("R")


class _ChangingMembersError(UnavailableError):
    """The member list kept changing. Callers see it as an `UnavailableError`."""


class QuorumRegisters(Registers):
    """Registers that the manager itself replicates, on servers that do not know each other.

    Args:
        members: The nodes.
        versions: Makes the versions of new values.
        refresh: Lets this manager, and nodes with an older list, catch up with the newest.
        on_stale_node: Called with a node that has restarted and must be brought up to date.
    """

    def __init__(
        self,
        members: Members,
        versions: VersionMaker,
        *,
        refresh: Callable[[], object],
        on_stale_node: Callable[[Node], None],
    ) -> None:
        self._members = members
        self._versions = versions
        self._refresh = refresh
        self._reader = QuorumRead(members, on_stale_node)
        self._writer = QuorumWrite(members)
        self._unanimous = UnanimousRead(members)
        self._unanimous_write = UnanimousWrite(members, versions)

    def read(
        self, names: Sequence[bytes], *, fetch: bool = True
    ) -> dict[bytes, FoundRegister | Exception | None]:
        """Return the content of each register; see `Registers`."""
        known = self._unanimous.read(names) if fetch and names else {}
        if len(known) == len(names):
            return known  # type: ignore[return-value]
        left = [name for name in names if name not in known]
        return known | self._in_batches(left, lambda batch: self._read(batch, fetch))

    def write(
        self, bodies: Mapping[bytes, RegisterBody], *, if_version: int | None = None
    ) -> dict[bytes, WrittenRegister | Exception]:
        """Write each register; see `Registers`."""
        if if_version is not None:
            raise InvalidOptionError(
                "if_version= needs a Valkey or Redis Cluster: plain servers do not know each "
                "other, so none of them can decide between two writers; store without it, or use "
                "a Cluster"
            )
        given: dict[bytes, GivenVersion] = {}
        written = self._unanimous_write.write(bodies, given) if bodies else {}
        if len(written) == len(bodies):
            return written  # type: ignore[return-value]
        left = [name for name in bodies if name not in written]
        return written | self._in_batches(
            left, lambda batch: self._write({name: bodies[name] for name in batch}, given)
        )

    def settle(self, ended: Mapping[bytes, RegisterVersion]) -> set[bytes]:
        """Let tombstones vanish once all nodes of their keys have them; see `Registers`."""
        return settle(self._members, ended)

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Yield batches of names, each name once per copy; see `Registers`.

        An acknowledged write is on as many nodes as there are copies. So the answers of all members
        but one fewer than that include every acknowledged write.
        """
        reasons: dict[str, str] = {}
        for node in self._members.all_members():
            if not (node.usable or node.due):
                reasons[node.name] = node.last_error
                continue
            try:
                yield from scan_node(node, PREFIX + prefix)
                state = admit(self._members, node, "a scan")
                if not state.is_up_to_date(self._members.epoch):
                    reasons[node.name] = "it restarted and is not up to date yet"
            except (UnavailableError, ReplyError) as error:
                reasons[node.name] = str(error)
        if self._members.current.needs(reasons):
            raise UnavailableError(
                f"the keys could not all be listed, because {len(reasons)} nodes are missing: "
                + join_reasons(reasons)
            )

    def copy_to(self, names: Sequence[bytes], *, to: str) -> None:
        """Copy the newest versions of registers to a node that should have them.

        Raises:
            UnavailableError: the newest version of one of them cannot be determined.
        """
        for start in range(0, len(names), REPAIR_BATCH):
            queries = self.query(names[start : start + REPAIR_BATCH])
            for query in queries:
                if query.missing_answers > 0:
                    raise query.error()
            self.repair_damaged(queries)
            for error in self.copy_newest(queries, to=to).values():
                if error is not None:
                    raise error

    def copy_newest(
        self, queries: Sequence[RegisterQuery], *, to: str | None = None
    ) -> dict[bytes, UnavailableError | None]:
        """Copy the newest registers to the nodes that should have them.

        With `to` only that node gets copies, except of registers that are on too few nodes. Where a
        node refuses, the next one gets the copy. Those that lacked one are returned, each with the
        error if it could not be copied.

        Raises:
            UnavailableError: the members of the cluster have changed.
        """
        results: dict[bytes, UnavailableError | None] = {}
        jobs: list[WriteJob] = []
        for query in queries:
            due = [
                n
                for n in self._nodes_lacking_newest(query)
                if to in (None, n) or query.missing_copies > 0
            ]
            if due:
                jobs.append(WriteJob(query, query.version, (), only=due))
        ready: list[WriteJob] = []
        try:
            self.fetch_missing([job.query for job in jobs])
            for job in jobs:
                if job.query.newest.data is None:
                    results[job.name] = UnavailableError(
                        f"{key_text(job.name)} cannot be read for copying"
                    )
                else:
                    job.set_register((memoryview(job.query.newest.data),))
                    ready.append(job)
            self._writer.store(ready)
            for job in ready:
                for node in job.stored_on:
                    job.query.replies[node] = job.query.newest
            self._write_back([job.query for job in ready if job.query.missing_copies > 0])
        except OutdatedMembersError as error:  # The queries are of the former members.
            raise _ChangingMembersError(
                f"the members of the cluster change while registers are copied: {error}"
            ) from error
        for job in ready:
            unsafe = job.missing_copies > 0 if to else job.query.missing_copies > 0
            results[job.name] = (
                UnavailableError(f"{key_text(job.name)} was not copied: {job.reasons()}")
                if unsafe
                else None
            )
        return results

    def _nodes_lacking_newest(self, query: RegisterQuery) -> list[str]:
        """Return the nodes that should have the newest version and do not.

        Where a preferred node does not answer, the next one in the list takes its place.
        """
        if query.version == ABSENT:
            return []
        due: set[str] = set()
        for one in query.lists:
            living = [node for node in one.nodes if self._members.nodes[node].usable]
            due.update(living[: one.copies])
        return [node for node in query.outdated_nodes if node in due]

    def repair_damaged(self, queries: Iterable[RegisterQuery]) -> int:
        """Replace damaged copies by sound ones of other nodes; return how many were replaced."""
        damaged = [query for query in queries if query.damaged and query.version != ABSENT]
        self.fetch_missing(damaged)
        return sum(
            self._replace_damaged(node, query)
            for query in damaged
            if query.newest.data is not None
            for node in sorted(query.damaged)
        )

    def query(self, names: Sequence[bytes], *, deep: bool = False) -> list[RegisterQuery]:
        """Return queries with the replies of all nodes that answer.

        With `deep` every copy is fetched as a whole, so that its checksum can be compared.
        """
        whole = ALL_NODES if deep else 0

        def query_all() -> list[RegisterQuery]:
            queries = [RegisterQuery(name, self._members.preference_lists(name)) for name in names]
            self._reader.collect(queries, whole=whole)
            self._reader.ask_remaining(queries, whole=deep)
            return queries

        return self._with_current_members(query_all)

    def _in_batches(
        self, names: Sequence[bytes], work: Callable[[Sequence[bytes]], dict[bytes, T | Exception]]
    ) -> dict[bytes, T | Exception]:
        results: dict[bytes, T | Exception] = {}
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            try:
                results.update(self._with_current_members(partial(work, batch)))
            except _ChangingMembersError as error:
                results.update(dict.fromkeys(batch, error))
        return results

    def _with_current_members(self, work: Callable[[], R]) -> R:
        """Return `work()`; while the member list changes, read the list and run `work()` again.

        Raises:
            _ChangingMembersError: the list changes for longer than it takes to spread.
        """
        for attempt in range(_REFRESH_ATTEMPTS):
            if attempt:
                time.sleep(_REFRESH_PAUSE_SECONDS * 2 ** (attempt - 1))
                self._refresh()
            try:
                return work()
            except OutdatedMembersError as error:
                reason = str(error)
        raise _ChangingMembersError(f"the members of the cluster keep changing: {reason}")

    def _read(
        self, names: Sequence[bytes], fetch: bool
    ) -> dict[bytes, FoundRegister | Exception | None]:
        queries = [RegisterQuery(name, self._members.preference_lists(name)) for name in names]
        self._reader.collect(queries, whole=int(fetch))
        answered = [query for query in queries if query.missing_answers <= 0]
        # Too few nodes have named the newest version: other nodes may have it too, else it is
        # written back, so that every later reader finds it.
        unconfirmed = [query for query in answered if query.missing_copies > 0]
        if unconfirmed:
            self._reader.ask_remaining(unconfirmed)
            unconfirmed = [query for query in unconfirmed if query.missing_copies > 0]
        self.fetch_missing([query for query in answered if fetch] + unconfirmed)
        self.repair_damaged(answered)
        errors = self._write_back(unconfirmed)
        results: dict[bytes, FoundRegister | Exception | None] = {}
        for query in queries:
            results[query.name] = errors.get(query.name) or _read_result(query, fetch)
        return results

    def fetch_missing(self, queries: Iterable[RegisterQuery]) -> None:
        """Fetch the newest register of those queries that only know its version so far."""
        for _ in range(_FETCH_ATTEMPTS):
            lacking = [
                query
                for query in queries
                if query.missing_answers <= 0
                and query.version != ABSENT
                and query.newest.data is None
            ]
            if not lacking:
                return
            self._reader.fetch(lacking)

    def _write_back(self, queries: Sequence[RegisterQuery]) -> dict[bytes, Exception]:
        """Copy registers that are on too few nodes to more, and return the errors by name.

        With fewer than 2 rf - 1 nodes, the nodes that answer may be too few to ever confirm a
        version; then the unconfirmed value is returned all the same.
        """
        ready = [q for q in queries if q.missing_answers <= 0 and q.newest.data is not None]
        jobs = [_write_back_job(query) for query in ready]
        self._writer.store(jobs)
        failed: dict[bytes, Exception] = {}
        for query, job in zip(ready, jobs, strict=True):
            for node in job.stored_on:
                query.replies[node] = query.newest
            if job.missing_copies > 0 and not _too_few_nodes(query):
                failed[query.name] = UnavailableError(
                    f"the newest version of {key_text(query.name)} is on too few nodes and could "
                    f"not be copied: {job.reasons()}"
                )
        return failed

    def _write(
        self, bodies: Mapping[bytes, RegisterBody], given: dict[bytes, GivenVersion]
    ) -> dict[bytes, WrittenRegister | Exception]:
        """Do both phases; `given` has the versions of an earlier attempt, and what they replace.

        A write that is repeated keeps its version. Thread 1 stores version 5 on one node; thread 2
        reads it, and stores version 6. If thread 1 repeated its write as version 7, its value would
        come back after the one that replaced it.
        """
        results: dict[bytes, WrittenRegister | Exception] = {}
        queries = {n: RegisterQuery(n, self._members.preference_lists(n)) for n in bodies}
        unknown = [query for name, query in queries.items() if name not in given]
        if unknown:
            self._reader.collect(unknown, whole=0)
        for query in unknown:
            if query.missing_answers > 0:
                results[query.name] = query.error("written")
                continue
            replaced = None if query.version == ABSENT else query.newest.upload
            version = self._versions.successor(query.version)
            given[query.name] = GivenVersion(version, replaced)
        jobs: list[WriteJob] = []
        for name in bodies.keys() & given.keys():
            version = given[name].version
            jobs.append(
                WriteJob(queries[name], version, pack_register(name, version, *bodies[name]))
            )
        self._writer.store(jobs)
        for job in jobs:
            results[job.name] = _write_result(job, given[job.name].replaced)
        return results

    def _replace_damaged(self, name: str, query: RegisterQuery) -> bool:
        """Replace a damaged copy on a node by the newest one; return whether it was replaced.

        A node that does not answer keeps the damage, and the next read or repair finds it again.
        """
        data = query.newest.data
        assert data is not None
        node = self._members.nodes[name]
        try:
            with node.acquire() as connection:
                there = connection.call("GET", query.name)
                if _is_sound(query.name, there):
                    return False
                accepted = Incarnation(JOINING, connection.run_id, self._members.epoch).accepted
                replaced = replace_copy(connection, query.name, there, data, accepted)
        except (UnavailableError, ReplyError) as error:
            node.last_error = str(error)
            return False
        if replaced:
            query.record(name, query.newest, voting=name in query.voters)
        return replaced


def _is_sound(name: bytes, data: bytes | None) -> bool:
    try:
        read_copy(name, data, whole=True)
    except CorruptDataError:
        return False
    return True


def _write_back_job(query: RegisterQuery) -> WriteJob:
    newest = query.newest
    assert newest.data is not None and newest.header is not None
    job = WriteJob(query, newest.header.version, (memoryview(newest.data),))
    job.stored_on.update(query.holders)
    return job


def _too_few_nodes(query: RegisterQuery) -> bool:
    return any(len(one.nodes) < 2 * one.copies - 1 for one in query.lists)


def _read_result(query: RegisterQuery, fetch: bool) -> FoundRegister | Exception | None:
    if query.missing_answers > 0:
        return query.error()
    if query.version == ABSENT:
        return None
    newest = query.newest
    if newest.header is None or (fetch and newest.data is None):
        return UnavailableError(
            f"{key_text(query.name)} is stored, but no node that has it answers"
        )
    return found_register(newest)


def _write_result(job: WriteJob, replaced: ChunkUpload | None) -> WrittenRegister | Exception:
    query = job.query
    if job.missing_copies <= 0:
        return WrittenRegister(job.version, replaced)
    copies = max(one.copies for one in query.lists)
    where = ", ".join(sorted(job.stored_on)) or "no node"
    return ReplicationError(
        f"{key_text(query.name)} was stored on {len(job.stored_on)} of the {copies} nodes needed "
        f"({where}); {job.reasons()}; the write is in doubt: a later read may return the old or "
        "the new value; store it again once enough nodes answer"
    )
