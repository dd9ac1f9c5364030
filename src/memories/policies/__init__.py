"""Who stays: eviction policies and the other opinions on placement, all of them pure."""
