"""What a manager reports: counters, moves, time series, metrics, reports and the dashboard."""
