"""Our forward against that of transformers, on the tiny planner, and the planners of random weights."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import tiny_planner
import torch

from causal_lm import SIZES, Body, Cache, random_model

FIRST = tiny_planner.tokenizer().convert_tokens_to_ids("<|audio_code_0|>")
LONG = np.random.default_rng(7).integers(0, FIRST, 300).tolist()
SHORT = LONG[100:117]


def stock(ids: list[int], model: Any = None) -> torch.Tensor:
    """Logits [vocab] after these tokens by transformers, without a cache."""
    with torch.no_grad():
        return (model or tiny_planner.model())(torch.tensor([ids]), use_cache=False).logits[0, -1]


def changed(change: Any) -> Any:
    """A copy of the tiny planner, changed."""
    model = copy.deepcopy(tiny_planner.model())
    with torch.no_grad():
        change(model)
    return model


def logits(body: Body, *parts: list[int], pad: int = 0) -> torch.Tensor:
    """Logits [vocab] after tokens read in these parts, the first `pad` of them padding."""
    cache = Cache(body, 1, sum(map(len, parts)) + 3)
    cache.clear([pad])
    read = 0
    for part in parts:
        state = body.read(cache, body.ids([part]), torch.arange(read, read + len(part)))
        read += len(part)
    return body.logits(state, body.head)[0]


@pytest.mark.parametrize("cut", [[300], [1, 299], [128, 128, 44], [297, 1, 1, 1]])
def test_a_prompt_in_parts_gives_the_logits_of_transformers(cut: list[int]) -> None:
    ends = np.cumsum([0, *cut])
    parts = [LONG[a:b] for a, b in itertools.pairwise(ends)]
    assert (logits(Body(tiny_planner.model()), *parts) - stock(LONG)).abs().max() < 1e-4


def test_padding_is_not_heard() -> None:
    body = Body(tiny_planner.model())
    for filler in (0, 77):
        padded = [filler] * 200 + SHORT
        assert (logits(body, padded[:130], padded[130:], pad=200) - stock(SHORT)).abs().max() < 1e-4


def test_the_measure_would_show_two_tokens_exchanged() -> None:
    assert (logits(Body(tiny_planner.model()), LONG) - stock([LONG[1], LONG[0], *LONG[2:]])).abs().max() > 1e-2


def test_a_head_of_many_queries_and_another_theta() -> None:
    """What the tiny planner has in common by chance must not be taken for granted."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    shape = SIZES["tiny"] | dict(vocab_size=300, num_attention_heads=6, head_dim=32, rms_norm_eps=1e-3)
    shape |= dict(rope_parameters={"rope_type": "default", "rope_theta": 500.0}, pad_token_id=None, eos_token_id=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Qwen3ForCausalLM(Qwen3Config(**shape)).eval()
        for matrix in model.parameters():
            matrix.data.normal_(0.5, 0.3)
    ids = np.random.default_rng(0).integers(0, 300, 133).tolist()
    expected = stock(ids, model)
    assert (logits(Body(model), ids[:60], ids[60:]) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_the_model_keeps_working_and_nothing_is_held_twice() -> None:
    model = changed(lambda model: None)
    before = stock(LONG, model)
    body = Body(model)
    assert torch.equal(stock(LONG, model), before)
    layer = model.model.layers[1]
    for part, whole in [(layer.self_attn.k_proj, body.layers[1].qkv), (layer.mlp.up_proj, body.layers[1].up)]:
        assert part.weight.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


@pytest.mark.parametrize("size, billions", [("0.6B", 0.663), ("1.7B", 1.854), ("4B", 4.190)])
def test_the_sizes_are_the_published_ones(size: str, billions: float) -> None:
    model = random_model(size, "meta", torch.bfloat16)
    assert sum(matrix.numel() for matrix in model.parameters()) / 1e9 == pytest.approx(billions, abs=5e-4)
    assert {matrix.dtype for matrix in model.parameters()} == {torch.bfloat16}


def test_a_random_model_comes_from_its_seed_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (random_model("tiny", "cpu", torch.float32, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before) and torch.get_default_dtype() == torch.float32
    ids = [5, 151_669, 217_203]
    assert torch.equal(stock(ids, one), stock(ids, same)) and not torch.equal(stock(ids, one), stock(ids, other))
