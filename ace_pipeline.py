"""The song engine: listen, denoise, decode.

diffusers' `AceStepPipeline` holds weights, prompt encoding and VAE; what the transformer hears is put together in
`conditioning.py`, the denoising loop is ours (`sampler.py`). An engine is not thread-safe and keeps nothing from song to
song: `backend.py` gives it one request at a time.
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import checkpoints
import velocity
from conditioning import Conditioner, Report, Score
from errors import BadOutput
from lora_adapters import Adapters
from sampler import Guide, Morph, Noise, Noises, Schedule, denoise, flow_edit
from settings import Checkpoint, read
from song import Advanced, SongRequest
from sound import SAMPLE_RATE, AudioClip, Progress, Sound
from tiers import WHOLE, Tier, leaving, woken

if TYPE_CHECKING:
    import torch

LACKED = re.compile(r"operator '(aten::[\w.]+)' is not currently supported on the MPS")  # torch's own words
TOGETHER_S = 240  # seconds of song in one batch of takes: more would wait longer for the first, and gain nothing
_lacked: ContextVar[set[str] | None] = ContextVar("lacked", default=None)  # where a song's thread wants them told
ALONG = 0x5DE  # the purpose of the noise that is drawn on the way: SDE keeps the ODE's start


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
        """All phases and their total; the next begin now."""
        spent = {**self.seconds, "total_s": round(time.perf_counter() - self.begun, 4)}
        self.seconds, self.begun = {}, self.last
        return spent


class Engine:
    """One loaded checkpoint on one device ("cuda", "mps" or "cpu"), in the way of a tier."""

    def __init__(self, pipe: Any, checkpoint: Checkpoint, device: str, tier: Tier = WHOLE) -> None:
        self.pipe = pipe
        self.checkpoint = checkpoint
        self.device = device
        self.tier = tier
        self.batches = device == "cuda"
        self.conditioner = Conditioner(pipe, device)
        self.adapters = Adapters(pipe)
        self.field = velocity.of(pipe.transformer, read().fast and tier.resident)

    def sing(self, request: SongRequest, report: Report = lambda _: None) -> Sound:
        """The song of a request, of several takes the first; as `takes` makes it."""
        (sound,) = self.takes(request.singles()[0], report)
        return sound

    def takes(self, request: SongRequest, report: Report = lambda _: None, done: int = 0) -> Iterator[Sound]:
        """The songs of a request's `singles`, each as soon as it is finished, but for the first `done` of them.

        Each is float32 samples [2, n] at 48 kHz, n = the request's `size`. Of an extension or a repaint it is all that was
        heard with the new part in it (`SongRequest.heard`). Words and recordings are heard once, LoRAs loaded once: neither
        goes by the seed. `report` is called in each phase and after each step; what it raises ends the song and
        leaves the engine as it was. Raises BadOutput when the model produces numbers that are not finite, EngineRefused for a
        LoRA without effect.
        """
        import torch

        clock, left = Clock(self.sync), set()
        with torch.no_grad(), left_to_cpu(left), leaving(self.pipe):
            score = self.conditioner.score(request, report)
        clock.mark("conditioning_s")
        if request.loras:
            report(Progress("Attaching the LoRAs"))
        songs, batch = self.denoised(score, request, report, done), self._batched(score, request)
        for take, single in enumerate(request.singles()[done:], done + 1):
            # Nothing of this, no LoRA and no part that takes turns, stays while somebody has a sound.
            with torch.no_grad(), left_to_cpu(left), leaving(self.pipe):
                with self.adapters.attached(request.loras), leaving(self.pipe):  # the LoRAs leave with the transformer
                    if request.loras and take == done + 1:
                        clock.mark("loras_s")
                    latents = next(songs)
                    clock.mark("denoise_s")
                sound = self._sung(single, latents, clock, nth(report, request, take, batch))
            slower = [f"This Mac left {', '.join(sorted(left))} to its CPU: the song is right, and took longer."]
            warnings = (*score.warnings, *(slower if left else ()))
            together = {"take": take, "of": request.takes} | ({"batch": True} if batch else {})
            yield replace(sound, warnings=warnings, together=together if request.takes > 1 else None)

    def _sung(self, request: SongRequest, latents: torch.Tensor, clock: Clock, report: Report) -> Sound:
        """The sound of one request's latents."""
        import torch

        if not bool(torch.isfinite(latents).all()):
            raise BadOutput(
                f"The model lost its way (numbers that are not finite, seed {request.advanced.seed}).",
                "Try another seed or a lower guidance.",
            )
        report(Progress("Decoding"))
        samples = self.decode(latents)[:, request.lead : request.lead + request.size]
        clock.mark("decode_s")
        timings = clock.done()
        timings["per_step_s"] = round(timings["denoise_s"] / request.advanced.inference_steps, 4)
        return Sound(samples.numpy(), SAMPLE_RATE, timings, self.describe())

    def denoised(
        self, score: Score, request: SongRequest, report: Report = lambda _: None, done: int = 0
    ) -> Iterator[torch.Tensor]:
        """Latents [1, T, C] of a request's `singles`, as `takes` decodes them: one after the other, each to the bit as alone.

        On CUDA short ones are made in one batch, which one alone would not fill: there they are the same but for roundings.
        """
        singles = request.singles()[done:]
        if self._batched(score, request):
            yield from self.denoise(score, request, report, [single.advanced.seed for single in singles]).split(1)
            return
        for take, single in enumerate(singles, done + 1):
            yield self.denoise(score, single, nth(report, request, take))

    def _batched(self, score: Score, request: SongRequest) -> bool:
        short = request.takes * request.seconds <= TOGETHER_S
        return self.batches and request.takes > 1 and short and score.origin is None

    def codes(self, clip: AudioClip) -> list[int]:
        """The audio codes of a recording, 5 a second. Raises EngineMissing when the model has no audio tokenizer."""
        import torch

        with torch.no_grad(), leaving(self.pipe):
            return self.conditioner.codes(clip)

    def denoise(
        self,
        score: Score,
        request: SongRequest,
        report: Report = lambda _: None,
        seeds: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Latents [1, T, C] of a song from the noise of its seed, or [B, T, C] from that of `seeds`; a morph has one."""
        knobs, begun = request.advanced, time.perf_counter()
        seeds = seeds or [knobs.seed]
        start, along = (Noises([Noise(seed, request.retakes, purpose) for seed in seeds]) for purpose in (0, ALONG))

        def on_step(done: int, of: int) -> None:
            left = (time.perf_counter() - begun) / done * (of - done)
            report(Progress("Denoising", done, of, left))

        report(Progress("Denoising", 0, knobs.inference_steps))
        guide = Guide(self.field, score.conditions, self.schedule(knobs))
        if score.origin is not None:
            origin = Guide(self.field, score.origin, guide.schedule)
            return flow_edit(Morph(origin, guide, score.song, *request.morphing, request.n_avg), along, on_step)
        context = score.conditions.context
        noise = start(context[..., : context.shape[-1] // 2].expand(len(seeds), -1, -1))
        return denoise(guide, noise, on_step, along, score.change)

    def schedule(self, knobs: Advanced) -> Schedule:
        """The way from noise to song that the knobs describe; turbo has its guidance built in."""
        return Schedule(
            steps=knobs.inference_steps,
            shift=knobs.shift,
            guidance=1.0 if self.pipe.is_turbo else knobs.guidance_scale,
            interval=(knobs.cfg_interval_start, knobs.cfg_interval_end),
            adg=knobs.use_adg,
            sde=knobs.infer_method == "sde",
        )

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [1, T, C] to float32 samples [2, 1920 T] on the CPU, as the VAE gives them: no normalisation."""
        vae = woken(self.pipe.vae)
        return vae.decode(latents.transpose(1, 2).to(vae.dtype)).sample[0].float().cpu()

    def describe(self) -> dict[str, Any]:
        """Which model made a song, for its recipe."""
        dtype = str(self.pipe.transformer.dtype).removeprefix("torch.")
        shrunk = {"weights": "int8"} if self.tier.eight_bit else {}
        return {**self.checkpoint.facts, "device": self.device, "dtype": dtype, **shrunk}

    def sync(self) -> None:
        """Wait until the device has done what it was told."""
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()


def nth(report: Report, request: SongRequest, take: int, batch: bool = False) -> Report:
    """A report that tells of one take of a request, its steps and the time left for denoising as part of all takes.

    The steps of a `batch` are those of all its takes already.
    """
    begun, steps = time.perf_counter(), request.advanced.inference_steps

    def tell(own: Progress) -> None:
        if batch:
            return report(replace(own, take=take, takes=request.takes))
        left = own.left_s
        if left is not None:
            left += (request.takes - take) * steps * (time.perf_counter() - begun) / own.step
        step = (take - 1) * steps + (own.step if own.of else steps)  # what has no steps comes after them
        report(replace(own, step=step, of=request.takes * steps, left_s=left, take=take, takes=request.takes))

    return tell if request.takes > 1 else report


@contextlib.contextmanager
def left_to_cpu(names: set[str]) -> Iterator[None]:
    """Puts into `names` the operations that an Apple GPU lacks and the CPU does; all other warnings are given as they come.

    `warnings.catch_warnings` would do it for the process: whoever else is at work would be given our filters, and we theirs.
    """
    if getattr(warnings.showwarning, "func", None) is not _shown:
        warnings.showwarning = functools.partial(_shown, warnings.showwarning)
    ours = _lacked.set(names)
    try:
        yield
    finally:
        _lacked.reset(ours)


def _shown(show: Callable[..., None], message: Warning | str, *place: Any) -> None:
    """Show a warning, unless it tells of an operation that a song's thread waits to be told of."""
    names, found = _lacked.get(), LACKED.search(str(message))
    if names is None or not found:
        show(message, *place)
    else:
        names.add(found[1])


def load(checkpoint: Checkpoint, device: str, tier: Tier | None = None) -> Engine:
    """The engine for a checkpoint on a device, in the way of a tier (default: the one for this machine).

    Raises EngineMissing when its weights cannot be had or there is no room for them.
    """
    tier = tier or checkpoints.tier(checkpoint, device)
    return Engine(checkpoints.pipeline(checkpoint, device, tier), checkpoint, device, tier)
