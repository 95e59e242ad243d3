"""LoRAs as programs meet them: files and presets in, songs whose recipes name them out, and nothing left for the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import served
import soundfile
import tiny
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from test_api import refusal

from checkpoints import transformer_config
from lora_scales import CONFIG
from settings import CHECKPOINTS

ASKED = {"prompt": "calm piano", "duration_s": 10, "inference_steps": 8, "seed": 7}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRAs for the demo model and for another, and a configuration."""
    folder, demo = tmp_path_factory.mktemp("loras"), transformer_config(CHECKPOINTS["demo"])
    for seed, name in enumerate(("choir", "tape")):
        tiny.lora(folder / f"{name}.safetensors", seed, demo)
    tiny.lora(folder / "foreign.safetensors")
    (folder / CONFIG).write_text(json.dumps({"r": 2, "lora_alpha": 4}))
    return folder


def sing(client: Client, *loras: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The samples of a song, and its recipe."""
    path, metadata = client.predict(**ASKED, loras=list(loras), api_name="/generate")
    return soundfile.read(path, dtype="float32")[0].tobytes(), metadata


def test_loras_change_the_song_and_leave_nothing_behind(client: Client, files: Path) -> None:
    choir, tape = (handle_file(files / f"{name}.safetensors") for name in ("choir", "tape"))
    plain, told = sing(client)
    stacked, recipe = sing(
        client, {"file": choir, "config": handle_file(files / CONFIG), "strength": 0.5}, {"file": tape}
    )
    silent, _ = sing(client, {"file": choir, "strength": 0})
    assert told["loras"] == [] and stacked != plain
    assert silent == plain, "a song after another's LoRAs, with one of strength 0, is the song without"
    assert [(lora["name"], lora["rank"], lora["modules"], lora["strength"]) for lora in recipe["loras"]] == [
        ("choir", 2, 88, 0.5),
        ("tape", 2, 88, 0.95),
    ]
    assert [(lora["alpha"], lora["scale"]) for lora in recipe["loras"]] == [("config", [2.0]), ("unknown", [1.0])]
    again, _ = sing(
        client, *({**lora, "file": file} for lora, file in zip(recipe["loras"], (choir, tape), strict=True))
    )
    assert again != stacked, "without its config the first is half as strong"


@pytest.mark.parametrize(
    ("loras", "sentence"),
    [
        ([{"file": {"path": "/etc/passwd"}}], "A LoRA must be an uploaded file or a preset."),
        ([{"preset": "../../etc"}], "'../../etc' is no preset for the demo model; there are: music-box, 8-bit."),
        ([{"name": "choir", "strength": 1}], "The file of choir is missing. Add it again."),
        ([{"preset": "8-bit", "strength": 1.6}], "Strength of LoRA 1 must be a number from 0 to 1.5; it is 1.6."),
        (
            [{"preset": "8-bit"}, {"preset": "8-bit"}],
            "8-bit is in the stack twice. Raise its strength instead.",
        ),
        ("8-bit", "LoRAs must be up to 8 .safetensors files, each with a strength."),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(studio: served.Served, loras: Any, sentence: str) -> None:
    assert refusal(studio, "generate", **ASKED, loras=loras) == sentence


def test_a_lora_for_another_model_is_named(client: Client, files: Path) -> None:
    with pytest.raises(AppError, match="foreign cannot be used: it was made for another model, not for the demo model"):
        sing(client, {"file": handle_file(files / "foreign.safetensors")})


def test_a_preset_is_a_word(client: Client) -> None:
    _, metadata = sing(client, {"preset": "8-bit"})
    (told,) = metadata["loras"]
    assert (told["name"], told["preset"], told["strength"]) == ("8-bit", "8-bit", 0.95)


def test_programs_are_told_how(studio: served.Served) -> None:
    told = httpx.get(f"{studio.url}/gradio_api/info").json()["named_endpoints"]
    for mode in ("generate", "cover", "extend", "edit"):
        (loras,) = [p for p in told[f"/{mode}"]["parameters"] if p["parameter_name"] == "loras"]
        assert loras["parameter_default"] == []
