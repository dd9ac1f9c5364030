"""Recorded accesses, and their replay through the very policies that the tiers use."""
