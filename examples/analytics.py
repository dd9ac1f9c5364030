"""Watch usage and hit rate while a program works, and plot them."""

import importlib.util
import random
import time

import numpy as np

from memories import MemoryManager

manager = MemoryManager()
manager.enable_analytics()

for number in range(20):
    manager.store(f"array-{number}", np.random.rand(500, 500))
    for _ in range(3):
        manager.retrieve(f"array-{random.randint(0, number)}")
    time.sleep(0.5)

series = manager.get_analytics()
print(len(series["timestamps"]), "samples in", round(series["timestamps"][-1], 1), "seconds")
print(f"hot usage went from {series['hot_usage'][0]:.3f} to {series['hot_usage'][-1]:.3f} %")
print(f"hit rate of the last two seconds: {series['hit_rate'][-1]:.0f} %")

if importlib.util.find_spec("matplotlib"):
    manager.plot_analytics("analytics.png")
    print("see analytics.png")

manager.cleanup()
