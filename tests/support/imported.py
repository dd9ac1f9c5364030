"""A plugin of pytest that notes which packages its processes imported: `-p tests.support.imported`.

`IMPORTED` names a folder; each process leaves a file there, with the name of a distribution on each
line.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import packages_distributions
from pathlib import Path


def pytest_unconfigure() -> None:
    """Write what is imported at the end of the tests."""
    modules = {name.partition(".")[0] for name in sys.modules}
    found = {
        distribution
        for module, distributions in packages_distributions().items()
        if module in modules
        for distribution in distributions
    }
    place = Path(os.environ["IMPORTED"])
    (place / str(os.getpid())).write_text("\n".join(sorted(found)), "utf-8")
