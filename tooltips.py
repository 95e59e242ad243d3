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
    "lm_cfg_scale": "How strictly the planner's sketch follows the words.",
    "lm_negative_prompt": "What the planner's sketch should stay away from.",
    # Music metadata
    "bpm": "Tempo in beats per minute.",
    "keyscale": "Key and mode, such as C major, F# minor or Am.",
    "timesignature": "Beats in a bar.",
    "vocal_language": "The language that is sung.",
    # Every mode
    "prompt": "Style, instruments, mood. Short prompts work best.",
    "lyrics": "Words to sing. Mark sections with tags such as [verse] and [chorus].",
    "retakes": "Turns the noise that the song starts from towards that of other seeds: pairs of seed and variance. Variance 0 is the same take, 1 a new one; seed -1 draws one.",
    "plan": "A saved plan instead of a new one: its codes give the very song again, its facts fill what you leave empty.",
    "takes": "How many songs of the same words, each by the seed after the one before it. They come one by one.",
    "loras": "Small files that teach the model a sound; several add up. Each is a file or a preset with a strength; an adapter_config.json goes with its file, as config.",
    # Lyrics
    "brief": "What the song is about: a story, a picture, a line you have.",
    "structure": "The sections in order, with commas between. verse: 8 gives one its own number of lines; intro, solo, break and the like have none.",
    "language": "The language the words are written in.",
    "tone": "How the words shall feel.",
    "verse_lines": "Lines in each verse.",
    "chorus_lines": "Lines in each chorus; it comes again word for word.",
    "bridge_lines": "Lines in the bridge.",
    "rhyme": "strict asks for couplets, loose for near rhymes, none for no rhyme.",
    "temperature": "How daring the words are. 0 always takes the likeliest, whatever the seed.",
    "top_p": "Words are drawn among the likeliest that add up to this share.",
    "top_k": "Words are drawn among this many likeliest. 0 turns the limit off.",
    "max_new_tokens": "The length of all new words together, in tokens, of which a word has one or two; lines share it.",
    "draft": "The lyrics as they stand.",
    "change": "What shall change.",
    # Words
    "query": "One line about the song you have in mind.",
    # Generate
    "duration_s": "Length of the song in seconds.",
    "instrumental": "Instrumental leaves the lyrics out.",
    # Cover
    "source_audio": "The song to begin with.",
    "reference_audio": "A recording whose sound is borrowed, not its notes: 10 s each of its beginning, middle and end are heard.",
    "cover_strength": "The share of steps that follow the song; the rest follow the words alone. 0.9 to 1 stays close, 0.2 to 0.5 is loose.",
    # Extend
    "extra_duration_s": "Length of the new part in seconds.",
    "side": "Where the new part goes: after the end or before the beginning.",
    "context_s": "How much of the song is heard while its continuation is made. More costs more time.",
    "crossfade_s": "How long the song takes to turn into the new sound at the seam; all other samples of it stay as they are.",
    # Edit
    "sub_mode": "Repaint makes marked regions anew. Flow morph moves the whole song from one description to another.",
    "source_caption": "What the song sounds like now. The style prompt says what it shall become.",
    "source_lyrics": "The words of the whole song as it is.",
    "target_lyrics": "The new words: of the regions in Repaint, of the whole song in Flow morph.",
    "regions": "The parts to make anew: start and end in seconds. Everything else stays bit for bit.",
    "repaint_mode": "conservative holds on to the song around a region throughout, aggressive lets go of it, balanced goes by strength.",
    "repaint_strength": "For balanced: 0 is like conservative, 1 like aggressive.",
    "n_min": "Flow morph: the share of steps that are skipped at first. Higher keeps more of the song.",
    "n_max": "Flow morph: the share of steps after which the new description leads alone. 1 = never.",
    "n_avg": "Flow morph: how many draws of noise are averaged in each step. More is steadier and slower.",
    # After the song
    "target_lufs": "How loud the song is as a whole. -14 is what streaming plays at, -9 is a loud master, -16 a podcast, -23 broadcast. True peaks stay below -1 dBTP.",
    "format": "MP3 goes everywhere; FLAC and WAV lose nothing; 32-bit float WAV is for further work.",
    "title": "What players show, and the name of the file.",
    "fade_in_s": "How long the song takes to come out of silence.",
    "fade_out_s": "How long it takes to go into silence at its end.",
    "sample_rate": "48 kHz is what the song was made at; 44.1 kHz is that of CDs.",
    "keep_words": "Sings the source lyrics around a repaint, with the target lyrics in place of the lines that fall into it.",
}

# The page's way to make a retake
VARIANCE = "How far a retake may go from the take above: 0 is the same take, 1 a new one."

# The page's words for the stack of LoRAs
STACK = "LoRAs are small files that teach the model a sound; several add up. Strength 0 is none, 1 as trained, more is overdrive."


def tip(control: Control) -> str:
    """The tooltip of a control: its words, then its range from the knob table."""
    return f"{TIPS[control.name]} ({control.range})" if control.range else TIPS[control.name]


def idle(reason: str, info: str) -> str:
    """The tooltip of a control that cannot act."""
    return f"Off: {reason}. {info}"
