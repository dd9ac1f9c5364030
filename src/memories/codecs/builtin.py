"""Register the codecs that need only Python and NumPy.

The codecs of optional packages are loaded by `registry` on demand.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from types import SimpleNamespace

from memories.codecs import scalars
from memories.codecs.nested import TreeCodec
from memories.codecs.pickled import PickleCodec
from memories.codecs.registry import add
from memories.codecs.types import numpy_special

TREES = (
    list,
    tuple,
    dict,
    set,
    frozenset,
    OrderedDict,
    Counter,
    defaultdict,
    deque,
    SimpleNamespace,
)


def register() -> None:
    """Register the codecs of Python's own types and of plain arrays."""
    for kind, codec in scalars.CODECS.items():
        add(codec, kind)
    add(TreeCodec(), *TREES)
    add(PickleCodec())
    numpy_special.register()
