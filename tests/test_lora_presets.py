"""The LoRAs that come with the studio: its own manifest, what is offered, and what is not on this machine."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants
from lora_files import chosen, factors, tiny_model, write

import checkpoints
import lora_layouts
import lora_presets
import lora_stack
from errors import LoraError
from lora_presets import NO_NETWORK, NOT_HERE, WEIGHTS, Preset
from lora_scales import CONFIG
from lora_stack import Model
from settings import CHECKPOINTS

TINY = tiny_model()
REVISION = "0123456789" * 4
HERE = Preset("glow", "Glow", TINY.width, "Glows.")
HUB = Preset("far", "Far away", TINY.width, "Of the Hub.", "someone/far-lora", REVISION)
OTHER = Preset("wide", "Wide", 2048, "For the 2B model.")


def model_of(key: str) -> Model:
    return Model(CHECKPOINTS[key].name, lora_layouts.targets(checkpoints.transformer_config(CHECKPOINTS[key])))


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A studio with a preset of its own, one of the Hub and one for another model, and an empty cache of the Hub's."""
    monkeypatch.setattr(lora_presets, "FOLDER", tmp_path / "presets")
    monkeypatch.setattr(lora_presets, "manifest", lambda: (HERE, HUB, OTHER))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "presets" / "glow").mkdir(parents=True)
    write(tmp_path / "presets" / "glow" / WEIGHTS, "peft", factors(TINY, chosen(TINY, "attention")), 8)
    return tmp_path


@pytest.fixture
def cached(studio: Path) -> Callable[..., Path]:
    """Puts the Hub's preset into its cache, in the Hub's own layout: with links to blobs, or without where there are none."""

    def fill(links: bool, config: bool = True) -> Path:
        repo = studio / "hub" / "models--someone--far-lora"
        snapshot, blobs, missing = repo / "snapshots" / REVISION, repo / "blobs", repo / ".no_exist" / REVISION
        for folder in (snapshot, blobs, missing, repo / "refs"):
            folder.mkdir(parents=True)
        (repo / "refs" / "main").write_text(REVISION)
        write(studio / WEIGHTS, "peft", factors(TINY, chosen(TINY, "MLP"), seed=1), 8)
        for name in (WEIGHTS, CONFIG) if config else (WEIGHTS,):
            blob = blobs / hashlib.sha256((studio / name).read_bytes()).hexdigest()
            (studio / name).rename(blob if links else snapshot / name)
            if links:
                (snapshot / name).symlink_to(Path(os.path.relpath(blob, snapshot)))
        if not config:
            (missing / CONFIG).touch()  # the Hub has said that there is none
        return snapshot

    return fill


def refused(key: object, model: Model = TINY) -> str:
    with pytest.raises(LoraError) as error:
        lora_presets.admit(key, model)
    return str(error.value)


# The studio's own


def test_the_manifest_is_well_formed() -> None:
    rows = lora_presets.manifest()
    assert rows and lora_presets.manifest() is rows
    for names in ([row.key for row in rows], [row.name for row in rows]):
        assert len(set(names)) == len(names)
    for row in rows:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", row.key)
        assert row.name.strip() == row.name != "" and row.note.endswith(".") and len(row.note) < 120
        assert row.width in (288, 2048, 2560)
        assert bool(row.repo) == bool(re.fullmatch(r"[0-9a-f]{40}", row.revision))  # pinned by commit


@pytest.mark.parametrize("row", [row for row in lora_presets.manifest() if not row.repo], ids=lambda row: row.key)
def test_each_bundled_preset_is_let_in_for_the_demo_model(row: Preset) -> None:
    demo = model_of("demo")
    assert (lora_presets.FOLDER / row.key / WEIGHTS).is_file() and lora_presets.absent(row) == ""
    lora = lora_presets.admit(row.key, demo)
    assert (lora.name, lora.preset) == (row.name, row.key)
    assert lora.alpha  # its scale is known, not guessed
    assert lora.facts["preset"] == row.key and lora.scales.keys() <= demo.targets.keys()


def test_only_what_fits_the_model_is_offered() -> None:
    offered = lora_presets.offered(model_of("demo"))
    assert list(offered) == [row.key for row in lora_presets.manifest() if row.width == 288]
    assert {"music-box", "8-bit"} <= offered.keys()
    for key in ("xl-sft", "xl-turbo"):
        assert lora_presets.offered(model_of(key)) == {}
        assert refused("8-bit", model_of(key)).startswith(f"'8-bit' is no preset for {CHECKPOINTS[key].name}; ")
        assert refused("8-bit", model_of(key)).endswith("there are: none.")


# One in a folder


def test_a_preset_is_a_folder(studio: Path) -> None:
    lora = lora_presets.admit("glow", TINY)
    assert (lora.name, lora.preset, lora.alpha, set(lora.scales.values())) == ("Glow", "glow", "config", {2.0})
    assert lora.path == str(studio / "presets" / "glow" / WEIGHTS)
    assert list(lora_presets.offered(TINY)) == ["glow", "far"]


@pytest.mark.parametrize("key", ["wide", "", "../glow", "glow/", "Glow", 7, None, ["glow"], {"glow": 1}], ids=repr)
def test_what_is_no_preset_is_refused_with_those_there_are(studio: Path, key: object) -> None:
    assert refused(key) == f"{str(key)!r} is no preset for the tiny model; there are: glow, far."


def test_a_long_name_is_shown_in_part(studio: Path) -> None:
    assert refused("k" * 999).startswith(f"{'k' * 40!r} is no preset")


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_preset_of_which_a_file_is_gone_says_so(studio: Path, name: str) -> None:
    """Without its configuration it would play at another strength, and nobody would know."""
    (studio / "presets" / "glow" / name).unlink()
    assert lora_presets.absent(HERE) == NOT_HERE == "not on this machine"
    assert refused("glow") == "Glow is not on this machine. Your other LoRAs work."


def test_a_damaged_preset_is_refused_by_its_name(studio: Path) -> None:
    (studio / "presets" / "glow" / WEIGHTS).write_bytes(b"no tensors")
    assert refused("glow").startswith("Glow cannot be used: it is damaged")


# One of the Hub


def test_without_network_it_says_so_and_the_others_work(studio: Path, monkeypatch, caplog) -> None:
    """Row L12 of the faults."""
    assert lora_presets.absent(HUB) == NO_NETWORK == "not on this machine, and there is no network to fetch it"
    assert refused("far") == f"Far away is {NO_NETWORK}. Your other LoRAs work."
    assert "preset far did not load" in caplog.text  # and the log has the reason
    assert lora_presets.absent(HERE) == "" and lora_presets.admit("glow", TINY).preset == "glow"
    for value in ("ON", "yes", "True"):
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
        assert lora_presets.absent(HUB) == NO_NETWORK
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("the network was asked"))
    for value in ("0", ""):
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
        assert lora_presets.absent(HUB) == ""  # it may be fetched, and nobody asks the network to find out
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert lora_presets.absent(HUB) == ""


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("config", [True, False], ids=["alpha 8", "no configuration"])
def test_one_in_the_cache_needs_no_network(cached, monkeypatch, links: bool, config: bool) -> None:
    snapshot, own = cached(links, config), replace(HUB, config=config)
    monkeypatch.setattr(lora_presets, "manifest", lambda: (own,))
    assert (snapshot / WEIGHTS).is_symlink() == links
    assert lora_presets.absent(own) == ""
    lora = lora_presets.admit("far", TINY)
    assert (lora.name, lora.preset) == ("Far away", "far")
    assert (lora.alpha, set(lora.scales.values())) == (("config", {2.0}) if config else ("", {1.0}))
    assert hashlib.sha256(Path(lora.path).read_bytes()).hexdigest() == lora.sha256
    assert lora_stack.weights(lora).keys() == set(chosen(TINY, "MLP"))


def test_one_whose_configuration_is_not_there_is_not_played_without_it(cached) -> None:
    cached(False, config=False)
    assert lora_presets.absent(HUB) == NO_NETWORK
    assert refused("far") == f"Far away is {NO_NETWORK}. Your other LoRAs work."


def test_another_revision_is_not_the_one_that_is_pinned(cached, monkeypatch) -> None:
    cached(False)
    moved = Preset("far", "Far away", TINY.width, "Of the Hub.", "someone/far-lora", "f" * 40)
    monkeypatch.setattr(lora_presets, "manifest", lambda: (moved,))
    assert lora_presets.absent(moved) == NO_NETWORK
    assert NO_NETWORK in refused("far")
