"""Our forward against that of transformers for the other kinds of model, and which kinds it refuses."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import tiny_lyricist
import tiny_planner
import torch
import transformers
from test_causal_lm import logits

from causal_lm import READABLE, Body, random_model, unreadable

one_thread = tiny_planner.one_thread
VOCAB = 300
IDS = np.random.default_rng(3).integers(0, VOCAB, 150).tolist()
ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 500.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 5000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "linear": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0},
}
QWEN7B: dict[str, Any] = dict(  # config.json of Qwen/Qwen2.5-7B-Instruct
    hidden_act="silu",
    hidden_size=3584,
    intermediate_size=18944,
    max_position_embeddings=32768,
    max_window_layers=28,
    num_attention_heads=28,
    num_hidden_layers=28,
    num_key_value_heads=4,
    rms_norm_eps=1e-06,
    rope_theta=1000000.0,
    sliding_window=131072,
    tie_word_embeddings=False,
    use_sliding_window=False,
    vocab_size=152064,
)


def built(kind: str, **changes: Any) -> Any:
    """A model of a kind ("Qwen2", "Llama") whose every number was drawn, biases and norms too."""
    shape = tiny_lyricist.SHAPE | dict(vocab_size=VOCAB, eos_token_id=None, pad_token_id=None) | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        made = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**shape)).eval()
        for matrix in made.parameters():
            matrix.data.normal_(0.5 if matrix.ndim == 1 else 0.0, 0.3)
    return made


def stock(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits [vocab] after these tokens by transformers, without a cache."""
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0, -1]


def assert_same(kind: str, **changes: Any) -> None:
    """Hold our forward against transformers' in parts and padded."""
    model = built(kind, **changes)
    long, short = stock(model, IDS), stock(model, IDS[40:60])
    body, near = Body(model), 1e-4 * long.abs().max()
    for cut in ([150], [1, 149], [64, 64, 22], [147, 1, 1, 1]):
        ends = np.cumsum([0, *cut])
        parts = [IDS[a:b] for a, b in itertools.pairwise(ends)]
        assert (logits(body, *parts) - long).abs().max() < near
    padded = [7] * 90 + IDS[40:60]
    assert (logits(body, padded[:100], padded[100:], pad=90) - short).abs().max() < near
    assert (long - stock(model, [IDS[1], IDS[0], *IDS[2:]])).abs().max() > 10 * near
    assert torch.equal(stock(model, IDS), long)  # the model keeps working


@pytest.mark.parametrize("tied", [False, True])
def test_a_qwen2_gives_the_logits_of_transformers(tied: bool) -> None:
    assert_same("Qwen2", tie_word_embeddings=tied)


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("tied", [False, True])
def test_a_llama_gives_the_logits_of_transformers(tied: bool, rope: str) -> None:
    assert_same("Llama", tie_word_embeddings=tied, rope_parameters=ROPES[rope])


def test_a_llama_with_wide_heads_and_another_epsilon() -> None:
    assert_same("Llama", head_dim=32, num_attention_heads=8, num_key_value_heads=2, rms_norm_eps=0.1)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_the_tiny_lyricists_give_the_logits_of_transformers(kind: str) -> None:
    for tied in (False, True):
        model = tiny_lyricist.model(kind, tied=tied)
        assert (logits(Body(model), IDS[:50], IDS[50:]) - stock(model, IDS)).abs().max() < 2e-3


@pytest.mark.parametrize("one, two", itertools.combinations(ROPES, 2))
def test_the_ropes_can_be_told_apart(one: str, two: str) -> None:
    heard = [logits(Body(built("Llama", rope_parameters=ROPES[name])), IDS) for name in (one, two)]
    assert (heard[0] - heard[1]).abs().max() > 1e-2


@pytest.mark.parametrize("part", range(3))
def test_each_of_the_three_biases_is_heard(part: int) -> None:
    model = built("Qwen2")
    before = logits(Body(model), IDS)
    attention = model.model.layers[0].self_attn
    bias = (attention.q_proj, attention.k_proj, attention.v_proj)[part].bias
    bias.data.normal_(0, 2)
    after = logits(Body(model), IDS)
    assert (after - before).abs().max() > 1e-2
    assert (after - stock(model, IDS)).abs().max() < 1e-4 * after.abs().max()


def test_an_untied_head_is_the_models_own() -> None:
    model = built("Llama", tie_word_embeddings=False)
    body = Body(model)
    assert body.head.data_ptr() == model.lm_head.weight.data_ptr() != body.table.data_ptr()
    tied = Body(built("Llama", tie_word_embeddings=True))
    assert tied.head.data_ptr() == tied.table.data_ptr()


YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
REFUSED: dict[str, tuple[Any, str]] = {
    "another kind": (transformers.MistralConfig(), "it is a mistral, not a llama, qwen2 or qwen3"),
    "biases behind": (transformers.LlamaConfig(mlp_bias=True), "it has biases"),
    "biases": (transformers.LlamaConfig(attention_bias=True), "it has biases"),
    "biases of qwen3": (transformers.Qwen3Config(attention_bias=True), "it has biases"),
    "gelu": (transformers.Qwen2Config(hidden_act="gelu"), "it has gelu and RoPE of the kind default"),
    "yarn": (transformers.LlamaConfig(rope_parameters=YARN), "it has silu and RoPE of the kind yarn"),
    "a window": (transformers.Qwen2Config(use_sliding_window=True), "it looks back through a window"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_our_forward_cannot_do_is_refused_with_the_reason(why: str) -> None:
    config, sentence = REFUSED[why]
    assert unreadable(config) == sentence


def test_what_it_can_do_is_not_refused() -> None:
    assert unreadable(transformers.Qwen2Config(**QWEN7B)) == ""
    assert unreadable(transformers.Qwen3Config()) == ""
    for rope in ROPES.values():
        assert unreadable(transformers.LlamaConfig(rope_parameters=rope)) == ""
    assert {transformers.Qwen2Config().model_type, transformers.LlamaConfig().model_type} < set(READABLE)


def test_the_largest_lyricist_has_the_published_size_and_shape() -> None:
    model = random_model("7B", "meta", torch.bfloat16)
    assert sum(matrix.numel() for matrix in model.parameters()) / 1e9 == pytest.approx(7.616, abs=5e-4)
    assert model.config.model_type == "qwen2" and not model.config.tie_word_embeddings
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert {matrix.dtype for matrix in model.parameters()} == {torch.bfloat16}
    assert unreadable(model.config) == ""
    for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "vocab_size"):
        assert getattr(model.config, name) == QWEN7B[name]
