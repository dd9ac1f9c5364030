"""Real servers on this machine, for experiments, examples and tests.

They are not for production: they save nothing, and all copies are on one machine. A program uses
`local_nodes`; `memories cluster up` starts servers that outlive a program.
"""

from memories.cluster.local.group import LocalGroup, local_nodes
from memories.cluster.local.server import LocalServer

__all__ = ["LocalGroup", "LocalServer", "local_nodes"]
