"""Real servers on this machine, for trying things out, for examples and for tests.

Not for production: nothing is saved, and one machine is no replica of itself. `local_nodes` is what
a program uses; `memories cluster up` keeps servers between programs.
"""

from memories.cluster.local.group import LocalGroup, local_nodes
from memories.cluster.local.server import LocalServer

__all__ = ["LocalGroup", "LocalServer", "local_nodes"]
