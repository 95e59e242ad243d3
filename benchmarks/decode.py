"""The autoencoder made ready (`oobleck.py`) beside diffusers' own: seconds, ratio, memory, and how far the two are apart.

    python -m benchmarks.decode                              # on whatever this machine sings with
    ACE_MODEL=random:xl-sft python -m benchmarks.decode --seconds 30 240
    ACE_MODEL=random:xl-sft python -m benchmarks.decode --plain      # samples side by side, as on Apple's GPUs

Both get the same weights and work in pairs of alternating order; diffusers' tiles are used where the studio used them before it
had its own: to decode more than 60 s, and to encode.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import oobleck
import processors
from benchmarks.song import machine
from random_checkpoint import XL_SFT
from settings import checkpoint_for, read
from sound import LATENT_RATE

TILED_ABOVE_S = 60


def autoencoder(device: str) -> Any:
    """diffusers' own, with the weights of this machine's checkpoint, or random ones that are the same each time."""
    import torch
    from diffusers import AutoencoderOobleck

    checkpoint = checkpoint_for(read().model, device)
    if Path(checkpoint.source).is_dir():
        vae = AutoencoderOobleck.from_pretrained(Path(checkpoint.source) / "vae")
    else:
        torch.manual_seed(0)
        vae = AutoencoderOobleck(**XL_SFT["vae"])
    return vae.to(checkpoints.dtype_for(device)).eval()


def sync(device: str) -> None:
    """Wait until the device has done what it was told."""
    import torch

    if device != "cpu":
        getattr(torch, device).synchronize()


def timed(work: Callable[[], Any], device: str) -> tuple[float, float, Any]:
    """Seconds, what it took beside (processors' seconds, or peak GiB of a GPU), and the result."""
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    sync(device)
    begun, worked = time.perf_counter(), time.process_time()
    result = work()
    sync(device)
    seconds, worked = time.perf_counter() - begun, time.process_time() - worked
    return seconds, torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else worked, result


def decibels(ours: Any, theirs: Any) -> float:
    """How much louder a result is than the difference between two of it."""
    true, off = theirs.float(), (ours.float() - theirs.float())
    return 10 * math.log10(float(true.square().sum() / off.square().sum().clamp_min(1e-30)))


def row(name: str, works: tuple[Callable[[], Any], Callable[[], Any]], device: str, runs: int) -> str:
    """One line of the table: first diffusers, then ours."""
    seconds: tuple[list[float], list[float]] = ([], [])
    took, results = [0.0, 0.0], [None, None]
    for turn in range(runs + 1):
        for which in (0, 1) if turn % 2 else (1, 0):
            taken, took[which], results[which] = timed(works[which], device)
            seconds[which].append(taken)
    theirs, ours = (taken[1:] for taken in seconds)  # the first pair warms up
    ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
    cells = [f"{statistics.median(theirs):.3f}", f"{statistics.median(ours):.3f}", f"{ratio:.2f}"]
    return f"| {name} | {' | '.join(cells)} | {took[0]:.1f}, {took[1]:.1f} | {decibels(results[1], results[0]):.0f} |"


def main() -> None:
    """Print the table."""
    import torch

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=int, nargs="+", default=[30, 60], help="lengths of song")
    options.add_argument("--runs", type=int, default=3, help="pairs per figure")
    options.add_argument("--plain", action="store_true", help="moments side by side, not channels")
    asked = options.parse_args()
    device = checkpoints.device()
    torch.set_num_threads(processors.threads() or torch.get_num_threads())
    stock, ready = (autoencoder(device) for _ in range(2))
    oobleck.prepare(ready, "mps" if asked.plain else device)
    stock, ready = stock.to(device), ready.to(device)
    print(f"{machine(device)}\n")
    took = "peaks GiB" if device == "cuda" else "processors' s"
    print(f"| | diffusers s | ours s | diffusers / ours | {took} | apart dB |\n| --- | --- | --- | --- | --- | --- |")
    channels = stock.config.decoder_input_channels
    with torch.no_grad():
        for seconds in asked.seconds:
            z = torch.randn((1, channels, seconds * LATENT_RATE), generator=torch.Generator().manual_seed(1))
            z = z.to(device, stock.dtype)
            stock.use_tiling = seconds > TILED_ABOVE_S
            works = tuple(lambda vae=vae, z=z: vae.decode(z).sample for vae in (stock, ready))
            print(row(f"decode {seconds} s", works, device, asked.runs), flush=True)
            song, stock.use_tiling = works[1](), True
            works = tuple(lambda vae=vae, x=song: vae.encode(x).latent_dist.mode() for vae in (stock, ready))
            print(row(f"encode {seconds} s", works, device, asked.runs), flush=True)


if __name__ == "__main__":
    main()
