"""From a row of the planner table to a loaded planner, or to one sentence that says what is missing."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import checkpoints
from errors import EngineMissing
from lm import LM
from planner import Planner
from plans import CODE_COUNT
from settings import PlannerRow
from vocabulary import QWEN_FIRST_CODE, Vocabulary, is_qwen

BESIDE_GIB = 1.0  # of a planner: cache, the buffers of a prompt
SONG_GIB = 4.5  # of a song on a GPU, beside the weights


def load(row: PlannerRow, on: str, tokenizer: Any, shares: bool = False) -> Planner:
    """The planner of a row on a device ("cuda", "mps" or "cpu"). `tokenizer` is the song model's; `shares` says that the two
    take turns on a card.

    Raises EngineMissing when its weights cannot be had or do not fit beside the song model.
    """
    _room(row, on, 0 if on == "cpu" or shares else SONG_GIB)
    try:
        if row.random:
            vocabulary = Vocabulary.qwen(tokenizer)
            return Planner(_random(row, on, vocabulary.masks), vocabulary, row.key)
        folder = checkpoints.folder(row.source, row.revision, row.folder)
        vocabulary = _vocabulary(folder, tokenizer)
        return Planner(_model(folder, on, vocabulary.masks), vocabulary, row.key)
    except Exception as error:
        raise checkpoints.missing(row, error) from error


def _room(row: PlannerRow, on: str, song_gib: float) -> None:
    needs = row.size_gb * 1e9 / checkpoints.GIB + BESIDE_GIB + song_gib
    free = checkpoints.free_gib(on)
    if row.size_gb and free < needs:
        raise EngineMissing(
            f"There is no room for {row.name}: beside the song model it needs {needs:.1f} GiB, {free:.1f} are free.",
            "ACE_PLANNER=0.6B is the smallest, ACE_PLANNER=none does without.",
        )


def _vocabulary(folder: Path, tokenizer: Any) -> Vocabulary:
    """Of the song model's tokenizer where it gives the planner's ids, else of the planner's own.

    Raises ValueError for a model of another kind.
    """
    from transformers import AutoTokenizer

    config = json.loads((folder / "config.json").read_text())
    if config.get("model_type") != "qwen3" or not config.get("tie_word_embeddings") or config.get("attention_bias"):
        raise ValueError("a planner is a Qwen3 with tied embeddings and without biases")
    if config["vocab_size"] > QWEN_FIRST_CODE + CODE_COUNT and is_qwen(tokenizer):
        return Vocabulary.qwen(tokenizer)
    own = Vocabulary.of(AutoTokenizer.from_pretrained(folder))
    return replace(own, codes=min(own.codes, config["vocab_size"] - own.first_code))


def _model(folder: Path, on: str, masks: Mapping[str, np.ndarray]) -> LM:
    """Through MLX on Apple silicon where it is installed, through torch elsewhere."""
    if on == "mps" and importlib.util.find_spec("mlx_lm"):
        import lm_mlx

        return lm_mlx.MlxLM(lm_mlx.load(folder), masks)
    from transformers import AutoModelForCausalLM

    import lm_torch

    # Safetensors only: pickled weights can run code.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=_dtype(on), use_safetensors=True)
    return lm_torch.TorchLM(model.to(on), masks)


def _random(row: PlannerRow, on: str, masks: Mapping[str, np.ndarray]) -> LM:
    import lm_torch
    from causal_lm import random_model

    return lm_torch.TorchLM(random_model(row.key.partition(":")[2], on, _dtype(on)), masks)


def _dtype(on: str) -> Any:
    """float32 on MPS, where upstream keeps it so; elsewhere the song model's."""
    import torch

    return torch.float32 if on == "mps" else checkpoints.dtype_for(on)
