"""The options of a manager and of its methods, and their checks."""
