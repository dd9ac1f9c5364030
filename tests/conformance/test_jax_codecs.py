"""JAX arrays under `CodecTests`, on the host; without JAX all of it is skipped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from memories.testing.codecs import CodecTests

jax: Any = pytest.importorskip("jax")
jnp = jax.numpy


class TestJaxArrays(CodecTests):
    """The dtypes that JAX has by default."""

    values = (
        jnp.arange(5),
        jnp.ones((2, 3), jnp.bfloat16),
        jnp.float32(3),
        jnp.zeros((0, 2)),
        jnp.array([True, False]),
        jnp.array([1 + 2j]),
        jnp.arange(6, dtype="u1").reshape(2, 3).T,
        jnp.array([1, 2], jnp.float8_e4m3fn),
        jnp.zeros(600_000),
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare type, dtype, shape and bits."""
        if (type(left), left.dtype, left.shape) != (type(right), right.dtype, right.shape):
            return False
        return np.asarray(left).tobytes() == np.asarray(right).tobytes()
