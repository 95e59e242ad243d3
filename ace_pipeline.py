"""The song engine: condition on words, sing.

diffusers' `AceStepPipeline` holds weights, prompt encoding and VAE; the denoising loop is ours (`sampler.py`). An engine
is not thread-safe and keeps nothing from song to song: `backend.py` gives it one request at a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import checkpoints
from errors import BadOutput
from sampler import Conditions, Guide, Schedule, denoise
from settings import Checkpoint
from song import LATENT_RATE, SAMPLE_RATE, Advanced, Generate, Progress, Sound

if TYPE_CHECKING:
    import torch

TEXT_TOKENS = 256  # the text branch reads no further, and tempo, key and duration stand at its end
LYRIC_TOKENS = 2048
TIMBRE_FRAMES = 30 * LATENT_RATE  # without a reference the timbre encoder hears 30 s of silence
TILE_ABOVE_S = 60  # decode longer songs in tiles: untiled, each second costs about 64 MiB

Report = Callable[[Progress], None]


class Clock:
    """Seconds by phase. The device is waited for at each phase's end, so that the figures are true."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self.sync = sync
        self.seconds: dict[str, float] = {}
        self.begun = self.last = time.perf_counter()

    def mark(self, phase: str) -> None:
        """End the running phase under this name."""
        self.sync()
        now = time.perf_counter()
        self.seconds[phase] = round(now - self.last, 4)
        self.last = now

    def done(self) -> dict[str, float]:
        """All phases and their total."""
        return {**self.seconds, "total_s": round(time.perf_counter() - self.begun, 4)}


@dataclass(frozen=True)
class Words:
    """Caption and lyrics as they fit the model, and what had to be said about it."""

    prompt: str
    lyrics: str
    warnings: tuple[str, ...]


class Engine:
    """One loaded checkpoint on one device ("cuda", "mps" or "cpu")."""

    def __init__(self, pipe: Any, checkpoint: Checkpoint, device: str) -> None:
        self.pipe = pipe
        self.checkpoint = checkpoint
        self.device = device

    def sing(self, request: Generate, report: Report = lambda _: None) -> Sound:
        """The song of a request: float32 samples [2, n] at 48 kHz, n = the asked duration to the sample.

        `report` is called in each phase and after each step; what it raises ends the song and leaves the engine as it
        was. Raises BadOutput when the model produces numbers that are not finite.
        """
        import torch

        clock = Clock(self.sync)
        with torch.no_grad():
            report(Progress("Reading the words"))
            words = self.fit(request)
            conditions = self.condition(request, words)
            clock.mark("conditioning_s")
            latents = self.denoise(conditions, request.advanced, report)
            clock.mark("denoise_s")
            if not bool(torch.isfinite(latents).all()):
                raise BadOutput(
                    f"The model lost its way (numbers that are not finite, seed {request.advanced.seed}).",
                    "Try another seed or a lower guidance.",
                )
            report(Progress("Decoding"))
            samples = self.decode(latents)[:, : round(request.duration_s * SAMPLE_RATE)]
            clock.mark("decode_s")
        timings = clock.done()
        timings["per_step_s"] = round(timings["denoise_s"] / request.advanced.inference_steps, 4)
        return Sound(samples.numpy(), SAMPLE_RATE, timings, self.describe(), words.warnings)

    def fit(self, request: Generate) -> Words:
        """The request's words within the model's token limits.

        A caption that is too long is shortened from its end, because the text encoder would cut tempo, key and duration
        instead; lyrics are cut by the tokenizer. Both are told to the user.
        """
        warnings = []
        prompt, lyrics = request.prompt, request.sung

        def tokens(caption: str) -> int:
            return len(self.pipe.tokenizer(self._formatted(request, caption)[0]).input_ids)

        if tokens(prompt) > TEXT_TOKENS:
            low, high = 0, len(prompt)  # the longest prefix that fits
            while low < high:
                middle = (low + high + 1) // 2
                low, high = (middle, high) if tokens(prompt[:middle]) <= TEXT_TOKENS else (low, middle - 1)
            warnings.append(f"The model read the first {low} of {len(prompt)} characters of the style prompt.")
            prompt = prompt[:low]
        count = len(self.pipe.tokenizer(self._formatted(request, "")[1]).input_ids)
        if count > LYRIC_TOKENS:
            share = math.floor(100 * LYRIC_TOKENS / count)
            warnings.append(f"The lyrics are too long for the model: it read about the first {share} %.")
        return Words(prompt, lyrics, tuple(warnings))

    def condition(self, request: Generate, words: Words) -> Conditions:
        """What the transformer hears: words, silence as timbre, silence as source, everything to be made."""
        import torch

        pipe, dtype = self.pipe, self.pipe.transformer.dtype
        text, text_mask, lyric, lyric_mask = pipe.encode_prompt(
            prompt=words.prompt, lyrics=words.lyrics, device=self.device, **self._metas(request)
        )
        encoder = pipe.condition_encoder
        silence = encoder.silence_latent.to(device=self.device, dtype=dtype)
        cond, _ = encoder(
            text_hidden_states=text,
            text_attention_mask=text_mask,
            lyric_hidden_states=lyric,
            lyric_attention_mask=lyric_mask,
            refer_audio_acoustic_hidden_states_packed=silence[:, :TIMBRE_FRAMES],
            refer_audio_order_mask=torch.zeros(1, device=self.device, dtype=torch.long),
        )
        frames = math.ceil(request.duration_s * LATENT_RATE)
        source = silence[:, :frames]
        null = encoder.null_condition_emb.to(device=cond.device, dtype=cond.dtype)
        return Conditions(cond, null, torch.cat([source, torch.ones_like(source)], dim=-1))

    def denoise(self, conditions: Conditions, knobs: Advanced, report: Report = lambda _: None) -> torch.Tensor:
        """Latents [1, T, C] of a song, from the noise of its seed."""
        import torch
        from diffusers.utils.torch_utils import randn_tensor

        schedule = Schedule(
            steps=knobs.inference_steps,
            shift=knobs.shift,
            guidance=1.0 if self.pipe.is_turbo else knobs.guidance_scale,
            interval=(knobs.cfg_interval_start, knobs.cfg_interval_end),
            adg=knobs.use_adg,
            sde=knobs.infer_method == "sde",
        )
        # CPU generators give the same noise on every machine; one per purpose, so that SDE keeps the ODE's start.
        start = torch.Generator("cpu").manual_seed(knobs.seed)
        along = torch.Generator("cpu").manual_seed(knobs.seed ^ 0x5DE)
        shape = (1, conditions.context.shape[1], conditions.context.shape[2] // 2)
        device, dtype = conditions.context.device, conditions.context.dtype
        noise = randn_tensor(shape, generator=start, device=device, dtype=dtype)
        begun = time.perf_counter()

        def on_step(done: int, of: int) -> None:
            left = (time.perf_counter() - begun) / done * (of - done)
            report(Progress("Denoising", done, of, left))

        report(Progress("Denoising", 0, schedule.steps))
        return denoise(Guide(self.pipe.transformer, conditions, schedule), noise, on_step, along)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [1, T, C] to float32 samples [2, 1920 T] on the CPU, as the VAE gives them: no normalisation."""
        vae = self.pipe.vae
        vae.use_tiling = latents.shape[1] > TILE_ABOVE_S * LATENT_RATE
        return vae.decode(latents.transpose(1, 2).to(vae.dtype)).sample[0].float().cpu()

    def describe(self) -> dict[str, Any]:
        """Which model made a song, for its recipe."""
        dtype = str(self.pipe.transformer.dtype).removeprefix("torch.")
        row = self.checkpoint
        own = {"key": row.key, "id": row.key if row.key == "demo" else row.source, "revision": row.revision}
        return {**own, "device": self.device, "dtype": dtype}

    def _metas(self, request: Generate) -> dict[str, Any]:
        knobs = request.advanced
        return {
            "vocal_language": knobs.vocal_language,
            "audio_duration": request.duration_s,
            "bpm": knobs.bpm,
            "keyscale": knobs.keyscale,
            "timesignature": knobs.timesignature,
        }

    def _formatted(self, request: Generate, caption: str) -> tuple[str, str]:
        return self.pipe._format_prompt(caption, request.sung, **self._metas(request))

    def sync(self) -> None:
        """Wait until the device has done what it was told."""
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()


def load(checkpoint: Checkpoint, device: str) -> Engine:
    """The engine for a checkpoint on a device. Raises EngineMissing when its weights cannot be had."""
    return Engine(checkpoints.pipeline(checkpoint, device), checkpoint, device)
