"""Registers on plain servers, each replicated over a quorum of nodes."""
