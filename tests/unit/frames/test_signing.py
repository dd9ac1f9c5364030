"""Keys and signatures, and that nothing which was read can run code."""

from __future__ import annotations

import base64
import os
import pickle
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from memories import codecs
from memories.codecs.base import Parts
from memories.errors import (
    CorruptDataError,
    InvalidOptionError,
    MemoriesError,
    StorageError,
    UnsupportedTypeError,
    UntrustedDataError,
)
from memories.frames import head, signing, writer
from memories.frames.head import Content, Fields
from memories.frames.reader import open_frame
from memories.frames.signing import Key, Keyring
from memories.frames.writer import FrameBody, store_separately

FIRED: list[str] = []


class Thing:
    """An object without a codec."""

    def __init__(self, array: Any) -> None:
        self.array = array


class Bomb:
    """What an adversary pickles: it runs code when it is loaded."""

    def __reduce__(self) -> Any:
        return FIRED.append, ("boom",)


@pytest.fixture(autouse=True)
def nothing_fires() -> Iterator[None]:
    """No test here may run the adversary's code."""
    FIRED.clear()
    yield
    assert [] == FIRED


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    """Return the keyring of one user."""
    return Keyring(tmp_path / "one" / "keys")


def signed(value: Any, ring: Keyring, key: str = "k", version: int = 1, **options: Any) -> bytes:
    """Return a frame of `value`."""
    parts = codecs.encode(value)
    return writer.pack(parts, key=key, version=version, signer=ring, **options).join()


def forged(codec: str, meta: Any, *buffers: bytes, key_id: str = "", mac: bytes = b"") -> bytes:
    """Return a frame as an adversary would build it, every checksum valid."""
    body = FrameBody(lambda chunks, _: [store_separately(chunk) for chunk in chunks])
    pieces = body.add([*map(memoryview, buffers)], [None] * len(buffers))
    content = msgspec.msgpack.encode(Content(msgspec.Raw(msgspec.msgpack.encode(meta)), pieces))
    fields = Fields(
        key="k", version=1, codec=codec, raw=sum(map(len, buffers)), content=content,
        key_id=key_id, mac=mac,
    )  # fmt: skip
    return head.pack_head(fields, body.nbytes) + b"".join(body.segments)


def test_a_key_is_made_at_the_first_signature_only(ring: Keyring) -> None:
    """A program that stores typed values only needs no key, so none is created."""
    assert not ring.path.exists()
    open_frame(signed({"a": np.arange(3)}, ring)).parts(verifier=ring)
    assert not ring.path.exists()
    signed(Thing(1), ring)
    assert 0o600 == stat.S_IMODE(ring.path.stat().st_mode)
    assert 0o700 == stat.S_IMODE(ring.path.parent.stat().st_mode)


def test_what_i_signed_i_can_read(ring: Keyring, tmp_path: Path) -> None:
    """The same user, in another process, tomorrow."""
    data = signed(Thing(np.arange(1000)), ring, compression="high")
    again = Keyring(ring.path)
    got = codecs.decode(open_frame(data).parts(verifier=again))
    assert list(range(1000)) == got.array.tolist()
    got.array[0] = 5  # An object works as it did, so its arrays can be written to.


def test_a_stranger_cannot_read_it_and_learns_how_to(ring: Keyring, tmp_path: Path) -> None:
    """The message names the key, and what to do on purpose."""
    data = signed(Thing(1), ring)
    stranger = Keyring(tmp_path / "two" / "keys")
    with pytest.raises(UntrustedDataError, match=r"memories key export.*trusted_keys=") as caught:
        open_frame(data).parts(verifier=stranger)
    assert ring.keys()[0].id in str(caught.value)


def test_trust_can_be_given_on_purpose(ring: Keyring, tmp_path: Path) -> None:
    """By a file that keeps it, or by an argument that does not."""
    data = signed(Thing(1), ring)
    text = ring.export()
    passing = Keyring(tmp_path / "two" / "keys", trusted=[text])
    assert 1 == codecs.decode(open_frame(data).parts(verifier=passing)).array
    lasting = Keyring(tmp_path / "three" / "keys")
    own = lasting.export()
    assert lasting.trust(text) == lasting.trust(text) == Key.parse(text)
    again = Keyring(lasting.path)
    assert 1 == codecs.decode(open_frame(data).parts(verifier=again)).array
    assert own == again.export()
    assert 2 == len(again.keys())


def test_a_signature_is_for_one_key_version_and_codec(ring: Keyring) -> None:
    """A value that was moved to another name is not what its owner signed."""
    data = signed(Thing(1), ring)
    opened = open_frame(data)
    mac, stream = opened._fields.mac, bytes(opened.parts(verifier=ring).buffers[0])
    meta = opened.description()
    good = {"key_id": ring.keys()[0].id, "mac": mac}
    assert (
        1
        == codecs.decode(
            open_frame(forged("pickle", meta, stream, **good)).parts(verifier=ring)
        ).array
    )
    for bad in (
        forged("tree+pickle", meta, stream, **good),
        forged("pickle", {"writable": [True]}, stream, **good),
        forged("pickle", meta, stream + b".", **good),
        forged("pickle", meta, stream, b"", **good),
        forged("pickle", meta, stream, key_id=good["key_id"], mac=mac[:-1] + b"\0"),
        forged("pickle", meta, stream, key_id=good["key_id"]),
    ):
        with pytest.raises(UntrustedDataError):
            open_frame(bad).parts(verifier=ring)
    for other in (signed(Thing(1), ring, key="other"), signed(Thing(1), ring, version=2)):
        assert open_frame(other)._fields.mac != mac


def test_buffers_beside_the_stream_are_signed_too(ring: Keyring) -> None:
    """Weights that were swapped are an attack as well."""
    opened = open_frame(signed(Thing(np.arange(10)), ring))
    parts = opened.parts(verifier=ring)
    fields = opened._fields
    swapped = [bytes(parts.buffers[0]), bytes(80)]
    data = forged("pickle", opened.description(), *swapped, key_id=fields.key_id, mac=fields.mac)
    with pytest.raises(UntrustedDataError, match="altered"):
        open_frame(data).parts(verifier=ring)


@pytest.mark.parametrize("verify", [True, False])
def test_unsigned_pickles_never_run(ring: Keyring, verify: bool) -> None:
    """The one rule that has no exception."""
    bomb = pickle.dumps(Bomb())
    node = ["pickle", {"writable": []}, [0]]
    tree = {"nodes": [node], "root": [0]}
    nested = {"nodes": [["numpy.masked", tree, [0]]], "root": [0]}
    attacks = [
        forged("pickle", {"writable": []}, bomb),
        forged("tree+pickle", tree, bomb),
        forged("tree", tree, bomb),
        forged("numpy.objects", tree, bomb),
        forged("pandas.frame", tree, bomb),
        forged("pandas.frame+pickle", tree, bomb),
        forged("tree", nested, bomb),
        forged("tree", {"nodes": [["tree+pickle", tree, [0]]], "root": [0]}, bomb),
        forged("tree+pickle+pickle", tree, bomb),
        forged("+pickle", tree, bomb),
        forged("ndarray", {"dtype": "|O", "shape": [1], "order": "C"}, bomb[:8]),
        forged("bytes", None, bomb),
        forged("polars.frame", {"height": 1, "name": None}, bomb),
    ]
    for data in attacks:
        try:
            codecs.decode(open_frame(data).parts(verify=verify, verifier=ring))
        except MemoriesError:
            continue


def test_a_pickle_inside_of_parts_needs_the_name_that_is_signed() -> None:
    """An unsigned tree must not contain a node that carries code."""
    node = ["pickle", {"writable": []}, [0]]
    parts = Parts("tree", {"nodes": [node], "root": [0]}, (memoryview(pickle.dumps(Bomb())),))
    with pytest.raises(CorruptDataError, match="carries code"):
        codecs.decode(parts)


def test_types_of_others_are_built_without_their_code() -> None:
    """No `__init__`, no `__post_init__`, no `__new__`, no `__setattr__`."""
    from memories.testing.strategies import Box

    parts = codecs.encode(Box(1))
    node = parts.meta["nodes"][-1]
    assert "dataclass" == node[0]
    for name in (
        ["os", "system"],
        ["subprocess", "Popen"],
        ["builtins", "eval"],
        [__name__, "Bomb"],
        ["no.such.module", "X"],
        ["memories.testing.strategies", "Box.__init__"],
        ["memories.testing.strategies", "Colour"],
    ):
        meta = {"nodes": [*parts.meta["nodes"][:-1], ["dataclass", name, [], []]], "root": [1]}
        with pytest.raises((CorruptDataError, UnsupportedTypeError)):
            codecs.decode(Parts("tree", meta))
    assert "no.such.module" not in sys.modules


def test_an_altered_key_file_is_refused(ring: Keyring) -> None:
    """The message must not repeat what might be a secret."""
    ring.export()
    ring.path.write_text("memories-key-1:c2VjcmV0\n")
    with pytest.raises(InvalidOptionError) as caught:
        Keyring(ring.path).export()
    assert "c2VjcmV0" not in str(caught.value)
    for text in ("", "x", "memories-key-1:", "memories-key-1:ä", base64.b64encode(b"x").decode()):
        with pytest.raises(InvalidOptionError, match="memories-key-1"):
            Key.parse(text)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_file_that_others_can_open_is_refused(ring: Keyring, mode: int) -> None:
    """A key that another user may know, or may have written, proves nothing."""
    ring.export()
    ring.path.chmod(mode)
    with pytest.raises(StorageError, match="chmod 600"):
        Keyring(ring.path).export()
    ring.path.chmod(0o600)
    assert ring.export() == Keyring(ring.path).export()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_file_of_another_user_is_refused(ring: Keyring) -> None:
    """Its owner could sign in the name of this user."""
    ring.export()
    os.chown(ring.path, 12345, -1)
    with pytest.raises(StorageError, match="belongs to another user"):
        Keyring(ring.path).keys()


def test_a_key_file_that_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    """A FIFO would hang the process that opens it."""
    os.mkfifo(tmp_path / "keys", 0o600)
    with pytest.raises(StorageError, match="regular"):
        Keyring(tmp_path / "keys").keys()


def test_an_imported_key_is_kept_and_seen_by_a_running_process(
    ring: Keyring, tmp_path: Path
) -> None:
    """Also where an editor has left out the end of the last line."""
    other = Keyring(tmp_path / "other")
    frame = writer.pack(codecs.encode(Thing(1)), key="k", version=1, signer=other).join()
    own = ring.export()
    ring.path.write_text(own)
    with pytest.raises(UntrustedDataError):
        open_frame(frame).parts(verifier=ring)
    Keyring(ring.path).trust(other.export())
    assert 1 == codecs.decode(open_frame(frame).parts(verifier=ring)).array
    keys = Keyring(ring.path).keys()
    assert [own, other.export()] == [key.text for key in keys]


def test_many_processes_import_keys_at_once(ring: Keyring, tmp_path: Path) -> None:
    """None of them is lost, and no line is torn."""
    ring.export()
    others = [Keyring(tmp_path / str(number)).export() for number in range(16)]
    threads = [threading.Thread(target=Keyring(ring.path).trust, args=(text,)) for text in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Keyring(ring.path).keys()
    assert set(others) <= {key.text for key in found}


def test_the_name_of_a_key_may_be_any_text(ring: Keyring) -> None:
    """It comes from the data: a name beyond ASCII was an error of the library for HMACs."""
    ring.export()
    frame = forged("pickle", {"writable": []}, pickle.dumps(Bomb()), key_id="ключ", mac=b"x")
    with pytest.raises(UntrustedDataError, match="not trusted"):
        open_frame(frame).parts(verifier=ring)


def test_a_key_never_shows_in_a_repr(ring: Keyring) -> None:
    """Tracebacks and logs are read by many."""
    text = ring.export()
    assert text.partition(":")[2] not in repr(ring.keys()) + repr(ring)
    assert ring.keys()[0].id in repr(ring.keys())


def test_the_environment_names_the_key_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A container mounts its key where it likes."""
    monkeypatch.setenv(signing.ENVIRONMENT, str(tmp_path / "mounted"))
    assert tmp_path / "mounted" == signing.default().path == Keyring().path
    writer.pack(codecs.encode(Thing(1)), key="k", version=1)
    assert (tmp_path / "mounted").exists()


def test_many_threads_and_processes_make_one_key(tmp_path: Path) -> None:
    """Two workers that start together must not each sign with a key of their own."""
    rings = [Keyring(tmp_path / "keys") for _ in range(8)]
    threads = [threading.Thread(target=ring.export) for ring in rings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == len({ring.export() for ring in rings})
    assert ["keys"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize("value", [lambda: 1, (n for n in []), threading.Lock(), open, sys])
def test_what_cannot_be_pickled_is_refused_at_once(value: Any) -> None:
    """The call itself raises, not a background move out of RAM later."""
    if value is open:
        assert codecs.carries_code(codecs.encode(value).codec)
        return
    for wrapped in (value, [value], {"a": (1, value)}):
        with pytest.raises(UnsupportedTypeError, match="cannot be stored"):
            codecs.encode(wrapped)


class Swapping:
    """Verifies, and lets the adversary write to the mapped file at once after that."""

    def __init__(self, ring: Keyring, path: Path, found: bytes, instead: bytes) -> None:
        self.ring, self.path, self.found, self.instead = ring, path, found, instead

    def verify(self, message: bytes, signature: Any, what: str = "") -> None:
        self.ring.verify(message, signature, what)
        data = self.path.read_bytes()
        assert 1 == data.count(self.found)
        with self.path.open("r+b") as file:
            file.seek(data.index(self.found))
            file.write(self.instead)


def test_what_was_verified_is_what_is_loaded(ring: Keyring, tmp_path: Path) -> None:
    """A mapped file may change between the two; then, or later, code of another would run."""
    bomb = pickle.dumps(Bomb(), 5)
    thing = Thing("x" * 2 * len(bomb))
    parts = codecs.encode(thing)
    stream = bytes(parts.buffers[0])
    evil = bomb.ljust(len(stream), b"\0")  # What follows the end of a pickle is not read.
    path = tmp_path / "frame"
    path.write_bytes(writer.pack(parts, key="k", version=1, signer=ring).join())
    mapped = np.memmap(path, np.uint8, "r")
    opened = open_frame(mapped, key="k")
    loaded = opened.parts(verifier=Swapping(ring, path, stream, evil))
    assert evil in path.read_bytes()
    assert bytes(mapped) == path.read_bytes()
    assert thing.array == codecs.decode(loaded).array
    with pytest.raises(UntrustedDataError, match="altered"):
        opened.parts(verify=False, verifier=ring)


def test_buffers_of_a_pickle_do_not_stay_in_the_file(ring: Keyring, tmp_path: Path) -> None:
    """An object that was verified must not change in the hands of its user."""
    thing = Thing(np.arange(20_000))
    thing.array.setflags(write=False)  # One that is writable is copied in any case.
    path = tmp_path / "frame"
    path.write_bytes(writer.pack(codecs.encode(thing), key="k", version=1, signer=ring).join())
    opened = open_frame(np.memmap(path, np.uint8, "r"), key="k")
    loaded = codecs.decode(opened.parts(verifier=ring))
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert np.array_equal(np.arange(20_000), loaded.array)
