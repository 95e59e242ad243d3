"""The language models that write lyrics, a row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from settings import HUB_ID, SettingError, folder_of


@dataclass(frozen=True)
class LyricistRow:
    """One language model that writes lyrics: a Hub id, a folder, or a GGUF file of this machine.

    `apple` is the row that Apple's GPUs try first, through MLX; `hint` is added to the tooltips of the controls it names.
    """

    key: str
    name: str
    source: str
    revision: str | None = None
    size_gb: float = 0.0
    random: bool = False
    apple: LyricistRow | None = None
    hints: Mapping[str, str] = field(default_factory=dict)

    @property
    def fetch(self) -> str:
        """The command that downloads it."""
        return f"hf download {self.source}" + (f" --revision {self.revision}" if self.revision else "")


SMOLLM2 = "SmolLM2-135M-Instruct"
LYRICISTS: dict[str, LyricistRow] = {
    "qwen2.5-7b": LyricistRow(
        "qwen2.5-7b",
        "Qwen 2.5 7B",
        "Qwen/Qwen2.5-7B-Instruct",
        revision="a09a35458c702b33eeacc393d103063234e8bc28",
        size_gb=15.2,
        apple=LyricistRow(
            "qwen2.5-7b-4bit",
            "Qwen 2.5 7B, 4 bit",
            "mlx-community/Qwen2.5-7B-Instruct-4bit",
            revision="c26a38f6a37d0a51b4e9a1eb3026530fa35d9fed",
            size_gb=4.3,
        ),
    ),
    "smollm2": LyricistRow(
        "smollm2",
        "SmolLM2 135M",
        SMOLLM2,
        hints={
            "language": "This small model knows English; expect little of another.",
            "rhyme": "This small model hardly rhymes.",
        },
    ),
    "random:7B": LyricistRow("random:7B", "Qwen 2.5 7B, random weights", "random:7B", size_gb=15.2, random=True),
}


def lyricist_for(model: str, device: str) -> LyricistRow:
    """The lyrics model that `model` names, or the one for `device` ("cuda", "mps" or "cpu") when it is empty.

    Raises SettingError when `model` names nothing.
    """
    model = model or ("smollm2" if device == "cpu" else "qwen2.5-7b")
    if model in LYRICISTS:
        return LYRICISTS[model]
    if found := folder_of(model) or _gguf_of(model):
        return LyricistRow(model, found.name, str(found))
    if HUB_ID.fullmatch(model):
        source, _, revision = model.partition("@")
        return LyricistRow(model, source, source, revision=revision or None)
    known = ", ".join(LYRICISTS)
    raise SettingError(f"ACE_LYRICS_MODEL must be one of {known}, a Hub id, a folder or a GGUF file; it is {model!r}.")


def _gguf_of(model: str) -> Path | None:
    try:
        file = Path(model).expanduser().resolve()
        return file if file.suffix == ".gguf" and file.is_file() else None
    except (OSError, RuntimeError):  # a name too long, a home of nobody
        return None
