"""What a finished take turned out to be, measured, beside what was asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np

import hearing
import loudness
from sound import SAMPLE_RATE


def measured(samples: np.ndarray, bpm: float | None = None, keyscale: str = "") -> dict[str, Any]:
    """Tempo (BPM), key, loudness (LUFS), true peak (dBTP) and length (s) of samples [2, n] at 48 kHz, as JSON values.

    `bpm` and `keyscale` are what was asked for: they choose between a beat and its double, and between C# and Db. What cannot
    be told is None.
    """
    return {
        "bpm": hearing.tempo(samples, bpm),
        "keyscale": hearing.key(samples, keyscale),
        **_loud(samples),
        "seconds": round(samples.shape[1] / SAMPLE_RATE, 3),
    }


def _loud(samples: np.ndarray) -> dict[str, float | None]:
    """Loudness and true peak; None where the package that measures them is missing: a song does not depend on it."""
    known = importlib.util.find_spec("pyloudnorm") and loudness.measure(samples)
    return (known or loudness.Loudness(None, None)).facts


def lines(metadata: Mapping[str, Any]) -> list[str]:
    """What a take's metadata says of asked and got, each in plain words: "asked 120 BPM, measured 119.8"."""
    got, told = metadata["measured"], metadata["asked"]
    by = told["by"]
    words = [
        _beside("BPM", told["bpm"], got["bpm"], by.get("bpm", "asked"), "no steady beat"),
        _beside("", told["keyscale"], got["keyscale"], by.get("keyscale", "asked"), "no clear key"),
        _beside("s", told["seconds"], got["seconds"], "asked", ""),
    ]
    if got["lufs"] is not None:
        words.append(f"{got['lufs']:.1f} LUFS, true peak {got['true_peak_db']:.1f} dBTP".replace("-", "−"))
    return words


def _beside(unit: str, asked: Any, got: Any, said: str, none: str) -> str:
    """One measure beside what was asked for, or planned."""
    heard = none if got is None else f"{got:g} {unit}".strip() if unit else got
    if not asked:
        return f"measured {heard}"
    wanted = f"{asked:g} {unit}" if unit else asked
    if got is not None and unit:
        heard = f"{got:g}"
    return f"{said} {wanted}, measured {heard}"
