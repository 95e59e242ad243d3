"""How long lyrics take: loading, the first word, tokens a second against the memory's bandwidth.

    python -m benchmarks.lyrics                     # on CUDA Qwen 2.5 7B with random weights, elsewhere SmolLM2
    python -m benchmarks.lyrics --model qwen2.5-7b  # the real weights, if they can be had

The floor of a token is what it must read: every weight once but the embedding's other rows, the head included, and the keys
and values of what stands, at the bandwidth of a large copy measured in the same run. `led` are whole drafts, in which lines
are drawn under masks and some are taken back; `bare` are tokens alone. Each figure is the median of its runs; the model is
warm but for `load`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from benchmarks.plan import bandwidth, sync
from benchmarks.song import machine, peak_gib
from lm import Sampling
from lyricists import LYRICISTS, lyricist_for
from lyrics import Lyrics
from lyrics_lm import Lyricist, load

BRIEF = "the last train home, rain on the window, somebody who waits"
TOKENS = 100  # of the bare ones
HEADINGS = ("model", "dtype", "load s", "first word s", "led tokens/s", "bare ms", "floor ms", "ratio", "GiB")


def drafts(lyricist: Lyricist, runs: int) -> tuple[float, float]:
    """Seconds to the first word, and tokens a second after it; medians over as many seeds as runs."""
    first, rate = [], []
    for seed in range(runs + 1):
        spent = lyricist.write(Lyrics.parse({"brief": BRIEF, "seed": seed})).timings
        first.append(spent["first_word_s"])
        rate.append((spent["tokens"] - 1) / (spent["total_s"] - spent["first_word_s"]))
    return statistics.median(first[1:]), statistics.median(rate[1:])


def bare(lyricist: Lyricist, device: str, runs: int) -> tuple[float, int]:
    """Seconds of one token, drawn and read; and how many tokens stand meanwhile on the mean."""
    prompt, taken = lyricist.wording.encode(BRIEF * 10), []
    for _ in range(runs + 1):
        text = lyricist.lm.text(prompt, TOKENS)
        sync(device)
        begun = time.perf_counter()
        for n in range(TOKENS):
            text.feed([text.pick("rest", Sampling(top_k=40), n / TOKENS, lyricist.wording.stops)])
        sync(device)
        taken.append((time.perf_counter() - begun) / TOKENS)
    return statistics.median(taken[1:]), len(prompt) + TOKENS // 2


def floor_bytes(body: Any, standing: int) -> float:
    """What a token reads of a `causal_lm.Body`: layers, norms and head, keys and values of what stands."""
    parts = [part for layer in body.layers for part in vars(layer).values() if part is not None]
    kept = 2 * len(body.layers) * body.kv * body.d * standing * body.table.itemsize
    return kept + sum(part.nbytes for part in [*parts, body.norm, body.head])


def main() -> None:
    """Print the table."""
    from checkpoints import device as best

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", help=f"one of {', '.join(LYRICISTS)}, a Hub id, a folder, a GGUF file")
    options.add_argument("--device", help="cuda or cpu; else the best there is")
    options.add_argument("--runs", type=int, default=3, help="runs per figure")
    asked = options.parse_args()
    device = asked.device or best()
    row = lyricist_for(asked.model or ("random:7B" if device == "cuda" else "smollm2"), device)
    rate = bandwidth(device, asked.runs)
    begun = time.perf_counter()
    lyricist = load(row, device)
    sync(device)
    loaded = time.perf_counter() - begun
    first, led = drafts(lyricist, asked.runs)
    step, standing = bare(lyricist, device, asked.runs)
    floor = floor_bytes(lyricist.lm._body, standing) / rate
    print(f"{machine(device)}\nmemory {rate / 1e9:.0f} GB/s (copy, read and written)\n")
    print("| " + " | ".join(HEADINGS) + " |\n" + "| --- " * len(HEADINGS) + "|")
    cells = [row.name, lyricist.facts["dtype"], f"{loaded:.1f}", f"{first:.2f}", f"{led:.1f}", f"{1e3 * step:.2f}"]
    print("| " + " | ".join([*cells, f"{1e3 * floor:.2f}", f"{step / floor:.2f}", f"{peak_gib(device):.2f}"]) + " |")


if __name__ == "__main__":
    main()
