"""torch, JAX and CuPy values, as far as this machine has their packages."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from memories import codecs
from memories.testing.codecs import through_frame


def torch_values(torch: Any) -> list[Any]:
    """Return tensors of many kinds."""
    return [
        torch.arange(6.0).reshape(2, 3),
        torch.arange(6.0).reshape(2, 3).T,
        torch.zeros(0, 3),
        torch.tensor(5),
        torch.ones(3, dtype=torch.bfloat16),
        torch.ones(4, 4)[::2, ::2],
        torch.ones(2, 2, requires_grad=True),
        torch.nn.Parameter(torch.ones(2), requires_grad=False),
        torch.tensor([1 + 2j]).conj(),
        torch.tensor([1 + 2j]).conj().imag,
        torch.zeros(3).expand(4, 3),
        torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.tensor([True]),
    ]


def test_tensors_survive() -> None:
    """Type, dtype, shape, memory format and the need of a gradient."""
    torch = pytest.importorskip("torch")
    for value in torch_values(torch):
        assert not codecs.carries_code(codecs.encode(value).codec)
        got = through_frame(value)
        assert (type(value), value.dtype, value.shape, value.requires_grad) == (
            type(got), got.dtype, got.shape, got.requires_grad,
        )  # fmt: skip
        assert torch.equal(value.detach().resolve_conj().resolve_neg(), got.detach())
    last = torch_values(torch)[-2]
    assert last.stride() == through_frame(last).stride()


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
    _, held, _ = codecs.hold(value)
    value[0] = 1
    held.open()[1] = 1
    assert [0, 0, 0] == held.open().tolist()


def test_jax_arrays_survive() -> None:
    """By way of the host."""
    jax = pytest.importorskip("jax")
    for value in (
        jax.numpy.arange(5),
        jax.numpy.ones((2, 3), jax.numpy.bfloat16),
        jax.numpy.float32(3),
        jax.numpy.zeros((0, 2)),
    ):
        got = through_frame({"a": value})["a"]
        assert (type(value), value.dtype, value.shape) == (type(got), got.dtype, got.shape)
        assert np.array_equal(np.asarray(value), np.asarray(got))


@pytest.mark.gpu
def test_cupy_arrays_survive() -> None:
    """By way of the host, and back to the device."""
    cupy = pytest.importorskip("cupy")
    value = cupy.asfortranarray(cupy.arange(6.0).reshape(2, 3))
    got = through_frame([value])[0]
    assert isinstance(got, cupy.ndarray)
    assert got.flags.f_contiguous
    assert bool((value == got).all())
