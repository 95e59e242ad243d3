"""A lyrics model at 100 k parameters: the true Qwen2 and Llama classes with random weights, and the small real one.

What the tiny ones write is nonsense in sections, in milliseconds; `small()` is the SmolLM2 that the studio carries.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import tiny_planner

import lyrics_lm
from lm_torch import TorchLM
from lyricists import LYRICISTS
from lyrics import Lyrics
from lyrics_lm import Lyricist
from wording import Wording

tokenizer = tiny_planner.tokenizer
FACTS = {"name": "tiny", "id": "tiny", "revision": None, "library": "transformers", "dtype": "float32"}
SHAPE: dict[str, Any] = dict(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    bos_token_id=None,
)


@functools.cache
def model(kind: str = "qwen2", seed: int = 0, tied: bool = False) -> Any:
    """A language model of a kind ("qwen2", "llama"), on the CPU in float32. Nothing in it may change."""
    import torch
    import transformers

    config, made = {"qwen2": ("Qwen2Config", "Qwen2ForCausalLM"), "llama": ("LlamaConfig", "LlamaForCausalLM")}[kind]
    shape = SHAPE | dict(vocab_size=len(tokenizer()) + 8, tie_word_embeddings=tied)
    shape |= dict(eos_token_id=tokenizer().eos_token_id, pad_token_id=tokenizer().pad_token_id)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = getattr(transformers, made)(getattr(transformers, config)(**shape)).eval()
        with torch.no_grad():
            for matrix in built.parameters():  # drawn wide: equal outputs of different prompts would prove nothing
                matrix.normal_(1.0 if matrix.ndim == 1 else 0.0, 0.1 if matrix.ndim == 1 else 0.3)
    return built


def saved(folder: Path, kind: str = "qwen2") -> Path:
    """The model with its tokenizer as a folder, as from the Hub."""
    model(kind).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@functools.cache
def lyricist(kind: str = "qwen2") -> Lyricist:
    """The tiny model, ready to write."""
    wording = Wording.of(tokenizer(), model(kind).config.vocab_size)
    return Lyricist(TorchLM(model(kind), wording.masks), wording, FACTS)


@functools.cache
def small() -> Lyricist:
    """SmolLM2, as the studio has it on a machine without GPU and network."""
    return lyrics_lm.load(LYRICISTS["smollm2"], "cpu")


def ask(**values: Any) -> Lyrics:
    """A request for lyrics with a brief and a seed, else with the defaults given here."""
    return Lyrics.parse({"brief": "rain on the last train home", "seed": 7, **values})


def chances(seed: int = 0) -> Any:
    """Numbers in [0, 1) without end."""
    return iter(np.random.default_rng(seed).random, None)
