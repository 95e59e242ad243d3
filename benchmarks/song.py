"""How long a song takes: seconds by phase, peak memory, ratio to the matmul floor, and to diffusers' own call.

    python -m benchmarks.song                              # 30, 60 and 240 s on whatever this machine sings with
    ACE_MODEL=random:xl-sft python -m benchmarks.song      # the full architecture, where no Hub can be reached

The floor is the multiplications of all steps (counted by torch on the real forward) at the rate of a large matrix product
measured in the same run. Each figure is the median of its runs; ours and stock run in pairs of alternating order.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import ace_pipeline
import checkpoints
from sampler import Guide, Schedule
from settings import checkpoint_for, read
from song import KNOBS, Generate
from velocity import Plain

PROMPT = "bright synth pop, female voice, warm pads, driving drums"
LYRICS = "[verse]\nCity lights are calling me\n[chorus]\nWe run until the morning\n"


def request(seconds: float, steps: int, guidance: float) -> Generate:
    """The song that is timed."""
    words = {"prompt": PROMPT, "lyrics": LYRICS, "duration_s": seconds}
    return Generate.parse({**words, "inference_steps": steps, "guidance_scale": guidance, "seed": 1})


def machine(device: str) -> str:
    """One line that says what was measured on."""
    import diffusers
    import torch

    name = (
        torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return (
        f"{device}: {name}; torch {torch.__version__}, diffusers {diffusers.__version__}; commit {commit or 'unknown'}"
    )


def loaded() -> ace_pipeline.Engine:
    """The engine of this machine, with a word on both."""
    device = checkpoints.device()
    begun = time.perf_counter()
    engine = ace_pipeline.load(checkpoint_for(read().model, device), device)
    engine.sync()
    print(f"{machine(device)}\n{engine.checkpoint.name}, loaded in {time.perf_counter() - begun:.1f} s")
    return engine


def matmul_rate(engine: ace_pipeline.Engine) -> float:
    """Measured FLOP/s of one large square matrix product in the engine's dtype."""
    import torch

    size = 8192 if engine.device == "cuda" else 2048
    a, b = (torch.randn(size, size, device=engine.device).to(engine.pipe.transformer.dtype) for _ in range(2))
    seconds = [timed(engine, lambda: a @ b) for _ in range(6)]
    return 2 * size**3 / statistics.median(seconds[1:])  # the first warms up


def flops_per_step(engine: ace_pipeline.Engine, asked: Generate) -> int:
    """FLOP of one guided step of this song."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def attention(query: Any, key: Any, *_: Any, **__: Any) -> int:  # torch's own count refuses grouped queries
        batch, heads, length, width = query
        return 4 * batch * heads * length * key[2] * width

    kernels = ("flash_attention", "efficient_attention", "cudnn_attention", "flash_attention_for_cpu")
    counts = {getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}"): attention for kernel in kernels}
    with torch.no_grad():
        conditions = engine.conditioner.score(asked).conditions
        guide = Guide(Plain(engine.pipe.transformer), conditions, Schedule(1, guidance=asked.advanced.guidance_scale))
        noise = torch.randn_like(conditions.context[..., : conditions.context.shape[-1] // 2])
        with FlopCounterMode(display=False, custom_mapping=counts) as counter:
            guide.velocity(noise, 1.0)
    return counter.get_total_flops()


def timed(engine: ace_pipeline.Engine, work: Callable[[], Any]) -> float:
    """Seconds of `work`, the device waited for."""
    engine.sync()
    begun = time.perf_counter()
    work()
    engine.sync()
    return time.perf_counter() - begun


def peak_gib(device: str) -> float:
    """Peak memory since the last reset: of the GPU, or of this process."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (30 if sys.platform == "darwin" else 20)


def stock(engine: ace_pipeline.Engine, asked: Generate) -> Any:
    """The same latents by diffusers' own call."""
    import torch

    knobs = asked.advanced
    return engine.pipe(
        prompt=asked.prompt,
        lyrics=asked.sung,
        audio_duration=asked.duration_s,
        vocal_language=knobs.vocal_language,
        num_inference_steps=knobs.inference_steps,
        guidance_scale=knobs.guidance_scale,
        shift=knobs.shift,
        generator=torch.Generator().manual_seed(knobs.seed),
        output_type="latent",
    ).audios


def ours(engine: ace_pipeline.Engine, asked: Generate) -> Any:
    """The latents by our loop."""
    import torch

    with torch.no_grad():
        return engine.denoise(engine.conditioner.score(asked), asked)


def against_stock(engine: ace_pipeline.Engine, asked: Generate, runs: int) -> float:
    """Median ratio of our seconds to stock's over pairs whose order alternates."""
    ratios = []
    for turn in range(runs + 1):
        order = (ours, stock) if turn % 2 else (stock, ours)
        taken = {work: timed(engine, lambda work=work: work(engine, asked)) for work in order}
        ratios.append(taken[ours] / taken[stock])
    return statistics.median(ratios[1:])  # the first pair warms up


def row(engine: ace_pipeline.Engine, asked: Generate, rate: float, runs: int) -> str:
    """One line of the table."""
    import torch

    engine.sing(asked)  # warm-up
    if engine.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    timings = [engine.sing(asked).timings for _ in range(runs)]
    peak = peak_gib(engine.device)
    phases = ("conditioning_s", "per_step_s", "denoise_s", "decode_s", "total_s")
    seconds = {phase: statistics.median(t[phase] for t in timings) for phase in phases}
    floor = flops_per_step(engine, asked) * asked.advanced.inference_steps / rate
    cells = [f"{asked.duration_s:g}", *(f"{s:.3f}" for s in seconds.values()), f"{peak:.1f}"]
    cells += [f"{floor:.2f}", f"{seconds['denoise_s'] / floor:.1f}", f"{against_stock(engine, asked, runs):.3f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, nargs="+", default=[30, 60, 240], help="lengths of song")
    options.add_argument("--steps", type=int, default=27)
    options.add_argument("--runs", type=int, default=3, help="runs per figure")
    asked = options.parse_args()
    engine = loaded()
    checkpoint = engine.checkpoint
    rate = matmul_rate(engine)
    guidance = checkpoint.knobs.get("guidance_scale", KNOBS["guidance_scale"].default)
    print(f"matmul {rate / 1e12:.1f} TFLOP/s; {asked.steps} steps, CFG {guidance:g}\n")
    print(
        "| song s | conditioning s | per step s | denoise s | decode s | total s | peak GiB | floor s | denoise / floor | latents ours / stock |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for seconds in asked.seconds:
        print(row(engine, request(seconds, asked.steps, guidance), rate, asked.runs), flush=True)


if __name__ == "__main__":
    main()
