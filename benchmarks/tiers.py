"""What each tier of a small card takes: seconds by phase and peak memory, each in a process of its own under a cap.

    ACE_MODEL=random:xl-sft python -m benchmarks.tiers                      # 60 and 240 s in every tier, planner included
    ACE_MODEL=random:xl-sft python -m benchmarks.tiers --tiers 12 8 --steps 8

A card is made small by `torch.cuda.set_per_process_memory_fraction`: the process may take what the tier needs free, not what
the card has. CUDA's own context, some 0.5 GiB, is not in it; the needs leave room for that. The peak is of all that torch
allocated, and the phase in which it was; beside it what torch held in reserve, which is what the cap counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.song import machine, request

ROOT = Path(__file__).resolve().parent.parent
PHASES = ("thought_s", "sketch_s", "conditioning_s", "denoise_s", "decode_s", "total_s")
GIB = 2**30


class Peaks:
    """The peak of each phase of a song, told by its progress."""

    def __init__(self) -> None:
        import torch

        self.cuda, self.phase, self.gib = torch.cuda, "Starting", dict[str, float]()
        self.cuda.reset_peak_memory_stats()
        self.reserved = 0.0

    def mark(self, phase: str = "") -> None:
        """End the running phase; `phase` begins."""
        self.cuda.synchronize()
        self.gib[self.phase] = max(self.gib.get(self.phase, 0.0), self.cuda.max_memory_allocated() / GIB)
        self.reserved = max(self.reserved, self.cuda.max_memory_reserved() / GIB)
        self.cuda.reset_peak_memory_stats()
        self.phase = phase

    def heard(self, progress: Any) -> None:
        """What the song reports."""
        if progress.phase != self.phase:
            self.mark(progress.phase)


def measured(key: str, lengths: list[float], steps: int) -> dict[str, Any]:
    """Songs of these lengths in a tier, in this process: seconds, peaks, and how the card was capped."""
    import torch

    import ace_pipeline
    import planners
    from composer import answer
    from settings import checkpoint_for, planner_for, read
    from tiers import TIERS

    tier, total = TIERS[key], torch.cuda.get_device_properties(0).total_memory / GIB
    if total < tier.needs_gib:
        return {"tier": tier.name, "skipped": f"the card has {total:.1f} GiB"}
    torch.cuda.set_per_process_memory_fraction(tier.needs_gib / total)
    checkpoint, begun = checkpoint_for(read().model, "cuda"), time.perf_counter()
    engine = ace_pipeline.load(checkpoint, "cuda", tier)
    row, minds = planner_for(read().planner, checkpoint), []

    def planner() -> Any:
        if not minds:
            minds.append(planners.load(row, "cuda", engine.pipe.tokenizer, tier.shares))
        return minds[0]

    def song(seconds: float) -> dict[str, Any]:
        peaks = Peaks()
        sound = answer(engine, planner if row else None, request(seconds, steps, 7.0), peaks.heard)
        peaks.mark()
        worst = max(peaks.gib, key=peaks.gib.__getitem__)
        told = {"seconds": seconds, "timings": sound.timings, "planner": (sound.planner or {}).get("missing", "")}
        return told | {"peak": peaks.gib[worst], "at": worst, "reserved": peaks.reserved}

    song(10)  # kernels load and caches fill once
    loaded = time.perf_counter() - begun
    return {
        "tier": tier.name,
        "cap": tier.needs_gib,
        "machine": machine("cuda"),
        "loaded_s": loaded,
        "planner": row and row.key,
        "songs": [song(seconds) for seconds in lengths],
    }


def child(key: str, lengths: list[float], steps: int) -> dict[str, Any]:
    """`measured` in a process of its own. Raises RuntimeError with its last words when it fails."""
    command = [sys.executable, "-m", "benchmarks.tiers", "--only", key, "--steps", str(steps), "--seconds"]
    run = subprocess.run(
        [*command, *map(str, lengths)], capture_output=True, text=True, cwd=ROOT, env={**os.environ, "ACE_TIER": key}
    )
    if run.returncode:
        raise RuntimeError(f"tier {key} failed:\n{run.stderr[-3000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def rows(told: dict[str, Any]) -> list[str]:
    """The lines of the table for one tier."""
    if "skipped" in told:
        return [f"| {told['tier']} | {told['skipped']} |" + " |" * 10]
    lines = []
    for song in told["songs"]:
        seconds = (f"{song['timings'].get(phase, 0):.2f}" for phase in PHASES)
        memory = (f"{song['peak']:.2f}", song["at"], f"{song['reserved']:.2f}")
        cells = [told["tier"], f"{told['cap']:g}", f"{song['seconds']:g}", *seconds, *memory]
        lines += ["| " + " | ".join(cells) + " |"] + ([f"planner: {song['planner']}"] if song["planner"] else [])
    return lines


def main() -> None:
    """Print the table, or with `--only` what one tier took as a line of JSON."""
    import settings

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--tiers", nargs="+", default=list(settings.TIERS), choices=settings.TIERS)
    options.add_argument("--seconds", type=float, nargs="+", default=[60, 240], help="lengths of song")
    options.add_argument("--steps", type=int, default=27)
    options.add_argument("--only", choices=settings.TIERS, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.only:
        print(json.dumps(measured(asked.only, asked.seconds, asked.steps)))
        return
    for first, key in enumerate(asked.tiers):
        told = child(key, asked.seconds, asked.steps)
        if not first:
            print(f"{told.get('machine', '')}\n{asked.steps} steps, planner {told.get('planner')}\n")
            print("| tier | cap GiB | song s | " + " | ".join(p.replace("_s", " s") for p in PHASES), end="")
            print(" | peak GiB | at | reserved GiB |\n" + "| --- " * 12 + "|")
        print("\n".join(rows(told)), flush=True)


if __name__ == "__main__":
    main()
