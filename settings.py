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
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+(@[\w.-]+)?", re.ASCII)
DEMO_FOLDER = ROOT / "demo"
VERSION = "0.1.0"


TIERS = ("full", "24", "16", "12", "8")  # cards by their GB, `tiers.TIERS`


class SettingError(ValueError):
    """A variable of the environment that cannot be used: one sentence that names it and its limits."""


@dataclass(frozen=True)
class Checkpoint:
    """One row of what differs between song models.

    `source` is a Hub id or a folder. `knobs` are the defaults that this checkpoint wants instead of the table's;
    `off` maps knobs that cannot act on it to the reason, `lacks` what it cannot do at all ("cover", "flow_edit"), `hints` controls that act otherwise than their tooltip says to what
    they do. `size_gb` is the download, 0 when there is none; `planner` is a key of PLANNERS, or empty.
    """

    key: str
    name: str
    source: str
    note: str
    revision: str | None = None
    size_gb: float = 0.0
    planner: str = "1.7B"
    duration_s: int = 30
    random: bool = False
    lacks: Mapping[str, str] = field(default_factory=dict)
    knobs: Mapping[str, float] = field(default_factory=dict)
    off: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)
    examples: tuple[tuple[str, str, int | None, str], ...] = ()  # label, prompt, bpm, key

    @property
    def fetch(self) -> str:
        """The command that downloads it."""
        return f"hf download {self.source}" + (f" --revision {self.revision}" if self.revision else "")

    @property
    def facts(self) -> dict[str, str | None]:
        """Which model it is, as a recipe says it: a folder of this machine by its name alone."""
        own = Path(self.source).name if Path(self.source).is_absolute() else self.source
        key = self.key if self.key in CHECKPOINTS else own
        return {"key": key, "id": own, "revision": self.revision}


SKETCH = ("thinking", "lm_cfg_scale", "lm_negative_prompt")  # the knobs of the planner's audio codes
DRAWS_NOT = "this model has no audio tokenizer to read a sketch with"
NO_GUIDANCE = "turbo has guidance built in"
TURBO_KNOBS = {"inference_steps": 8, "shift": 3.0, "guidance_scale": 1.0}
TURBO_OFF = {
    **dict.fromkeys(("guidance_scale", "cfg_interval_start", "cfg_interval_end", "use_adg"), NO_GUIDANCE),
    **dict.fromkeys(SKETCH, DRAWS_NOT),
}
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
        planner="",
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
        planner="random:1.7B",
        random=True,
        note="Random weights in the full architecture: for benchmarks. What comes out is noise.",
    ),
}


@dataclass(frozen=True)
class PlannerRow:
    """One planner, a 5 Hz language model of ACE-Step 1.5: a Hub id with the folder in it, or a folder of this machine."""

    key: str
    source: str
    folder: str = ""
    revision: str | None = None
    size_gb: float = 0.0
    random: bool = False

    @property
    def name(self) -> str:
        """How a sentence calls it."""
        return f"the planner {self.key}"

    @property
    def fetch(self) -> str:
        """The command that downloads it."""
        only = f" --include '{self.folder}/*'" if self.folder else ""
        return f"hf download {self.source} --revision {self.revision}{only}"


PLANNERS: dict[str, PlannerRow] = {
    "0.6B": PlannerRow(
        "0.6B",
        "ACE-Step/acestep-5Hz-lm-0.6B",
        revision="148d8ea0225bdab342ee1ae3a354275ccd60ca80",
        size_gb=1.33,
    ),
    "1.7B": PlannerRow(
        "1.7B",
        "ACE-Step/Ace-Step1.5",
        "acestep-5Hz-lm-1.7B",
        revision="19671f406d603126926c1b7e2adc169acbcade22",
        size_gb=3.71,
    ),
    "4B": PlannerRow(
        "4B",
        "ACE-Step/acestep-5Hz-lm-4B",
        revision="0a3ec94b557aea7d508da38b31cfe7341f6ff737",
        size_gb=8.38,
    ),
    "random:1.7B": PlannerRow("random:1.7B", "random:1.7B", size_gb=3.71, random=True),
}


@dataclass(frozen=True)
class Settings:
    """The environment, parsed. `model` is a key of CHECKPOINTS, a Hub id, a folder, or empty for "by machine".

    `planner` is a key of PLANNERS, a folder, "none", or empty for the checkpoint's own; `lyrics_model` what
    `lyricists.lyricist_for` reads, `stems_model` what `stems.row_for` reads. `tier` is one of TIERS, or empty for "by free
    memory". `scratch` is where requests work, `outbox`
    where finished files stay for an hour: within what Gradio serves, so that it makes no second copy of them.
    """

    model: str = ""
    planner: str = ""
    lyrics_model: str = ""
    stems_model: str = ""
    tier: str = ""
    host: str = "127.0.0.1"
    port: int = 7860
    gpu_min_s: int = 60
    gpu_max_s: int = 300
    queue_size: int = 24
    zero_gpu: bool = False
    fast: bool = True
    scratch: Path = Path(tempfile.gettempdir()) / "ace-studio"
    outbox: Path = Path(tempfile.gettempdir()) / "gradio" / "ace-studio"


def _whole(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name, "").strip() or str(default)
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise SettingError(f"{name} must be a whole number from {low} to {high}; it is {text!r}.")
    return int(text)


def _one_of(env: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    text = env.get(name, "").strip()
    if text and text not in known:
        raise SettingError(f"{name} must be one of {', '.join(known)}; it is {text!r}.")
    return text


def read(env: Mapping[str, str] | None = None) -> Settings:
    """Settings from `env` (default: the process's own).

    Raises SettingError.
    """
    env = os.environ if env is None else env
    on_space = bool(env.get("SPACE_ID"))
    settings = Settings(
        model=env.get("ACE_MODEL", "").strip(),
        planner=env.get("ACE_PLANNER", "").strip(),
        lyrics_model=env.get("ACE_LYRICS_MODEL", "").strip(),
        stems_model=env.get("ACE_STEMS_MODEL", "").strip(),
        tier=_one_of(env, "ACE_TIER", TIERS),
        host=env.get("ACE_HOST") or env.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if on_space else "127.0.0.1"),
        port=_whole(env, "ACE_PORT", 7860, 1, 65535),
        gpu_min_s=_whole(env, "ACE_GPU_MIN_S", 60, 1, 3600),
        gpu_max_s=_whole(env, "ACE_GPU_MAX_S", 300, 1, 3600),
        queue_size=_whole(env, "ACE_QUEUE", 24, 1, 1000),
        fast=bool(_whole(env, "ACE_FAST", 1, 0, 1)),
        zero_gpu=env.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true"),
        outbox=Path(env.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir(), "gradio")).resolve() / "ace-studio",
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
    if folder := folder_of(model):
        turbo = _says_turbo(folder)
        own = Checkpoint(model, folder.name, str(folder), f"Your own checkpoint, {folder.name}.")
    elif HUB_ID.fullmatch(model):
        source, _, revision = model.partition("@")
        turbo = "turbo" in source.partition("/")[2].lower()
        own = Checkpoint(model, source, source, f"{source} from the Hub.", revision=revision or None)
    else:
        known = ", ".join(CHECKPOINTS)
        raise SettingError(f"ACE_MODEL must be one of {known}, a Hub id or a folder; it is {model!r}.")
    return replace(own, knobs=TURBO_KNOBS, off=TURBO_OFF, lacks=TURBO_LACKS) if turbo else own


def planner_for(planner: str, checkpoint: Checkpoint) -> PlannerRow | None:
    """The planner that `planner` names, or the checkpoint's own when it is empty; None for none.

    Raises SettingError when `planner` names nothing.
    """
    planner = planner or checkpoint.planner or "none"
    if planner == "none":
        return None
    if planner in PLANNERS:
        return PLANNERS[planner]
    if folder := folder_of(planner):
        return PlannerRow(folder.name, str(folder))
    raise SettingError(f"ACE_PLANNER must be one of {', '.join(PLANNERS)}, none or a folder; it is {planner!r}.")


def folder_of(model: str) -> Path | None:
    """The folder of this machine that a setting names, if it names one."""
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
