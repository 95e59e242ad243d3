"""Attention over rows of tokens that lie one after another, by the kernels that a device has.

All heads of a token stand together: queries [rows x N, heads, d], keys and values [rows x N, kv, d], which is how the
projections leave them; an answer is [rows x N, heads x d]. Query head i is served by key head i // (heads / kv).
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Field:
    """How many `rows` of how many tokens there are, and how far a token sees each way in a layer with a window."""

    rows: int
    length: int
    window: int


@functools.cache
def packs() -> bool:
    """Whether this torch has flash attention over packed rows, with windows: nn.attention.varlen of 2.11 and later."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return "window_size" in inspect.signature(varlen_attn).parameters


def over(field: Field, like: torch.Tensor) -> Packed | Blocks:
    """The attention for these rows on the device and in the dtype of `like`."""
    import torch

    if like.is_cuda and like.dtype in (torch.bfloat16, torch.float16) and packs():  # pragma: no cover - CUDA's own
        return Packed(field, like)
    return Blocks(field, like)


class Packed:
    """Flash attention as it is: rows by their offsets, a window that skips what it hides, no mask, no copy."""

    BUCKET = 256  # words are padded to a multiple: songs of one length and other words replay one graph

    def __init__(self, field: Field, like: torch.Tensor) -> None:
        import torch
        from torch.nn.attention.varlen import varlen_attn

        self.field = field
        whole = field.rows * field.length
        self.starts = torch.arange(0, whole + 1, field.length, dtype=torch.int32, device=like.device)
        self.all = {n: self.starts.new_tensor([0, n]) for n in (whole, whole // 2)}  # with guidance half of them read
        known = inspect.signature(varlen_attn).parameters
        grouped = {"enable_gqa": True} if "enable_gqa" in known else {}
        self.attend = functools.partial(varlen_attn, **grouped)

    def full(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Each token sees its row."""
        n = self.field.length
        return self.attend(q, k, v, self.starts, self.starts, n, n).flatten(1)

    def near(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Each token sees those of its row within the window, both ends included."""
        n, seen = self.field.length, (self.field.window, self.field.window)
        return self.attend(q, k, v, self.starts, self.starts, n, n, window_size=seen).flatten(1)

    def room(self, words: int) -> int:
        """How many words are held for so many."""
        return -(-words // self.BUCKET) * self.BUCKET

    def read(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """Every token sees the same words: k, v [room, kv, d], of which `ends` int32 [2] = (0, words) are heard."""
        return self.attend(q, k, v, self.all[len(q)], ends, len(q), len(k)).flatten(1)


class Blocks:
    """torch's own attention. Windows are cut into blocks of queries that see their own and the two neighbouring blocks."""

    def __init__(self, field: Field, like: torch.Tensor) -> None:
        self.field = field
        # Three blocks are seen by each: fewer than four in a row would save nothing.
        self.blocks = -(-field.length // field.window) if field.length > 3 * field.window else 1
        self.width = field.window if self.blocks > 1 else field.length
        self.mask = self._mask(like) if field.length > field.window + 1 else None

    def _mask(self, like: torch.Tensor) -> torch.Tensor:
        """What each query of a block does not see, additive [blocks, width, seen]."""
        import torch

        begin = torch.arange(self.blocks, device=like.device)[:, None] * self.width
        query = begin + torch.arange(self.width, device=like.device)
        key = begin + torch.arange(-self.margin, self.width + self.margin, device=like.device)
        apart = (query[:, :, None] - key[:, None, :]).abs()
        there = (key >= 0) & (key < self.field.length)
        seen = (apart <= self.field.window) & there[:, None, :]
        seen |= apart == 0  # the queries beyond the end, whose answers are dropped, must see something
        return torch.zeros_like(seen, dtype=like.dtype).masked_fill_(~seen, torch.finfo(like.dtype).min)

    @property
    def margin(self) -> int:
        """How far beyond a block its queries see."""
        return self.width if self.blocks > 1 else 0

    def full(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Each token sees its row."""
        return _grouped(*(t.unflatten(0, (self.field.rows, -1)) for t in (q, k, v))).flatten(0, 1)

    def near(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Each token sees those of its row within the window, both ends included."""
        from torch.nn import functional as F

        if self.mask is None:
            return self.full(q, k, v)
        rows, n = self.field.rows, self.field.length
        missing = self.blocks * self.width - n
        q, k, v = (t.unflatten(0, (rows, n)) for t in (q, k, v))
        q = F.pad(q, (0, 0, 0, 0, 0, missing)).unflatten(1, (self.blocks, self.width)).flatten(0, 1)
        k, v = (self._windows(F.pad(t, (0, 0, 0, 0, self.margin, missing + self.margin))) for t in (k, v))
        out = _grouped(q, k, v, self.mask.repeat(rows, 1, 1))
        return out.unflatten(0, (rows, -1)).flatten(1, 2)[:, :n].flatten(0, 1)

    def _windows(self, t: torch.Tensor) -> torch.Tensor:
        """What each block sees of padded keys [rows, N + margins, kv, d]: [rows x blocks, seen, kv, d]."""
        seen = t.unfold(1, self.width + 2 * self.margin, self.width)
        return seen.movedim(-1, 2).flatten(0, 1)

    def room(self, words: int) -> int:
        """How many words are held for so many."""
        return words

    def read(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: Any = None) -> torch.Tensor:
        """Every token sees the same words: k, v [words, kv, d]."""
        return _grouped(q[None], k[None], v[None])[0]


def _grouped(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Attention of q [b, n, heads, d] to k, v [b, m, kv, d]: [b, n, heads x d]; mask [b, n, m] is added.

    The heads that share a key head stand in one long row of queries, because no fused kernel takes groups and a mask.
    """
    from torch.nn import functional as F

    n, heads = q.shape[1:3]
    kv = k.shape[2]
    q = q.unflatten(2, (kv, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3)  # [b, kv, group x n, d]
    if mask is not None:
        mask = mask.repeat(1, heads // kv, 1)[:, None]
    out = F.scaled_dot_product_attention(q, k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return out.unflatten(2, (-1, n)).permute(0, 3, 1, 2, 4).flatten(2)
