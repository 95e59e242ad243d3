"""A checkpoint with random weights in a true architecture, built in memory: no Hub, no files.

For benchmarks and GPU smoke at full size (`ACE_MODEL=random:xl-sft`), and for tests at a tiny one. The classes are
diffusers' own. Right for speed, memory and plumbing; what comes out is noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# ACE-Step 1.5 XL SFT, from the published configurations. A test holds it to the published parameter counts.
XL_SFT: dict[str, dict[str, Any]] = {
    "transformer": dict(
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        in_channels=192,
        audio_acoustic_hidden_dim=64,
        encoder_hidden_size=2048,
    ),
    "condition_encoder": {},  # the class defaults are XL's
    "audio_tokenizer": {},
    "audio_token_detokenizer": {},
    "vae": dict(
        encoder_hidden_size=128,
        downsampling_ratios=[2, 4, 4, 6, 10],
        channel_multiples=[1, 2, 4, 8, 16],
        decoder_channels=128,
        decoder_input_channels=64,
        audio_channels=2,
        sampling_rate=48_000,
    ),
    "text_encoder": dict(
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151_669,
        max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
    ),
}


def components(arch: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The neural parts of a pipeline on torch's current default device and dtype, with their own random init."""
    import torch
    from diffusers import AutoencoderOobleck
    from diffusers.models.transformers.ace_step_transformer import AceStepTransformer1DModel
    from diffusers.pipelines.ace_step import modeling_ace_step as parts
    from transformers import Qwen3Config, Qwen3Model

    built = {
        "transformer": AceStepTransformer1DModel(**arch["transformer"]),
        "condition_encoder": parts.AceStepConditionEncoder(**arch["condition_encoder"]),
        "audio_tokenizer": parts.AceStepAudioTokenizer(**arch["audio_tokenizer"]),
        "audio_token_detokenizer": parts.AceStepAudioTokenDetokenizer(**arch["audio_token_detokenizer"]),
        "vae": AutoencoderOobleck(**arch["vae"]),
        "text_encoder": Qwen3Model(Qwen3Config(**arch["text_encoder"])),
    }
    with torch.no_grad():
        built["condition_encoder"].silence_latent.normal_()
    return {name: model.eval() for name, model in built.items()}


def build(arch: Mapping[str, Mapping[str, Any]], tokenizer: Any, device: str, dtype: Any, seed: int = 0) -> Any:
    """A whole `AceStepPipeline` of `arch` on `device`; the same seed gives the same weights on the same device."""
    import torch
    from diffusers import AceStepPipeline, FlowMatchEulerDiscreteScheduler

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with (
            torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []),
            torch.device(device),
        ):
            torch.manual_seed(seed)
            parts = components(arch)
    finally:
        torch.set_default_dtype(before)
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0)
    return AceStepPipeline(**parts, tokenizer=tokenizer, scheduler=scheduler)
