"""Several takes as files: each with the recipe of its own request, told in order, restored one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_endpoints
import test_modes
from test_endpoints import call, ends, visitor
from test_modes import WORDS, sound_of, tone, upload

import api
import backend
import modes
import restoring
import tags
from errors import BadOutput
from remakes import MODES, Edit
from song import Generate
from sound import Progress, Sound, Take

tiny_studio, nobody_was_here = test_modes.tiny_studio, test_endpoints.nobody_was_here
assert upload  # a fixture


def made(values: dict[str, Any], mode: Any = Generate) -> list[Take]:
    """The takes of a request, where they stay."""
    return [event for event in modes.run(modes.SONGS[mode], values) if isinstance(event, Take)]


def bytes_of(take: Take) -> bytes:
    return Path(take.path).read_bytes()


def test_each_take_is_the_file_that_its_seed_alone_gives() -> None:
    takes = made({**WORDS, "takes": 3})
    assert [take.metadata["seed"] for take in takes] == [3, 4, 5]
    assert [take.metadata["together"] for take in takes] == [{"take": n, "of": 3} for n in (1, 2, 3)]
    (alone,) = made({**WORDS, "seed": 4})
    assert bytes_of(alone) == bytes_of(takes[1]) and alone.recipe == takes[1].recipe
    assert alone.recipe["controls"]["takes"] == 1 and "together" not in alone.metadata


def test_the_file_of_one_take_restores_that_take_alone() -> None:
    _, second = made({**WORDS, "takes": 2})
    found = restoring.restore(second.path, {mode: modes.defaults(mode) for mode in MODES})
    assert (found.controls["seed"], found.controls["takes"]) == (4, 1)
    (again,) = made(found.controls)
    assert bytes_of(again) == bytes_of(second)


def test_what_an_edit_keeps_is_kept_in_each_take(upload: str) -> None:
    first, second = made({"source_audio": upload, "regions": [[0.2, 0.6]], "takes": 2, "inference_steps": 8}, Edit)
    kept = [take.metadata["receipt"]["kept"] for take in (first, second)]
    assert kept[0] == kept[1] and kept[0]["identical"] is True
    assert first.metadata["take"] != second.metadata["take"] and "takes" not in first.metadata["inactive"]


def test_a_summary_says_which_take_it_is_of() -> None:
    first, second = made({**WORDS, "takes": 2})
    assert modes.summary(first).startswith("Take 1 of 2: 10 s in ") and modes.summary(second).endswith("seed 4")
    (alone,) = made(WORDS)
    assert modes.summary(alone).startswith("10 s in ") and modes.placed(alone) == (1, 1)


def batched(request: Generate) -> Iterator[Progress | Sound]:
    """As a GPU makes takes: in one batch."""
    for take in range(1, request.takes + 1):
        yield replace(sound_of(tone(0.1 * take)), together={"take": take, "of": request.takes, "batch": True})


def test_a_take_out_of_a_batch_says_so_in_its_file_and_when_it_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "answer", batched)
    _, second = made({**WORDS, "takes": 2})
    assert second.recipe["together"] == {"take": 2, "of": 2, "batch": True}
    assert '"together":{"batch":true,"of":2,"take":2}' in tags.read(second.path).recipe
    own = backend.checkpoint()
    here = {**own.facts, "device": "cpu", "dtype": "float32"}
    monkeypatch.setattr(backend, "answer", lambda asked: (replace(sound, model=here) for sound in batched(asked)))
    _, second = made({**WORDS, "takes": 2})
    found = restoring.restore(second.path, {mode: modes.defaults(mode) for mode in MODES})
    assert found.told == ("Made as take 2 of 2 in one batch; alone it is made alike, not bit for bit.",)


def test_a_take_that_is_silent_ends_the_rest_and_leaves_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        backend, "answer", lambda asked: iter([sound_of(tone()), sound_of(tone(0.0)), sound_of(tone())])
    )
    running, came = modes.run(modes.generate, {**WORDS, "takes": 3}), []
    with pytest.raises(BadOutput):
        for event in running:
            came.append(event)
    assert len(came) == 1 and Path(came[0].path).is_file()


# As a program meets them


def test_an_endpoint_tells_each_take_and_at_last_all_of_them() -> None:
    *told, (file, metadata) = list(call(who=visitor(), duration_s=10, seed=3, takes=2))
    assert {"phase": "Denoising, take 2 of 2", "step": 16, "of": 16} in [m for f, m in told if f is None]
    (first, earlier), *none = [answer for answer in told if answer[0]]
    assert none == [] and (earlier["seed"], metadata["seed"]) == (3, 4)
    assert [entry["file"] for entry in earlier["together"]["takes"]] == [first]
    every = metadata["together"]["takes"]
    assert [entry["file"] for entry in every] == [first, file] and metadata["together"]["of"] == 2
    assert [entry["metadata"]["seed"] for entry in every] == [3, 4]
    assert all(Path(entry["file"]["path"]).is_file() for entry in every)
    assert api.SESSIONS.get("a visitor").path == file["path"], "the last take is what comes after the song is made of"


def test_the_answer_of_one_take_is_as_it_was() -> None:
    file, metadata = ends(call(duration_s=10, seed=3, takes=1))
    assert file["orig_name"].startswith("ace-3-") and "together" not in metadata and metadata["takes"] == 1
