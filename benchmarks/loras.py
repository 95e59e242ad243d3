"""What LoRAs cost: milliseconds to load one and to apply a stack, and what a forward takes with them.

    python -m benchmarks.loras                              # on whatever this machine sings with
    ACE_MODEL=random:xl-sft python -m benchmarks.loras      # the full architecture, where no Hub can be reached

Only the transformer is there, in the engine's dtype; bfloat16 on a CPU too when its weights are random, where nothing but
the bookkeeping is of interest. Each figure is the median of its runs; forwards with and without LoRAs run in turn.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import checkpoints
import lora_layouts
import lora_stack
import velocity
from benchmarks.song import machine
from fields import Stacked
from lora_adapters import Adapters
from lora_stack import Model
from random_checkpoint import XL_SFT
from settings import Checkpoint, checkpoint_for, read
from sound import Lora
from velocity import Conditions

BUDGET_MS = 50  # for an unchanged stack


def transformer_alone(row: Checkpoint, device: str) -> Any:
    """A pipeline that has nothing but its transformer."""
    import torch
    from diffusers import AceStepPipeline
    from diffusers.models.transformers.ace_step_transformer import AceStepTransformer1DModel

    if not row.random:
        return checkpoints.pipeline(row, device)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            transformer = AceStepTransformer1DModel(**XL_SFT["transformer"]).eval()
    finally:
        torch.set_default_dtype(before)
    others = ("vae", "text_encoder", "tokenizer", "condition_encoder", "scheduler")
    return AceStepPipeline(transformer=transformer, **dict.fromkeys(others))


def lora(folder: Path, model: Model, rank: int, seed: int) -> Lora:
    """A LoRA for attention and MLP of all layers, as upstream's trainer writes one."""
    from safetensors.numpy import save_file

    rng, tensors = np.random.default_rng(seed), {}
    for module, (out, wide) in model.targets.items():
        if module.startswith("layers."):
            for factor, shape in (("A", (rank, wide)), ("B", (out, rank))):
                numbers = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.01)
                tensors[f"base_model.model.{module}.lora_{factor}.weight"] = numbers.astype(np.float16)
    path = folder / f"lora-{seed}.safetensors"
    save_file(tensors, path)
    return lora_stack.admit(path, model)


def milliseconds(work: Callable[[], Any], sync: Callable[[], None]) -> float:
    """How long it takes, the device's work included."""
    sync()
    begun = time.perf_counter()
    work()
    sync()
    return 1000 * (time.perf_counter() - begun)


def hearing(transformer: Any, seconds: float) -> Callable[[], Callable[[], Any]]:
    """Hears a song of so many seconds with the LoRAs that are attached, and gives a guided step of it, warmed up."""
    import torch

    config, like = transformer.config, {"device": transformer.device, "dtype": transformer.dtype}
    frames, channels = round(25 * seconds), config.audio_acoustic_hidden_dim
    words = (torch.randn(1, length, config.encoder_hidden_size, **like) for length in (400, 1))
    conditions = Conditions(*words, torch.randn(1, frames, config.in_channels - channels, **like))
    field, x = velocity.of(transformer, read().fast), torch.randn(1, frames, channels, **like)

    def heard() -> Callable[[], Any]:
        step = functools.partial(field.hear(conditions), x, 0.5, True)
        for _ in range(3):  # the check, the first call of a shape, and its capture
            step()
        return step

    return heard


def main() -> None:
    """Print the tables."""
    import torch

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rank", type=int, default=16)
    options.add_argument("--runs", type=int, default=15)
    options.add_argument("--seconds", type=float, default=30, help="of the song in a forward; 0 leaves forwards out")
    asked = options.parse_args()
    device, row = checkpoints.device(), checkpoint_for(read().model, checkpoints.device())
    sync = torch.cuda.synchronize if device == "cuda" else lambda: None
    pipe = transformer_alone(row, device)
    model = Model(row.name, lora_layouts.targets(pipe.transformer.config))
    print(f"{machine(device)}\n{row.name}, {pipe.transformer.dtype}, rank {asked.rank}\n")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        first, second, third = (lora(Path(folder), model, asked.rank, seed) for seed in range(3))
        print(f"{first.size / 1e6:.0f} MB, {len(first.scales)} modules each\n")
        bookkeeping(Adapters(pipe), (first, second, third), asked.runs, sync)
        if asked.seconds:
            steps(pipe, (first, second, third), asked, sync)


def bookkeeping(adapters: Adapters, loras: tuple[Lora, ...], runs: int, sync: Callable[[], None]) -> None:
    """What attaching and detaching takes."""

    def apply(*stack: tuple[Lora, float]) -> float:
        stacked = [Stacked(lora=which, strength=strength) for which, strength in stack]

        def work() -> None:
            with adapters.attached(stacked):
                pass

        return milliseconds(work, sync)

    first, second, third = loras
    rows = {
        "the first LoRA": [apply((first, 0.9))],
        "a second beside it": [apply((first, 0.9), (second, 0.5))],
        "the same two again": [apply((first, 0.9), (second, 0.5)) for _ in range(runs)],
        "another strength": [apply((first, 0.05 + 0.05 * n), (second, 0.5)) for n in range(runs)],
        "the second replaced": [apply((first, 0.9), (third, 0.5))],
        "no LoRA": [apply() for _ in range(runs)],
    }
    print("| applied and taken off | ms |\n| --- | --- |")
    for name, figures in rows.items():
        print(f"| {name} | {statistics.median(figures):.1f} |")
    again = statistics.median(rows["the same two again"])
    print(f"\nunchanged stack / budget of {BUDGET_MS} ms: {again / BUDGET_MS:.2f}\n")


def steps(pipe: Any, loras: tuple[Lora, ...], asked: argparse.Namespace, sync: Callable[[], None]) -> None:
    """What a forward takes with none, one, two and three of them, and with those of the last song switched off."""
    adapters, heard = Adapters(pipe), hearing(pipe.transformer, asked.seconds)
    pipe.unload_lora_weights()
    step = heard()
    clean = statistics.median(milliseconds(step, sync) for _ in range(asked.runs))
    figures: dict[int, list[float]] = {count: [] for count in range(len(loras) + 1)}
    for _ in range(asked.runs):
        for count in sorted(figures, reverse=True):  # the most first: then "none" has them all switched off
            with adapters.attached([Stacked(lora=which, strength=0.5) for which in loras[:count]]):
                figures[count].append(milliseconds(heard(), sync))
    print(f"A forward of {asked.seconds:g} s, two in a batch: {clean:.1f} ms before any LoRA was loaded\n")
    print("| LoRAs | ms | ratio to none |\n| --- | --- | --- |")
    none = statistics.median(figures[0])
    for count, runs in figures.items():
        print(f"| {count} | {statistics.median(runs):.1f} | {statistics.median(runs) / none:.3f} |")


if __name__ == "__main__":
    main()
