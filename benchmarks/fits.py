"""From measured songs to costs: least squares of relative errors in which no cost is below 0, phase by phase.

A row is what a song was (`costs.Work`) and what it took by phase. Costs that no row of a device speaks of keep a guess.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from costs import STORE, Work

# A guess may be wrong by as much as itself, a row by a fifth (docs/performance.md): so a guess weighs a fifth of a row.
GUESS_WEIGHT = 0.2
SHARE = 0.1  # an error in a phase that takes less than this share of its song counts as if it took that much
TURNS, DIGITS = 8, 4

# Guesses. cuda: XL SFT in bf16 on an H100: a step is bound by kernel launches, 60 TFLOP of 240 s by half the peak rate;
# 2 s read a LoRA of 100 MB; a captured step for each code at half the bandwidth. mps: nobody has measured a song there yet;
# the same counts at 10 TFLOP/s and 200 GB/s. cpu: the demo model on two cores, which has no planner.
GUESSES: dict[str, dict[str, float]] = {
    "cuda": dict(
        load_s=20, planner_load_s=5, thought_s=3, code_s=0.006, read_s=0.07, heard_s=0.004, lora_s=2,
        step_s=0.09, step_s_per_s=0.0003, guided_s=0.01, guided_s_per_s=0.0003, lora_step_s=0.03, lora_step_s_per_s=0.0001,
        decode_s=0.02, decode_s_per_s=0.003,
    ),
    "mps": dict(
        load_s=30, planner_load_s=5, thought_s=6, code_s=0.03, read_s=0.5, heard_s=0.02, lora_s=3,
        step_s=0.2, step_s_per_s=0.01, guided_s=0.1, guided_s_per_s=0.01, lora_step_s=0.05, lora_step_s_per_s=0.001,
        decode_s=0.1, decode_s_per_s=0.02,
    ),
    "cpu": dict(
        load_s=10, planner_load_s=10, thought_s=20, code_s=0.13, read_s=0.03, heard_s=0.4, lora_s=0.5,
        step_s=0.005, step_s_per_s=0.002, guided_s=0.005, guided_s_per_s=0.002, lora_step_s=0.005, lora_step_s_per_s=0.0005,
        decode_s=0.1, decode_s_per_s=0.22,
    ),
}  # fmt: skip

Row = Mapping[str, Any]


def work(row: Row) -> Work:
    """What the song of a row was."""
    return Work(**{f.name: row[f.name] for f in dataclasses.fields(Work) if f.name in row})


def fit(rows: Sequence[Row], guess: Mapping[str, float]) -> dict[str, float]:
    """Costs for the rows of one device.

    Phases are fitted one by one to the songs of a loaded model; what a cold song took beyond those costs is its loading.
    """
    found = dict(guess)
    warm, cold = ([row for row in rows if row["cold"] == is_cold] for is_cold in (False, True))
    for phase in Work(0, 0).parts():
        measured = [row for row in warm if phase in row["took"]]
        took = [row["took"][phase] for row in measured]
        if phase == "load":
            continue
        found |= _fitted(phase, measured, took, guess)
    beyond = [
        row["took"]["total"] - sum(work(row).phases(found | {"load_s": 0, "planner_load_s": 0}).values())
        for row in cold
    ]
    found |= _fitted("load", cold, beyond, guess)
    return {name: float(f"{cost:.{DIGITS}g}") for name, cost in found.items()}


def _fitted(phase: str, rows: Sequence[Row], took: Sequence[float], guess: Mapping[str, float]) -> dict[str, float]:
    """The costs of a phase, found in turns: each measures errors against the geometric mean of what was measured and what the
    turn before expects. (a - b) / sqrt(a b) is nearly log(a / b), so that half and twice the time weigh alike.
    """
    names = list(Work(0, 0).parts()[phase])
    start = np.array([guess[name] for name in names])
    amounts = np.array([[work(row).parts()[phase][name] for name in names] for row in rows]).reshape(-1, len(names))
    measured, floor = np.array(took), np.array([SHARE * row["took"]["total"] for row in rows])
    times = np.ones(len(names))
    for _ in range(TURNS):
        scale = np.sqrt(np.maximum(measured, floor) * np.maximum(amounts @ (times * start), floor))
        ours = np.vstack([amounts * start / scale[:, None], GUESS_WEIGHT * np.eye(len(names))])
        times, _ = nnls(ours, np.append(measured / scale, np.full(len(names), GUESS_WEIGHT)))
    return dict(zip(names, times * start, strict=True))


def asked(row: Row) -> str:
    """The same for runs of the same request."""
    return json.dumps({name: value for name, value in row.items() if name != "took"}, sort_keys=True)


def held_out(rows: Sequence[Row], guess: Mapping[str, float]) -> list[tuple[float, float]]:
    """Expected and measured seconds of each run, by the costs of all runs of other requests."""
    pairs = []
    for key in dict.fromkeys(map(asked, rows)):
        costs = fit([row for row in rows if asked(row) != key], guess)
        pairs += [(sum(work(row).phases(costs).values()), row["took"]["total"]) for row in rows if asked(row) == key]
    return pairs


def fitted(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """By device: the costs, how many runs they are from, their errors on held-out runs and the `spread` of these.

    `spread` is what measured / expected stays within for 95 of 100 runs.
    """
    fits = {}
    for device, guess in GUESSES.items():
        own = [row for row in rows if row["device"] == device]
        fits[device] = {"costs": fit(own, guess), "runs": len(own), "spread": 1.0}
        if own:
            ours, took = np.array(held_out(own, guess)).T
            off = np.abs(ours / took - 1)
            spread = float(np.quantile(took / ours, 0.95))
            errors = {"median_error": np.median(off), "worst_error": off.max(), "spread": spread}
            fits[device] |= {name: round(float(value), 3) for name, value in errors.items()}
    return fits


def stored(path: Path = STORE) -> dict[str, Any]:
    """The fits and the rows."""
    return json.loads(path.read_text("utf-8"))


def store(rows: Sequence[Row], path: Path = STORE) -> dict[str, dict[str, Any]]:
    """Fit to the rows and write both, a row a line; the fits."""
    fits = fitted(rows)
    lines = {"fits": [f"{json.dumps(d)}: {json.dumps(f)}" for d, f in fits.items()], "rows": map(json.dumps, rows)}
    fit_lines, row_lines = (",\n".join(lines[name]) for name in lines)
    path.write_text(f'{{"fits": {{\n{fit_lines}\n}},\n"rows": [\n{row_lines}\n]}}\n', "utf-8")
    return fits


def table(fits: Mapping[str, Mapping[str, Any]]) -> str:
    """The errors in Markdown."""
    lines = ["| device | runs | median error | worst error | 95 of 100 within |", "| --- | --- | --- | --- | --- |"]
    for device, fit in fits.items():
        errors = [f"{fit[name]:.0%}" for name in ("median_error", "worst_error") if name in fit] or ["guessed", ""]
        spread = f"{fit['spread']:.2f} times" if fit["runs"] else ""
        lines.append(f"| {device} | {fit['runs']} | {' | '.join(errors)} | {spread} |")
    return "\n".join(lines)
