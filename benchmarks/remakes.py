"""What covers, extensions and edits cost: seconds by phase, peak memory, and ratios that must not grow with the song.

    python -m benchmarks.remakes                            # on whatever this machine sings with
    ACE_MODEL=random:xl-sft python -m benchmarks.remakes    # the full architecture, where no Hub can be reached

Cases that are compared run in turn, round after round; each figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

import ace_pipeline
from benchmarks.song import loaded, peak_gib
from remakes import Cover, Edit, Extend
from song import KNOBS, SongRequest
from sound import SAMPLE_RATE, AudioClip
from velocity import Conditions, Fast, Plain, Velocity

WORDS = {"prompt": "bright synth pop, female voice, warm pads, driving drums", "seed": 1}
PHASES = ("conditioning_s", "denoise_s", "decode_s", "total_s")
SHORT, LONG, REGION = 60, 240, 10  # seconds


def recording(seconds: float) -> AudioClip:
    """Something to listen to: four slow chords."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    root = 110 * 2 ** (np.floor(t / 2) % 4 / 12)
    left, right = (0.3 * np.sin(2 * np.pi * root * ratio * t) for ratio in (1.0, 1.5))
    return AudioClip(np.stack([left, right]).astype(np.float32), {"format": "WAV"})


def cases(knobs: Mapping[str, Any]) -> dict[str, SongRequest]:
    """The requests as the engine gets them, by name."""
    short, long = recording(SHORT), recording(LONG)
    known = {**WORDS, **knobs}

    def repaint(clip: AudioClip) -> SongRequest:
        middle = clip.seconds / 2
        regions = [[middle - REGION / 2, middle + REGION / 2]]
        return Edit.parse({**known, "source_audio": clip, "regions": regions}).heard()[0]

    def extend(clip: AudioClip) -> SongRequest:
        return Extend.parse({**known, "source_audio": clip, "extra_duration_s": 30, "context_s": 60}).heard()[0]

    def cover(clip: AudioClip, strength: float) -> SongRequest:
        return Cover.parse({**known, "source_audio": clip, "cover_strength": strength})

    flow = {"sub_mode": "flow_edit", "source_caption": "slow piano"}
    return {
        f"repaint {REGION} s in {SHORT} s": repaint(short),
        f"repaint {REGION} s in {LONG} s": repaint(long),
        f"extend {SHORT} s by 30 s": extend(short),
        f"extend {LONG} s by 30 s": extend(long),
        f"cover {SHORT} s, strength 1": cover(short, 1.0),
        f"cover {SHORT} s, strength 0.5": cover(short, 0.5),
        f"morph {SHORT} s": Edit.parse({**known, **flow, "source_audio": short}),
    }


class Counted:
    """A velocity field that counts how often it is asked."""

    def __init__(self, field: Fast | Plain) -> None:
        self.field, self.count = field, 0

    def hear(self, conditions: Conditions) -> Velocity:
        """The field's own answer, counted."""
        velocity = self.field.hear(conditions)

        def counted(x: Any, t: float, guided: bool) -> Any:
            self.count += 1
            return velocity(x, t, guided)

        return counted


def forwards(engine: ace_pipeline.Engine, request: SongRequest) -> int:
    """How often the transformer is asked for one song."""
    field, counted = engine.field, Counted(engine.field)
    engine.field = counted
    try:
        engine.sing(request)
    finally:
        engine.field = field
    return counted.count


def listening(engine: ace_pipeline.Engine, seconds: float) -> str:
    """Peak memory of encoding a recording, the weights included."""
    import torch

    if engine.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        engine.conditioner.listen(recording(seconds))
    return f"listening to {seconds:g} s: peak {peak_gib(engine.device):.1f} GiB"


def main() -> None:
    """Print the table and the ratios."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=27)
    options.add_argument("--runs", type=int, default=3, help="rounds")
    asked = options.parse_args()
    engine = loaded()
    guidance = engine.checkpoint.knobs.get("guidance_scale", KNOBS["guidance_scale"].default)
    print(f"{asked.steps} steps, CFG {guidance:g}\n{listening(engine, LONG)}\n")
    songs = cases({"inference_steps": asked.steps, "guidance_scale": guidance})
    counted = {name: forwards(engine, song) for name, song in songs.items()}  # warms up, too
    timings: dict[str, list[Mapping[str, float]]] = {name: [] for name in songs}
    for _ in range(asked.runs):
        for name, song in songs.items():
            timings[name].append(engine.sing(song).timings)
    print("| case | heard and made s | forwards | conditioning s | denoise s | decode s | total s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    totals = {}
    for name, song in songs.items():
        cells = [statistics.median(t[phase] for t in timings[name]) for phase in PHASES]
        totals[name] = cells[-1]
        print(f"| {name} | {song.seconds:g} | {counted[name]} | " + " | ".join(f"{s:.3f}" for s in cells) + " |")
    names = list(songs)
    for one, other in ((1, 0), (3, 2), (5, 4)):
        print(f"\n{names[one]} / {names[other]}: {totals[names[one]] / totals[names[other]]:.3f}")


if __name__ == "__main__":
    main()
