"""The planner on the page: what it planned for a take, which plan a tab brings, what it drafted. Widgets and words only."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from fields import TIME_SIGNATURES
from plans import Draft, Plan
from song import Generate

ROWS = {
    "bpm": "Tempo",
    "keyscale": "Key",
    "timesignature": "Time signature",
    "vocal_language": "Language",
    "caption": "Style prompt",
}
OPEN = Plan()
VERBS = {"write": "Written", "tidy": "Tidied", "describe": "Described"}

# Gradio escapes what stands in two braces.
_IN_USE = '{{#if value}}<p>%s: {{value.line}}</p><button type="button" title="%s">Drop it</button>{{/if}}'
_DROPS = "element.addEventListener('click', event => { if (event.target.closest('button')) props.value = null; });"


@dataclass
class PlanPanel:
    """What stands under the player: the table of a take's plan, and what can be done with plans."""

    table: Any
    use: Any
    save: Any
    load: Any

    @property
    def shows(self) -> list[Any]:
        """The widgets that `shown` updates."""
        return [self.table, self.use, self.save]


def draw() -> PlanPanel:
    """The panel, without a plan yet: only loading one is possible."""
    table = gr.HTML("", visible=False, elem_id="plan-table")
    with gr.Row(elem_id="plan-buttons"):
        return PlanPanel(
            table,
            gr.Button("Use this plan", visible=False, elem_id="plan-use", size="sm", min_width=100),
            gr.DownloadButton("Save plan", visible=False, elem_id="plan-save", size="sm", min_width=100),
            gr.UploadButton("Load a plan", file_types=[".json"], elem_id="plan-load", size="sm", min_width=100),
        )


def shown(made: Mapping[str, Any] | None, plan: Plan | None = None, file: str | None = None) -> list[Any]:
    """The panel for a take's recipe, with its plan and the file of it; without a recipe it is empty."""
    words = table(made, plan) if made else ""
    return [
        gr.HTML(words, visible=bool(words)),
        gr.Button(visible=plan is not None),
        gr.DownloadButton(value=file, visible=bool(file)),
    ]


def table(made: Mapping[str, Any], plan: Plan | None) -> str:
    """What was asked and what was planned, as a table; the sentence of a missing planner; nothing without either."""
    missing = (made["planner"] or {}).get("missing")
    words = f"<p>{html.escape(f'Made without the planner. {missing}')}</p>" if missing else ""
    if plan is None:
        return words
    asked = made["advanced"] | {"caption": made["prompt"]}
    rows = [_row(ROWS[name], fact(name, asked[name]), fact(name, getattr(plan, name))) for name in ROWS]
    if made["mode"] == Generate.mode and made["lm"]["thinking"]:
        rows.append(_row("Codes", "", f"{len(plan.codes):,}" if plan.codes else ""))
    head = "<tr><td></td><th scope='col'>Asked</th><th scope='col'>Planned</th></tr>"
    legend = "<p class='legend'><mark></mark> filled in by the plan</p>"
    return f"{words}<table><caption>Plan</caption><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>{legend}"


def _row(name: str, asked: str, planned: str) -> str:
    """A row of the table; what the user did not say but the plan does is marked."""
    if planned in ("", asked):
        last = f"<td class='same'>{'as asked' if asked else 'none'}</td>"
    else:
        last = f"<td><mark>{html.escape(planned)}</mark></td>"
    first = f"<td>{html.escape(asked)}</td>" if asked else "<td class='open'>open</td>"
    return f"<tr><th scope='row'>{name}</th>{first}{last}</tr>"


def fact(name: str, value: Any) -> str:
    """A fact in words; empty when it is open."""
    if value == getattr(OPEN, name):
        return ""
    return f"{value} BPM" if name == "bpm" else TIME_SIGNATURES[value] if name == "timesignature" else str(value)


def known(of: Plan | Draft) -> list[str]:
    """Tempo, key, time signature and language, as far as they are known."""
    return [words for name in ROWS if name != "caption" and (words := fact(name, getattr(of, name)))]


def line(plan: Plan) -> str:
    """A plan in one line."""
    codes = [f"{len(plan.codes):,} codes"] if plan.codes else []
    return " · ".join(known(plan) + codes) or "its style prompt"


def in_use(words: str = "Plan in use", dropped: str = "Plan anew", **look: Any) -> gr.HTML:
    """The line that says which plan a tab brings, with a button that drops it. Its value is what `bringing` gives, or None.

    With other `words` it is for other things that a song brings along: its value has a `line` for the eye.
    """
    own = {
        "value": None,
        "html_template": _IN_USE % (words, dropped),
        "js_on_load": _DROPS,
        "elem_classes": "plan-in-use",
    }
    return gr.HTML(**{**own, "apply_default_css": False, **look})


def bringing(plan: Plan) -> dict[str, Any]:
    """A plan as the value of `in_use`; a request's `plan` reads it too."""
    return {"line": line(plan), "plan": plan.model_dump(mode="json")}


def retaking(seed: int, turns: list[list[float]]) -> dict[str, Any]:
    """Retakes as the value of `in_use`: of which seed, and how far they turn its noise."""
    line = ", then ".join(f"{variance:g} towards seed {int(other)}" for other, variance in turns)
    return {"line": f"seed {seed}, {line}", "retakes": turns}


def told(mode: str, draft: Draft) -> str:
    """What the planner drafted, in one line, with what its reader should know."""
    song = mode != "describe"
    facts = [*([f"{draft.duration_s:g} s"] if song and draft.duration_s else []), *known(draft)]
    next_step = ["Press Generate to hear it."] if song else []
    return " ".join([f"{VERBS[mode]}: {' · '.join(facts)}.", *next_step, *draft.warnings])
