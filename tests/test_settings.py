"""The environment and the checkpoint table: parsed once, refused with a sentence."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import hypothesis
import pytest
from gradio.utils import get_upload_folder
from hypothesis import given, strategies

import settings
from settings import (
    CHECKPOINTS,
    DEMO_FOLDER,
    PLANNERS,
    ROOT,
    TURBO_KNOBS,
    TURBO_OFF,
    Checkpoint,
    PlannerRow,
    SettingError,
    Settings,
    checkpoint_for,
    planner_for,
    read,
)
from song import DURATION_RANGE, KNOBS, Generate

NUMBERS = {  # variable: field, lowest, highest
    "ACE_PORT": ("port", 1, 65535),
    "ACE_GPU_MIN_S": ("gpu_min_s", 1, 3600),
    "ACE_GPU_MAX_S": ("gpu_max_s", 1, 3600),
    "ACE_QUEUE": ("queue_size", 1, 1000),
}
WIDE = {"ACE_GPU_MIN_S": "1", "ACE_GPU_MAX_S": "3600"}  # so that either bound may take any value


def test_an_empty_environment_gives_the_defaults() -> None:
    assert read({}) == Settings()
    assert read(dict.fromkeys([*NUMBERS, "ACE_MODEL", "ACE_STEMS_MODEL"], "  ")) == Settings()


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACE_PORT", "8123")
    monkeypatch.setenv("ACE_MODEL", " demo ")
    assert (read().port, read().model) == (8123, "demo")


def test_finished_files_stay_where_gradio_serves_them_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for env in ({}, {"GRADIO_TEMP_DIR": ""}, {"GRADIO_TEMP_DIR": str(tmp_path / "own")}):
        monkeypatch.setenv("GRADIO_TEMP_DIR", env.get("GRADIO_TEMP_DIR", ""))
        assert read(env).outbox == Path(get_upload_folder()).resolve() / "ace-studio"
    (tmp_path / "link").symlink_to(tmp_path)
    assert read({"GRADIO_TEMP_DIR": str(tmp_path / "link")}).outbox == tmp_path.resolve() / "ace-studio"


@pytest.mark.parametrize("row", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_recipe_tells_a_checkpoint_without_a_path_of_this_machine(row: Checkpoint, tmp_path: Path) -> None:
    own = "demo" if row.key == "demo" else row.source
    assert row.facts == {"key": row.key, "id": own, "revision": row.revision}
    (tmp_path / "mine").mkdir()
    assert checkpoint_for(str(tmp_path / "mine"), "cpu").facts == {"key": "mine", "id": "mine", "revision": None}
    assert checkpoint_for("someone/mine@abc", "cpu").facts == {
        "key": "someone/mine",
        "id": "someone/mine",
        "revision": "abc",
    }


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_taken_within_its_bounds(name: str) -> None:
    field, low, high = NUMBERS[name]
    for value in (low, high):
        assert getattr(read({**WIDE, name: f" {value} "}), field) == value


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_beyond_its_bounds_is_refused_with_name_and_limits(name: str) -> None:
    _, low, high = NUMBERS[name]
    for value in (low - 1, high + 1):
        with pytest.raises(ValueError) as refused:
            read({**WIDE, name: str(value)})
        assert str(refused.value) == f"{name} must be a whole number from {low} to {high}; it is '{value}'."


@hypothesis.settings(deadline=None, database=None)
@given(text=strategies.text(max_size=20) | strategies.integers(-9, 99_999).map(str))
def test_any_text_for_a_number_is_read_or_refused_by_name(text: str) -> None:
    try:
        assert 1 <= read({"ACE_PORT": text}).port <= 65535
    except ValueError as error:
        assert str(error).startswith("ACE_PORT must be a whole number")


def test_a_gpu_minimum_above_the_maximum_is_refused_with_both() -> None:
    with pytest.raises(ValueError, match=r"ACE_GPU_MIN_S \(90\) must not be above ACE_GPU_MAX_S \(80\)"):
        read({"ACE_GPU_MIN_S": "90", "ACE_GPU_MAX_S": "80"})
    assert read({"ACE_GPU_MIN_S": "80", "ACE_GPU_MAX_S": "80"}).gpu_max_s == 80


@pytest.mark.parametrize(
    "env, host",
    [
        ({}, "127.0.0.1"),
        ({"SPACE_ID": "someone/space"}, "0.0.0.0"),
        ({"GRADIO_SERVER_NAME": "192.168.0.2"}, "192.168.0.2"),
        ({"GRADIO_SERVER_NAME": "192.168.0.2", "ACE_HOST": "::1", "SPACE_ID": "someone/space"}, "::1"),
    ],
)
def test_only_a_space_listens_to_the_world_unasked(env: dict[str, str], host: str) -> None:
    assert read(env).host == host


@pytest.mark.parametrize("text, on", [("1", True), ("true", True), ("T", True), ("0", False), ("no", False)])
def test_zero_gpu_is_on_when_the_platform_says_so(text: str, on: bool) -> None:
    assert read({"SPACES_ZERO_GPU": text}).zero_gpu is on


def test_the_version_is_the_packages() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == settings.VERSION


@pytest.mark.parametrize("row", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_row_of_the_table_holds_together(row: settings.Checkpoint) -> None:
    assert CHECKPOINTS[row.key] is row
    assert row.knobs.keys() <= KNOBS.keys() and row.off.keys() <= KNOBS.keys()
    assert DURATION_RANGE[0] <= row.duration_s <= DURATION_RANGE[1]
    Generate.parse({"prompt": "x", "duration_s": row.duration_s}, row.knobs)
    for _, prompt, bpm, key in row.examples:
        asked = Generate.parse({"prompt": prompt, "bpm": bpm, "keyscale": key})
        assert (asked.prompt, asked.advanced.keyscale) == (prompt, key)


@pytest.mark.parametrize("row", [row for row in CHECKPOINTS.values() if row.size_gb], ids=lambda row: row.key)
def test_what_comes_from_the_hub_is_pinned_to_one_commit(row: settings.Checkpoint) -> None:
    assert re.fullmatch(r"[\w-]+/[\w.-]+", row.source)
    assert re.fullmatch(r"[0-9a-f]{40}", row.revision)


def test_what_is_not_downloaded_has_no_size() -> None:
    """So that the test above sees every Hub row."""
    local = {row.key for row in CHECKPOINTS.values() if not row.size_gb}
    assert local == {"demo", "random:xl-sft"}


@pytest.mark.parametrize("device, key", [("cuda", "xl-sft"), ("mps", "xl-sft"), ("cpu", "demo")])
def test_the_machine_chooses_when_nothing_is_asked_for(device: str, key: str) -> None:
    assert checkpoint_for("", device) is CHECKPOINTS[key]


@pytest.mark.parametrize("key", CHECKPOINTS)
def test_a_name_of_the_table_wins_over_the_machine(key: str) -> None:
    assert checkpoint_for(key, "cpu") is checkpoint_for(key, "cuda") is CHECKPOINTS[key]


def test_a_folder_is_a_checkpoint_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    row = checkpoint_for("mine", "cpu")  # the tests run in tmp_path
    assert (row.name, row.source, row.revision, row.off) == ("mine", str(tmp_path / "mine"), None, {})
    monkeypatch.chdir(tmp_path / "mine")
    assert checkpoint_for(".", "cpu").name == "mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checkpoint_for("~/mine", "cpu").source == str(tmp_path / "mine")


def test_the_demo_folder_is_there() -> None:
    assert (DEMO_FOLDER / "model_index.json").is_file()


@pytest.mark.parametrize(
    "model, source, revision",
    [
        ("owner/model", "owner/model", None),
        ("owner/model@0123abc", "owner/model", "0123abc"),
        ("Owner-1/model_v1.5", "Owner-1/model_v1.5", None),
    ],
)
def test_a_hub_id_may_carry_a_revision(model: str, source: str, revision: str | None) -> None:
    row = checkpoint_for(model, "cpu")
    assert (row.key, row.source, row.revision) == (model, source, revision)


NONSENSE = (
    "xl_sft",
    "/nowhere/at/all",
    "./nowhere/x",
    "~/nowhere",
    "~nobody-of-that-name/x",
    "a/b/c",
    "models/",  # a folder that is not there
    "owner/two words",
    "x" * 5000,
)


@pytest.mark.parametrize("model", NONSENSE, ids=lambda model: model[:20])
def test_a_name_for_nothing_is_refused_with_what_there_is(model: str) -> None:
    with pytest.raises(ValueError, match=r"ACE_MODEL must be one of xl-sft, xl-turbo, demo, .* a Hub id or a folder"):
        checkpoint_for(model, "cpu")


def folder_with(root: Path, config: bytes) -> str:
    (root / "own" / "transformer").mkdir(parents=True)
    (root / "own" / "transformer" / "config.json").write_bytes(config)
    return str(root / "own")


TURBO = ({"is_turbo": True}, {"model_version": "turbo"}, {"hidden_size": 2560, "is_turbo": True})
NOT_TURBO = ({}, {"is_turbo": False}, {"model_version": "sft"}, {"note": "is_turbo"})


@pytest.mark.parametrize("indent", [2, None, 0])
@pytest.mark.parametrize("config, turbo", [(c, True) for c in TURBO] + [(c, False) for c in NOT_TURBO])
def test_a_folder_is_turbo_when_its_transformer_says_so(
    config: dict, turbo: bool, indent: int | None, tmp_path: Path
) -> None:
    separators = (",", ":") if indent is None else None
    row = checkpoint_for(
        folder_with(tmp_path, json.dumps(config, indent=indent, separators=separators).encode()), "cpu"
    )
    assert (row.knobs, row.off) == ((TURBO_KNOBS, TURBO_OFF) if turbo else ({}, {}))


@pytest.mark.parametrize("config", [b"", b"{", b"\xff\xfe\x00", b'["is_turbo"]'])
def test_a_damaged_config_is_left_for_the_loader_to_report(config: bytes, tmp_path: Path) -> None:
    assert checkpoint_for(folder_with(tmp_path, config), "cpu").off == {}


@pytest.mark.parametrize(
    "model, turbo",
    [("owner/XL-Turbo", True), ("owner/acestep-v15-turbo@abc", True), ("owner/xl", False), ("turbotape/xl-sft", False)],
)
def test_a_hub_id_is_turbo_by_the_models_name(model: str, turbo: bool) -> None:
    assert (checkpoint_for(model, "cpu").off == TURBO_OFF) is turbo


def test_turbo_starts_with_its_own_steps_shift_and_no_guidance() -> None:
    own = Generate.parse({"prompt": "x"}, CHECKPOINTS["xl-turbo"].knobs).advanced
    assert (own.inference_steps, own.shift, own.guidance_scale) == (8, 3.0, 1.0)
    given = Generate.parse({"prompt": "x", "inference_steps": 20}, CHECKPOINTS["xl-turbo"].knobs).advanced
    assert (given.inference_steps, given.shift) == (20, 3.0)


def test_the_planner_is_the_checkpoints_own_unless_another_is_named(tmp_path: Path) -> None:
    for key, planner in {"xl-sft": "1.7B", "xl-turbo": "1.7B", "random:xl-sft": "random:1.7B"}.items():
        assert planner_for("", CHECKPOINTS[key]) is PLANNERS[planner]
    assert planner_for("", CHECKPOINTS["demo"]) is planner_for("none", CHECKPOINTS["xl-sft"]) is None
    assert planner_for("4B", CHECKPOINTS["demo"]) is PLANNERS["4B"]
    folder = planner_for(str(tmp_path), CHECKPOINTS["demo"])
    assert (folder.source, folder.key, folder.size_gb) == (str(tmp_path), tmp_path.name, 0)
    assert read({"ACE_PLANNER": " 0.6B "}).planner == "0.6B" and read({}).planner == ""
    with pytest.raises(SettingError, match=r"^ACE_PLANNER must be one of 0.6B, 1.7B, 4B, .*; it is '7B'\.$"):
        planner_for("7B", CHECKPOINTS["xl-sft"])


@pytest.mark.parametrize("row", [r for r in PLANNERS.values() if not r.random], ids=lambda row: row.key)
def test_every_planner_is_pinned_and_says_how_to_fetch_it(row: PlannerRow) -> None:
    assert re.fullmatch(r"[0-9a-f]{40}", row.revision) and row.size_gb > 1 and row.key in row.name
    only = f" --include '{row.folder}/*'" if row.folder else ""
    assert row.fetch == f"hf download {row.source} --revision {row.revision}{only}"
