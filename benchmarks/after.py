"""How long it takes to finish a song: stems as a ratio to real time; measuring, levelling and writing of 240 s.

    python -m benchmarks.after                    # htdemucs with random weights: the speed is that of the real ones
    python -m benchmarks.after --song song.wav    # of a song of yours, repeated to the lengths that are measured

Each figure is the median of its runs in one process, after one that is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import hearing
import loudness
import stems
from benchmarks.song import machine, peak_gib
from formats import FORMATS, encoded
from sound import SAMPLE_RATE, AudioClip

STEMS_S, SONG_S = 60, 240


def music(seconds: float, path: str = "") -> np.ndarray:
    """Samples [2, n]: a song of the visitor's, repeated, or chords over a beat with some noise."""
    size = round(seconds * SAMPLE_RATE)
    if path:
        import soundfile

        song = soundfile.read(path, dtype="float32", always_2d=True)[0].T[:2]
        return np.ascontiguousarray(np.tile(song, -(-size // song.shape[1]))[:, :size])
    t = np.arange(size, dtype=np.float32) / SAMPLE_RATE
    chords = sum(np.sin(2 * np.pi * f * t) for f in (220, 277.2, 329.6, 440, 1318.5)) / 20
    beat = np.sin(2 * np.pi * 55 * t) * np.exp(-6 * (t % 0.5)) / 2
    noise = np.random.default_rng(0).standard_normal((2, size)).astype(np.float32) / 50
    return (noise + chords + beat).astype(np.float32)


def median(work: Callable[[], Any], runs: int) -> float:
    """Seconds that some work takes."""
    taken = []
    for _ in range(runs + 1):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


def finishing(samples: np.ndarray, runs: int) -> dict[str, float]:
    """Seconds of each step that needs no GPU, and of loudness and MP3 together."""
    quiet, loud = (loudness.measure(samples).lufs + change for change in (-3, 3))
    steps: dict[str, Callable[[], Any]] = {
        "measure loudness": lambda: loudness.measure(samples),
        "normalise, 3 dB down": lambda: loudness.normalise(samples, quiet),
        "normalise, 3 dB up": lambda: loudness.normalise(samples, loud),
        "tempo": lambda: hearing.tempo(samples),
        "key": lambda: hearing.key(samples),
        **{f"encode {form.name}": lambda form=form: encoded(samples, SAMPLE_RATE, form) for form in FORMATS.values()},
    }
    return {name: median(work, runs) for name, work in steps.items()}


def main() -> None:
    """Print the tables."""
    from checkpoints import device as best

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", default="random:htdemucs", help=f"one of {', '.join(stems.ROWS)}, or a folder")
    options.add_argument("--device", help="cuda, mps or cpu; else the best there is")
    options.add_argument("--song", default="", help="a recording to measure with")
    options.add_argument("--runs", type=int, default=3, help="runs per figure")
    asked = options.parse_args()
    device = asked.device or best()
    print(machine(device), flush=True)
    separator = stems.load(stems.row_for(asked.model), device)
    clip = AudioClip(music(STEMS_S, asked.song), {})
    taken = median(lambda: separator.separate(clip, lambda _: None), asked.runs)
    print(f"\n| stems of {STEMS_S} s, s | ratio to real time | peak GiB |\n| --- | --- | --- |")
    print(f"| {taken:.2f} | {taken / STEMS_S:.3f} | {peak_gib(device):.1f} |", flush=True)
    spent = finishing(music(SONG_S, asked.song), asked.runs)
    print(f"\n| {SONG_S} s of song | s |\n| --- | --- |")
    print("\n".join(f"| {name} | {seconds:.2f} |" for name, seconds in spent.items()))
    for way in ("down", "up"):
        both = spent[f"normalise, 3 dB {way}"] + spent[f"encode {FORMATS['mp3'].name}"]
        print(f"\nLoudness (3 dB {way}) and MP3 together: {both:.2f} s.")


if __name__ == "__main__":
    main()
