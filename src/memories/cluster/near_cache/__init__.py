"""Local copies of what lies on nodes: whether they are fresh, and how they are invalidated."""
