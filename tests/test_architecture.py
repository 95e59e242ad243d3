"""The house rules, held by reading the source: floors, heavy imports, sizes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from settings import ROOT

FLOORS = (
    {"causal_lm", "decode", "errors", "lora_layouts", "player", "settings", "sound", "takes_panel", "theme", "tooltips"}
    | {"learning", "sharing", "wording", "attend", "graphs", "low_rank", "processors"},
    {"cards", "fields", "formats", "hearing", "lm", "lora_panel", "lora_scales", "loudness", "lyricists"}
    | {"random_checkpoint", "recall", "regions", "sections", "dit", "tiers", "oobleck", "quotas"},
    {
        "checkpoints",
        "lm_mlx",
        "lm_torch",
        "lora_stack",
        "measures",
        "plans",
        "refusals",
        "singing",
        "steering",
        "velocity",
    },
    {"lora_adapters", "lora_presets", "sampler", "song", "stems", "vocabulary"},
    {"afters", "audio_io", "comparing", "drafts", "lora_door", "lyrics", "plan_panel", "remakes", "script"},
    {"briefing", "conditioning", "costs", "listening", "planner", "saved", "splice", "tags", "widgets"},
    {"ace_pipeline", "after_panel", "lyrics_lm", "lyrics_panel", "planners", "recipes", "tabs", "visits"},
    {"composer", "ui"},
    {"backend", "turns"},
    {"finish", "restoring"},
    {"modes"},
    {"api", "bringing", "choosing", "drafting", "estimating", "finishing", "receiving", "stacking", "writing"},
    {"keeping"},
    {"making", "returning"},
    {"app"},
)
FLOOR = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}
FOREIGN = {"vendor", "acestep", "tests", "docs", "benchmarks", "."}  # nothing in the studio may lean on these
HEAVY = {"torch", "diffusers", "transformers", "gradio", "soundfile", "soxr", "demucs", "mlx", "mlx_lm", "scipy"}
HEAVY |= {"pyloudnorm", "mutagen", "lameenc"}
DRAWN = (
    "after_panel",
    "comparing",
    "lora_panel",
    "lyrics_panel",
    "plan_panel",
    "player",
    "regions",
    "tabs",
    "takes_panel",
)
DRAWN += ("ui", "widgets")
HEAVY_AT_THE_TOP = {(module, "gradio") for module in DRAWN}  # app.py imports them late
MAX_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 350, 60, 6

MODULES = sorted(ROOT.glob("*.py"))
SOURCES = sorted(p for folder in (".", "docs", "benchmarks", "presets", "tests") for p in (ROOT / folder).glob("*.py"))


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """The top-level names that these nodes import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else node.module.split(".")[0]


def at_the_top(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: no function bodies, no TYPE_CHECKING blocks."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from (node for other in child.orelse for node in (other, *at_the_top(other)))
            continue
        yield child
        yield from at_the_top(child)


def broken_floors(module: str, source: str) -> list[str]:
    """Imports, wherever they stand, that do not go strictly down."""
    if module not in FLOOR:
        return [f"{module} has no floor"]
    above = {name for name, floor in FLOOR.items() if floor >= FLOOR[module]} | FOREIGN
    return [f"{module} imports {name}" for name in imported(ast.walk(ast.parse(source))) if name in above]


def heavy_imports(module: str, source: str) -> list[str]:
    """Heavy libraries that come with `import module`."""
    names = imported(at_the_top(ast.parse(source)))
    return [name for name in names if name in HEAVY and (module, name) not in HEAVY_AT_THE_TOP]


def too_big(source: str) -> list[str]:
    """What does not fit a sitting, a screen or a head."""
    found = [] if len(source.splitlines()) <= MAX_LINES else [f"the file has over {MAX_LINES} lines"]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.end_lineno - node.lineno >= MAX_FUNCTION_LINES:
                found.append(f"{node.name} has over {MAX_FUNCTION_LINES} lines")
            parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if len([p for p in parameters if p.arg not in ("self", "cls")]) > MAX_PARAMETERS:
                found.append(f"{node.name} has over {MAX_PARAMETERS} parameters")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_go_strictly_down_and_heavy_ones_wait(path: Path) -> None:
    assert broken_floors(path.stem, path.read_text()) == []
    assert heavy_imports(path.stem, path.read_text()) == []


def test_every_floor_is_lived_on() -> None:
    assert set(FLOOR) == {path.stem for path in MODULES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_functions_and_parameter_lists_stay_small(path: Path) -> None:
    assert too_big(path.read_text()) == []


@pytest.mark.parametrize(
    "module, source, found",
    [
        ("song", "import errors, json", []),
        ("fields", "import random_checkpoint", ["fields imports random_checkpoint"]),
        ("errors", "def f():\n    from song import KNOBS", ["errors imports song"]),
        ("audio_io", "if TYPE_CHECKING:\n    import backend", ["audio_io imports backend"]),
        ("app", "from vendor.thing import x", ["app imports vendor"]),
        ("app", "import acestep.handler as h", ["app imports acestep"]),
        ("app", "from . import ui", ["app imports ."]),
        ("newcomer", "", ["newcomer has no floor"]),
    ],
)
def test_a_broken_floor_is_seen(module: str, source: str, found: list[str]) -> None:
    assert broken_floors(module, source) == found


@pytest.mark.parametrize(
    "module, source, found",
    [
        ("song", "def f():\n    import torch", []),
        ("song", "if TYPE_CHECKING:\n    import torch", []),
        ("song", "if TYPE_CHECKING:\n    pass\nelse:\n    import torch.nn", ["torch"]),
        ("song", "try:\n    from torch import nn\nexcept ImportError:\n    pass", ["torch"]),
        ("song", "class A:\n    import gradio", ["gradio"]),
        ("ui", "import gradio, torch", ["torch"]),
    ],
)
def test_a_heavy_import_is_seen(module: str, source: str, found: list[str]) -> None:
    assert heavy_imports(module, source) == found


def test_what_is_too_big_is_seen() -> None:
    assert too_big("\n" * 351) == ["the file has over 350 lines"]
    assert too_big("def f():\n" + "    1\n" * 60) == ["f has over 60 lines"]
    assert too_big("def f():\n" + "    1\n" * 59) == []
    assert too_big("def f(a, b, c, d, *, e, g, h): ...") == ["f has over 6 parameters"]
    assert too_big("def f(self, a, b, c, d, e, g): ...") == []


def test_importing_the_studio_loads_no_heavy_library() -> None:
    """What the source cannot show: a light import that brings a heavy one."""
    script = f"import sys, app; print(*sorted(set(sys.modules) & {HEAVY!r}))"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (run.stdout.strip(), run.stderr) == ("", "")
