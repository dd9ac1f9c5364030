"""Registers on plain servers: each is an atomic register over a quorum of its nodes.

Not the gathering of votes, which is `quorum`. It is the multi-writer protocol of Lynch and
Shvartsman (1997, after Attiya, Bar-Noy and Dolev): a writer learns the newest version from enough
nodes and writes a newer one to enough; a reader takes the newest and, unless enough have it, writes
it back before he returns it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from memories.cluster.client.node import Node
from memories.cluster.manifest import ChunkUpload
from memories.cluster.quorum.members import Members
from memories.cluster.quorum.read import ALL_NODES, OutdatedMembersError, QuorumRead
from memories.cluster.quorum.register_repair import repair_register
from memories.cluster.quorum.rules import RegisterQuery
from memories.cluster.quorum.scan import scan_members
from memories.cluster.quorum.unanimous_read import NewestVersion, UnanimousRead
from memories.cluster.quorum.write import QuorumWrite, WriteJob
from memories.cluster.register_api import FoundRegister, RegisterBody, Registers, WrittenRegister
from memories.cluster.register_format import HEADER_BYTES, key_text, pack_register
from memories.cluster.versions import ABSENT, successor
from memories.errors import InvalidOptionError, ReplicationError, UnavailableError
from memories.foundation.clock import Clock

_REFRESH_ATTEMPTS = 9  # The rests between them add up to more than members may be in flux.
_REFRESH_PAUSE_SECONDS = 0.005
_FETCH_ATTEMPTS = 4
T = TypeVar("T")
R = TypeVar("R")
REPAIR_BATCH = 64  # Registers whose values may be in memory at once.
BATCH = 1000  # Registers that are asked about in one round.


class _ChangingMembersError(UnavailableError):
    """The list of members did not come to rest. Leaves as what it derives from."""


class QuorumRegisters(Registers):
    """Registers replicated by us, on servers that know nothing of each other.

    Args:
        members: The nodes.
        client: The id of this manager, which breaks ties between writers.
        clock: Gives new versions a number that survives swept tombstones.
        refresh: Reads the list of members anew when a node knows a newer one.
        on_stranger: Is told of a node that restarted and must be brought up to date.
    """

    def __init__(
        self,
        members: Members,
        client: int,
        clock: Clock,
        *,
        refresh: Callable[[], None],
        on_stale_node: Callable[[Node], None],
    ) -> None:
        self._members = members
        self._client = client
        self._clock = clock
        self._refresh = refresh
        self._reader = QuorumRead(members, on_stale_node)
        self._writer = QuorumWrite(members)
        self._unanimous = UnanimousRead(members)

    def read(
        self, names: Sequence[bytes], *, fetch: bool = True
    ) -> dict[bytes, FoundRegister | Exception | None]:
        """Return what stands in each register; see `Registers`."""
        return self._in_batches(names, lambda batch: self._read(batch, fetch))

    def write(
        self, bodies: Mapping[bytes, RegisterBody], *, if_version: int | None = None
    ) -> dict[bytes, WrittenRegister | Exception]:
        """Write each register; see `Registers`."""
        if if_version is not None:
            raise InvalidOptionError(
                "if_version= needs a Valkey or Redis Cluster: plain servers know nothing of each "
                "other, so no single one could decide between two writers. Store without it, or "
                "use a Cluster"
            )
        return self._in_batches(
            list(bodies), lambda batch: self._write({name: bodies[name] for name in batch})
        )

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Yield batches of names; see `Registers`."""
        return scan_members(self._members, prefix)

    def copy_to(self, names: Sequence[bytes], *, to: str) -> None:
        """Bring the newest versions of registers to a node that should have them.

        Raises:
            UnavailableError: for one of them it could not be found out what is newest.
        """
        for start in range(0, len(names), REPAIR_BATCH):
            queries = self.query(names[start : start + REPAIR_BATCH])
            for query in queries:
                if query.missing_answers > 0:
                    raise query.error()
            self.repair_damaged(queries)
            self.copy_newest(queries, to=to)

    def copy_newest(self, queries: Sequence[RegisterQuery], *, to: str | None = None) -> int:
        """Bring the newest registers to the nodes that should have them; return how many lacked.

        With `to` only that node is looked after, and registers that lie on too few nodes.

        Raises:
            UnavailableError: one of them could not be copied.
        """
        jobs: list[WriteJob] = []
        for query in queries:
            due = [
                n
                for n in _nodes_lacking_newest(query)
                if to in (None, n) or query.missing_copies > 0
            ]
            due = [n for n in due if self._members.nodes[n].usable]
            if due:
                jobs.append(WriteJob(query, query.version, (), only=due))
        self.fetch_missing([job.query for job in jobs])
        for job in jobs:
            if job.query.newest.data is None:
                raise UnavailableError(f"{key_text(job.name)} cannot be read to be copied")
            job.set_register((memoryview(job.query.newest.data),))
        self._writer.store(jobs)
        for job in jobs:
            if job.missing_copies > 0:
                raise UnavailableError(f"{key_text(job.name)} was not copied: {job.reasons()}")
            for node in job.only:
                job.query.replies[node] = job.query.newest
        return len(jobs)

    def repair_damaged(self, queries: Iterable[RegisterQuery]) -> int:
        """Replace damaged registers by sound ones of other nodes; return how many were."""
        damaged = [query for query in queries if query.damaged and query.version != ABSENT]
        self.fetch_missing(damaged)
        return sum(
            repair_register(self._members, node, query)
            for query in damaged
            if query.newest.data is not None
            for node in sorted(query.damaged)
        )

    def query(self, names: Sequence[bytes], *, deep: bool = False) -> list[RegisterQuery]:
        """Return queries on which every node that can answer has been heard.

        With `deep` every copy is fetched as a whole, and so found to be damaged if it is.
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
        """Return `work()`, done again with the list of members read anew while that is in flux.

        Raises:
            _InFluxError: it stays so for longer than members take to hear of a new list.
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
        lists = {name: self._members.preference_lists(name) for name in names}
        results: dict[bytes, FoundRegister | Exception | None] = {}
        if fetch:
            results.update(self._unanimous.read(lists))
        queries = [RegisterQuery(name, lists[name]) for name in lists if name not in results]
        if queries:
            results.update(self._read_by_quorum(queries, fetch))
        return results

    def _read_by_quorum(
        self, queries: Sequence[RegisterQuery], fetch: bool
    ) -> dict[bytes, FoundRegister | Exception | None]:
        self._reader.collect(queries, whole=int(fetch))
        heard = [query for query in queries if query.missing_answers <= 0]
        doubtful = [query for query in heard if query.missing_copies > 0]
        if doubtful:
            self._reader.ask_remaining(doubtful)
            doubtful = [query for query in doubtful if query.missing_copies > 0]
        self.fetch_missing([query for query in heard if fetch] + doubtful)
        self.repair_damaged(heard)
        unconfirmed = self._write_back(doubtful)
        results: dict[bytes, FoundRegister | Exception | None] = {}
        for query in queries:
            results[query.name] = unconfirmed.get(query.name) or _read_result(query, fetch)
        return results

    def fetch_missing(self, queries: Iterable[RegisterQuery]) -> None:
        """Fetch the newest register of those queries where only its version was heard."""
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
        """Let enough nodes have what was found on too few, and return where that failed.

        With fewer than 2 rf - 1 nodes, those that answered may be too few to ever confirm it; then
        the reader is given what there is.
        """
        ready = [q for q in queries if q.missing_answers <= 0 and q.newest.data is not None]
        jobs = [_write_back_job(query) for query in ready]
        self._writer.store(jobs)
        failed: dict[bytes, Exception] = {}
        for query, job in zip(ready, jobs, strict=True):
            if job.missing_copies > 0 and not _too_few_nodes(query):
                failed[query.name] = UnavailableError(
                    f"the newest version of {key_text(query.name)} is on too few nodes and could "
                    f"not be copied: {job.reasons()}"
                )
        return failed

    def _write(
        self, bodies: Mapping[bytes, RegisterBody]
    ) -> dict[bytes, WrittenRegister | Exception]:
        queries = {
            name: RegisterQuery(name, self._members.preference_lists(name)) for name in bodies
        }
        known = self._unanimous.read_versions(
            {name: query.lists for name, query in queries.items()}
        )
        rest = [query for name, query in queries.items() if name not in known]
        self._reader.collect(rest, whole=0)
        results: dict[bytes, WrittenRegister | Exception] = {}
        for query in rest:
            if query.missing_answers > 0:
                results[query.name] = query.error()
            else:
                known[query.name] = _newest_version(query)
        wall = self._clock.wall()
        jobs: list[WriteJob] = []
        for name, newest in known.items():
            version = successor(newest.version, self._client, wall)
            register = pack_register(name, version, *bodies[name])
            jobs.append(WriteJob(queries[name], version, register))
        self._writer.store(jobs)
        for job in jobs:
            results[job.name] = _write_result(job, known[job.name].upload)
        return results


def _nodes_lacking_newest(query: RegisterQuery) -> list[str]:
    """Return the nodes that should have the newest version and lack it: the preferred ones."""
    if query.version == ABSENT:
        return []
    chosen = {node for one in query.lists for node in one.nodes[: one.copies]}
    return [node for node in query.outdated_nodes if node in chosen]


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
        return UnavailableError(f"{key_text(query.name)} is there, but no node that has it answers")
    body = None if newest.data is None else memoryview(newest.data)[HEADER_BYTES:]
    return FoundRegister(newest.header.version, newest.header.kind, body)


def _newest_version(query: RegisterQuery) -> NewestVersion:
    if query.version == ABSENT:
        return NewestVersion(ABSENT, None)
    return NewestVersion(query.version, query.newest.upload)


def _write_result(job: WriteJob, replaced: ChunkUpload | None) -> WrittenRegister | Exception:
    query = job.query
    if job.missing_copies <= 0:
        return WrittenRegister(job.version, replaced)
    copies = max(one.copies for one in query.lists)
    where = ", ".join(sorted(job.stored_on)) or "no node"
    return ReplicationError(
        f"{key_text(query.name)} was stored on {len(job.stored_on)} of the {copies} nodes needed "
        f"({where}); {job.reasons()}. The write is in doubt: a later read may give the old or the "
        "new value. Store it again once enough nodes answer"
    )
