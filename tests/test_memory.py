"""What the VAE needs at full size, counted without a GPU: the true architecture on the meta device computes nothing.

Counted are the tensors that are alive together. What an H100 measured for decoding (docs/performance.md) is 1.3 to 1.4
times the count, beside the weights: convolutions borrow room to work in.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderOobleck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import oobleck
import random_checkpoint
from conditioning import Conditioner
from sound import AudioClip

GIB = 2**30
BORROWED = 1.5
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


class Alive(TorchDispatchMode):
    """Counts the bytes of all tensors made within, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[int] = set()
        self.now = self.peak = 0

    def __torch_dispatch__(self, call: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = call(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                self._born(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return made

    def _born(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self.known.add(key)
        self.now += size
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


class Shapes:
    """All that `listen` asks of a pipeline."""

    def __init__(self, vae: Any) -> None:
        self.vae = self.transformer = vae


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            return random_checkpoint.components(random_checkpoint.XL_SFT)
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def ready() -> Any:
    """The autoencoder as the studio uses it on a GPU."""
    with torch.device("meta"):
        return oobleck.prepare(AutoencoderOobleck(**random_checkpoint.XL_SFT["vae"]).to(torch.bfloat16), "cuda")


def listening(vae: Any, seconds: int) -> float:
    """GiB at the peak of hearing a recording, its weights not counted."""
    clip = AudioClip(np.empty((2, seconds * 48_000), np.float32), {})
    with torch.no_grad(), Alive() as alive:
        latents = Conditioner(Shapes(vae), "meta").listen(clip)
    assert latents.shape == (1, seconds * 25, 64)
    return alive.peak / GIB


def weights(parts: dict[str, Any]) -> float:
    return sum(p.nbytes for model in parts.values() for p in [*model.parameters(), *model.buffers()]) / GIB


def decoding(vae: Any, seconds: int) -> float:
    """GiB at the peak of decoding a song, its weights not counted."""
    with torch.no_grad(), Alive() as alive:
        vae.decode(torch.empty((1, 64, seconds * 25), device="meta", dtype=vae.dtype)).sample.float()
    return alive.peak / GIB


def test_four_minutes_fit_a_card_of_16_gib(parts, ready) -> None:
    assert weights(parts) + BORROWED * listening(ready, 240) < 14
    assert weights(parts) + BORROWED * decoding(ready, 240) < 14


def test_a_longer_song_needs_no_more_than_itself(ready) -> None:
    assert decoding(ready, 240) - decoding(ready, 60) < 1.01 * 180 * 48_000 * 2 * (2 + 4) / GIB  # and as float32


def test_a_longer_recording_needs_no_more_than_itself(ready) -> None:
    more = listening(ready, 240) - listening(ready, 60)
    assert more < 3 * 180 * 48_000 * 2 * 4 / GIB  # in float32, padded, and as the VAE gets it


@pytest.mark.parametrize(("seconds", "tiled", "measured"), [(30, False, 13.0), (60, False, 14.9), (240, True, 12.5)])
def test_the_count_is_near_what_an_h100_measured_with_diffusers_own(parts, seconds, tiled, measured) -> None:
    vae = parts["vae"]
    vae.use_tiling = tiled
    counted = decoding(vae, seconds)
    assert counted < measured - weights(parts) < BORROWED * counted
