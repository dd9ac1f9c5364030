"""What every room stands on: locks, threads, clocks, keys and units. It knows nothing of tiers."""
