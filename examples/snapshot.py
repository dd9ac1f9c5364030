"""Write everything into one file, lose everything, and get everything back."""

from pathlib import Path

import numpy as np

from memories import MemoryManager

PATH = Path("./memory_snapshot.bin")
manager = MemoryManager()

for number in range(5):
    manager.store(f"matrix-{number}", np.random.rand(500, 500) + number, tier="hot")
means = {key: manager.retrieve(key).mean() for key in manager}

manager.create_snapshot(PATH)
print(f"snapshot: {PATH.stat().st_size:,} bytes")

manager.clear()
try:
    manager.retrieve("matrix-0")
except KeyError as error:
    print("cleared:", error)

manager.restore_snapshot(PATH)
for key, mean in means.items():
    assert manager.retrieve(key).mean() == mean
    print(f"{key} is back in {manager.get_tier(key)}, mean {mean:.4f}")

manager.cleanup()
PATH.unlink()
