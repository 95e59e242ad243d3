"""The real page on the real `spaces` package: a sine for a song engine, a parrot for a planner, a poet, a prism.

torch is hidden, because `spaces` fails on its CPU build under SPACES_ZERO_GPU. The prompt steers what the engine does, and
the file that GATE_LOG names tells what it did: a line `event pid seed heard` for each build, and for each song that begins,
each LoRA that came with it, each step that begins in it, each plan, and its end. `heard` is how many seconds of a source came
with the song; of a LoRA, modules times strength.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import lora_stack
from ace_pipeline import nth
from checkpoints import transformer_config
from drafts import Write
from errors import BadOutput
from lyrics import Lyrics
from planner import Planned
from plans import Draft, Plan
from remakes import Remake
from settings import CHECKPOINTS
from song import SongRequest
from sound import SAMPLE_RATE, AudioClip, Progress, Sheet, Sound, Stems
from stems import NAMES
from tiers import WHOLE

LOG = Path(os.environ["GATE_LOG"])
STEP_S, SLOW_STEP_S = 0.03, 0.5


def note(event: str, seed: int = 0, heard: float = 0) -> None:
    """One line of the log, from whichever process this is."""
    with LOG.open("a") as log:
        log.write(f"{event} {os.getpid()} {seed} {heard:g}\n")


class Sine:
    """An engine without weights: a tone whose pitch is the seed, unless the prompt says otherwise.

    Like the real one it makes all that a request asks for: of an extension or an edit, what was heard with the new part.
    """

    device = "cuda"
    tier = WHOLE
    pipe = SimpleNamespace(tokenizer=None, transformer=SimpleNamespace(config=transformer_config(CHECKPOINTS["demo"])))
    conditioner = SimpleNamespace(sketches=True)

    def takes(self, request: SongRequest, report: Callable[[Progress], None], done: int = 0) -> Iterator[Sound]:
        """The tones of a request's takes, reported step by step."""
        for take, single in enumerate(request.singles()[done:], done + 1):
            sound = self._sing(single, nth(report, request, take))
            yield replace(sound, together={"take": take, "of": request.takes} if request.takes > 1 else None)

    def _sing(self, request: SongRequest, report: Callable[[Progress], None]) -> Sound:
        seed = request.advanced.seed
        note("song", seed, request.source_audio.seconds if isinstance(request, Remake) else 0)
        for stacked in request.loras:
            note("lora", seed, len(lora_stack.weights(stacked.lora)) * stacked.strength)
        try:
            return self._tone(request, report)
        finally:
            note("end", seed)

    def _tone(self, request: SongRequest, report: Callable[[Progress], None]) -> Sound:
        steps, seed = request.advanced.inference_steps, request.advanced.seed
        for step in range(1, steps + 1):
            note("step", seed)
            time.sleep(SLOW_STEP_S if request.prompt == "slow" else STEP_S)
            report(Progress("Denoising", step, steps))
            if step == 2:
                misbehave(request.prompt, seed)
        wave = 0.5 * np.sin(np.arange(round(request.seconds * SAMPLE_RATE)) * (200 + seed % 400) / 7639)
        samples = np.stack([wave, wave]).astype(np.float32)
        return Sound(samples, SAMPLE_RATE, {"total_s": steps * STEP_S}, {"key": "sine"})


def misbehave(prompt: str, seed: int) -> None:
    """Die, fail or crash if the prompt asks for it."""
    died = LOG.with_name(f"died-{seed}")  # a file, because the process that knows is gone
    dies_once = prompt == "die once" or (prompt == "die odd" and seed % 2)
    if prompt == "die always" or (dies_once and not died.exists()):
        died.touch()
        os._exit(9)
    if prompt == "fail":
        raise BadOutput("The model made silence.", "Try another seed or other words.")
    if prompt == "crash":
        raise LookupError("tensor 0x7f in /secret/folder")


class Parrot:
    """A planner without weights: it says what it was told, and the seed."""

    name = "parrot"

    def plan(self, request: SongRequest, sketches: bool, report: Callable[[Progress], None]) -> Planned:
        """What it was told, and as many codes as the song takes, all of them the seed."""
        note("plan", request.advanced.seed)
        report(Progress("Planning"))
        codes = (request.advanced.seed,) * request.code_count
        return Planned(Plan(caption=request.prompt, codes=codes), ("caption", "codes"))

    def write(self, request: Write, report: Callable[[Progress], None]) -> Draft:
        """The idea as a prompt."""
        note("plan", request.advanced.seed)
        report(Progress("Writing"))
        return Draft(prompt=request.query, lyrics="la", seed=request.advanced.seed)


class Poet:
    """A lyrics model without weights: every line is the brief."""

    def write(self, request: Lyrics, report: Callable[[Progress], None]) -> Sheet:
        """As many lines as the sections ask for, told one by one."""
        note("poem", request.advanced.seed)
        text = ""
        for section in request.sections:
            text += f"[{section.tag}]\n" + f"{request.brief}\n" * section.lines
            report(Progress("Writing", text=text))
        return Sheet(text.strip(), {"total_s": 0.0}, {"name": "poet"})


class Prism:
    """A stems model without weights: a quarter of the song each."""

    def separate(self, song: AudioClip, report: Callable[[Progress], None]) -> Stems:
        """The four quarters, told one by one."""
        note("split", 0, song.seconds)
        for step in range(5):
            report(Progress("Separating", step, 4))
            time.sleep(STEP_S)
        quarters = dict.fromkeys(NAMES, song.samples / 4)
        return Stems(quarters, {"total_s": 0.0}, {"id": "prism", "rest_db": -200.0})


def cut(*_: Any) -> Prism:
    """In place of `stems.load`."""
    note("cut")
    return Prism()


def inspire(*_: Any) -> Poet:
    """In place of `lyrics_lm.load`."""
    note("inspire")
    return Poet()


def hatch(*_: Any) -> Parrot:
    """In place of `planners.load`."""
    note("hatch")
    return Parrot()


def load(*_: Any) -> Sine:
    """In place of `ace_pipeline.load`."""
    note("build")
    return Sine()


class NoTorch:
    """Finds no torch, wherever it is installed."""

    def find_spec(self, name: str, *_: Any) -> None:
        """Raise for torch; nothing to say of others."""
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main() -> None:
    """`app.main()` with the sine."""
    sys.meta_path.insert(0, NoTorch())  # not None in sys.modules, where scipy would take it for torch
    import ace_pipeline
    import app
    import checkpoints
    import lyrics_lm
    import planners
    import stems

    stems.load = cut
    ace_pipeline.load = load
    lyrics_lm.load = inspire
    planners.load = hatch
    checkpoints.device = lambda: "cuda"
    checkpoints.tier = lambda *_: WHOLE
    app.main()


if __name__ == "__main__":
    main()
