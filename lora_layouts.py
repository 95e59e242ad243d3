"""The names that LoRA files give to modules: read in every layout in use, and judged by name and shape.

Trainers write the same module of ACE-Step 1.5 in many ways:

    base_model.model.layers.0.self_attn.q_proj.lora_A.weight        PEFT, upstream's own trainer
    layers.0.self_attn.q_proj.lora_A.weight                         bare
    [base_model.model.]decoder.layers.0...                          trained on the whole model
    diffusion_model.layers.0...                                     ComfyUI
    transformer.layers.0.self_attn.to_q.lora_A.weight               diffusers
    layers.0.self_attn.q_proj.lora_A.default.weight                 PEFT with the adapter's name left in
    layers.0.self_attn.q_proj.lora_down.weight, .lora_up, .alpha    kohya
    lora_unet_layers_0_self_attn_q_proj.lora_down.weight            kohya, flat

Here they all become diffusers' `layers.0.self_attn.to_q`, with "A" [rank, in], "B" [out, rank] or "alpha".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Shape = tuple[int, ...]
Targets = Mapping[str, tuple[int, int]]  # (out, in) of each module that a LoRA may change, by diffusers' name

_PROJECTIONS = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "o_proj": "to_out.0", "to_out": "to_out.0"}
_TENSOR = re.compile(r"(?P<path>.+?)[._](?:(?P<alpha>alpha)|lora[._](?P<part>A|B|down|up)(?:\.[\w-]+)?\.weight)")
_PREFIX = re.compile(r"(?:(?:base_model|model|decoder|diffusion_model|transformer)\.)+")
_FLAT = re.compile(r"(?:lora|lycoris)_(?:(?:unet|model|decoder|diffusion_model|transformer)_)*")
_MODULE = re.compile(
    r"layers[._](?P<layer>\d{1,4})[._](?P<block>self_attn|cross_attn|mlp)[._]"
    r"(?P<projection>[qkvo]_proj|to_[qkv]|to_out(?:[._]0)?|gate_proj|up_proj|down_proj)"
)
_OTHER = re.compile(r"(?P<embed>time_embed(?:_r)?)[._](?P<linear>linear_1|linear_2|time_proj)|condition_embedder")
_KINDS = (  # what is no plain LoRA, by what only its keys have
    ("LoKr", re.compile(r"[._]lokr_")),
    ("LoHa", re.compile(r"[._]hada_")),
    ("DoRA", re.compile(r"dora_scale|lora_magnitude_vector")),
)
_FOREIGN = (  # whose names they are; the first that fits
    (
        "ACE-Step v1",
        re.compile(r"lyric_encoder\.encoders|speaker_embedder|genre_embedder|transformer_blocks\.\d+\.cross_attn\."),
    ),
    ("SDXL", re.compile(r"lora_te[12]_|text_encoder_2|_blocks?[._]\d[._]\S*transformer_blocks[._][2-9]")),
    ("Stable Diffusion", re.compile(r"(?:down|up|mid|input|output|middle)_blocks?[._]")),
    ("FLUX", re.compile(r"single_transformer_blocks|double_blocks|single_blocks")),
    ("Stable Diffusion 3", re.compile(r"joint_blocks|transformer_blocks[._]\d+[._]attn[._]")),
    ("Wan", re.compile(r"blocks[._]\d+[._](?:self|cross)_attn[._][qkvo]\b")),
    ("a language model", re.compile(r"transformer\.h\.\d|gpt_neox|attention\.w[qkvo]\b|lm_head|embed_tokens")),
)
# PEFT writes base_model.model. before the names of the model that was trained; model.layers is how language models begin.
_LANGUAGE_MODEL = re.compile(r"(?:base_model\.model\.)?model\.layers\.\d")
_WIDTHS = {2048: "the 2B model of ACE-Step 1.5", 2560: "the XL model of ACE-Step 1.5", 288: "the demo model"}


@dataclass(frozen=True)
class Part:
    """What a tensor of a file is: `module` is diffusers' name, empty when the path names none of ACE-Step's."""

    path: str
    module: str
    part: Literal["A", "B", "alpha"]


def targets(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Every linear module of the `AceStepTransformer1DModel` of a config. A test holds it to the class."""
    hidden, heads, head = config["hidden_size"], config["num_attention_heads"], config["head_dim"]
    wide, narrow, inner = heads * head, config["num_key_value_heads"] * head, config["intermediate_size"]
    attention = {"to_q": (wide, hidden), "to_k": (narrow, hidden), "to_v": (narrow, hidden), "to_out.0": (hidden, wide)}
    mlp = {"gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)}
    found = {}
    for layer in range(config["num_hidden_layers"]):
        for block, linears in (("self_attn", attention), ("cross_attn", attention), ("mlp", mlp)):
            found |= {f"layers.{layer}.{block}.{name}": shape for name, shape in linears.items()}
    for embed in ("time_embed", "time_embed_r"):
        found[f"{embed}.linear_1"] = (hidden, 256)  # a sinusoidal embedding of time has 256 channels
        found[f"{embed}.linear_2"] = (hidden, hidden)
        found[f"{embed}.time_proj"] = (6 * hidden, hidden)  # shift, scale and gate, of attention and of the MLP
    return found | {"condition_embedder": (hidden, config["encoder_hidden_size"])}


def part(key: str) -> Part | None:
    """What the tensor of that key is; None for what belongs to no LoRA."""
    if not (match := _TENSOR.fullmatch(key)):
        return None
    kind = {"A": "A", "down": "A", "B": "B", "up": "B", None: "alpha"}[match["part"]]
    return Part(match["path"], module(match["path"]), kind)


def module(path: str) -> str:
    """Diffusers' name of a module of ACE-Step 1.5 by any of its names; empty when it is none."""
    path = _PREFIX.sub("", path, 1) if _PREFIX.match(path) else _FLAT.sub("", path, 1)
    if match := _MODULE.fullmatch(path):
        projection = match["projection"].replace("to_out_0", "to_out.0")
        return f"layers.{int(match['layer'])}.{match['block']}.{_PROJECTIONS.get(projection, projection)}"
    if match := _OTHER.fullmatch(path):
        return f"{match['embed']}.{match['linear']}" if match["embed"] else "condition_embedder"
    return ""


def kind(keys: Iterable[str]) -> str:
    """ "LoKr", "LoHa" or "DoRA" for what goes beyond two factors; else empty."""
    return next((name for key in keys for name, pattern in _KINDS if pattern.search(key)), "")


def foreign(keys: Iterable[str]) -> str:
    """Which other model the keys are for; empty when they may be ACE-Step 1.5's."""
    keys = list(keys)
    if any(_LANGUAGE_MODEL.match(key) for key in keys) and not any("cross_attn" in key for key in keys):
        return "a language model"
    return next((name for name, pattern in _FOREIGN if any(pattern.search(key) for key in keys)), "")


def width_of(shapes: Mapping[tuple[str, str], Shape]) -> int:
    """How wide most layers are that the factors are for, from the shapes of (module, "A" or "B"); 0 if they do not say."""
    found: Counter[int] = Counter()
    for (name, factor), shape in shapes.items():
        from_hidden = name.endswith(("to_q", "to_k", "to_v", "gate_proj", "up_proj"))
        to_hidden = name.endswith(("to_out.0", "down_proj"))
        if len(shape) == 2 and (from_hidden if factor == "A" else to_hidden if factor == "B" else False):
            found[shape[1] if factor == "A" else shape[0]] += 1
    return found.most_common(1)[0][0] if found else 0


def made_for(width: int) -> str:
    """The model whose layers are that wide, if it is known."""
    return _WIDTHS.get(width, "another model")
