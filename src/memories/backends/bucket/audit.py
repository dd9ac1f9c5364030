"""The map compared with what the bucket lists.

Not a check of frames: whoever decodes them checks those. One list per thousand objects.
"""

from __future__ import annotations

from memories.backends.base import Problem
from memories.backends.bucket.ledger import Ledger
from memories.backends.bucket.objectstore import ObjectStore
from memories.backends.bucket.place import object_name, token_of
from memories.backends.bucket.state import State
from memories.progress import Step


def check(
    store: ObjectStore,
    state: State,
    ledger: Ledger,
    repair: bool,
    now: float,
    progress: Step | None = None,
) -> list[Problem]:
    """Return what is missing, cut short or unknown; with `repair`, forget frames that are lost."""
    sizes = {stat.name: stat.size for stat in store.list("objects/")}
    problems: list[Problem] = []
    known = state.rows("SELECT token, size, live, status FROM object")
    for token, size, live, status in known:
        if progress is not None:
            progress(live)
        found = sizes.pop(object_name(token), None)
        if status != "there" or found == size:
            continue
        what = "is missing" if found is None else f"has {found} bytes instead of {size}"
        for item in ledger.contents(token).stored:
            problems.append(Problem(item.record.key, f"its object {token.hex()} {what}", repair))
        if live == 0:
            problems.append(Problem(None, f"the dead object {token.hex()} {what}", repair))
        if repair:
            ledger.forget(token, now)
    problems += [
        Problem(None, f"the object {name} ({size} bytes) is in no map", False)
        for name, size in sizes.items()
        if token_of(name) is not None
    ]
    return problems
