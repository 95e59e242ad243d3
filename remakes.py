"""The requests that begin with a recording: Cover, Extend and Edit. `song.py` has what all requests share.

Positions are samples at 48 kHz; a frame is a latent frame of 1,920 samples.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from errors import AudioError, KnobError
from fields import AUDIO_RANGE_S, Audio, Real, Regions, Text, Whole, knob
from settings import SKETCH
from song import INSTRUMENTAL, LYRICS_LIMIT, PROMPT_LIMIT, Generate, SongRequest
from sound import HOP, LATENT_RATE, SAMPLE_RATE

REPAINT_CONTEXT_S = 60  # what is heard in a repaint, the regions included ...
REPAINT_AROUND_S = 30  # ... and at least this much of it beside them, both sides together
REGION_MIN_S = 0.1
RAMP_FRAMES, RAMP_S = 25, 0.05  # the widest blends of a repaint: in latents outside the region, in samples inside it
SKETCH_OFF = dict.fromkeys(SKETCH, "the song takes the place of a sketch")
FLOW_OFF = {
    **dict.fromkeys(("infer_method", "use_adg"), "a flow morph has a path of its own"),
    "use_cot_caption": "a flow morph takes its two descriptions as they are",
}
STRENGTH_OFF = "for balanced alone"  # said where the repaint mode is another

Span = tuple[int, int]  # from the first to before the second


class Remake(SongRequest):
    """A song made of another."""

    source_audio: Audio | None = knob(None, "Source audio")

    @model_validator(mode="after")
    def _given(self) -> Self:
        if self.source_audio is None:
            label = type(self).model_fields["source_audio"].title
            raise AudioError(f"{label} is missing: add a recording first.")
        return self

    @property
    def seconds(self) -> float:
        """The length of the recording."""
        return self.source_audio.seconds

    @property
    def open(self) -> frozenset[str]:
        """What is left to the planner, which without words knows nothing."""
        return super().open if self.prompt or self.worded else frozenset()

    @property
    def rewritten(self) -> bool:
        """Whether the planner may rewrite the style prompt: of a recording it knows nothing, so it invents none."""
        return super().rewritten and bool(self.prompt)

    @property
    def worded(self) -> bool:
        """Whether the user gave lyrics."""
        return self.sung not in ("", INSTRUMENTAL)

    @property
    def idle(self) -> dict[str, str]:
        """Controls that cannot act as the others are set, each with the reason."""
        return super().idle | SKETCH_OFF | ({} if self.prompt else {"use_cot_caption": "there is no style prompt"})


class Cover(Remake):
    """A new version of a song: its structure from the source, its sound from the words and a timbre reference."""

    mode: ClassVar[str] = "cover"

    source_audio: Audio | None = knob(None, "Song to cover")
    reference_audio: Audio | None = knob(None, "Timbre reference", empty="none")
    prompt: Text = knob("", "Style prompt", max_length=PROMPT_LIMIT)
    lyrics: Text = knob("", "Lyrics", max_length=LYRICS_LIMIT)
    cover_strength: Real = knob(0.93, "Cover strength", ge=0, le=1, step=0.01)

    @property
    def task(self) -> str:
        """What the model is told while it follows the source."""
        return "cover"

    @property
    def sung(self) -> str:
        """The lyrics as the model reads them."""
        return self.lyrics

    @property
    def follows(self) -> int:
        """How many steps follow the source, before the words alone lead."""
        return int(self.advanced.inference_steps * self.cover_strength)


class Extend(Remake):
    """More of a song, after its end or before its beginning."""

    mode: ClassVar[str] = "extend"

    source_audio: Audio | None = knob(None, "Song to extend")
    prompt: Text = knob("", "Style prompt", max_length=PROMPT_LIMIT)
    lyrics: Text = knob("", "Lyrics", max_length=LYRICS_LIMIT, empty="instrumental")
    extra_duration_s: Real = knob(30, "Extra duration (s)", ge=5, le=240, step=1)
    side: Literal["after", "before"] = knob("after", "Side")
    context_s: Real = knob(60, "Context (s)", ge=5, le=240, step=1)
    crossfade_s: Real = knob(2.0, "Crossfade (s)", ge=0, le=5, step=0.1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        longest, have = AUDIO_RANGE_S[1], self.source_audio.seconds
        if have + self.extra_duration_s > longest:
            raise KnobError(
                f"Extra duration ({self.extra_duration_s:g} s) is too long: the song has {have:.2f} s, and with it "
                f"{longest} s is the limit."
            )
        return self

    @property
    def task(self) -> str:
        """What the model is told to do."""
        return "repaint"

    @property
    def sung(self) -> str:
        """The lyrics as the model reads them: a part without words is instrumental."""
        return self.lyrics or INSTRUMENTAL

    @property
    def seconds(self) -> float:
        """The length of the part that is heard and of the new one."""
        return self.source_audio.seconds + self.extra_duration_s

    @property
    def added(self) -> int:
        """The new part in samples."""
        return round(self.extra_duration_s * SAMPLE_RATE)

    @property
    def size(self) -> int:
        """What is heard and the new part, in samples."""
        return self.source_audio.samples.shape[1] + self.added

    @property
    def painted(self) -> list[Span]:
        """The new frames."""
        known, new = self.source_audio.samples.shape[1] // HOP, -(-self.added // HOP)
        return [(known, known + new)] if self.side == "after" else [(0, new)]

    @property
    def lead(self) -> int:
        """What the last new frame has too much, when the new part comes first."""
        return self.painted[0][1] * HOP - self.added if self.side == "before" else 0

    def heard(self) -> tuple[Self, int]:
        """With the context alone: whole frames next to the new part."""
        have = self.source_audio.samples.shape[1]
        size = min(round(self.context_s * LATENT_RATE), have // HOP) * HOP
        start = have - size if self.side == "after" else 0
        return self.model_copy(update={"source_audio": self.source_audio.cut(start, start + size)}), start


class Edit(Remake):
    """A song changed in places (repaint), or as a whole from one description to another (flow morph)."""

    mode: ClassVar[str] = "edit"

    source_audio: Audio | None = knob(None, "Song to edit")
    sub_mode: Literal["repaint", "flow_edit"] = knob("repaint", "What to do")
    prompt: Text = knob("", "Style prompt", max_length=PROMPT_LIMIT)
    source_caption: Text = knob("", "Source caption", max_length=PROMPT_LIMIT)
    source_lyrics: Text = knob("", "Source lyrics", max_length=LYRICS_LIMIT)
    target_lyrics: Text = knob("", "Target lyrics", max_length=LYRICS_LIMIT)
    regions: Regions = knob((), "Regions")
    repaint_mode: Literal["conservative", "balanced", "aggressive"] = knob("balanced", "Repaint mode")
    repaint_strength: Real = knob(0.5, "Repaint strength", ge=0, le=1, step=0.05)
    n_min: Real = knob(0.0, "n_min", ge=0, le=1, step=0.05)
    n_max: Real = knob(1.0, "n_max", ge=0, le=1, step=0.05)
    n_avg: Whole = knob(1, "n_avg", ge=1, le=5, step=1)
    keep_words: bool = knob(True, "Keep the words around it", last=True)

    @model_validator(mode="after")
    def _places(self) -> Self:
        if self.morphs:
            if self.n_min > self.n_max:
                raise KnobError(f"n_min ({self.n_min:g}) must not be above n_max ({self.n_max:g}).")
            return self
        if not self.regions:
            raise KnobError("Regions are missing: mark the part of the song to change.")
        # Two decimals are what the page shows of a length; an end typed from it must not be refused.
        last = 0.0
        for start, end in sorted(self.regions):
            name = f"Region {start:g} to {end:g} s"
            if start < 0 or end > self.source_audio.seconds + 0.01:
                raise KnobError(f"{name} must lie within the song, 0 to {self.source_audio.seconds:.2f} s.")
            if end - start < REGION_MIN_S - 1e-6:  # 0.3 - 0.2 is a little less than 0.1
                raise KnobError(f"{name} must end at least {REGION_MIN_S} s after its start.")
            if start < last:
                raise KnobError(f"{name} overlaps the one before it, which ends at {last:g} s.")
            last = end
        return self

    @property
    def morphs(self) -> bool:
        """Whether this is a flow morph."""
        return self.sub_mode == "flow_edit"

    @property
    def task(self) -> str:
        """What the model is told to do."""
        return "text2music" if self.morphs else "repaint"

    @property
    def sung(self) -> str:
        """The lyrics as the model reads them."""
        if self.morphs or not (self.keep_words and self.source_lyrics):
            return self.target_lyrics
        return replaced(self.source_lyrics, self.target_lyrics, self.regions, self.source_audio.seconds)

    @property
    def strength(self) -> float:
        """How far a repaint may leave the source, 0 to 1: what its three modes are made of."""
        return {"conservative": 0.0, "aggressive": 1.0}.get(self.repaint_mode, self.repaint_strength)

    @property
    def spans(self) -> list[Span]:
        """The regions in samples, in order of time; such as touch are one."""
        have, spans = self.source_audio.samples.shape[1], []
        for start, end in sorted(self.regions):
            a, b = round(start * SAMPLE_RATE), min(round(end * SAMPLE_RATE), have)
            if spans and spans[-1][1] >= a:
                a = spans.pop()[0]
            spans.append((a, b))
        return spans

    @property
    def painted(self) -> list[Span]:
        """The frames that are made anew: all that a region touches."""
        return [(start // HOP, -(-stop // HOP)) for start, stop in self.spans]

    @property
    def morphing(self) -> tuple[int, int]:
        """The steps from the first to before the second move the song; n_min and n_max are shares of all steps."""
        steps = self.advanced.inference_steps
        return int(steps * self.n_min), int(steps * self.n_max)

    @property
    def rewritten(self) -> bool:
        """Whether the planner may rewrite the style prompt: not what a flow morph is led by, two descriptions' difference."""
        return super().rewritten and not self.morphs

    @property
    def passes(self) -> float:
        """A morphing step asks for source and target, for each of n_avg draws; the steps before ask nothing."""
        if not self.morphs:
            return 1.0
        steps, (first, last) = self.advanced.inference_steps, self.morphing
        return (2 * self.n_avg * (last - first) + steps - last) / steps

    @property
    def idle(self) -> dict[str, str]:
        """What the other sub-mode, or the other repaint modes, are for."""
        if self.morphs:
            names = ("regions", "repaint_mode", "repaint_strength", "keep_words")
            return super().idle | dict.fromkeys(names, "for Repaint alone") | FLOW_OFF
        idle = super().idle | dict.fromkeys(("source_caption", "n_min", "n_max", "n_avg"), "for Flow morph alone")
        if self.repaint_mode != "balanced":
            idle["repaint_strength"] = STRENGTH_OFF
        if not self.keep_words:
            idle["source_lyrics"] = "the words around it are not kept"
        elif not self.source_lyrics:
            idle["keep_words"] = "there are no source lyrics"
        return idle

    def heard(self) -> tuple[Self, int]:
        """A repaint with 60 s in the middle of which the regions lie; what one side lacks is taken from the other."""
        if self.morphs:
            return self, 0
        have, first, last = self.source_audio.samples.shape[1], self.spans[0][0], self.spans[-1][1]
        size = max(REPAINT_CONTEXT_S * SAMPLE_RATE, last - first + REPAINT_AROUND_S * SAMPLE_RATE)
        start = max(0, min((first + last - size) // 2, have - size)) // HOP * HOP
        stop = min(have, -(-max(last, start + size) // HOP) * HOP)
        offset = start / SAMPLE_RATE
        near = {
            "source_audio": self.source_audio.cut(start, stop),
            "regions": tuple((a - offset, b - offset) for a, b in self.regions),
            "target_lyrics": self.sung,
            "keep_words": False,
        }
        return self.model_copy(update=near), start


def replaced(lyrics: str, new: str, regions: Regions, seconds: float) -> str:
    """The lyrics of a song with `new` in place of the lines that fall into the regions.

    Which lines those are is a guess: lines are taken to be sung evenly over the song's `seconds`; tags in brackets take
    no time. Without new words the old ones stay, to be sung again.
    """
    lines = lyrics.split("\n")
    sung = [i for i, line in enumerate(lines) if line.strip() and not line.strip().startswith("[")]
    middles = {i: (place + 0.5) / len(sung) * seconds for place, i in enumerate(sung)}
    hit = [i for i in sung if any(a <= middles[i] <= b for a, b in regions)]
    if not new:
        return lyrics
    if not hit:  # between two lines: before the first that is sung after the region
        after = [i for i in sung if middles[i] > min(regions)[0]]
        lines.insert(after[0] if after else len(lines), new)
        return "\n".join(lines)
    return "\n".join(new if i == hit[0] else line for i, line in enumerate(lines) if i == hit[0] or i not in hit)


MODES = (Generate, Cover, Extend, Edit)
