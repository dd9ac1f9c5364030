"""Ten minutes of fuzzing the frame decoder, where atheris is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = int(os.environ.get("MEMORIES_FUZZ_SECONDS", "600"))


@pytest.mark.torture
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris")
def test_any_bytes_give_a_value_or_an_error_of_ours(tmp_path: Path) -> None:
    """Never a crash, a hang, more memory than the input justifies, or an executed payload."""
    fuzzer = Path(__file__).with_name("fuzz_frame.py")
    limits = [f"-max_total_time={SECONDS}", "-rss_limit_mb=2500", "-timeout=60", "-max_len=8192"]
    command = [sys.executable, str(fuzzer), str(tmp_path), *limits]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS + 120, check=False
    )
    assert 0 == done.returncode, done.stderr[-4000:]
