"""Registers on a Valkey Cluster, which replicates them itself."""
