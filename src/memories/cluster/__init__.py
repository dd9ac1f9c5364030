"""Values on several machines: nodes, their placement, and the replicated store over them."""
