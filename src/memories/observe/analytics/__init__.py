"""Analytics: samples of the counters over time, time series of them, plots and reports.

Rates are derived from the counters; where nothing happened a rate is NaN.
"""

from __future__ import annotations

from memories.observe.analytics.plots import plot
from memories.observe.analytics.sample import Sample
from memories.observe.analytics.sampler import Sampler
from memories.observe.analytics.series import Series

__all__ = ["Sample", "Sampler", "Series", "plot"]
