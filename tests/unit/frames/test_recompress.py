"""A frame compressed anew is the same value, only smaller, or it stays as it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memories import codecs
from memories.errors import CorruptDataError
from memories.frames import writer
from memories.frames.reader import open_frame
from memories.frames.recompress import recompress
from memories.frames.signing import Keyring
from memories.testing.codecs import identical


def packed(value: Any, compression: str, signer: Keyring | None = None) -> bytes:
    parts = codecs.encode(value)
    return writer.pack(parts, key="k", version=7, compression=compression, signer=signer).join()


def smooth(rows: int) -> np.ndarray:
    return np.cumsum(np.random.default_rng(1).integers(-2, 3, (rows, 1000)), axis=1).astype("<i4")


VALUES = {
    "array": smooth(900),
    "small array": smooth(2),
    "text": "to and fro " * 5000,
    "tree": {"a": smooth(300), "b": os.urandom(200_000), "c": [1, "x", smooth(3)]},
    "many": {f"key{n}": smooth(1) + n for n in range(400)},
}


@pytest.mark.parametrize("before", ["none", "fast"])
@pytest.mark.parametrize("name", VALUES)
def test_it_is_the_same_value_in_fewer_bytes(name: str, before: str) -> None:
    """Key, version and value stay; only the bytes at rest change."""
    data = packed(VALUES[name], before)
    anew = recompress(open_frame(data), "high")
    assert anew is not None
    assert anew.nbytes == len(anew.join()) < len(data)
    opened = open_frame(anew.join(), key="k")
    opened.verify()
    assert 7 == opened.version
    assert identical(VALUES[name], codecs.decode(opened.parts()))


@pytest.mark.parametrize(
    "value",
    [os.urandom(3_000_000), b"", 1.5, b"short"],
    ids=["random", "empty", "number", "short"],
)
def test_what_would_not_get_smaller_stays(value: Any) -> None:
    """A byte copy is the cheaper move."""
    assert recompress(open_frame(packed(value, "fast")), "high") is None


def test_what_is_small_already_stays() -> None:
    """A second archiving of the same value costs three chunks, not all of them."""
    data = packed(VALUES["array"], "high")
    assert recompress(open_frame(data), "high") is None


def test_a_signature_stays_valid(tmp_path: Path) -> None:
    """It is over the value, and the machine that archives need not have the key."""
    ring = Keyring(tmp_path / "keys")
    value = complex  # Has no codec of its own, so it is pickled and signed.
    tree = {"kind": value, "data": smooth(300)}
    anew = recompress(open_frame(packed(tree, "none", ring)), "high")
    assert anew is not None
    got = codecs.decode(open_frame(anew.join()).parts(verifier=ring))
    assert identical(tree["data"], got["data"])
    assert value is got["kind"]


def test_damage_is_found_and_not_carried_on() -> None:
    """A new checksum over damaged bytes would make the damage valid."""
    data = bytearray(packed(VALUES["array"], "none"))
    data[2_000_000] ^= 1
    opened = open_frame(bytes(data))
    with pytest.raises(CorruptDataError, match="do not match their checksum"):
        recompress(opened, "high")


def test_damage_in_what_is_only_copied_is_found_too() -> None:
    """One buffer is compressed anew, the other copied: both are verified."""
    data = bytearray(packed({"a": smooth(500), "b": os.urandom(2_000_000)}, "none"))
    data[-100_000] ^= 1
    with pytest.raises(CorruptDataError, match="do not match their checksum"):
        recompress(open_frame(bytes(data)), "high")
