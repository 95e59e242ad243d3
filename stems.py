"""A song taken apart by Demucs: vocals, drums, bass and the rest. `load` makes a Separator of a row of the table.

Of the demucs package the model, its loader and `apply_model` are used, the level that all its 4.x versions have. Its own
`get_model` is not: it pins no revision, and without the Hub it falls back to pickled weights from another host.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import checkpoints
from errors import EngineMissing
from settings import SettingError, folder_of
from sound import SAMPLE_RATE, AudioClip, Progress, Stems

if TYPE_CHECKING:
    import torch

NAMES = ("vocals", "drums", "bass", "other")
OVERLAP = 0.25  # of neighbouring chunks, as in Demucs' own tools
CLASS = "demucs.htdemucs.HTDemucs"  # the one class that a file of weights may name: it is looked up and called
HTDEMUCS = {"channels": 48, "bottom_channels": 512, "t_layers": 5, "dconv_mode": 3, "segment": Fraction(39, 5)}


@dataclass(frozen=True)
class StemsRow:
    """One Demucs model: a file at a commit of a Hub repository, known by its hash, or the only one in a folder."""

    key: str
    source: str
    file: str = "*.safetensors"
    revision: str | None = None
    sha256: str = ""
    size_gb: float = 0.0
    random: bool = False

    @property
    def name(self) -> str:
        """How a sentence calls it."""
        return f"the stems model {self.key}"

    @property
    def fetch(self) -> str:
        """The command that downloads it."""
        return f"hf download {self.source} {self.file} --revision {self.revision}"


ROWS = {
    "htdemucs": StemsRow(
        "htdemucs",
        "adefossez/HTDemucs",
        "955717e8.safetensors",
        revision="bf35a81b663819a8255c8fefee17f9d812b786b5",
        sha256="d9fa14133cfcc034a6758923bb3a8ca9f8dfd0b582134643bbf83f72c17576dd",
        size_gb=0.08,
    ),
    "random:htdemucs": StemsRow("random:htdemucs", "random:htdemucs", random=True),
}


def row_for(model: str) -> StemsRow:
    """The stems model that `model` names, htdemucs when it is empty. Raises SettingError when it names nothing."""
    if not model or model in ROWS:
        return ROWS[model or "htdemucs"]
    if folder := folder_of(model):
        return StemsRow(folder.name, str(folder))
    raise SettingError(f"ACE_STEMS_MODEL must be one of {', '.join(ROWS)} or a folder; it is {model!r}.")


@dataclass(frozen=True)
class Separator:
    """A loaded Demucs on its device."""

    model: torch.nn.Module
    device: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def separate(self, song: AudioClip, report: Callable[[Progress], None]) -> Stems:
        """The stems of a song, chunk by chunk; `report` hears of each and may raise to stop.

        The input is standardised as Demucs was trained on it. What the four leave over goes into "other", so that they add
        up to the song; `model["rest_db"]` is its level below the song's.
        """
        import soxr
        import torch
        from demucs.apply import apply_model

        begun, rate = time.perf_counter(), self.model.samplerate
        mix = soxr.resample(song.samples.T, SAMPLE_RATE, rate, quality="VHQ").T
        reference = mix.mean(axis=0)
        centre, spread = float(reference.mean()), float(reference.std()) + 1e-8
        stride = int((1 - OVERLAP) * int(rate * self.model.segment))
        count = len(range(0, mix.shape[1], stride))

        def told(state: Mapping[str, Any]) -> None:
            done = state["segment_offset"] // stride + (state["state"] == "end")
            spent = time.perf_counter() - begun
            report(Progress("Separating", done, count, spent / done * (count - done) if done else None))

        given = torch.from_numpy(np.ascontiguousarray((mix - centre) / spread, np.float32))[None]
        # Shifts would move the song by chance, for a tenth of a decibel: without them the same song gives the same stems.
        out = apply_model(self.model, given, shifts=0, overlap=OVERLAP, device=self.device, callback=told)[0]
        stems = {
            name: _back(part.numpy() * np.float32(spread), rate, song.samples.shape[1])
            for name, part in zip(self.model.sources, out, strict=True)
        }
        rest = song.samples - sum(stems.values())
        stems["other"] = stems["other"] + rest
        facts = {**self.facts, "rest_db": _level(rest, song.samples), "device": self.device}
        timings = {"total_s": round(time.perf_counter() - begun, 3)}
        return Stems({name: stems[name] for name in NAMES}, timings, facts)


def load(row: StemsRow, on: str) -> Separator:
    """The model of a row on a device. Raises EngineMissing when its weights cannot be had."""
    try:
        model = _random() if row.random else _model(_file(row))
    except EngineMissing:
        raise
    except Exception as error:
        raise checkpoints.missing(row, error) from error
    return Separator(model.eval().to(on), on, {"id": row.key, "revision": row.revision})


def _file(row: StemsRow) -> Path:
    """Where the weights are, fetched if need be. Raises EngineMissing for others than were asked for."""
    if Path(row.source).is_dir():
        (file,) = Path(row.source).glob(row.file)
        return file
    from huggingface_hub import hf_hub_download

    file = Path(hf_hub_download(row.source, row.file, revision=row.revision))
    if hashlib.sha256(file.read_bytes()).hexdigest() != row.sha256:
        raise EngineMissing(
            f"The weights of {row.name} are damaged.", f"Fetch them again: {row.fetch} --force-download"
        )
    return file


def _model(file: Path) -> torch.nn.Module:
    """The model in a file of weights, which names its class and what to call that with."""
    from demucs.hf import load_safetensors_model
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as opened:
        told = opened.metadata() or {}
    if told.get("klass") != CLASS or "structure" in told:
        raise ValueError("not an HTDemucs")
    return load_safetensors_model(file)


def _random() -> torch.nn.Module:
    """htdemucs in its true architecture, 42 M parameters, with random weights."""
    import torch
    from demucs.htdemucs import HTDemucs

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HTDemucs(["drums", "bass", "other", "vocals"], **HTDEMUCS)


def _back(stem: np.ndarray, rate: int, length: int) -> np.ndarray:
    """A stem [2, m] at Demucs' rate as [2, length] at the studio's."""
    import soxr

    out = np.zeros((2, length), np.float32)
    again = soxr.resample(stem.T, rate, SAMPLE_RATE, quality="VHQ").T[:, :length]
    out[:, : again.shape[1]] = again
    return out


def _level(part: np.ndarray, whole: np.ndarray) -> float:
    """The level of a part over that of the whole, in dB; -200 for nothing."""
    power = float(np.mean(np.square(part, dtype=np.float64)))
    loud = float(np.mean(np.square(whole, dtype=np.float64)))
    return round(10 * float(np.log10(max(power / max(loud, 1e-20), 1e-20))), 1)
