"""Whole programs, as users write them, each beside the one that it would replace, and a judge."""
