"""What the browser makes of tabs and choices by itself: which knobs rest, and why."""

from __future__ import annotations

import json
import re

import numpy as np
from test_ui import desk

import choosing
from remakes import FLOW_OFF, SKETCH_OFF, Cover, Edit, Extend
from settings import CHECKPOINTS, SKETCH
from song import Generate, SongRequest
from sound import AudioClip


def knobs_at(drawn_by: str, said: object) -> dict[str, bool]:
    """Which knobs of `may_rest` can be used, by what the browser makes of a choice."""
    known = json.loads(re.search(r"\((\{.*\})\)\[said\]", drawn_by)[1])
    return [knob["interactive"] for knob in known[json.dumps(said).strip('"')]]


def test_a_knob_rests_on_the_tab_where_it_cannot_act_and_says_why() -> None:
    d = desk()
    names = choosing.may_rest(d)
    assert set(names) == {*SKETCH_OFF, *FLOW_OFF} == {*SKETCH, "infer_method", "use_adg", "use_cot_caption"}

    def resting(mode: type[SongRequest], said: object) -> set[str]:
        return {name for name, able in zip(names, knobs_at(choosing.rests(d, mode), said), strict=True) if not able}

    assert resting(Generate, True) == set() and resting(Generate, False) == set(SKETCH[1:])
    assert resting(Cover, True) == resting(Extend, False) == resting(Edit, "repaint") == set(SKETCH)
    assert resting(Edit, "flow_edit") == set(names)
    for reason in ("a flow morph has a path of its own", "the song takes the place of a sketch"):
        assert f"Off: {reason}." in choosing.rests(d, Edit)
    assert "Off: for thinking alone." in choosing.rests(
        d, Generate
    ) and "Off: for balanced alone." in choosing.balanced(d)
    turbo = desk("xl-turbo", CHECKPOINTS["xl-turbo"].off)
    assert choosing.may_rest(turbo) == ["infer_method", "use_cot_caption"], "what is off for good stays so"


def test_what_a_tab_says_of_a_knob_is_what_the_recipe_says() -> None:
    clip = AudioClip(np.zeros((2, 96_000), np.float32), {"format": "WAV"})
    asked = [(Generate, True, {}), (Generate, False, {"thinking": False}), (Cover, True, {}), (Extend, True, {})]
    asked += [(Edit, "repaint", {"regions": [[0, 1]]}), (Edit, "flow_edit", {"sub_mode": "flow_edit"})]
    for mode, said, values in asked:
        own = {} if mode is Generate else {"source_audio": clip}
        idle = mode.parse({"prompt": "rain", **own, **values}).idle
        told = choosing.resting(mode, said)
        assert told == {name: idle[name] for name in told} and not {*SKETCH, *FLOW_OFF} & idle.keys() - told.keys()


def test_the_browser_sums_up_the_advanced_panel_as_the_page_does() -> None:
    js = choosing.summing()
    assert "Advanced · ${steps} steps, ${method.toUpperCase()}" in js and "random seed" in js
