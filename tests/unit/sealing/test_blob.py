"""Blobs: what comes back is what was encrypted, or an error; and no nonce is used twice."""

from __future__ import annotations

import hashlib
import hmac
import os
import random
import struct

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from memories.errors import CorruptDataError
from memories.sealing.blob import (
    BLOCK_BITS,
    CHUNK_BITS,
    HEADER_BYTES,
    BlobCipher,
    DataKey,
    opened_length,
    sealed_length,
)

CHUNK, PLACE = 1 << CHUNK_BITS, b"p" * 16
SIZES = [0, 1, 64, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 5 * CHUNK + 7]


@pytest.fixture
def key() -> DataKey:
    return DataKey.new()


@pytest.fixture
def cipher(key: DataKey) -> BlobCipher:
    return BlobCipher([key], PLACE)


@pytest.mark.parametrize("size", SIZES)
def test_what_was_sealed_is_opened(cipher: BlobCipher, size: int) -> None:
    """Sizes around every threshold; lengths are known without the key."""
    data = os.urandom(size)
    blob = cipher.seal(b"c", data)
    assert (sealed_length(size), size) == (len(blob), opened_length(len(blob)))
    assert data == cipher.open(b"c", blob)
    assert size < 16 or data not in blob


@pytest.mark.parametrize("size", SIZES)
def test_bytes_in_pieces_make_the_same_blob(cipher: BlobCipher, size: int) -> None:
    """A gather list is cut where chunks end, and not where its buffers do."""
    data, chance = os.urandom(size), random.Random(size)
    cuts = sorted(chance.randrange(size + 1) for _ in range(9))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
    for blob in (
        b"".join(map(bytes, cipher.blocks(b"c", pieces))),
        cipher.seal_whole(b"c", pieces),
    ):
        assert data == cipher.open(b"c", blob)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 40_000])
def test_a_stream_makes_a_blob(cipher: BlobCipher, size: int) -> None:
    """The end is known last: an index is written in one pass."""
    data, writer = os.urandom(size), cipher.writer(b"c")
    blob = b"".join([writer.add(data[at : at + 999]) for at in range(0, size, 999)])
    blob += writer.end()
    reader = cipher.reader(b"c", blob[:HEADER_BYTES], len(blob), BLOCK_BITS)
    assert (size, data) == (reader.nbytes, reader.whole(memoryview(blob)))


def test_a_part_is_read_without_the_rest(cipher: BlobCipher) -> None:
    """A region of a large array costs what the region costs."""
    data = os.urandom(9 * CHUNK + 5)
    blob, read, chance = cipher.seal(b"c", data), [], random.Random(3)

    def fetch(offset: int, length: int) -> bytes:
        read.append(length)
        return blob[offset : offset + length]

    reader = cipher.reader(b"c", blob[:HEADER_BYTES], len(blob))
    for _ in range(50):
        start = chance.randrange(len(data))
        stop = min(len(data), start + chance.randrange(CHUNK))
        read.clear()
        assert data[start:stop] == reader.read(fetch, start, stop)
        assert sum(read) <= 2 * (CHUNK + 16)
    with pytest.raises(CorruptDataError):
        reader.read(fetch, 0, len(data) + 1)


@pytest.mark.parametrize("size", [0, 5, 300])
def test_every_flipped_bit_is_noticed(cipher: BlobCipher, size: int) -> None:
    """In the header, the bytes and the tag."""
    blob = cipher.seal(b"c", os.urandom(size))
    for at in range(8 * len(blob)):
        forged = bytearray(blob)
        forged[at // 8] ^= 1 << at % 8
        with pytest.raises(CorruptDataError):
            cipher.open(b"c", forged)


def test_chunks_stay_where_they_are(cipher: BlobCipher) -> None:
    """None can be left out, doubled, moved, or taken from another blob of the same context."""
    data, stored = os.urandom(4 * CHUNK), CHUNK + 16
    blob, other = cipher.seal(b"c", data), cipher.seal(b"c", data)
    head, parts = blob[:HEADER_BYTES], [
        blob[at : at + stored] for at in range(HEADER_BYTES, len(blob), stored)
    ]  # fmt: skip
    foreign = other[HEADER_BYTES : HEADER_BYTES + stored]
    forgeries = [
        parts[:3],
        [*parts, parts[3]],
        [parts[1], parts[0], *parts[2:]],
        [foreign, *parts[1:]],
        [*parts[:3], parts[3][:-1]],
        [],
    ]
    for forged in forgeries:
        with pytest.raises(CorruptDataError):
            cipher.open(b"c", head + b"".join(forged))
    assert blob != other


def test_it_opens_in_its_place_with_its_context_and_key_only(
    cipher: BlobCipher, key: DataKey
) -> None:
    """Bytes that are moved to another key, version or store are noticed."""
    blob = cipher.seal(b"c", b"data")
    with pytest.raises(CorruptDataError, match="altered"):
        cipher.open(b"d", blob)
    with pytest.raises(CorruptDataError, match="altered"):
        BlobCipher([key], b"q" * 16).open(b"c", blob)
    with pytest.raises(CorruptDataError, match=key.id.hex()):
        BlobCipher([DataKey.new()], PLACE).open(b"c", blob)
    same_id = DataKey(key.id, os.urandom(32))
    with pytest.raises(CorruptDataError, match="altered"):
        BlobCipher([same_id], PLACE).open(b"c", blob)
    later = BlobCipher([key, DataKey.new()], PLACE)
    assert b"data" == later.open(b"c", blob)
    assert later.seal(b"c", b"data")[8:16] != key.id


def test_no_key_with_its_nonces_is_used_twice(key: DataKey) -> None:
    """Also not by two processes that begin alike: two ciphers of one key share no blob's key."""
    ciphers = [BlobCipher([key], PLACE) for _ in range(2)]
    salts = {cipher.seal(b"c", b"data")[16:HEADER_BYTES] for cipher in ciphers for _ in range(500)}
    assert 1000 == len(salts)


def test_the_format_is_as_documented(cipher: BlobCipher, key: DataKey) -> None:
    """A reader who has docs/format.md and the data key needs no `memories`."""
    data = os.urandom(CHUNK + 100)
    blob = cipher.seal(b"context", data)
    mark, version, bits, zero, identity, salt = struct.unpack("<4sBBH8s24s", blob[:40])
    assert (b"mSea", 1, 17, 0, key.id) == (mark, version, bits, zero, identity)
    derived = HKDFExpand(hashes.SHA256(), 32, b"memories blob 1\0" + salt).derive(key.secret)
    info = b"memories blob 1\0" + salt + b"\1"
    assert derived == hmac.new(key.secret, info, hashlib.sha256).digest()
    found, at = b"", 40
    for number, size in enumerate([CHUNK, 100]):
        nonce = struct.pack("<QI", number, number == 1)
        stored = blob[at : at + size + 16]
        found += AESGCM(derived).decrypt(nonce, stored, blob[:40] + PLACE + b"context")
        at += size + 16
    assert (data, len(blob)) == (found, at)


def test_no_secret_is_shown(key: DataKey) -> None:
    """A traceback or a log may show any `repr`."""
    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)
