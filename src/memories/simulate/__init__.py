"""Recorded accesses, and their replay through the same policies that the tiers use."""
