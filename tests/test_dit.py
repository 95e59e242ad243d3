"""The forward made for songs against diffusers' own, on the tiny checkpoint and at every length that is cut in another way."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from lora_files import Layout, chosen, factors, tiny_model, write

import dit
import lora_stack
from fields import Stacked
from lora_adapters import Adapters
from velocity import Conditions, Plain

LEVEL, WORDS = 0.63, 17


@pytest.fixture
def pipe() -> Any:
    return tiny.pipeline()


def conditions(frames: int, words: int = WORDS, seed: int = 0, dtype: torch.dtype = torch.float32) -> Conditions:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((1, words, 24), (1, 1, 24), (1, frames, 16))
    return Conditions(*(torch.randn(shape, generator=generator).to(dtype) for shape in shapes))


def noise(frames: int, songs: int = 1, seed: int = 1) -> torch.Tensor:
    return torch.randn(songs, frames, 8, generator=torch.Generator().manual_seed(seed))


def fast(own: dit.Dit, c: Conditions, x: torch.Tensor, guided: bool) -> torch.Tensor:
    with torch.no_grad():
        return own.velocity(own.hear(c.cond, c.null, c.context), x, LEVEL, guided)


def plain(transformer: Any, c: Conditions, x: torch.Tensor, guided: bool) -> torch.Tensor:
    with torch.no_grad():
        return Plain(transformer).hear(c)(x, LEVEL, guided)


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("songs", [1, 3])
@pytest.mark.parametrize("frames", [1, 2, 31, 34, 35, 96, 98, 250, 251])  # the window is 16 tokens of two frames
def test_velocities_are_those_of_diffusers(pipe: Any, frames: int, songs: int, guided: bool) -> None:
    c, x = conditions(frames), noise(frames, songs)
    expected = plain(pipe.transformer, c, x, guided)
    torch.testing.assert_close(fast(dit.Dit(pipe.transformer), c, x, guided), expected, rtol=1e-4, atol=1e-5)


def test_the_weights_are_shared_and_diffusers_forward_is_untouched(pipe: Any) -> None:
    c, x = conditions(50), noise(50)
    before = plain(pipe.transformer, c, x, True)
    own = dit.Dit(pipe.transformer)
    assert torch.equal(plain(pipe.transformer, c, x, True), before)
    first, attention = own.layers[0], pipe.transformer.layers[0].self_attn
    assert first.kv.data_ptr() == attention.to_k.weight.data_ptr()
    assert first.q.data_ptr() == attention.to_q.weight.data_ptr()


@pytest.mark.parametrize("choice", ["attention", "v and o", "MLP", "embeddings"])
def test_loras_sound_as_on_diffusers_forward_and_leave_nothing(pipe: Any, tmp_path: Any, choice: str) -> None:
    model, stack = tiny_model(), []
    for seed, strength in ((1, 1.0), (2, 0.6)):
        modules = dict.fromkeys(chosen(model, choice), 4)
        made = factors(model, modules, modules.__getitem__, seed)
        path = write(tmp_path / f"{seed}.safetensors", Layout("transformer.", own=False, alpha="file"), made, None)
        stack.append(Stacked(lora=lora_stack.admit(path[0], model), strength=strength))
    c, x, own, adapters = conditions(50), noise(50), dit.Dit(pipe.transformer), Adapters(pipe)
    bare = fast(own, c, x, True)
    with torch.no_grad():
        kinds = {own.hear(c.cond, c.null, c.context).parts}
    with adapters.attached(stack):
        kinds.add(own.hear(c.cond, c.null, c.context).parts)
        expected, found = plain(pipe.transformer, c, x, True), fast(own, c, x, True)
        torch.testing.assert_close(fast(dit.Dit(pipe.transformer), c, x, True), found)  # built while they are there
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - bare).norm() > 0.01 * bare.norm()
    assert torch.equal(fast(own, c, x, True), bare)
    assert len(kinds) == 2  # a graph of the one must not play for the other


def test_what_is_heard_can_stand_in_other_tensors(pipe: Any) -> None:
    """So that a graph can play again for another song."""
    own, x = dit.Dit(pipe.transformer), noise(50)
    with torch.no_grad():
        first, other = (own.hear(c.cond, c.null, c.context) for c in (conditions(50), conditions(50, seed=9)))
        standing = first.of([t.clone() for t in first.tensors()])
        for here, there in zip(standing.tensors(), other.tensors(), strict=True):
            here.copy_(there)
        again = own.velocity(standing, x, LEVEL, True)
        assert torch.equal(again, own.velocity(other, x, LEVEL, True))
        assert not torch.equal(again, own.velocity(first, x, LEVEL, True))


def test_the_latest_attentions_are_kept(pipe: Any) -> None:
    own = dit.Dit(pipe.transformer)
    for frames in range(2, 2 * dit.FIELDS + 8, 2):
        fast(own, conditions(frames), noise(frames), False)
    assert len(own.fields) == dit.FIELDS and next(reversed(own.fields)).length == frames // 2


def test_a_transformer_that_it_cannot_read_is_told_apart(pipe: Any) -> None:
    config = tiny.TINY["transformer"]
    kind = type(pipe.transformer)
    assert dit.unreadable(pipe.transformer) == ""
    assert dit.unreadable(kind(**config | {"attention_bias": True})) == "its attention has biases"
    assert dit.unreadable(kind(**config | {"num_key_value_heads": 3})) == "its heads do not share keys evenly"
    assert dit.unreadable(pipe.vae) == "it is a AutoencoderOobleck"
    pipe.transformer.norm_out.to(torch.float64)
    assert dit.unreadable(pipe.transformer) == "its weights are not of one kind in one place"
