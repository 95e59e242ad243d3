"""The stack of LoRAs as a musician meets it: Chromium on the demo model. Fixtures of browsing.py watch network and console."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")
import served
import tiny
from browsing import assert_fits, browser, fill, open_advanced, recipe, status, visit, wait_for_words
from playwright.sync_api import Locator, Page, expect

from checkpoints import transformer_config
from lora_scales import CONFIG
from settings import CHECKPOINTS

HOSTILE = "<img src=x onerror=alert(1)> and a name that goes on and on and on and on and on.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a musician might drop."""
    folder, demo = tmp_path_factory.mktemp("loras"), transformer_config(CHECKPOINTS["demo"])
    names = ("warm tape.safetensors", "choir.safetensors", HOSTILE)
    found = {name: tiny.lora(folder / name, seed, demo) for seed, name in enumerate(names)}
    (folder / "again").mkdir()
    found["again"] = tiny.lora(folder / "again" / "the same.safetensors", 0, demo)
    found["foreign"] = tiny.lora(folder / "foreign.safetensors")
    (folder / CONFIG).write_text(json.dumps({"r": 2, "lora_alpha": 3, "base_model_name_or_path": "/nowhere"}))
    return found | {CONFIG: str(folder / CONFIG)}


class Stack:
    """The panel, by what a musician does and sees."""

    def __init__(self, page: Page) -> None:
        self.page, self.rows, self.line = page, page.locator("#loras .lora"), page.locator("#loras-line p")
        self.title = page.locator("#loras-panel > button > span").first
        self.title.click()
        page.locator("#loras-drop").wait_for()

    def drop(self, *paths: str) -> None:
        self.page.locator("#loras-drop input[type=file]").set_input_files(list(paths))

    def names(self) -> list[str]:
        return self.rows.locator(".name").all_inner_texts()

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)


@pytest.fixture
def stack(visit: Callable[..., Page], request: pytest.FixtureRequest) -> Stack:
    return Stack(visit(getattr(request, "param", 1440)))


def sing(page: Page) -> str:
    """A short song, and its recipe as the page shows it."""
    open_advanced(page)
    fill(page, prompt="calm piano", inference_steps=8, seed=3)
    page.locator("#generate").click()
    wait_for_words(page, "seed 3")
    return recipe(page).inner_text()


def test_stack_is_filled_ordered_and_heard(stack: Stack, files: dict[str, str]) -> None:
    expect(stack.title).to_have_text("LoRAs")
    stack.drop(files["warm tape.safetensors"], files["choir.safetensors"])
    expect(stack.rows).to_have_count(2)
    expect(stack.title).to_contain_text("LoRAs · 2 active")
    expect(stack.rows.first.locator(".facts")).to_contain_text("rank 2 · 88 modules")
    expect(stack.rows.first.locator(".remark")).to_contain_text("does not say its alpha")
    stack.button("Move down warm tape").focus()
    stack.page.keyboard.press("Enter")
    assert stack.names() == ["choir", "warm tape"]
    expect(stack.button("Move up warm tape")).to_be_focused()  # the arrow that still leads somewhere
    box = stack.page.get_by_role("textbox", name="Strength of choir, as a number")
    box.fill("0,3")
    box.press("Tab")
    slider = stack.page.get_by_role("slider", name="Strength of warm tape", exact=True)
    slider.focus()
    stack.page.keyboard.press("Home")
    expect(stack.title).to_contain_text("LoRAs · 1 active")
    expect(stack.page.locator("#loras .head")).to_have_text("1 active of 2")
    slider.fill("1.2")
    stack.title.click()  # closed
    expect(stack.rows.first).to_be_hidden()
    told = sing(stack.page).replace("\n", "")
    assert told.index("choir") < told.index("warm tape") and "0.3" in told and "1.2" in told
    expect(status(stack.page)).to_contain_text("10 s in")
    stack.title.click()
    expect(stack.rows.first).to_be_visible()
    assert stack.names() == ["choir", "warm tape"]


def test_what_cannot_be_used_is_told_and_leaves_the_stack(stack: Stack, files: dict[str, str]) -> None:
    stack.drop(files["warm tape.safetensors"])
    expect(stack.rows).to_have_count(1)
    stack.drop(files["again"], files["foreign"])
    expect(stack.line).to_contain_text("the same is in the stack already. Raise its strength instead.")
    expect(stack.line).to_contain_text("foreign cannot be used: it was made for another model, not for the demo model.")
    assert stack.names() == ["warm tape"]
    box = stack.page.get_by_role("textbox", name="Strength of warm tape, as a number")
    box.fill("2")
    box.press("Enter")
    expect(stack.rows.locator(".wrong")).to_have_text("0 to 1.5")
    fill(stack.page, prompt="calm piano")
    stack.page.locator("#generate").click()
    wait_for = stack.page.locator("#status").get_by_role("alert")
    expect(wait_for).to_have_text("Strength of LoRA 1 must be a number from 0 to 1.5; it is 2.")
    stack.button("Remove warm tape").click()
    expect(stack.rows).to_have_count(0)
    expect(stack.title).to_have_text("LoRAs")


def test_config_goes_with_its_weights(stack: Stack, files: dict[str, str]) -> None:
    stack.drop(files[CONFIG])
    expect(stack.line).to_contain_text("add the two together, and nothing else")
    stack.drop(files["choir.safetensors"], files[CONFIG])
    expect(stack.rows).to_have_count(1)
    expect(stack.rows.locator(".remark")).to_be_hidden()
    expect(stack.line).to_have_count(0)


def test_presets_go_on_and_off_and_play_together(stack: Stack, files: dict[str, str]) -> None:
    for name in ("Music box", "8-bit"):
        stack.button(name).click()
        expect(stack.rows.filter(has_text=name)).to_have_count(1)
    stack.button("Music box").click()
    expect(stack.rows).to_have_count(1)
    assert stack.names() == ["8-bit"]
    told = sing(stack.page)
    assert "8-bit" in told and "Music box" not in told


@pytest.mark.parametrize("stack", [412], indirect=True)
def test_stack_fits_a_phone_and_names_are_text(stack: Stack, files: dict[str, str]) -> None:
    stack.page.on("dialog", lambda dialog: pytest.fail(f"a name ran as code: {dialog.message}"))
    stack.drop(files[HOSTILE], files["choir.safetensors"])
    expect(stack.rows).to_have_count(2)
    assert stack.rows.first.locator("img").count() == 0 and "onerror" in stack.names()[0]
    assert_fits(stack.page, 412)
    for button in stack.rows.locator("button").all():
        assert button.bounding_box()["height"] >= 44
    stack.page.get_by_role("tab", name="Cover").click()
    assert stack.names()[1] == "choir", "one stack for every tab"
