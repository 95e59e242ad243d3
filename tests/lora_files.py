"""LoRA files, built in code as the trainers write them: true safetensors, of every layout in use, the same for a seed.

The truth is diffusers' names and exact numbers: `factors` draws what every floating-point type of a file can hold, so that
whatever layout and type `write` puts them in, they must come back as they are.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tiny

import lora_layouts
from lora_scales import CONFIG, HEADER_KEY
from lora_stack import Model

Factors = Mapping[str, tuple[np.ndarray, np.ndarray]]  # A [rank, in] and B [out, rank] by diffusers' name

OWN = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out.0": "o_proj"}  # ACE-Step's words for diffusers'
DTYPES = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Layout:
    """How a trainer names tensors, and where it says alpha: in the "config", the "header" or the "file" of tensors."""

    prefix: str = ""
    a: str = ".lora_A.weight"
    b: str = ".lora_B.weight"
    alpha: str = "config"
    own: bool = True  # ACE-Step's words for the modules, not diffusers'
    flat: bool = False  # underscores for dots

    def path(self, module: str) -> str:
        """A module of diffusers' name as this trainer calls it."""
        end = next((end for end in OWN if self.own and module.endswith(f"attn.{end}")), None)
        named = module if end is None else module.removesuffix(end) + OWN[end]
        return self.prefix + (named.replace(".", "_") if self.flat else named)


_DOWN, _UP = ".lora_down.weight", ".lora_up.weight"
LAYOUTS = {
    "peft": Layout("base_model.model."),
    "peft, alpha beside": Layout("base_model.model.", alpha="file"),  # ace-lora-trainer
    "peft, diffusers' names": Layout("base_model.model.", own=False),
    "bare": Layout(),
    "decoder": Layout("decoder."),
    "peft decoder": Layout("base_model.model.decoder."),
    "peft model.decoder": Layout("base_model.model.model.decoder."),
    "comfy": Layout("diffusion_model."),
    "comfy decoder": Layout("diffusion_model.decoder."),
    "diffusers": Layout("transformer.", own=False, alpha="header"),
    "diffusers before PEFT": Layout("transformer.", ".lora.down.weight", ".lora.up.weight", "header", own=False),
    "adapter's name": Layout("base_model.model.", ".lora_A.default.weight", ".lora_B.default.weight"),
    "another adapter's name": Layout("decoder.", ".lora_A.lora_adapter.weight", ".lora_B.lora_adapter.weight"),
    "kohya": Layout("", _DOWN, _UP, "file"),
    "kohya flat": Layout("lora_unet_", _DOWN, _UP, "file", flat=True),
    "kohya flat decoder": Layout("lora_unet_decoder_", _DOWN, _UP, "file", flat=True),
    "kohya flat, diffusers' names": Layout("lora_transformer_", _DOWN, _UP, "file", own=False, flat=True),
    "lycoris": Layout("lycoris_", _DOWN, _UP, "file", flat=True),
}

Choice = Callable[[str], bool]
CHOICES: dict[str, Choice] = {  # which modules people train
    "attention": lambda module: "attn" in module,
    "q and k": lambda module: module.endswith(("to_q", "to_k")),
    "v and o": lambda module: module.endswith(("to_v", "to_out.0")),
    "MLP": lambda module: "mlp" in module,
    "attention and MLP": lambda module: module.startswith("layers."),
    "one module": lambda module: module == "layers.1.cross_attn.to_v",
    "embeddings": lambda module: not module.startswith("layers."),
    "everything": lambda module: True,
}


def tiny_model() -> Model:
    """The tiny checkpoint's transformer, as `admit` wants to know it."""
    return Model("the tiny model", lora_layouts.targets(tiny.TINY["transformer"]))


def chosen(model: Model, choice: str) -> list[str]:
    """The modules of a choice of CHOICES."""
    return [module for module in model.targets if CHOICES[choice](module)]


def factors(
    model: Model, modules: Iterable[str], rank: int | Callable[[str], int] = 4, seed: int = 0
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Random factors, float32: whole 1024ths up to 1/8, which are exact in bfloat16 too. `rank` may differ by module."""
    rng, made = np.random.default_rng(seed), {}
    for module in modules:
        r = rank if isinstance(rank, int) else rank(module)
        out, wide = model.targets[module]
        a, b = (rng.integers(-128, 129, shape) / 1024 for shape in ((r, wide), (out, r)))
        made[module] = (a.astype(np.float32), b.astype(np.float32))
    return made


def ranks(made: Factors) -> dict[str, int]:
    """The rank of each module."""
    return {module: a.shape[0] for module, (a, _) in made.items()}


def config(made: Factors, alpha: float, **more: Any) -> dict[str, Any]:
    """The `adapter_config.json` that PEFT writes beside them, as far as it matters here and a little further."""
    usual = Counter(ranks(made).values()).most_common(1)[0][0]
    odd = {module: rank for module, rank in ranks(made).items() if rank != usual}
    told = dict(peft_type="LORA", r=usual, lora_alpha=alpha, rank_pattern=odd, alpha_pattern={}, use_rslora=False)
    told |= dict(base_model_name_or_path="/models/acestep-v15-xl", auto_mapping=None, lora_dropout=0.1, bias="none")
    return told | dict(use_dora=False, target_modules=sorted({m.rsplit(".", 1)[-1] for m in made})) | more


def write(
    path: Path, layout: Layout | str, made: Factors, alpha: float | None = None, dtype: str = "F32", **more: Any
) -> tuple[Path, Path | None]:
    """Write a LoRA file as a trainer does; returns its path and that of the adapter_config.json, if it has one.

    With `alpha` it is said where the layout says it, and `more` stands in the configuration (`use_rslora`, `alpha_pattern`).
    Keys of patterns are diffusers' names, and are turned into the layout's.
    """
    layout = LAYOUTS[layout] if isinstance(layout, str) else layout
    tensors: dict[str, tuple[str, np.ndarray]] = {}
    for module, (a, b) in made.items():
        named = layout.path(module)
        tensors[named + layout.a], tensors[named + layout.b] = (dtype, a), (dtype, b)
        if alpha is not None and layout.alpha == "file":
            tensors[named + ".alpha"] = (dtype, np.float32(alpha))
    metadata: dict[str, str] = {"format": "pt"}
    beside = None
    if alpha is not None and layout.alpha != "file":
        told = config(made, alpha, **more)
        for pattern in ("rank_pattern", "alpha_pattern"):  # PEFT's names there are the trained model's own
            told[pattern] = {layout.path(module).removeprefix(layout.prefix): n for module, n in told[pattern].items()}
        if layout.alpha == "header":
            metadata[HEADER_KEY] = json.dumps({f"transformer.{key}": value for key, value in told.items()})
        else:
            beside = path.with_name(CONFIG)
            beside.write_text(json.dumps(told, indent=2))
    path.write_bytes(safetensors_of(tensors, metadata))
    return path, beside


def product(made: Factors, scale: float | Mapping[str, float] = 1.0) -> dict[str, np.ndarray]:
    """What a LoRA adds to each module's weight, float64 [out, in]; `scale` is of all modules or by module."""
    by = scale if isinstance(scale, Mapping) else dict.fromkeys(made, scale)
    return {module: by[module] * (b.astype(np.float64) @ a.astype(np.float64)) for module, (a, b) in made.items()}


def stored(dtype: str, numbers: np.ndarray) -> bytes:
    """Numbers as a safetensors file holds them."""
    numbers = np.asarray(numbers)
    if dtype == "BF16":  # the upper half of a float32
        return (numbers.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}
    return numbers.astype(kinds[dtype]).tobytes()


def safetensors_of(tensors: Mapping[str, tuple[str, np.ndarray]], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of tensors by key. By hand: the library writes no bfloat16 from numpy, and no broken files."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    data = b""
    for key, (dtype, numbers) in tensors.items():
        raw = stored(dtype, numbers)
        offsets = [len(data), len(data) + len(raw)]
        header[key] = {"dtype": dtype, "shape": list(np.shape(numbers)), "data_offsets": offsets}
        data += raw
    return raw_file(header, data)


def raw_file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of that header, which may be bytes or anything JSON can say, and may claim another length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text) if length is None else length) + text + data
