"""Values on several machines: connections to nodes, placement, and the replicated store."""
