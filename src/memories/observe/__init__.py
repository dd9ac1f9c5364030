"""What a manager shows of itself: counters, moves, series, metrics and pages."""
