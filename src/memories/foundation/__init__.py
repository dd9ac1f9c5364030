"""What all packages use: locks, threads, clocks, keys and units. It does not know tiers."""
