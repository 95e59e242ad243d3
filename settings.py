"""What this machine and its owner decide: checkpoints, limits, addresses. Parsed from the environment."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DEMO_FOLDER = ROOT / "demo"
VERSION = "0.1.0"


class SettingError(ValueError):
    """A variable of the environment that cannot be used: one sentence that names it and its limits."""


@dataclass(frozen=True)
class Checkpoint:
    """One row of what differs between song models.

    `source` is a Hub id or a folder. `knobs` are the defaults that this checkpoint wants instead of the table's;
    `off` maps knobs that cannot act on it to the reason, `lacks` what it cannot do at all ("cover", "flow_edit"), `hints` controls that act otherwise than their tooltip says to what
    they do. `size_gb` is the download, 0 when there is none.
    """

    key: str
    name: str
    source: str
    note: str
    revision: str | None = None
    size_gb: float = 0.0
    duration_s: int = 30
    random: bool = False
    lacks: Mapping[str, str] = field(default_factory=dict)
    knobs: Mapping[str, float] = field(default_factory=dict)
    off: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)
    examples: tuple[tuple[str, str, int | None, str], ...] = ()  # label, prompt, bpm, key


NO_GUIDANCE = "turbo has guidance built in"
TURBO_KNOBS = {"inference_steps": 8, "shift": 3.0, "guidance_scale": 1.0}
TURBO_OFF = dict.fromkeys(("guidance_scale", "cfg_interval_start", "cfg_interval_end", "use_adg"), NO_GUIDANCE)
TURBO_LACKS = {"flow_edit": "This model cannot morph a song: it has guidance built in. XL SFT can."}
SINGS_NOT = "The demo model does not sing: a nudge at most."
SONGS = (
    ("Synth pop", "bright synth pop, female voice, warm pads, driving drums", 118, "A minor"),
    ("Folk ballad", "intimate folk ballad, male voice, fingerpicked guitar, soft strings", 84, "G major"),
    ("Deep house", "deep house, smoky vocal chops, round bass, late night", 122, "F minor"),
    ("Cinematic", "cinematic strings, slow build, hopeful, no drums", 72, "D minor"),
)
SKETCHES = (
    ("Chiptune", "chiptune, 8-bit lead, 8-bit drums, playful", 150, "C major"),
    ("Lullaby", "lullaby, music box, warm pad, calm, no drums", 72, "F major"),
    ("Deep house", "deep house, electric piano, sub bass, electronic drums", 122, "A minor"),
    ("Bossa nova", "bossa nova, acoustic guitar, flute, light percussion", 108, "D minor"),
)

CHECKPOINTS: dict[str, Checkpoint] = {
    "xl-sft": Checkpoint(
        key="xl-sft",
        name="ACE-Step 1.5 XL SFT",
        source="ACE-Step/acestep-v15-xl-sft-diffusers",
        revision="4bf7b60a63b27144f539f980927eeb89f5f912b0",
        size_gb=11.5,
        note="Sings in 50 languages, up to ten minutes. 27 steps for speed, 50 for quality.",
        examples=SONGS,
    ),
    "xl-turbo": Checkpoint(
        key="xl-turbo",
        name="ACE-Step 1.5 XL Turbo",
        source="ACE-Step/acestep-v15-xl-turbo-diffusers",
        revision="200ba991ae448051e14b0183157e35c2d27c9fb0",
        size_gb=11.1,
        knobs=TURBO_KNOBS,
        off=TURBO_OFF,
        lacks={"cover": "This model cannot cover a song: it has no audio tokenizer. XL SFT can.", **TURBO_LACKS},
        note="Sings in 8 steps. Quicker and less varied than SFT.",
        examples=SONGS,
    ),
    "demo": Checkpoint(
        key="demo",
        name="Demo model",
        source=str(DEMO_FOLDER),
        duration_s=10,
        knobs={"guidance_scale": 3.0},
        hints={
            **dict.fromkeys(("lyrics", "instrumental", "vocal_language"), SINGS_NOT),
            **dict.fromkeys(("source_lyrics", "target_lyrics", "keep_words"), SINGS_NOT),
            "cover_strength": "The demo model's covers are loose: it hears a song's outline, hardly its notes.",
        },
        note="Demo model: instrumental sketches. On a GPU the studio sings.",
        examples=SKETCHES,
    ),
    "random:xl-sft": Checkpoint(
        key="random:xl-sft",
        name="XL SFT, random weights",
        source="random:xl-sft",
        random=True,
        note="Random weights in the full architecture: for benchmarks. What comes out is noise.",
    ),
}


@dataclass(frozen=True)
class Settings:
    """The environment, parsed. `model` is a key of CHECKPOINTS, a Hub id, a folder, or empty for "by machine"."""

    model: str = ""
    host: str = "127.0.0.1"
    port: int = 7860
    gpu_min_s: int = 60
    gpu_max_s: int = 300
    queue_size: int = 24
    zero_gpu: bool = False
    scratch: Path = Path(tempfile.gettempdir()) / "ace-studio"


def _whole(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name, "").strip() or str(default)
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise SettingError(f"{name} must be a whole number from {low} to {high}; it is {text!r}.")
    return int(text)


def read(env: Mapping[str, str] | None = None) -> Settings:
    """Settings from `env` (default: the process's own).

    Raises SettingError.
    """
    env = os.environ if env is None else env
    on_space = bool(env.get("SPACE_ID"))
    settings = Settings(
        model=env.get("ACE_MODEL", "").strip(),
        host=env.get("ACE_HOST") or env.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if on_space else "127.0.0.1"),
        port=_whole(env, "ACE_PORT", 7860, 1, 65535),
        gpu_min_s=_whole(env, "ACE_GPU_MIN_S", 60, 1, 3600),
        gpu_max_s=_whole(env, "ACE_GPU_MAX_S", 300, 1, 3600),
        queue_size=_whole(env, "ACE_QUEUE", 24, 1, 1000),
        zero_gpu=env.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true"),
    )
    if settings.gpu_min_s > settings.gpu_max_s:
        raise SettingError(
            f"ACE_GPU_MIN_S ({settings.gpu_min_s}) must not be above ACE_GPU_MAX_S ({settings.gpu_max_s})."
        )
    return settings


def checkpoint_for(model: str, device: str) -> Checkpoint:
    """The checkpoint that `model` names, or the one for `device` ("cuda", "mps" or "cpu") when it is empty.

    A Hub id may carry a revision: `owner/name@commit`. A name or a transformer config that says turbo brings turbo's
    defaults. Raises SettingError when `model` names nothing.
    """
    if not model:
        model = "demo" if device == "cpu" else "xl-sft"
    if model in CHECKPOINTS:
        return CHECKPOINTS[model]
    if folder := _folder(model):
        turbo = _says_turbo(folder)
        own = Checkpoint(model, folder.name, str(folder), f"Your own checkpoint, {folder.name}.")
    elif re.fullmatch(r"\w[\w.-]*/[\w.-]+(@[\w.-]+)?", model, re.ASCII):
        source, _, revision = model.partition("@")
        turbo = "turbo" in source.partition("/")[2].lower()
        own = Checkpoint(model, source, source, f"{source} from the Hub.", revision=revision or None)
    else:
        known = ", ".join(CHECKPOINTS)
        raise SettingError(f"ACE_MODEL must be one of {known}, a Hub id or a folder; it is {model!r}.")
    return replace(own, knobs=TURBO_KNOBS, off=TURBO_OFF, lacks=TURBO_LACKS) if turbo else own


def _folder(model: str) -> Path | None:
    try:
        folder = Path(model).expanduser().resolve()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # a name too long, a home of nobody
        return None


def _says_turbo(folder: Path) -> bool:
    try:
        config = json.loads((folder / "transformer" / "config.json").read_text())
    except (OSError, ValueError):
        return False  # the loader will say what is wrong
    return isinstance(config, dict) and (config.get("is_turbo") is True or config.get("model_version") == "turbo")
