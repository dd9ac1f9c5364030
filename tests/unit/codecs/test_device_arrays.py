"""torch, JAX and CuPy values, as far as this machine has their packages."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from memories import codecs
from memories.frames import writer
from memories.frames.reader import open_frame
from memories.testing.codecs import through_frame


@pytest.mark.parametrize("layout", ["transposed", "channels_last"])
def test_a_memory_format_is_kept(layout: str) -> None:
    """A convolution is twice as fast over the layout that its author chose."""
    torch = pytest.importorskip("torch")
    value = torch.arange(120.0).reshape(2, 3, 4, 5)
    value = (
        value.permute(3, 1, 0, 2)
        if layout == "transposed"
        else value.to(memory_format=torch.channels_last)
    )
    got = through_frame(value)
    assert value.stride() == got.stride()
    assert not codecs.carries_code(codecs.encode(value).codec)


def test_a_state_dict_is_raw_buffers_and_keeps_its_ties() -> None:
    """Leaf by leaf, and what shares memory shares memory again."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 3))
    state = model.state_dict()
    state["tied"] = state["0.weight"].view(-1)
    parts = codecs.encode(state)
    assert ("tree", 4) == (parts.codec, len(parts.buffers))
    got = through_frame(state)
    assert (OrderedDict, state._metadata) == (type(got), got._metadata)
    got["tied"][0] = 77
    assert 77 == got["0.weight"][0, 0]
    torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 3)).load_state_dict(
        {name: tensor for name, tensor in got.items() if name != "tied"}
    )


def test_a_tensor_is_each_readers_own() -> None:
    """torch cannot make it read-only, so it is cloned."""
    torch = pytest.importorskip("torch")
    value = torch.zeros(3)
    _, held, _ = codecs.own_value(value)
    value[0] = 1
    held.open()[1] = 1
    assert [0, 0, 0] == held.open().tolist()


def test_a_shared_tensor_lies_in_the_stored_memory() -> None:
    """Weights of gigabytes are read without a copy; the caller must not write to them."""
    torch = pytest.importorskip("torch")
    weight = torch.zeros(100)
    for value in (weight, {"a": weight, "tied": weight.view(10, 10)}):
        _, held, _ = codecs.own_value(value)
        first, second, own = held.open_shared(), held.open_shared(), held.open()
        if isinstance(value, dict):
            assert first["a"].data_ptr() == first["tied"].data_ptr()
            first, second, own = first["a"], second["a"], own["a"]
        assert first.data_ptr() == second.data_ptr() != own.data_ptr()
        assert first.data_ptr() != weight.data_ptr()


def test_a_decompressed_tensor_is_not_copied_again() -> None:
    """Decompressed memory belongs to the reader already."""
    torch = pytest.importorskip("torch")
    for value in (torch.zeros(100_000), {"a": torch.zeros(100_000)}):
        packed = writer.pack(codecs.encode(value), key="k", version=1, compression="lz4")
        parts = open_frame(packed.join()).parts()
        got = codecs.decode(parts)
        tensor = got["a"] if isinstance(got, dict) else got
        place = np.frombuffer(parts.buffers[0], np.uint8).ctypes.data
        assert place == tensor.data_ptr()
        tensor[0] = 1  # It can be written to, too.


def test_a_raw_frame_is_never_written_to() -> None:
    """It may be a map of a file, where a write ends the process."""
    torch = pytest.importorskip("torch")
    data = writer.pack(codecs.encode(torch.zeros(100)), key="k", version=1).join()
    parts = open_frame(data).parts()
    codecs.decode(parts._replace(given=frozenset({0})))[:] = 1
    assert bytes(data) == writer.pack(codecs.encode(torch.zeros(100)), key="k", version=1).join()


def test_a_shared_jax_array_lies_in_the_stored_memory() -> None:
    """JAX arrays cannot be written to, so nothing but a promise speaks against it."""
    jax = pytest.importorskip("jax")
    for value in (jax.numpy.arange(1000), jax.numpy.ones(64, bool)):
        _, held, _ = codecs.own_value([value])
        first, second, own = held.open_shared()[0], held.open_shared()[0], held.open()[0]
        places = [array.unsafe_buffer_pointer() for array in (first, second, own)]
        assert places[0] == places[1] != places[2]
        assert (value.dtype, True) == (first.dtype, bool((value == first).all()))


@pytest.mark.gpu
def test_cupy_arrays_survive() -> None:
    """By way of the host, and back to the device."""
    cupy = pytest.importorskip("cupy")
    value = cupy.asfortranarray(cupy.arange(6.0).reshape(2, 3))
    got = through_frame([value])[0]
    assert isinstance(got, cupy.ndarray)
    assert got.flags.f_contiguous
    assert bool((value == got).all())
