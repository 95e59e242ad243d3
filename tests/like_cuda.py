"""What only CUDA has, done on a CPU as it is defined: flash attention over packed rows, and graphs of calls.

A graph is a tape of torch's operations with the very tensors that they read and wrote: numbers that Python had in its hands
while it was caught stay what they were, as they do on a card.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ASKS_THE_CARD = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select")  # the host would wait for the answer


@torch.library.custom_op("like_cuda::attend", mutates_args=())
def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor, window: list[int]
) -> torch.Tensor:
    """One operation, so that a graph plays it again with the offsets of the moment."""
    out, group = torch.full_like(q, torch.nan), q.shape[1] // k.shape[1]
    for a, b, c, d in zip(starts[:-1], starts[1:], ends[:-1], ends[1:], strict=True):
        row = [t.transpose(0, 1) for t in (q[a:b], *(t[c:d].repeat_interleave(group, 1) for t in (k, v)))]
        apart = torch.arange(d - c) - torch.arange(b - a)[:, None] - ((d - c) - (b - a))  # as flash: their ends meet
        left, right = (len(q) + len(k) if n < 0 else n for n in window)
        seen = (apart >= -left) & (apart <= right)
        out[a:b] = F.scaled_dot_product_attention(*row, attn_mask=seen).transpose(0, 1)
    return out


def varlen_attn(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *lengths: Any,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> torch.Tensor:
    """`torch.nn.attention.varlen.varlen_attn`: rows [T, heads, d] by their offsets; what lies beyond the last is not read.

    `lengths` are the offsets of queries and keys, int32 [rows + 1], and the most of each in a row.
    """
    cu_seq_q, cu_seq_k, max_q, max_k = lengths
    assert query.dtype in (torch.bfloat16, torch.float16) and query.shape[1:] == (query.shape[1], key.shape[2])
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert query.shape[1] == key.shape[1] or enable_gqa
    for offsets, most in ((cu_seq_q, max_q), (cu_seq_k, max_k)):
        assert 0 < np.diff(offsets.numpy()).max() <= most
    return _attend(query, key, value, cu_seq_q, cu_seq_k, list(window_size))


class Graph:
    """`torch.cuda.CUDAGraph`: what was called while it was caught, called again with the same tensors."""

    def __init__(self) -> None:
        self.tape: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        for function, args, kwargs, out in self.tape:
            again = function(*args, **kwargs)
            for here, there in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(here, torch.Tensor) and here.data_ptr() != there.data_ptr():  # views stay where they are
                    here.copy_(there)


class _Tape(TorchDispatchMode):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func).startswith(ASKS_THE_CARD):
            raise RuntimeError("operation not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        self.graph.tape.append((func, args, kwargs or {}, out))
        return out


@contextmanager
def _caught(graph: Graph, pool: Any = None, capture_error_mode: str = "global") -> Iterator[None]:
    assert pool is not None and capture_error_mode == "thread_local"  # so that other threads may use the card
    with _Tape(graph):
        yield


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Graphs as CUDA has them; those that were made, in order. Import it by its name."""
    made: list[Graph] = []

    def begin() -> Graph:
        made.append(Graph())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", begin)
    monkeypatch.setattr(torch.cuda, "graph", _caught)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    return made


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed attention as CUDA has it. Import it by its name."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
