"""Plans as files: what is read of a visitor's file, what is refused, and what the page says of a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bringing
import plan_panel
import saved
from drafting import asked, written
from drafts import Describe, Tidy, Write
from errors import KnobError
from plans import Draft, Plan
from saved import Saved

PLAN = Plan(caption="<b>warm</b>", bpm=92, keyscale="G minor", timesignature="3", vocal_language="no", codes=range(150))
RECIPE = {
    "mode": "generate",
    "prompt": "piano",
    "duration_s": 30.0,
    "advanced": {"bpm": 92, "keyscale": "", "timesignature": "", "vocal_language": "unknown"},
    "lm": {"thinking": True},
    "planner": {"name": "tiny", "chosen": [], "plan": PLAN.model_dump(mode="json")},
}


def file(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "plan.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(path)


@pytest.mark.parametrize("part", ["recipe", "planner", "plan", "saved"])
def test_a_plan_is_read_out_of_whatever_holds_one(tmp_path: Path, part: str) -> None:
    whole = Saved("generate", PLAN, 30.0)
    content = {"recipe": RECIPE, "planner": RECIPE["planner"], "plan": RECIPE["planner"]["plan"]}.get(part)
    found = saved.read(file(tmp_path, content or whole.file()))
    assert (found.mode, found.plan, found.duration_s) == ("generate", PLAN, 30.0)
    assert saved.of(RECIPE) == whole


def test_a_remakes_plan_goes_to_its_tab_and_says_no_duration(tmp_path: Path) -> None:
    found = saved.read(file(tmp_path, RECIPE | {"mode": "cover"}))
    assert (found.mode, found.duration_s) == ("cover", None)
    assert saved.read(file(tmp_path, RECIPE | {"mode": "nonsense"})).mode == "generate"


BAD = {
    "no JSON": (b"bpm: 92", "This file is no saved plan: it is not JSON."),
    "no text": (b"\xff\xfe\x00", "This file is no saved plan: it is not JSON."),
    "a list": ([1, 2], "This file holds no plan."),
    "another file": ({"name": "x"}, "This file holds no plan."),
    "an empty plan": ({"plan": {}}, "This file holds no plan."),
    "a song without one": (RECIPE | {"planner": None}, "This file holds no plan."),
    "a missing planner": (RECIPE | {"planner": {"missing": "gone"}}, "This file holds no plan."),
    "a wild tempo": ({"bpm": 900}, "The plan in this file cannot be used: its bpm is not what a plan holds."),
    "too large": (b" " * 1_000_001, "This file is too large for a plan: 1 MB is the limit."),
}


@pytest.mark.parametrize("case", BAD)
def test_what_holds_no_plan_is_refused_in_a_sentence(tmp_path: Path, case: str) -> None:
    content, sentence = BAD[case]
    with pytest.raises(KnobError) as refused:
        saved.read(file(tmp_path, content))
    assert refused.value.message == sentence and refused.value.hint
    assert bringing.loaded(file(tmp_path, content)).keys() == {"status"}


def test_a_plan_in_use_fills_the_tab_it_is_for() -> None:
    values = bringing.used(Saved("generate", PLAN, 30.0))
    assert values["bpm"] == 92 and values["vocal_language"] == "no" and values["thinking"] is True
    assert values["generate-prompt"] == PLAN.caption and values["generate-duration_s"] == 30.0
    assert values["generate-plan"]["plan"]["codes"].startswith("0 1 2 ")
    bare = bringing.used(Saved("edit", Plan(bpm=60)))
    assert "edit-prompt" not in bare and "thinking" not in bare and bare["keyscale"] == ""


def test_the_table_has_what_was_asked_beside_what_was_planned_as_text() -> None:
    table = plan_panel.table(RECIPE, PLAN)
    assert "<td>92 BPM</td><td class='same'>as asked</td>" in table
    assert "<td class='open'>open</td><td><mark>G minor</mark></td>" in table
    assert "<td>piano</td><td><mark>&lt;b&gt;warm&lt;/b&gt;</mark></td>" in table and "<b>" not in table
    assert "<mark>150</mark>" in table and "3/4" in table
    assert (
        plan_panel.table(RECIPE | {"planner": {"missing": "<i>"}}, None) == "<p>Made without the planner. &lt;i&gt;</p>"
    )
    assert plan_panel.table(RECIPE | {"planner": None}, None) == ""
    assert plan_panel.line(PLAN) == "92 BPM · G minor · 3/4 · no · 150 codes"
    assert plan_panel.line(Plan(caption="x")) == "its style prompt"


DRAFT = Draft(prompt="brass", lyrics="la", duration_s=40, bpm=90, keyscale="C major", timesignature="4", seed=1)


def test_a_draft_fills_only_what_it_is_for() -> None:
    song = written(Write, DRAFT, {})
    assert (song["prompt"], song["lyrics"], song["duration_s"], song["bpm"]) == ("brass", "la", 40, 90)
    assert song["plan"]["plan"]["caption"] == "brass" and song["plan"]["plan"]["codes"] == ""
    heard = written(Describe, DRAFT, {"prompt": "", "lyrics": " "})
    assert (heard["prompt"], heard["lyrics"]) == ("brass", "la") and "duration_s" not in heard
    assert "lyrics" not in written(Describe, DRAFT, {"prompt": "", "lyrics": "mine"})
    morph = written(Describe, DRAFT, {"sub_mode": "flow_edit", "source_lyrics": ""})
    assert (morph["source_caption"], morph["source_lyrics"]) == ("brass", "la") and "prompt" not in morph


def test_a_language_that_a_draft_brought_is_not_asked_of_the_next_one() -> None:
    own = {"query": "rain", "instrumental": False, "vocal_language": "fr", "plan": None, "mine": []}
    assert asked(Write, own)["vocal_language"] == "fr" and asked(Write, own)["seed"] == -1
    brought = own | {"plan": {"plan": {"vocal_language": "fr"}}, "mine": [{"vocal_language": "unknown"}]}
    assert asked(Write, brought)["vocal_language"] == "unknown"
    assert asked(Tidy, brought)["vocal_language"] == "fr"
