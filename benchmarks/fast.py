"""What the fast forward is worth: latents of a song by it and by diffusers' own, beside the floor; takes together; kernels.

    ACE_MODEL=random:xl-sft python -m benchmarks.fast              # on a GPU, the full architecture
    ACE_MODEL=demo python -m benchmarks.fast --seconds 10 30       # on a laptop
    python -m benchmarks.fast --seconds 60 --kernels               # and what a step's time goes to

The floor is the multiplications of diffusers' forward at the rate of a large matrix product, measured in the same run. Fast
and plain run in pairs of alternating order; each figure is a median. `first` is what the first song of a length takes
more than the next, graphs captured; `off` is the relative error of its latents against the plain ones.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import ace_pipeline
from benchmarks.song import flops_per_step, loaded, matmul_rate, peak_gib, request, timed
from sampler import Guide, denoise
from settings import read
from song import KNOBS, Generate
from velocity import Fast, Plain

HEAD = "| song s | takes | floor s | fast s | fast / floor | plain s | fast / plain | first s | off | peak GiB |"
KINDS = {  # of kernels, by what their names have
    "attention": ("flash", "fmha", "attention"),
    "matrix products": ("gemm", "nvjet", "cutlass", "mm_", "sgemm", "addmm"),
    "norms": ("norm",),
    "copies": ("copy", "memcpy", "memset", "cat", "fill"),
}


def latents(field: Fast | Plain, engine: ace_pipeline.Engine, asked: Generate, takes: int = 1) -> Any:
    """The latents [takes, T, C] of a song, from its conditions."""
    import torch

    with torch.no_grad():
        score = engine.conditioner.score(asked)
        conditions = score.conditions
        generator = torch.Generator().manual_seed(1)
        shape = (takes, conditions.context.shape[1], conditions.context.shape[2] // 2)
        noise = torch.randn(shape, generator=generator).to(conditions.context)
        return denoise(Guide(field, conditions, engine.schedule(asked.advanced)), noise)


def row(engine: ace_pipeline.Engine, asked: Generate, takes: int, rate: float, runs: int) -> str:
    """One line of the table."""
    import torch

    plain, fast = Plain(engine.pipe.transformer), Fast(engine.pipe.transformer)
    fast.checks = False  # `off` says it
    taken: dict[Any, list[float]] = {plain: [], fast: []}
    made: dict[Any, Any] = {}

    def work(field: Any) -> None:
        made[field] = latents(field, engine, asked, takes)

    for turn in range(runs + 1):
        for field in (plain, fast) if turn % 2 else (fast, plain):
            taken[field].append(timed(engine, lambda field=field: work(field)))
    if engine.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    work(fast)
    peak, off = peak_gib(engine.device), (made[fast] - made[plain]).float().norm() / made[plain].float().norm()
    fast_s, plain_s = (statistics.median(taken[field][1:]) for field in (fast, plain))
    floor = takes * flops_per_step(engine, asked) * asked.advanced.inference_steps / rate
    cells = [f"{asked.duration_s:g}", f"{takes}", f"{floor:.3f}", f"{fast_s:.3f}", f"{fast_s / floor:.2f}"]
    cells += [
        f"{plain_s:.3f}",
        f"{fast_s / plain_s:.3f}",
        f"{taken[fast][0] - fast_s:.2f}",
        f"{off:.5f}",
        f"{peak:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def kernels(engine: ace_pipeline.Engine, asked: Generate, field: Fast | Plain) -> None:
    """What one guided step's time on the device goes to, by kind and by kernel."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with torch.no_grad():
        conditions = engine.conditioner.score(asked).conditions
        heard = field.hear(conditions)
        x = torch.randn_like(conditions.context[..., : conditions.context.shape[-1] // 2])
        for _ in range(3):
            heard(x, 0.5, True)
        engine.sync()
        cuda = engine.device == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        with profile(activities=activities) as profiled:
            heard(x, 0.5, True)
            engine.sync()
    found = [
        (e.key, (e.self_device_time_total if cuda else e.self_cpu_time_total) / 1e3, e.count)
        for e in profiled.key_averages()
    ]
    found = sorted((each for each in found if each[1] > 0), key=lambda each: -each[1])
    sums: dict[str, float] = {}
    for name, ms, _ in found:
        kind = next((kind for kind, parts in KINDS.items() if any(p in name.lower() for p in parts)), "the rest")
        sums[kind] = sums.get(kind, 0) + ms
    print(
        f"\n{type(field).__name__}, {asked.duration_s:g} s: {sum(sums.values()):.2f} ms in {sum(n for *_, n in found)} calls"
    )
    print("; ".join(f"{kind} {ms:.2f} ms" for kind, ms in sorted(sums.items(), key=lambda pair: -pair[1])))
    for name, ms, count in found[:14]:
        print(f"  {ms:8.3f} ms  {count:4d} x  {name[:110]}")


def main() -> None:
    """Print the table."""
    import torch

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, nargs="+", default=[30, 60, 240], help="lengths of song")
    options.add_argument("--takes", type=int, nargs="*", default=[4], help="takes together, at 60 s")
    options.add_argument("--steps", type=int, default=27)
    options.add_argument("--runs", type=int, default=3, help="pairs per figure")
    options.add_argument("--kernels", action="store_true", help="what a step's time goes to")
    asked = options.parse_args()
    engine = loaded()
    guidance = engine.checkpoint.knobs.get("guidance_scale", KNOBS["guidance_scale"].default)
    rate = matmul_rate(engine)
    print(f"matmul {rate / 1e12:.1f} TFLOP/s; {asked.steps} steps, CFG {guidance:g}; threads {torch.get_num_threads()}")
    if not read().fast:
        print("ACE_FAST=0: the studio itself would sing plain")
    print(f"\n{HEAD}\n|{' --- |' * HEAD.count(' | ')} --- |")
    for seconds, takes in [*((s, 1) for s in asked.seconds), *((60.0, n) for n in asked.takes)]:
        print(row(engine, request(seconds, asked.steps, guidance), takes, rate, asked.runs), flush=True)
    if asked.kernels:
        for seconds in asked.seconds:
            for field in (Fast(engine.pipe.transformer), Plain(engine.pipe.transformer)):
                kernels(engine, request(seconds, asked.steps, guidance), field)


if __name__ == "__main__":
    main()
