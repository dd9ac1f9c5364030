"""The managers, and the one place that knows how they are put together."""
