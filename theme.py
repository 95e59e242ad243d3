"""Brutalist Mono: a near-black page, white as the only accent, IBM Plex at two weights, square corners, no shadow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parent / "assets"
CSS = ASSETS / "studio.css"
JS = (ASSETS / "studio.js").read_text()  # run once, when the page has come up
HEAD = "".join(
    f"<script>{(ASSETS / name).read_text()}</script>" for name in ("visit.js", "remedies.js", "estimates.js")
)  # before that
BLACK, NIGHT, SHADE = "#000000", "#0a0a0a", "#1f1f1f"
WHITE, PALE, GREY, EDGE = "#ffffff", "#f2f2f2", "#b3b3b3", "#595959"

_SVG = "url(\"data:image/svg+xml,%3csvg viewBox='0 0 16 16' xmlns='http://www.w3.org/2000/svg'%3e{}%3c/svg%3e\")"
CHECK = _SVG.format("%3cpath d='M3 8.5l3.5 3.5L13 4.5' fill='none' stroke='black' stroke-width='2.5'/%3e")
DOT = _SVG.format("%3crect x='4' y='4' width='8' height='8' fill='black'/%3e")

COLOURS = {
    "body_background_fill": NIGHT,
    "body_text_color": PALE,
    "body_text_color_subdued": GREY,
    "background_fill_primary": NIGHT,
    "background_fill_secondary": SHADE,
    "border_color_primary": EDGE,
    "border_color_accent": WHITE,
    "color_accent_soft": SHADE,
    "block_background_fill": NIGHT,
    "block_info_text_color": GREY,
    "block_label_background_fill": NIGHT,
    "block_label_text_color": PALE,
    "block_title_text_color": PALE,
    "input_background_fill": BLACK,
    "input_border_color": EDGE,
    "input_border_color_focus": WHITE,
    "input_placeholder_color": "#8c8c8c",
    "button_primary_background_fill": WHITE,
    "button_primary_background_fill_hover": GREY,
    "button_primary_border_color": WHITE,
    "button_primary_text_color": BLACK,
    "button_secondary_background_fill": NIGHT,
    "button_secondary_background_fill_hover": SHADE,
    "button_secondary_border_color": GREY,
    "button_secondary_text_color": PALE,
    "checkbox_background_color": BLACK,
    "checkbox_background_color_selected": WHITE,
    "checkbox_border_color": GREY,
    "checkbox_border_color_selected": WHITE,
    "checkbox_label_background_fill": NIGHT,
    "checkbox_label_background_fill_hover": SHADE,
    "checkbox_label_background_fill_selected": NIGHT,
    "checkbox_label_border_color": EDGE,
    "checkbox_label_border_color_selected": WHITE,
    "checkbox_label_text_color": PALE,
    "checkbox_label_text_color_selected": PALE,
    "code_background_fill": NIGHT,
    "link_text_color": PALE,
    "loader_color": WHITE,
    "slider_color": WHITE,
    "table_text_color": PALE,
}


WAVE = {"waveform_color": GREY, "waveform_progress_color": WHITE, "trim_region_color": EDGE}


def theme() -> Any:
    """The Gradio theme. Fonts come with Gradio itself; only weights 400 and 700 of Plex are whole in its package."""
    import gradio as gr

    sans = gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700))
    mono = gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700))
    base = gr.themes.Base(
        primary_hue=gr.themes.colors.neutral,
        neutral_hue=gr.themes.colors.neutral,
        radius_size=gr.themes.sizes.radius_none,
        font=[sans, "system-ui", "sans-serif"],
        font_mono=[mono, "ui-monospace", "monospace"],
    )
    # The studio is dark whatever the system prefers, so both of Gradio's colour modes get the same values.
    return base.set(
        **COLOURS,
        **{f"{name}_dark": value for name, value in COLOURS.items()},
        checkbox_check=CHECK,
        radio_circle=DOT,
        block_border_width="0px",
        form_gap_width="20px",
        block_padding="0px",  # so that boxes and buttons stand on one line
        block_shadow="none",
        block_title_text_weight="700",
        button_border_width="1px",
        checkbox_border_width="1px",
        input_border_width="1px",
        input_shadow="none",
        input_shadow_focus="none",
    )
