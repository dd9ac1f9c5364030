"""The vocabulary of the engine: tiers, records, entries, events and rules. It acts on nothing."""
