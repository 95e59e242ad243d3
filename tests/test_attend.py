"""Attention in blocks against the whole matrix with its mask."""

from __future__ import annotations

import sys

import pytest
import torch
from like_cuda import packed
from torch.nn import functional as F

import attend
from attend import Blocks, Field, Packed

__all__ = ["packed"]

D = 8


def tokens(count: int, heads: int, seed: int) -> torch.Tensor:
    return torch.randn(count, heads, D, generator=torch.Generator().manual_seed(seed))


def expected(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: int, window: int | None) -> torch.Tensor:
    """The whole matrix of each row, its heads' keys repeated."""
    group = q.shape[1] // k.shape[1]
    q, k, v = (t.unflatten(0, (rows, -1)).transpose(1, 2) for t in (q, k, v))
    k, v = (t.repeat_interleave(group, 1) for t in (k, v))
    n = q.shape[2]
    apart = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    seen = apart <= (n if window is None else window)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(0, 1).flatten(1)


@pytest.mark.parametrize("rows, heads, kv", [(1, 4, 4), (2, 4, 2), (3, 6, 1)])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 18, 47, 48, 49, 64, 130])
def test_a_window_in_blocks_is_the_window(length: int, rows: int, heads: int, kv: int) -> None:
    field = Field(rows, length, 16)
    q, k, v = tokens(rows * length, heads, 1), tokens(rows * length, kv, 2), tokens(rows * length, kv, 3)
    blocks = attend.over(field, q)
    assert isinstance(blocks, Blocks)
    torch.testing.assert_close(blocks.near(q, k, v), expected(q, k, v, rows, 16), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(blocks.full(q, k, v), expected(q, k, v, rows, None), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows, heads, kv", [(1, 4, 4), (2, 4, 2), (6, 6, 1)])
@pytest.mark.parametrize("length", [1, 16, 17, 49, 130])
def test_packed_rows_are_rows_and_their_windows_the_window(
    packed: None, length: int, rows: int, heads: int, kv: int
) -> None:
    q, k, v = (tokens(rows * length, n, seed).bfloat16() for seed, n in enumerate((heads, kv, kv)))
    near = Packed(Field(rows, length, 16), q)
    for found, window in ((near.near(q, k, v), 16), (near.full(q, k, v), None)):
        torch.testing.assert_close(
            found.float(), expected(*(t.float() for t in (q, k, v)), rows, window), rtol=0.02, atol=0.02
        )


@pytest.mark.parametrize("words", [7, 256, 257])
@pytest.mark.parametrize("read", [10, 20])
def test_packed_words_are_heard_up_to_their_end(packed: None, words: int, read: int) -> None:
    """By all rows, or by the half of them that is guided."""
    held = Packed(Field(2, 10, 16), torch.zeros(1, dtype=torch.bfloat16))
    room = held.room(words)
    assert room % 256 == 0 and words <= room < words + 256
    q, k, v = (tokens(n, 2, seed).bfloat16() for seed, n in enumerate((read, room, room)))
    k[words:], v[words:] = torch.nan, torch.nan
    found = held.read(q, k, v, torch.tensor([0, words], dtype=torch.int32))
    whole = Blocks(Field(2, 10, 16), q.float()).read(q.float(), k[:words].float(), v[:words].float())
    torch.testing.assert_close(found.float(), whole, rtol=0.02, atol=0.02)


def test_long_rows_are_cut_so_that_work_grows_with_their_length() -> None:
    blocks = Blocks(Field(1, 1000, 16), torch.zeros(1))
    assert blocks.blocks == 63 and blocks.mask.shape == (63, 16, 48)
    assert Blocks(Field(1, 48, 16), torch.zeros(1)).blocks == 1  # three blocks would see as much
    assert Blocks(Field(1, 17, 16), torch.zeros(1)).mask is None  # everybody is within the window


def test_numbers_outside_the_window_are_not_heard() -> None:
    q, k, v = tokens(100, 2, 1), tokens(100, 2, 2), tokens(100, 2, 3)
    loud = v.clone()
    loud[60:] = float("inf")
    near = Blocks(Field(1, 100, 16), q)
    assert torch.equal(near.near(q, k, loud)[:32], near.near(q, k, v)[:32])  # blocks 0 and 1 see up to 48
    assert not torch.isfinite(near.near(q, k, loud)[50:]).any()


def test_torch_has_the_attention_that_cuda_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    attend.packs.cache_clear()
    assert attend.packs()
    attend.packs.cache_clear()
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)  # a torch before it
    assert not attend.packs()
    attend.packs.cache_clear()


def test_words_are_heard_by_every_token() -> None:
    q, k, v = tokens(30, 4, 1), tokens(7, 2, 2), tokens(7, 2, 3)
    blocks = Blocks(Field(3, 10, 16), q)
    assert blocks.room(7) == 7
    heard = blocks.read(q, k, v)
    group_k, group_v = (t.repeat_interleave(2, 1).transpose(0, 1) for t in (k, v))
    whole = F.scaled_dot_product_attention(q.transpose(0, 1), group_k, group_v).transpose(0, 1).flatten(1)
    torch.testing.assert_close(heard, whole)
