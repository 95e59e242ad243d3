"""How long planning takes: milliseconds a code against the memory's bandwidth, captured and eager, with random weights.

    python -m benchmarks.plan                          # 1.7B; 60 and 240 s of song
    python -m benchmarks.plan --size tiny --seconds 6  # a rehearsal, wherever

The floor is what a code must read: every weight of the body once, the head's rows of the codes, and the keys and values
of both prompts, at the bandwidth of a large copy measured in the same run. Each figure is the median of its runs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.song import machine, peak_gib
from causal_lm import QWEN2, SIZES, random_model
from lm import CodesAsked, Sampling
from lm_torch import TorchLM

FIRST, CODES, PER_SECOND = 151_669, 64_000, 5
PROMPT, NEGATIVE = 650, 33  # tokens, as of full lyrics
TEXT = 50  # tokens of the text that is timed
HEADINGS = ("song s", "codes", "seconds", "codes/s", "ms/code", "floor ms", "ratio", "eager ms", "prefill s", "GiB")


def sync(device: str) -> None:
    """Wait for the device."""
    import torch

    if device != "cpu":
        getattr(torch, device).synchronize()


def timed(device: str, work: Callable[[], Any], runs: int) -> float:
    """Median seconds of `work`, the device waited for, after one run that warms up."""
    taken = []
    for _ in range(runs + 1):
        sync(device)
        begun = time.perf_counter()
        work()
        sync(device)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


def bandwidth(device: str, runs: int) -> float:
    """Bytes a second of a large copy, read and written."""
    import torch

    source = torch.ones(2**30 if device == "cuda" else 2**27, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / timed(device, lambda: target.copy_(source), max(runs, 5))


def song(seconds: float) -> CodesAsked:
    """The plan that is timed."""
    draw = np.random.default_rng(0)
    prompt, negative = (draw.integers(0, FIRST, n).tolist() for n in (PROMPT, NEGATIVE))
    chances = draw.random(round(seconds * PER_SECOND), dtype=np.float32)
    return CodesAsked(prompt, negative, FIRST, CODES, chances, Sampling())


def floor_bytes(model: Any, asked: CodesAsked) -> float:
    """What a code reads on the mean: body, the codes' rows of the head, keys and values of what stands in both rows."""
    config, width = model.config, model.dtype.itemsize
    embedding = model.get_input_embeddings().weight
    body = sum(matrix.numel() for matrix in model.parameters()) - embedding.numel()  # the head is the embedding
    kept = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    standing = len(asked.prompt) + len(asked.negative) + len(asked.chances)  # two rows, each half of the codes
    return width * (body + asked.size * config.hidden_size + kept * standing)


def row(lm: TorchLM, asked: CodesAsked, floor: float, device: str, runs: int) -> str:
    """One line of the table. Prompts are timed alone first (where there is a graph, it is captured at the first)."""
    import torch

    n, eagerly = len(asked.chances), min(50, len(asked.chances))

    def uncaptured() -> None:
        lm._codes.rewind()
        for _ in range(eagerly):
            lm._codes.step()

    prefill = timed(device, lambda: lm._begun(asked), runs)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    whole = timed(device, lambda: lm.codes(asked, lambda done: None), runs)
    peak = peak_gib(device)
    step = (whole - prefill) / n
    eager = timed(device, uncaptured, runs) / eagerly
    fell_back = device == "cuda" and not lm.capture
    cells = [
        f"{n / PER_SECOND:g}",
        f"{n}",
        f"{whole:.2f}",
        f"{n / whole:.0f}",
        f"{1e3 * step:.3f}",
        f"{1e3 * floor:.3f}",
    ]
    cells += [f"{step / floor:.2f}", f"{1e3 * eager:.3f}", f"{prefill:.3f}", f"{peak:.2f}"]
    return "| " + " | ".join(cells) + " |" + (" not captured" if fell_back else "")


def text_seconds(lm: TorchLM, device: str, runs: int) -> float:
    """Seconds of one token of text: picked among all, and read."""
    asked, how = song(1), Sampling()

    def write() -> None:
        text = lm.text(asked.prompt, TEXT)
        for n in range(TEXT):
            text.feed([text.pick("all", how, n / TEXT)])

    prompt = timed(device, lambda: lm.text(asked.prompt, TEXT), runs)
    return (timed(device, write, runs) - prompt) / TEXT


def main() -> None:
    """Print the table."""
    import torch

    from checkpoints import device as best

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--size", choices=[size for size in SIZES if size not in QWEN2], default="1.7B")
    options.add_argument("--seconds", type=float, nargs="+", default=[60, 240], help="lengths of song")
    options.add_argument("--device", default=None, help="cuda, mps or cpu; else the best there is")
    options.add_argument("--runs", type=int, default=3, help="runs per figure")
    asked = options.parse_args()
    device = asked.device or best()
    rate = bandwidth(device, asked.runs)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = random_model(asked.size, device, dtype)
    lm = TorchLM(model, {"all": np.ones(FIRST, bool)})
    print(f"{machine(device)}\n{asked.size}, {dtype}; memory {rate / 1e9:.0f} GB/s (copy, read and written)\n")
    print("| " + " | ".join(HEADINGS) + " |\n" + "| --- " * len(HEADINGS) + "|")
    for seconds in asked.seconds:
        wanted = song(seconds)
        print(row(lm, wanted, floor_bytes(model, wanted) / rate, device, asked.runs), flush=True)
    print(f"\ntext: {1e3 * text_seconds(lm, device, asked.runs):.2f} ms a token, eager")


if __name__ == "__main__":
    main()
