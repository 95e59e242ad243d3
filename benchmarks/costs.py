"""What songs take, as rows for the estimates: measures them, fits the costs to them, and says how far off those are.

    python -m benchmarks.costs                                       # measure this machine, fit, write assets/costs.json
    ACE_MODEL=random:xl-sft python -m benchmarks.costs --seconds 30 120 480 --steps 8 27 50 --store rows.json
    python -m benchmarks.costs --fit rows.json                       # take over the rows of another machine
    python -m benchmarks.costs --fit                                 # fit again to the rows that are there

The rows of a device replace those that it had. Requests vary in everything that costs; all run in turn, round after round, so
that nothing else that the machine does falls on one of them alone; on a CPU a song during which others worked is made again,
and the least disturbed counts. Cold songs are the first of a process of their own. LoRAs are never those
of a song before. Without a planner no row has a thought or codes, and their costs stay guesses.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ace_pipeline
import checkpoints
import composer
import lora_layouts
import planners
from benchmarks.fits import store, stored, table
from benchmarks.loras import lora
from benchmarks.remakes import recording
from benchmarks.song import LYRICS, PROMPT, machine
from costs import STORE, Work
from fields import Stacked
from lora_stack import Model
from remakes import Cover, Edit, Extend
from settings import Checkpoint, checkpoint_for, planner_for, read
from song import KNOBS, Generate, SongRequest

RANK = 16
ALONE = dict.fromkeys(("thinking", "use_cot_caption", "use_cot_metas", "use_cot_language"), False)
BUSY, PATIENCE_S = 0.1, 60  # the share of the machine that others may use while a song is measured
COLD = 3  # how many of the requests are also made as the first song of a process


def requests(seconds: Sequence[float], steps: Sequence[int], row: Checkpoint) -> list[tuple[SongRequest, int]]:
    """What is measured: requests as the engine gets them, each with the number of its LoRAs.

    `seconds` and `steps` are three each, in rising order; the first three requests serve as cold songs too.
    """
    (short, middle, long), (few, some, many) = seconds, steps
    guidance = row.knobs.get("guidance_scale", KNOBS["guidance_scale"].default)

    def asked(mode: type[SongRequest], n: int, **values: Any) -> SongRequest:
        known = {"prompt": PROMPT, "seed": 1, "inference_steps": n, "guidance_scale": guidance}
        return mode.parse({**known, **values}).heard()[0]

    def song(length: float, n: int, **values: Any) -> SongRequest:
        return asked(Generate, n, lyrics=LYRICS, duration_s=length, **values)

    repaint = {"regions": [[short / 2 - 2, short / 2 + 2]]}
    made = [
        (song(short, some), 0),
        (song(middle, few, **ALONE), 0),
        (asked(Extend, some, source_audio=recording(short), extra_duration_s=short / 2), 0),
        (song(short, many, **ALONE), 0),
        (song(middle, some), 0),
        (song(long, few, thinking=False), 0),
        (song(long, some, **ALONE), 0),
        (song(middle, many), 0),
        (song(short, few, guidance_scale=1), 0),
        (song(long, some, guidance_scale=1, **ALONE), 0),
        (song(short, some, **ALONE), 1),
        (song(middle, few, **ALONE), 2),
        (asked(Edit, few, source_audio=recording(middle), **repaint), 0),
    ]
    if "cover" not in row.lacks:
        made.append((asked(Cover, some, source_audio=recording(middle)), 0))
        made.append((asked(Cover, few, source_audio=recording(short), reference_audio=recording(short)), 0))
    if "flow_edit" not in row.lacks:
        flow = {"sub_mode": "flow_edit", "source_caption": "slow piano", "n_min": 0.25}
        made.append((asked(Edit, some, source_audio=recording(short), **flow), 0))
    return made


class Bench:
    """The model and the planner of this machine, and the LoRAs made for them."""

    def __init__(self, folder: Path) -> None:
        self.device = checkpoints.device()
        self.row = checkpoint_for(read().model, self.device)
        self.folder, self.drawn, self.planner = folder, 0, None
        begun = time.perf_counter()
        self.engine = ace_pipeline.load(self.row, self.device)
        if planner := planner_for(read().planner, self.row):
            self.planner = planners.load(planner, self.device, self.engine.pipe.tokenizer)
        self.engine.sync()
        self.loaded = time.perf_counter() - begun

    def measure(self, request: SongRequest, loras: int, cold: bool = False) -> dict[str, Any]:
        """A row: what the song was and the seconds it took by phase, of a cold song with those of loading."""
        fits = Model(self.row.name, lora_layouts.targets(self.engine.pipe.transformer.config))
        stack = []
        for _ in range(loras):
            self.drawn += 1
            stack.append(Stacked(lora=lora(self.folder, fits, RANK, self.drawn), strength=0.9))
        request = request.model_copy(update={"loras": tuple(stack)})
        planner: Callable[[], Any] | None = (lambda: self.planner) if self.planner else None
        (sound,) = composer.answer(self.engine, planner, request, lambda _: None)
        took = sound.timings
        seconds = {name.removesuffix("_s"): s for name, s in took.items() if name != "per_step_s"}
        if cold:
            seconds |= {"load": self.loaded, "total": seconds["total"] + self.loaded}
        known = {
            "device": self.device,
            "model": self.row.key,
            "mode": request.mode,
            "steps": request.advanced.inference_steps,
        }
        own = asdict(Work.of(request, self.planner is not None, cold))
        return known | own | {"took": {name: round(s, 3) for name, s in seconds.items()}}


def quietly(measure: Callable[[], dict[str, Any]], tries: int) -> dict[str, Any]:
    """The row that others disturbed least: the first during which they used next to nothing of the processors, of some tries.

    What children of this process use is its own.
    """
    import psutil

    def busy() -> tuple[float, float]:
        own, all_ = psutil.Process().cpu_times(), psutil.cpu_times()
        mine = own.user + own.system + own.children_user + own.children_system
        return time.perf_counter(), sum(all_) - all_.idle - all_.iowait - mine

    tried = []
    for _ in range(tries):
        asked = time.monotonic()
        while tries > 1 and psutil.cpu_percent(1) > 100 * BUSY and time.monotonic() - asked < PATIENCE_S:
            pass
        (begun, before), row, (ended, after) = busy(), measure(), busy()
        tried.append(((after - before) / (ended - begun) / psutil.cpu_count(), len(tried), row))
        if tried[-1][0] < BUSY:
            break
    return min(tried)[-1]


def cold_row(place: int, command: Sequence[str]) -> dict[str, Any]:
    """The row of a request as the first song of a fresh process."""
    run = [sys.executable, "-m", "benchmarks.costs", *command, "--cold", str(place)]
    done = subprocess.run(run, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    return json.loads(done.stdout.splitlines()[-1])


def measured(asked: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The rows of this machine, told as they come."""
    lengths = [*(f"{s:g}" for s in asked.seconds)]
    command = ["--seconds", *lengths, "--steps", *map(str, asked.steps)]
    rows = []

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)

    for place in range(COLD):
        keep(quietly(lambda place=place: cold_row(place, command), asked.tries))
    bench = Bench(folder)
    print(machine(bench.device), flush=True)
    songs = requests(asked.seconds, asked.steps, bench.row)
    bench.measure(*songs[0])  # warms up
    for _ in range(asked.runs):
        for song, loras in songs:
            keep(quietly(lambda song=song, loras=loras: bench.measure(song, loras), asked.tries))
    return rows


def main() -> None:
    """Print rows and errors, and store them."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, nargs=3, default=[10, 20, 30], help="lengths of song, rising")
    options.add_argument("--steps", type=int, nargs=3, default=[8, 16, 27], help="rising")
    options.add_argument("--runs", type=int, default=2, help="rounds")
    options.add_argument("--tries", type=int, default=4, help="of a song that others disturb; 1 takes it as it comes")
    options.add_argument("--store", type=Path, default=STORE, help="where rows and costs are written")
    options.add_argument("--fit", type=Path, nargs="*", metavar="STORE", help="measure nothing; take over these rows")
    options.add_argument("--cold", type=int, help=argparse.SUPPRESS)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.cold is not None:
            bench = Bench(Path(folder))
            song, loras = requests(asked.seconds, asked.steps, bench.row)[asked.cold]
            print(json.dumps(bench.measure(song, loras, cold=True)))
            return
        known = stored()["rows"]
        brought = [measured(asked, Path(folder))] if asked.fit is None else [stored(path)["rows"] for path in asked.fit]
    for rows in brought:
        devices = {row["device"] for row in rows}
        known = [row for row in known if row["device"] not in devices] + rows
    print(f"\n{table(store(known, asked.store))}")


if __name__ == "__main__":
    main()
