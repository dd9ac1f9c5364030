"""Store an array on several machines; here they are real servers on this one, for a moment."""

import numpy as np

from memories import DistributedMemoryManager
from memories.cluster.local import local_nodes

with (
    local_nodes(3) as nodes,  # Elsewhere: nodes = ["node1:6379", "node2:6379", "node3:6379"]
    DistributedMemoryManager(nodes=nodes, replication_factor=2) as manager,
):
    data = np.random.rand(1000, 1000)
    manager.store_distributed("matrix", data)  # Now on two of the three.

    retrieved = manager.retrieve_distributed("matrix")
    print("equal:", np.array_equal(retrieved, data))
    print("one row:", manager.retrieve_distributed("matrix", region=np.s_[17]).shape)

    nodes_as_dict = manager.distributed  # The same values, by plain names.
    nodes_as_dict.store("session", {"user": 7}, ttl=60)
    print("keys:", list(nodes_as_dict))

    for node, state in manager.get_node_status().items():
        print(f"{node}: online: {state['online']}, {state['memory_usage']:.2f} % used")
