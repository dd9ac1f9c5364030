"""What the tiers did over time: samples of counters, series for a plot, and the plot.

Not a part of the engine: it asks for numbers and knows nothing of how they come about.
Counters are the truth, rates are derived from them, and nothing over nothing is no rate.
"""

from __future__ import annotations

from memories.observe.analytics.plots import plot
from memories.observe.analytics.sample import Sample
from memories.observe.analytics.sampler import Sampler
from memories.observe.analytics.series import Series

__all__ = ["Sample", "Sampler", "Series", "plot"]
