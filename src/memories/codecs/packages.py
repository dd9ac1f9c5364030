"""Optional packages that values come from.

Not imported to look at a value: whoever has one has imported its package. The one idea: only a
value that is read back may import, and then the package that its type belongs to.
"""

from __future__ import annotations

from types import ModuleType

from memories.optional import load


def package(name: str) -> ModuleType:
    """Return the package that a stored value needs, importing it.

    Raises:
        MissingPackageError: it is not installed here.
        BrokenPackageError: it is, and failed to be imported.
    """
    root = name.partition(".")[0]
    missing = f"the stored value needs {root}, which is not installed here; run: pip install {root}"
    return load(name, missing)
