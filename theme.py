"""Brutalist Mono: black on white and white on black, IBM Plex at two weights, square corners, no shadow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CSS = Path(__file__).parent / "assets" / "studio.css"
BLACK, INK, GREY, LINE, PALE, WHITE = "#000000", "#111111", "#595959", "#1a1a1a", "#f2f2f2", "#ffffff"
NIGHT, DIM, EDGE, SHADE = "#0a0a0a", "#b3b3b3", "#e6e6e6", "#1f1f1f"


def theme() -> Any:
    """The Gradio theme. Fonts come with Gradio itself; only weights 400 and 700 of Plex are whole in its package."""
    import gradio as gr

    sans = gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700))
    mono = gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700))
    return gr.themes.Base(
        primary_hue=gr.themes.colors.neutral,
        neutral_hue=gr.themes.colors.neutral,
        radius_size=gr.themes.sizes.radius_none,
        font=[sans, "system-ui", "sans-serif"],
        font_mono=[mono, "ui-monospace", "monospace"],
    ).set(
        body_background_fill=WHITE,
        body_background_fill_dark=NIGHT,
        body_text_color=INK,
        body_text_color_dark=PALE,
        body_text_color_subdued=GREY,
        body_text_color_subdued_dark=DIM,
        block_info_text_color=GREY,
        block_info_text_color_dark=DIM,
        block_label_text_color=INK,
        block_label_text_color_dark=PALE,
        block_title_text_color=INK,
        block_title_text_color_dark=PALE,
        block_title_text_weight="700",
        block_background_fill=WHITE,
        block_background_fill_dark=NIGHT,
        block_border_width="0px",
        block_shadow="none",
        border_color_primary=LINE,
        border_color_primary_dark=EDGE,
        input_background_fill=WHITE,
        input_background_fill_dark=NIGHT,
        input_border_color=LINE,
        input_border_color_dark=EDGE,
        input_border_width="1px",
        background_fill_secondary=PALE,
        background_fill_secondary_dark=SHADE,
        button_primary_background_fill=BLACK,
        button_primary_background_fill_dark=WHITE,
        button_primary_background_fill_hover=GREY,
        button_primary_background_fill_hover_dark=DIM,
        button_primary_text_color=WHITE,
        button_primary_text_color_dark=BLACK,
        button_secondary_background_fill=WHITE,
        button_secondary_background_fill_dark=NIGHT,
        button_secondary_background_fill_hover=PALE,
        button_secondary_background_fill_hover_dark=SHADE,
        button_secondary_border_color=LINE,
        button_secondary_border_color_dark=EDGE,
        button_border_width="1px",
        checkbox_background_color_selected=BLACK,
        checkbox_background_color_selected_dark=WHITE,
        checkbox_border_color=LINE,
        checkbox_border_color_dark=EDGE,
        slider_color=BLACK,
        slider_color_dark=WHITE,
        loader_color=BLACK,
        loader_color_dark=WHITE,
    )
