"""A cache of values on nodes in local memory: freshness of copies, and their invalidation."""
