"""The words beside each control. Ranges are added from the knob table, never typed here."""

from __future__ import annotations

from typing import Protocol


class Control(Protocol):
    """What a tooltip needs to know of a control."""

    name: str

    @property
    def range(self) -> str: ...


TIPS: dict[str, str] = {
    # Diffusion
    "inference_steps": "How often the model refines the song. More is richer and slower; 50 is the model's quality setting.",
    "guidance_scale": "How strictly the song follows the words. Lower is freer, 1 turns guidance off.",
    "infer_method": "ode repeats the same path for a seed. sde adds fresh, seeded noise at each step for more texture.",
    "seed": "The same seed and settings give the same song. -1 draws a new one each time.",
    # CFG schedule
    "cfg_interval_start": "Where guidance begins. 0 is pure noise, 1 the finished song.",
    "cfg_interval_end": "Where guidance stops. Below 1 the last part of the way is left to the model.",
    "shift": "Above 1 spends more steps on the song's outline, below 1 more on its detail. Try 0.7 to 1.3.",
    "use_adg": "Angle domain guidance: turns towards the words instead of pushing. Experimental; gentler at high guidance.",
    # 5Hz LM
    "thinking": "The planner composes a sketch before the music is made.",
    "use_cot_caption": "The planner may enrich the style prompt.",
    "use_cot_metas": "The planner fills in tempo, key and time signature that you leave empty.",
    "use_cot_language": "The planner finds the vocal language if you leave it unknown.",
    "lm_temperature": "How daring the planner is. 0 always takes the likeliest choice.",
    "lm_top_p": "The planner chooses among the likeliest options that add up to this share.",
    "lm_top_k": "The planner chooses among this many likeliest options. 0 turns the limit off.",
    "lm_cfg_scale": "How strictly the planner follows the words.",
    "lm_negative_prompt": "What the planner should stay away from.",
    # Music metadata
    "bpm": "Tempo in beats per minute.",
    "keyscale": "Key and mode, such as C major, F# minor or Am.",
    "timesignature": "Beats in a bar.",
    "vocal_language": "The language that is sung.",
    # Generate
    "prompt": "Style, instruments, mood. Short prompts work best.",
    "lyrics": "Words to sing. Mark sections with tags such as [verse] and [chorus].",
    "duration_s": "Length of the song in seconds.",
    "instrumental": "Instrumental leaves the lyrics out.",
}


def tip(control: Control) -> str:
    """The tooltip of a control: its words, then its range from the knob table."""
    return f"{TIPS[control.name]} ({control.range})" if control.range else TIPS[control.name]
