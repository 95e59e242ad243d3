"""Every knob of the planner changes the song or says why not, on the tiny song model and the tiny planner."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import tiny_planner
import torch
from test_controls import BASE, FLOW, KNOBS_OF_ALL, label

from fields import fields_of
from remakes import MODES, Edit
from song import Generate, LMOptions, SongRequest
from sound import AudioClip

CHANGED = {
    "thinking": False,
    "use_cot_caption": False,
    "use_cot_metas": False,
    "use_cot_language": False,
    "lm_temperature": 1.6,
    "lm_top_p": 0.2,
    "lm_top_k": 1,
    "lm_cfg_scale": 6.0,
    "lm_negative_prompt": "cheerful drums",
}
QUIET = {"thinking": False, "use_cot_caption": False, "use_cot_metas": False}
ASKED: list[tuple[type[SongRequest], dict[str, Any]]] = [
    *((mode, {}) for mode in MODES),
    (Edit, FLOW),
    (Generate, {"thinking": False}),
    (Generate, QUIET),
    (Generate, {"lm_cfg_scale": 1}),
    (Generate, {"plan": {"caption": "a waltz", "bpm": 90, "vocal_language": "fr"}}),
    (Generate, {"plan": {"caption": "a waltz", "codes": [7, 8] * 25}}),
    (Generate, {"lm_temperature": 0, "thinking": False}),
    (Generate, {"bpm": 90, "keyscale": "A minor", "timesignature": "3", "vocal_language": "fr"}),
]


PLAIN: dict[str, list[torch.Tensor]] = {}  # heard before


@pytest.fixture(scope="module")
def recordings() -> dict[str, AudioClip]:
    t = np.arange(7 * 48_000) / 48_000
    chord = np.stack([np.sin(2 * np.pi * 220 * t), np.sin(2 * np.pi * 330 * t)]).astype(np.float32) * 0.3
    long = AudioClip(chord, {"format": "WAV"})
    return {"long": long, "chord": long.cut(0, 96_000)}


def heard(mode: type[SongRequest], recordings: dict[str, Any], values: dict[str, Any]) -> list[torch.Tensor]:
    """All that the song model hears of a planned song; test_controls.py shows that the song follows it."""
    request = asked(mode, recordings, values)
    planned = request.planned(tiny_planner.planner().plan(request).plan)
    with torch.no_grad():
        score = tiny.engine().conditioner.score(planned)
    return [part for c in (score.conditions, score.origin) if c for part in (c.cond, c.context)]


def asked(mode: type[SongRequest], recordings: dict[str, Any], values: dict[str, Any]) -> Any:
    given = {**KNOBS_OF_ALL, **BASE[mode], **values}
    given |= {n: recordings[given[n]] for n in ("source_audio",) if given.get(n)}
    return mode.parse(given).heard()[0]


def test_every_knob_of_the_planner_has_a_row() -> None:
    assert CHANGED.keys() == fields_of(LMOptions).keys()


@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.parametrize("mode, beside", ASKED, ids=label)
def test_every_knob_of_the_planner_changes_the_song_or_says_why_not(recordings, mode, beside, name) -> None:
    changed = {name: CHANGED[name]} if CHANGED[name] != beside.get(name) else {name: not CHANGED[name]}
    key = f"{mode.mode} {beside}"
    plain = PLAIN[key] = PLAIN.get(key) or heard(mode, recordings, beside)
    other = heard(mode, recordings, {**beside, **changed})
    acts = any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(plain, other, strict=True))
    assert acts == (name not in asked(mode, recordings, beside).idle)
