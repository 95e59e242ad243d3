"""The tiny random checkpoint: the true diffusers classes at 143 k parameters, built in code in a moment.

The geometry is the real one (48 kHz stereo, hop 1,920, 25 latents a second), the widths are not. `encoder_hidden_size`
differs from `hidden_size`, as in XL.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import ace_pipeline
import lora_layouts
import oobleck
import random_checkpoint
from settings import Checkpoint

ATTENTION = dict(num_attention_heads=2, num_key_value_heads=1, head_dim=8)
POOLER = dict(
    hidden_size=16, intermediate_size=32, fsq_dim=16, audio_acoustic_hidden_dim=8, pool_window_size=5, **ATTENTION
)
TINY = {
    "transformer": dict(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        in_channels=24,
        audio_acoustic_hidden_dim=8,
        encoder_hidden_size=24,
        sliding_window=16,
    ),
    "condition_encoder": dict(
        hidden_size=24,
        intermediate_size=48,
        text_hidden_dim=16,
        timbre_hidden_dim=8,
        num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1,
        sliding_window=16,
        **ATTENTION,
    ),
    "audio_tokenizer": dict(
        fsq_input_levels=[8, 8, 8, 5, 5, 5],
        fsq_input_num_quantizers=1,
        num_attention_pooler_hidden_layers=1,
        **POOLER,
    ),
    "audio_token_detokenizer": dict(
        num_attention_pooler_hidden_layers=1, **{k: v for k, v in POOLER.items() if k != "fsq_dim"}
    ),
    "vae": dict(
        encoder_hidden_size=16,  # twice the latent channels: mean and spread
        downsampling_ratios=[2, 4, 4, 6, 10],
        channel_multiples=[1, 1, 1, 1, 1],
        decoder_channels=4,
        decoder_input_channels=8,
        audio_channels=2,
        sampling_rate=48_000,
    ),
    "text_encoder": dict(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        vocab_size=257,
        max_position_embeddings=4096,
        **ATTENTION,
    ),
}
LOUDER = 50


def byte_tokenizer():
    """One token a byte and an end: no merges, no file."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    end = "<|endoftext|>"
    core = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate([*symbols, end])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([end])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=end, eos_token=end)


def pipeline(dtype: torch.dtype = torch.float32, seed: int = 0):
    """The pipeline, its VAE encoder turned up: at random its latents hardly move, and every recording gets one token."""
    pipe = random_checkpoint.build(TINY, byte_tokenizer(), "cpu", dtype, seed)
    with torch.no_grad():
        pipe.vae.encoder.conv2.weight_g.mul_(LOUDER)
    oobleck.prepare(pipe.vae, "cpu")
    return pipe


def lora(path: Path, seed: int = 0, config: Mapping[str, Any] = TINY["transformer"]) -> str:
    """A LoRA file for attention and MLP of the tiny model, or of another, loud enough to be heard."""
    from safetensors.torch import save_file

    generator, tensors = torch.Generator().manual_seed(seed), {}
    for module, (out, wide) in lora_layouts.targets(config).items():
        if module.startswith("layers."):
            tensors[f"{module}.lora_A.weight"] = torch.randn(2, wide, generator=generator) * 0.3
            tensors[f"{module}.lora_B.weight"] = torch.randn(out, 2, generator=generator) * 0.3
    save_file(tensors, path)
    return str(path)


@functools.cache
def engine() -> ace_pipeline.Engine:
    """One tiny engine for the whole test run; nothing in it may change from song to song, and a test says so."""
    checkpoint = Checkpoint("tiny", "Tiny", "tiny", "For tests.", random=True)
    return ace_pipeline.Engine(pipeline(), checkpoint, "cpu")
