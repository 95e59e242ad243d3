"""The stack's value: what a row says, what a request gets of it, and what is none. Its behaviour is in test_browser_loras.py."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from lora_panel import picked, row, rows, size, stack_editor, stacked

FACTS = {
    "name": "choir",
    "sha256": "ab" * 32,
    "bytes": 1_234_567,
    "rank": 8,
    "modules": 64,
    "alpha": "file",
    "scale": [2.0],
}
CHOIR = row({**FACTS, "kind": "LoRA", "note": ""}, {"file": {"path": "/tmp/choir"}}, 0.95)


def test_a_row_says_what_its_lora_is() -> None:
    assert CHOIR == {
        "name": "choir",
        "kind": "LoRA",
        "rank": 8,
        "modules": 64,
        "sha256": "ab" * 32,
        "note": "",
        "size": "1.2 MB",
        "source": {"file": {"path": "/tmp/choir"}},
        "strength": 0.95,
    }


def test_a_request_gets_source_name_hash_and_strength_in_order() -> None:
    preset = {**CHOIR, "name": "Box", "source": {"preset": "box"}, "strength": None}
    assert picked(stacked([preset, CHOIR])) == [
        {"preset": "box", "name": "Box", "sha256": "ab" * 32, "strength": None},
        {"file": {"path": "/tmp/choir"}, "name": "choir", "sha256": "ab" * 32, "strength": 0.95},
    ]


@pytest.mark.parametrize(
    "junk",
    [None, 7, "loras", [], {}, {"loras": None}, {"loras": {"a": 1}}, {"loras": [None, 7, {}, {"source": {}}, {"source": 1, "sha256": ""}]}],
)  # fmt: skip
def test_what_is_no_value_of_the_editor_is_an_empty_stack(junk: Any) -> None:
    assert rows(junk) == picked(junk) == []


@pytest.mark.parametrize(
    ("count", "words"),
    [(1, "1 kB"), (612_400, "612 kB"), (999_999, "1000 kB"), (1_234_567, "1.2 MB"), (9_990_000, "10.0 MB"), (288_000_000, "288 MB")],
)  # fmt: skip
def test_a_size_is_told_in_words(count: int, words: str) -> None:
    assert size(count) == words


def test_the_editor_is_drawn_once_and_begins_empty() -> None:
    with gr.Blocks():
        editor, named = stack_editor(), stack_editor(elem_id="loras", label="LoRAs")
    assert editor.value == {"loras": []} and named.elem_id == "loras"
    assert "{{" not in editor.html_template and "`" not in editor.css_template, "Gradio reads both as templates"
