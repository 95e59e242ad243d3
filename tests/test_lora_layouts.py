"""Every name that trainers give to a module, and every model that a LoRA may be for instead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import lora_files
import pytest
import tiny

import random_checkpoint
from lora_layouts import Part, foreign, kind, made_for, module, part, targets, width_of
from settings import ROOT

DEMO = {k: v for k, v in json.loads((ROOT / "demo/transformer/config.json").read_text()).items() if k[0] != "_"}
CONFIGS = {"tiny": tiny.TINY["transformer"], "demo": DEMO, "XL": random_checkpoint.XL_SFT["transformer"]}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_targets_are_all_linear_modules_of_the_real_class(config: Mapping[str, Any]) -> None:
    import torch
    from diffusers.models.transformers.ace_step_transformer import AceStepTransformer1DModel

    with torch.device("meta"):
        model = AceStepTransformer1DModel(**config)
    linears = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    assert targets(config) == {name: tuple(layer.weight.shape) for name, layer in linears.items()}
    assert width_of({(name, "A"): (1, wide) for name, (_, wide) in targets(config).items()}) == config["hidden_size"]


Q, OUT, GATE = "layers.0.self_attn.to_q", "layers.11.cross_attn.to_out.0", "layers.3.mlp.gate_proj"
SAME = {  # what stands in front of a module's name
    "base_model.model.": "PEFT, upstream's own trainer",
    "": "bare",
    "decoder.": "the whole model",
    "base_model.model.decoder.": "the whole model, PEFT",
    "base_model.model.model.decoder.": "the whole model in a wrapper, PEFT",
    "diffusion_model.": "ComfyUI",
    "diffusion_model.decoder.": "ComfyUI",
    "model.diffusion_model.": "a checkpoint of ComfyUI",
    "transformer.": "diffusers",
}


@pytest.mark.parametrize("prefix", SAME, ids=SAME.values())
def test_a_module_in_front_of_which_something_stands(prefix: str) -> None:
    for own, named in (("self_attn.q_proj", "self_attn.to_q"), ("cross_attn.k_proj", "cross_attn.to_k")):
        assert module(f"{prefix}layers.7.{own}") == module(f"{prefix}layers.7.{named}") == f"layers.7.{named}"
    for own in ("o_proj", "to_out", "to_out.0"):
        assert module(f"{prefix}layers.11.cross_attn.{own}") == OUT
    for mlp in ("gate_proj", "up_proj", "down_proj"):
        assert module(f"{prefix}layers.31.mlp.{mlp}") == f"layers.31.mlp.{mlp}"
    for embed in ("time_embed.linear_1", "time_embed_r.linear_2", "time_embed_r.time_proj", "condition_embedder"):
        assert module(prefix + embed) == embed


@pytest.mark.parametrize("prefix", ["lora_unet_", "lora_", "lora_transformer_", "lycoris_", "lora_unet_decoder_"])
def test_a_flat_name(prefix: str) -> None:
    for wide in ("layers_11_cross_attn_o_proj", "layers_11_cross_attn_to_out_0", "layers_11_cross_attn_to_out"):
        assert module(prefix + wide) == OUT
    assert module(f"{prefix}layers_3_mlp_gate_proj") == GATE
    assert module(f"{prefix}layers_0_self_attn_q_proj") == Q
    assert module(f"{prefix}time_embed_r_linear_1") == "time_embed_r.linear_1"
    assert module(f"{prefix}condition_embedder") == "condition_embedder"


def test_every_module_comes_back_from_every_layout() -> None:
    made = lora_files.tiny_model().targets
    for layout in lora_files.LAYOUTS.values():
        assert [module(layout.path(name)) for name in made] == list(made), layout


ENDS = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_A.default.weight": "A",
    ".lora_B.default_0.weight": "B",
    ".lora_B.lora_adapter.weight": "B",
    ".lora_A.my-style.weight": "A",
    ".lora_down.weight": "A",
    ".lora_up.weight": "B",
    ".lora.down.weight": "A",
    ".lora.up.weight": "B",
    ".alpha": "alpha",
}


@pytest.mark.parametrize(("end", "what"), ENDS.items())
def test_what_a_tensor_is(end: str, what: str) -> None:
    for path, name in ((f"base_model.model.{Q}", Q), ("lora_unet_layers_0_self_attn_q_proj", Q)):
        assert part(path + end) == Part(path, name, what)
    assert part(f"unet.something{end}") == Part("unet.something", "", what), "of a module that ACE-Step does not have"


NO_PARTS = (
    "layers.0.self_attn.to_q.weight",
    "layers.0.self_attn.to_q.lora_A",
    "layers.0.self_attn.to_q.lora_A.bias",
    "layers.0.self_attn.to_q.lora_B.bias",
    "layers.0.self_attn.to_q.lora_C.weight",
    "layers.0.self_attn.to_q.lora_A.two.names.weight",
    "layers.0.self_attn.to_q.lora_A.weight\n",
    "layers.0.self_attn.to_q.lora_magnitude_vector",
    "layers.0.self_attn.to_q.lora_mid.weight",
    "lora_A.weight",
    ".alpha",
    "alpha",
    "",
)


@pytest.mark.parametrize("key", NO_PARTS)
def test_what_belongs_to_no_lora(key: str) -> None:
    assert part(key) is None


NO_MODULES = (
    "",
    "layers.0",
    "layers.0.self_attn",
    "layers.x.self_attn.q_proj",
    "layers.-1.self_attn.q_proj",
    "layers.12345.self_attn.q_proj",
    "layers.0.attn.q_proj",
    "layers.0.self_attn.to_out.1",
    "layers.0.self_attn.q_proj.base_layer",
    "layers.0.self_attn.norm_q",
    "xlayers.0.self_attn.q_proj",
    "encoder.layers.0.self_attn.q_proj",
    "layers.0.self_attn.q_proj\n",
    "time_embed.linear_3",
    "time_embed_s.linear_1",
    "proj_in",
    "condition_embedder.weight",
    "lora_te_layers_0_self_attn_q_proj",
)


@pytest.mark.parametrize("path", NO_MODULES)
def test_what_is_no_module_of_ace_step(path: str) -> None:
    assert module(path) == ""


def test_a_name_that_takes_its_time_to_be_refused() -> None:
    """Nested repetitions in a pattern may take years over such names; `KEY_LIMIT` bounds them, and so they take a moment."""
    for piece in (
        "base_model.model.",
        "lora_unet_",
        "decoder.",
        "model.layers.0",
        "a.lora_A.weight",
        "blocks.1.0",
        "._",
    ):
        key = (piece * 300)[:299] + "!"
        assert part(key) is None and not module(key)
        foreign([key] * 100), kind([key] * 100)


FOREIGN = {
    "ACE-Step v1": (
        "base_model.model.transformer_blocks.0.cross_attn.to_q.lora_A.weight",
        "transformer_blocks.0.cross_attn.to_out.0.lora_A.weight",
        "lyric_encoder.encoders.3.self_attn.linear_q.lora_A.weight",
        "speaker_embedder.lora_A.weight",
    ),
    "SDXL": (
        "lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
        "lora_unet_input_blocks_7_1_transformer_blocks_9_attn1_to_q.lora_down.weight",
        "lora_unet_down_blocks_2_attentions_0_transformer_blocks_5_attn2_to_k.alpha",
        "unet.down_blocks.2.attentions.1.transformer_blocks.8.attn1.to_q.lora_A.weight",
        "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
    ),
    "Stable Diffusion": (
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
        "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight",
        "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight",
        "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
        "diffusion_model.output_blocks.3.1.proj_in.lora_A.weight",
    ),
    "FLUX": (
        "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight",
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
        "diffusion_model.single_blocks.37.linear1.lora_A.weight",
    ),
    "Stable Diffusion 3": (
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
        "diffusion_model.joint_blocks.0.x_block.attn.qkv.lora_A.weight",
        "lora_unet_joint_blocks_0_x_block_attn_qkv.alpha",
    ),
    "Wan": (
        "diffusion_model.blocks.0.self_attn.q.lora_A.weight",
        "lora_unet_blocks_0_cross_attn_k.lora_down.weight",
        "blocks.39.cross_attn.o.lora_B.weight",
    ),
    "a language model": (
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.35.mlp.gate_proj.lora_B.default.weight",
        "model.layers.0.self_attn.q_proj.lora_a",
        "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight",
        "base_model.model.gpt_neox.layers.0.attention.query_key_value.lora_A.weight",
        "layers.0.attention.wq.lora_A.weight",
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
    ),
}


@pytest.mark.parametrize(("other", "key"), [(other, key) for other, keys in FOREIGN.items() for key in keys])
def test_l5_the_names_of_other_models(other: str, key: str) -> None:
    assert foreign([key]) == other
    assert foreign(iter(["layers.0.self_attn.q_proj.lora_A.weight", key])) == other, "wherever it stands"


def test_l5_a_flux_lora_is_not_taken_for_stable_diffusion_3() -> None:
    """It has the modules of both kinds, in any order."""
    assert foreign([FOREIGN["Stable Diffusion 3"][0], FOREIGN["FLUX"][0]]) == "FLUX"
    assert foreign([FOREIGN["Stable Diffusion"][0], FOREIGN["SDXL"][0]]) == "SDXL"
    v1 = "transformer_blocks.0.attn.to_q.lora_A.weight"
    assert foreign([v1, FOREIGN["ACE-Step v1"][0]]) == "ACE-Step v1"


@pytest.mark.parametrize("layout", lora_files.LAYOUTS.values(), ids=lora_files.LAYOUTS)
def test_the_names_of_ace_step_are_nobody_elses(layout: lora_files.Layout) -> None:
    keys = [layout.path(name) + layout.a for name in targets(CONFIGS["XL"])]
    assert foreign(keys) == kind(keys) == ""
    assert not [key for key in keys if foreign([key])], "nor is any one of them"


def test_the_whole_of_ace_step_may_be_called_model() -> None:
    """A language model's name, but for the cross-attention, which none of those has."""
    own = "base_model.model.model.layers.0.self_attn.q_proj"
    assert foreign([own]) == "a language model"
    assert foreign([own, "base_model.model.model.layers.0.cross_attn.q_proj"]) == ""
    assert foreign([]) == ""


KINDS = {
    "LoKr": ("lycoris_layers_0_self_attn_q_proj.lokr_w1", "base_model.model.layers.0.self_attn.q_proj.lokr_w2_a"),
    "LoHa": ("layers_0_self_attn_q_proj.hada_w1_a", "base_model.model.layers.0.self_attn.q_proj.hada_w2_b"),
    "DoRA": (
        "layers.0.self_attn.q_proj.dora_scale",
        "base_model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.layers.0.self_attn.q_proj.lora_magnitude_vector.default.weight",
    ),
}


@pytest.mark.parametrize(("what", "key"), [(what, key) for what, keys in KINDS.items() for key in keys])
def test_l5_what_is_no_plain_lora(what: str, key: str) -> None:
    assert kind(["layers.0.self_attn.q_proj.lora_A.weight", key]) == what
    assert part(key) is None
    assert foreign([key]) == ""


def test_the_width_is_what_most_factors_say() -> None:
    assert width_of({}) == 0
    for name in ("to_q", "to_k", "to_v"):
        assert width_of({(f"layers.0.self_attn.{name}", "A"): (8, 2560)}) == 2560
        assert width_of({(f"layers.0.self_attn.{name}", "B"): (4096, 8)}) == 0, "B says how wide the attention is"
    for name in ("gate_proj", "up_proj"):
        assert width_of({(f"layers.0.mlp.{name}", "A"): (8, 2048), (f"layers.0.mlp.{name}", "B"): (6144, 8)}) == 2048
    for name in ("mlp.down_proj", "cross_attn.to_out.0"):
        assert width_of({(f"layers.0.{name}", "A"): (8, 9728), (f"layers.0.{name}", "B"): (2560, 8)}) == 2560
    assert width_of({("time_embed.linear_1", "A"): (8, 256), ("condition_embedder", "A"): (8, 2048)}) == 0
    assert width_of({(Q, "A"): (8,), (OUT, "B"): (2560, 8, 1), (GATE, "alpha"): (1, 7)}) == 0, "no factors"
    most = {(f"layers.{n}.self_attn.to_q", "A"): (8, 2560) for n in range(1, 4)}
    for wide in (7, 9999):
        assert width_of({(Q, "A"): (8, wide)} | most) == width_of(most | {(Q, "A"): (8, wide)}) == 2560


def test_l5_a_width_has_a_name() -> None:
    assert made_for(2048) == "the 2B model of ACE-Step 1.5"
    assert made_for(CONFIGS["XL"]["hidden_size"]) == "the XL model of ACE-Step 1.5"
    assert made_for(DEMO["hidden_size"]) == "the demo model"
    assert made_for(4096) == made_for(0) == "another model"
