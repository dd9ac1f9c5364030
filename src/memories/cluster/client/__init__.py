"""A client of Valkey and Redis nodes: protocol, connections, pools, and requests to many."""
