"""From a row of the planner table to a planner, or to one sentence."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_planner
from test_planner import ask, same
from test_vocabulary import demo

import checkpoints
import planners
from errors import EngineMissing, OutOfMemory
from lm import CodesAsked
from lm_torch import TorchLM
from planner import Planner
from settings import PLANNERS, PlannerRow
from vocabulary import QWEN_FIRST_CODE, Vocabulary

one_thread = tiny_planner.one_thread
RANDOM = PlannerRow("random:tiny", "random:tiny", random=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_planner.saved(tmp_path_factory.mktemp("planner") / "tiny")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small planner with the published ids, without a tokenizer of its own."""
    import torch

    from causal_lm import random_model

    folder = tmp_path_factory.mktemp("published")
    random_model("tiny", "cpu", torch.float32).save_pretrained(folder)
    return folder


def row_of(folder: Path) -> PlannerRow:
    return PlannerRow(folder.name, str(folder))


def own() -> Planner:
    """The planner in memory, with all the codes that its weights have rows for, as a folder has them."""
    vocabulary = Vocabulary.of(tiny_planner.tokenizer(), tiny_planner.CODES + tiny_planner.RESERVED + 8)
    return Planner(tiny_planner.planner().lm, vocabulary)


def refused(row: PlannerRow, tokenizer: Any = None) -> str:
    with pytest.raises(EngineMissing) as missing:
        planners.load(row, "cpu", tokenizer or demo())
    return str(missing.value)


# From a folder


def test_a_saved_planner_plans_as_the_one_in_memory(folder: Path) -> None:
    loaded = planners.load(row_of(folder), "cpu", tiny.engine().pipe.tokenizer)
    assert isinstance(loaded.lm, TorchLM) and loaded.name == "tiny"
    for seed in (1, 2):
        assert same(loaded.plan(ask(seed=seed)), own().plan(ask(seed=seed)))


@pytest.mark.parametrize("given", [demo, tiny_planner.qwen], ids=["other ids", "ids of another size"])
def test_a_planner_with_other_ids_brings_its_own_tokenizer(folder: Path, given: Any) -> None:
    vocabulary = planners.load(row_of(folder), "cpu", given()).vocabulary
    assert vocabulary.first_code == tiny_planner.vocabulary().first_code
    assert vocabulary.tokenizer.get_vocab() == tiny_planner.tokenizer().get_vocab()
    text = "<think>\nbpm: 120\n</think>\n\n"
    assert vocabulary.encode(text) == tiny_planner.vocabulary().encode(text)


def test_a_planner_with_the_published_ids_takes_the_song_models_tokenizer(published: Path) -> None:
    tokenizer = tiny_planner.qwen()
    loaded = planners.load(row_of(published), "cpu", tokenizer)
    assert loaded.vocabulary.tokenizer is tokenizer
    assert (loaded.vocabulary.first_code, loaded.vocabulary.codes) == (QWEN_FIRST_CODE, 64_000)
    codes = loaded.plan(ask(use_cot_caption=False)).plan.codes
    assert len(codes) == 50 and 100 < max(codes) < 64_000


def test_with_the_published_ids_but_another_tokenizer_its_own_is_needed(published: Path) -> None:
    sentence = refused(row_of(published), demo())
    assert sentence.startswith(f"The checkpoint in {published.name}/ is incomplete or damaged (")


def copied(folder: Path, to: Path, without: str = "") -> Path:
    to.mkdir()
    for file in folder.iterdir():
        if file.name != without:
            (to / file.name).write_bytes(file.read_bytes())
    return to


@pytest.mark.parametrize("without", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_is_not_whole_is_refused(folder: Path, tmp_path: Path, without: str) -> None:
    broken = copied(folder, tmp_path / "mine", without)
    sentence = refused(row_of(broken))
    assert sentence.startswith("The checkpoint in mine/ is incomplete or damaged (")
    assert sentence.endswith("). Fetch or copy it again.")


@pytest.mark.parametrize("file, content", [("model.safetensors", b"{}"), ("config.json", b"{"), ("config.json", b"{}")])
def test_a_folder_that_is_damaged_is_refused(folder: Path, tmp_path: Path, file: str, content: bytes) -> None:
    broken = copied(folder, tmp_path / "mine")
    (broken / file).write_bytes(content)
    assert refused(row_of(broken)).startswith("The checkpoint in mine/ is incomplete or damaged (")


@pytest.mark.parametrize(
    "other", [{"model_type": "llama"}, {"tie_word_embeddings": False}, {"attention_bias": True}], ids=str
)
def test_a_model_of_another_kind_is_refused(folder: Path, tmp_path: Path, other: dict[str, Any]) -> None:
    mine = copied(folder, tmp_path / "mine")
    config = json.loads((mine / "config.json").read_text())
    (mine / "config.json").write_text(json.dumps(config | other))
    assert "incomplete or damaged (ValueError)" in refused(row_of(mine))


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    import torch

    pickled = copied(folder, tmp_path / "mine", "model.safetensors")
    torch.save(tiny_planner.model().state_dict(), pickled / "pytorch_model.bin")
    assert "incomplete or damaged" in refused(row_of(pickled))


# From the Hub


SENTENCES = {
    "0.6B": (
        "The weights of the planner 0.6B, ACE-Step/acestep-5Hz-lm-0.6B (1.33 GB), could not be loaded: there is no "
        "network, or the download is incomplete. Fetch them with: hf download ACE-Step/acestep-5Hz-lm-0.6B "
        "--revision 148d8ea0225bdab342ee1ae3a354275ccd60ca80"
    ),
    "1.7B": (
        "The weights of the planner 1.7B, ACE-Step/Ace-Step1.5 (3.71 GB), could not be loaded: there is no network, or "
        "the download is incomplete. Fetch them with: hf download ACE-Step/Ace-Step1.5 "
        "--revision 19671f406d603126926c1b7e2adc169acbcade22 --include 'acestep-5Hz-lm-1.7B/*'"
    ),
}


@pytest.mark.parametrize("key", SENTENCES)
def test_without_a_network_the_command_that_fetches_it_is_named(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "free_gib", lambda on: 99.0)
    assert refused(PLANNERS[key]) == SENTENCES[key]


@pytest.mark.parametrize("within", ["", "acestep-5Hz-lm-1.7B"])
def test_of_a_repository_only_what_is_needed_is_fetched_and_no_pickle(
    within: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    (tmp_path / "hub").mkdir()
    copied(folder, (tmp_path / "hub" / within) if within else tmp_path / "hub" / "all")
    fetched: list[Any] = []

    def download(source: str, *, revision: str, allow_patterns: list[str]) -> str:
        fetched.append((source, revision, allow_patterns))
        return str(tmp_path / "hub" / ("" if within else "all"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    row = PlannerRow("mine", "owner/repo", within, revision="abc")
    assert same(planners.load(row, "cpu", demo()).plan(ask()), own().plan(ask()))
    ((source, revision, patterns),) = fetched
    assert (source, revision) == ("owner/repo", "abc")
    start = f"{within}/" if within else ""
    there = [start + name for name in ("config.json", "merges.txt", "model.safetensors", "model.bin", "run.py")]
    kept = list(filter_repo_objects([*there, "else/where.pt"], allow_patterns=patterns))
    assert kept == there[:3]


# Room


@pytest.mark.parametrize("on, needs", [("cpu", "2.2"), ("cuda", "6.7"), ("mps", "6.7")])
def test_where_there_is_no_room_both_sizes_are_named(on: str, needs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "free_gib", lambda where: 1.0 if where == on else 99.0)
    with pytest.raises(EngineMissing) as missing:
        planners.load(PLANNERS["0.6B"], on, demo())
    assert str(missing.value) == (
        f"There is no room for the planner 0.6B: beside the song model it needs {needs} GiB, 1.0 are free. "
        "ACE_PLANNER=0.6B is the smallest, ACE_PLANNER=none does without."
    )


def test_a_folder_of_unknown_size_is_tried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "free_gib", lambda on: 0.0)
    assert planners.load(row_of(folder), "cpu", demo()).lm


def test_free_memory_is_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil
    import torch

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (5 * 2**30, 80 * 2**30))
    assert checkpoints.free_gib("cuda") == 5.0
    for on in ("cpu", "mps"):
        assert 0 < checkpoints.free_gib(on) < psutil.virtual_memory().total / 2**30
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert checkpoints.free_gib("cuda") == float("inf")


def test_memory_that_runs_out_is_no_missing_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_torch

    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(lm_torch, "TorchLM", full)
    with pytest.raises(OutOfMemory):
        planners.load(row_of(folder), "cpu", demo())


# Libraries


def test_apples_gpus_are_asked_through_mlx_and_say_the_same(folder: Path) -> None:
    lm_mlx = pytest.importorskip("lm_mlx")
    vocabulary = own().vocabulary
    lm = planners._model(folder, "mps", vocabulary.masks)
    assert isinstance(lm, lm_mlx.MlxLM)
    assert same(Planner(lm, vocabulary).plan(ask()), own().plan(ask()))


def test_without_mlx_they_are_asked_through_torch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import Qwen3ForCausalLM

    moved: list[str] = []

    def to(model: Any, where: str) -> Any:
        """There is no such device here: the model stays where it is."""
        moved.append(where)
        return model

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(Qwen3ForCausalLM, "to", to)
    lm = planners._model(folder, "mps", tiny_planner.vocabulary().masks)
    assert isinstance(lm, TorchLM) and moved == ["mps"]
    assert planners._dtype("mps") is planners._dtype("cpu") is torch.float32
    assert planners._dtype("cuda") is torch.bfloat16


# Random weights


def test_random_weights_need_no_file_and_have_the_published_ids() -> None:
    loaded = planners.load(RANDOM, "cpu", demo())
    assert loaded.name == "random:tiny" and loaded.vocabulary.first_code == QWEN_FIRST_CODE
    vocabulary = loaded.vocabulary
    prompt = vocabulary.encode("<think>\n\n</think>\n\n")
    chances = ask_codes(prompt, vocabulary)
    codes = loaded.lm.codes(chances, lambda done: None)
    assert len(set(codes)) > 10 and max(codes) > 1000


def ask_codes(prompt: list[int], vocabulary: Vocabulary) -> CodesAsked:
    import numpy as np

    from lm import Sampling

    chances = np.random.default_rng(0).random(20, np.float32)
    return CodesAsked(prompt, prompt[:1], vocabulary.first_code, vocabulary.codes, chances, Sampling())


def test_the_table_names_a_folder_and_a_commit_for_each_published_planner() -> None:
    for key, row in PLANNERS.items():
        if not row.random:
            assert row.revision and len(row.revision) == 40 and row.size_gb and row.revision in row.fetch
            assert row.key == key and row.name == f"the planner {key}"
    assert json.dumps(sorted(PLANNERS)) == '["0.6B", "1.7B", "4B", "random:1.7B"]'
