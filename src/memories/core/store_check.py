"""Verifies the durable tiers of a manager, and repairs them."""

from __future__ import annotations

from collections.abc import Sequence

from memories.backends.base import Backend, Problem
from memories.core.services import Services
from memories.engine.hierarchy import Hierarchy
from memories.errors import UnavailableError
from memories.model.tiers import TierName
from memories.progress import Progress, Step, counted


def check_store(
    services: Services, *, repair: bool, dry_run: bool, progress: Progress | None
) -> list[Problem]:
    """Verify the values in durable tiers, and return what is wrong with them.

    Args:
        services: The services of the manager.
        repair: Remove what is damaged and rebuild the index.
        dry_run: With `repair`, change nothing and describe the repair.
        progress: Called with the bytes verified so far and the total; the last call has both equal.
    """
    hierarchy = services.hierarchy
    hierarchy.require_readable()
    if repair:
        hierarchy.require_writable()
    return hierarchy.operations.run(
        _check, hierarchy, services.backends, repair=repair, dry_run=dry_run, progress=progress
    )


def _check(
    hierarchy: Hierarchy,
    backends: Sequence[Backend],
    *,
    repair: bool,
    dry_run: bool,
    progress: Progress | None,
) -> list[Problem]:
    total = sum(backend.usage().live for backend in backends)
    advance = counted(progress, total)
    problems: list[Problem] = []
    for backend in backends:
        if backend.remote:
            problems += _check_archive(hierarchy, backend, repair and not dry_run, advance)
        else:
            problems += backend.check(repair=repair, dry_run=dry_run, progress=advance)
    if TierName.GLACIER not in hierarchy.tiers:
        why = "the manager was made without its archive; give glacier_url"
        problems += _unchecked(hierarchy, why)
    if progress is not None:
        progress(total, total)
    return problems


def _check_archive(
    hierarchy: Hierarchy, archive: Backend, repair: bool, progress: Step | None
) -> list[Problem]:
    try:
        found = archive.check(repair=repair, progress=progress)
    except UnavailableError as error:
        return _unchecked(hierarchy, str(error)) or [Problem(None, str(error), False, True)]
    known = {problem.key for problem in found}
    for record in hierarchy.catalog.journal.scan():
        if record.tier is not TierName.GLACIER or record.key in known:
            continue
        archived = archive.lookup(record.key)
        if archived is not None and archived.version >= record.version:
            continue
        if not hierarchy.is_in_archive(record):
            what = "it was archived, and no object of the archive holds it any more"
            found.append(Problem(record.key, what, repair))
    return [_forget_archived(hierarchy, problem) for problem in found] if repair else found


def _forget_archived(hierarchy: Hierarchy, problem: Problem) -> Problem:
    """Remove an archived copy that the repair dropped, and say whether another copy is left."""
    if problem.key is None or not problem.repaired:
        return problem
    rest = hierarchy.forget_archived(problem.key)
    fate = "another copy of the value is left" if rest else "the value is lost"
    return problem._replace(what=f"{problem.what}; {fate}")


def _unchecked(hierarchy: Hierarchy, why: str) -> list[Problem]:
    """Return that archived values, if there are any, were not checked."""
    records = hierarchy.catalog.journal.scan()
    count = sum(record.tier is TierName.GLACIER for record in records)
    what = f"{count:,} archived values were not looked at: {why}"
    return [Problem(None, what, False, True)] if count else []
