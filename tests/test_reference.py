"""Our tables against the original engine's source, read with ast and never imported.

The original is a submodule: `git submodule update --init` brings it to vendor/ace-step. ACE_REFERENCE may name another
folder that holds `acestep/`.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import pytest
from diffusers import AceStepPipeline
from diffusers.pipelines.ace_step import pipeline_ace_step as stock

from fields import LANGUAGES, TIME_SIGNATURES
from settings import ROOT
from song import DURATION_RANGE, INSTRUMENTAL, KNOBS, LYRICS_LIMIT, PROMPT_LIMIT, Advanced

REFERENCE = Path(os.environ.get("ACE_REFERENCE") or ROOT / "vendor" / "ace-step") / "acestep"

pytestmark = pytest.mark.skipif(
    not (REFERENCE / "constants.py").is_file(),
    reason="vendor/ace-step is not checked out: git submodule update --init",
)

# Where we differ on purpose: knob -> (the original's default, ours, why).
DIFFERENT_DEFAULTS = {
    "inference_steps": (8, 27, "8 is right for turbo, which was the original's model, and far too few for XL SFT"),
}
# Unicode accidentals are valid in the original; the model saw ASCII far more often, and diffusers passes on what it gets.
SPELT_OUT = str.maketrans({"♯": "#", "♭": "b"})


def tree(file: str) -> ast.Module:
    return ast.parse((REFERENCE / file).read_text("utf-8"))


def constant(name: str) -> Any:
    """A literal of the original's constants.py."""
    for node in tree("constants.py").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise LookupError(name)


def defaults_of(class_name: str) -> dict[str, Any]:
    """The defaults of a dataclass of the original's inference.py."""
    (cls,) = (n for n in tree("inference.py").body if isinstance(n, ast.ClassDef) and n.name == class_name)
    fields = [n for n in cls.body if isinstance(n, ast.AnnAssign)]
    return {ast.unparse(n.target): ast.literal_eval(n.value) for n in fields}


def described(class_name: str, field: str) -> str:
    """What a class's docstring says of a field."""
    (cls,) = (n for n in tree("inference.py").body if isinstance(n, ast.ClassDef) and n.name == class_name)
    (line,) = (line for line in ast.get_docstring(cls).splitlines() if line.strip().startswith(f"{field}:"))
    return line


def template(function: str) -> str:
    """The f-string that a method of the original's handler returns, with its names as placeholders."""
    (found,) = (n for n in ast.walk(tree("handler.py")) if isinstance(n, ast.FunctionDef) and n.name == function)
    (returned,) = (n.value for n in ast.walk(found) if isinstance(n, ast.Return))
    return "".join(
        part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}" for part in returned.values
    )


def test_task_instructions_are_the_originals() -> None:
    assert constant("TASK_INSTRUCTIONS") == stock.TASK_INSTRUCTIONS
    assert constant("DEFAULT_DIT_INSTRUCTION") == stock.DEFAULT_DIT_INSTRUCTION


def test_the_prompt_template_is_the_originals() -> None:
    assert constant("SFT_GEN_PROMPT") == stock.SFT_GEN_PROMPT


def test_words_reach_the_model_as_the_original_formats_them() -> None:
    pipe = object.__new__(AceStepPipeline)  # formatting needs no weights
    caption, lyrics = pipe._format_prompt("cello", "la la", vocal_language="fr", audio_duration=30.0)
    assert lyrics == template("_format_lyrics").format(language="fr", lyrics="la la")
    head = constant("SFT_GEN_PROMPT").format(constant("DEFAULT_DIT_INSTRUCTION"), "cello", "")
    assert caption.startswith(head.split("<|endoftext|>")[0])


def test_the_languages_are_the_originals() -> None:
    assert set(LANGUAGES) == set(constant("VALID_LANGUAGES"))


def test_every_key_of_the_original_is_accepted_and_spelt_in_ascii() -> None:
    notes, accidentals, modes = (constant(f"KEYSCALE_{part}") for part in ("NOTES", "ACCIDENTALS", "MODES"))
    keys = [f"{note}{accidental} {mode}" for note in notes for accidental in accidentals for mode in modes]
    assert len(keys) == 70
    for key in keys:
        assert Advanced(keyscale=key).keyscale == key.translate(SPELT_OUT)


def test_the_time_signatures_are_the_originals() -> None:
    assert [int(code) for code in TIME_SIGNATURES if code] == constant("VALID_TIME_SIGNATURES")


def test_tempo_and_duration_have_the_originals_ranges() -> None:
    assert (KNOBS["bpm"].low, KNOBS["bpm"].high) == (constant("BPM_MIN"), constant("BPM_MAX"))
    assert (constant("DURATION_MIN"), constant("DURATION_MAX")) == DURATION_RANGE


def test_text_limits_and_the_instrumental_mark_are_the_documented_ones() -> None:
    assert f"< {PROMPT_LIMIT} characters" in described("GenerationParams", "caption")
    assert f"< {LYRICS_LIMIT} characters" in described("GenerationParams", "lyrics")
    assert f'"{INSTRUMENTAL}"' in described("GenerationParams", "lyrics")


@pytest.mark.parametrize("name", KNOBS)
def test_a_knobs_default_is_the_originals_or_differs_on_purpose(name: str) -> None:
    theirs, ours = defaults_of("GenerationParams")[name], KNOBS[name].default
    if name in DIFFERENT_DEFAULTS:
        assert (theirs, ours) == DIFFERENT_DEFAULTS[name][:2]
    else:
        assert (type(ours), ours) == (type(theirs), theirs)
