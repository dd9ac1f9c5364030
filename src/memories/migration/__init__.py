"""Migration: a planner that only decides, and a migrator that carries out its plans."""
