"""Nothing in a snapshot can run code: what could needs a key that lies elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from array import array
from pathlib import Path

from memories import MemoryManager

STRANGER = """
import pickle, sys
from memories import MemoryManager, UntrustedDataError

def never(*args, **kwargs):
    raise SystemExit("a pickle was loaded")

pickle.loads = pickle.load = pickle.Unpickler = never
with MemoryManager(storage_path=sys.argv[1], migration=False) as manager:
    manager.restore_snapshot(sys.argv[2], wait=True)
    assert "typed" == manager["typed"]
    try:
        manager["pickled"]
    except UntrustedDataError:
        print("refused")
    manager.create_snapshot(sys.argv[3], portable=True)
"""


def test_a_stranger_reads_what_is_typed_and_is_refused_the_rest(tmp_path: Path) -> None:
    """On a machine without the key; and the bytes are handed on as they are."""
    with MemoryManager(storage_path=tmp_path / "mine", migration=False) as manager:
        manager.store("pickled", array("d", [1.5]), tier="warm")
        manager.store("typed", "typed", tier="warm")
        manager.create_snapshot(tmp_path / "s")
        environment = os.environ | {"XDG_CONFIG_HOME": str(tmp_path / "strange")}
        arguments = [tmp_path / "theirs", tmp_path / "s", tmp_path / "onward"]
        done = subprocess.run(
            [sys.executable, "-c", STRANGER, *map(str, arguments)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ("refused\n", 0) == (done.stdout, done.returncode), done.stderr
        manager.restore_snapshot(tmp_path / "onward")
        assert array("d", [1.5]) == manager["pickled"]
