"""A frame of another key is what packing the value for that key would have made."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memories import codecs
from memories.errors import CorruptDataError, InvalidKeyError, UntrustedDataError
from memories.frames.compression_history import CompressionHistory
from memories.frames.reader import open_frame
from memories.frames.rebind import rebind
from memories.frames.signing import Keyring
from memories.frames.writer import pack

VALUES: list[Any] = [
    b"", b"abc", "é" * 3000, np.arange(300_000) // 7, {"a": [1, 2], "b": np.zeros(9)}, 7,
    {f"{number}" * 20: number for number in range(3000)},  # Its description is in the body.
]  # fmt: skip


def rebound(frame: bytes, trust: Keyring, key: str = "another key", version: int = 9) -> bytes:
    """Return a frame for another key."""
    made = rebind(
        open_frame(frame), key=key, version=version, compression="none", trust=trust,
        history=CompressionHistory(0.0),
    )  # fmt: skip
    assert made.nbytes == len(made.join())
    return made.join()


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("compression", ["none", "fast"])
def test_only_the_head_differs(tmp_path: Path, value: Any, compression: str) -> None:
    """Nothing but a new head is made, whatever lies in the frame."""
    trust = Keyring(tmp_path / "keys")
    parts = codecs.encode(value)
    first = pack(parts, key="k", version=3, compression=compression).join()
    expected = pack(parts, key="another key", version=9, compression=compression).join()
    assert expected == rebound(first, trust)
    with pytest.raises(InvalidKeyError):
        rebound(first, trust, "")


def test_a_damaged_frame_is_refused(tmp_path: Path) -> None:
    """With a head of its own it would look whole."""
    frame = bytearray(pack(codecs.encode(np.arange(9000)), key="k", version=3).join())
    frame[-1000] ^= 1
    with pytest.raises(CorruptDataError):
        rebound(bytes(frame), Keyring(tmp_path / "keys"))


def test_code_is_signed_anew_only_if_it_was_trusted(tmp_path: Path) -> None:
    """A signature covers the key, and never what a stranger has written."""
    mine, theirs = Keyring(tmp_path / "mine"), Keyring(tmp_path / "theirs")
    parts = codecs.encode(functools.partial(int, "7"))
    frame = pack(parts, key="k", version=3, signer=mine).join()
    again = open_frame(rebound(frame, mine), key="another key")
    assert 7 == codecs.decode(again.parts(verifier=mine))()
    with pytest.raises(UntrustedDataError):
        rebound(frame, theirs)
