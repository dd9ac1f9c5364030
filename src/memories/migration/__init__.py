"""Migration: a planner that decides and touches nothing, and a migrator that acts."""
