"""torch tensors under `CodecTests`, on the host; without torch all of it is skipped."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

from memories.testing.codecs import CodecTests

torch: Any = pytest.importorskip("torch")

MODEL = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


def same_tensor(left: Any, right: Any) -> bool:
    """Return whether two tensors agree in all that a program can ask of them."""
    for ask in (
        type,
        lambda t: t.dtype,
        lambda t: t.shape,
        lambda t: t.device,
        lambda t: t.requires_grad,
    ):
        if ask(left) != ask(right):
            return False
    return bool(torch.equal(bits(left), bits(right)))


def bits(tensor: Any) -> Any:
    """Return the bytes of a tensor's items in their order."""
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
    return flat.copy_(tensor.detach().reshape(-1)).view(torch.uint8)


class TestTensors(CodecTests):
    """Every dtype, layout and mark."""

    values = (
        torch.arange(6.0).reshape(2, 3),
        torch.arange(6.0).reshape(2, 3).T,
        torch.zeros(0, 3),
        torch.tensor(5),
        torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        torch.ones(3, dtype=torch.float16),
        torch.ones(3).to(torch.float8_e4m3fn),
        torch.tensor([True, False]),
        torch.arange(5, dtype=torch.uint8),
        torch.tensor([-(2**63)]),
        torch.tensor([1 + 2j]),
        torch.tensor([1 + 2j]).conj(),
        torch.tensor([1 + 2j]).conj().imag,
        torch.ones(4, 4)[::2, ::2],
        torch.zeros(3).expand(4, 3),
        torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.ones(2, 2, requires_grad=True),
        torch.nn.Parameter(torch.ones(2), requires_grad=False),
        torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
        torch.zeros(600_000),
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare all that a program can ask of a tensor."""
        return same_tensor(left, right)


class TestStates(CodecTests):
    """What a model and its optimizer are saved as, and tensors beside other things."""

    values = (
        MODEL.state_dict(),
        torch.optim.Adam(MODEL.parameters()).state_dict(),
        {"step": 7, "weights": [torch.ones(2), (torch.zeros(3), None)]},
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare leaf by leaf; a `state_dict` keeps its metadata."""
        if isinstance(left, torch.Tensor):
            return same_tensor(left, right)
        if isinstance(left, OrderedDict) and vars(left) != vars(right):
            return False
        if isinstance(left, dict):
            return type(left) is type(right) and self.same(list(left.items()), list(right.items()))
        if isinstance(left, list | tuple):
            return len(left) == len(right) and all(map(self.same, left, right))
        return type(left) is type(right) and bool(left == right)
