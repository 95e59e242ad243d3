"""What a finished take can be asked for: its stems, another loudness, a file for the next tool."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, model_validator

from errors import KnobError
from fields import Audio, Real, Text, knob
from formats import FORMATS
from loudness import TARGETS
from song import Asked

TITLE_LIMIT = 120  # characters
FADE_MAX_S = 30
DEFAULT_LUFS = "-14"


def _number(value: Any) -> Any:
    """A number as its choice is spelt: -14, -14.0 and "-14 LUFS" are "-14"."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return f"{value:g}"
    return value.removesuffix("LUFS").removesuffix("Hz").strip() if isinstance(value, str) else value


Choices = tuple(f"{target:g}" for target in TARGETS)


class After(Asked):
    """What is made of a take. It needs none of the knobs."""

    knobs: ClassVar[frozenset[str]] = frozenset()


class Separate(After):
    """The stems of a take: vocals, drums, bass and the rest, four WAV files and one zip of them."""

    mode: ClassVar[str] = "stems"

    song: Audio | None = None  # the take's samples: no control, since nobody may send another's


class Normalise(After):
    """A take at another loudness, its true peaks kept below -1 dBTP."""

    mode: ClassVar[str] = "normalise"

    target_lufs: Annotated[Literal[Choices], BeforeValidator(_number)] = knob(DEFAULT_LUFS, "Loudness (LUFS)")


class Export(After):
    """A take as a file for the next tool, with its recipe, title and lyrics inside."""

    mode: ClassVar[str] = "export"

    format: Literal[tuple(FORMATS)] = knob("mp3", "Format")
    title: Text = knob("", "Title", max_length=TITLE_LIMIT, empty="from the style prompt")
    fade_in_s: Real = knob(0.0, "Fade in (s)", ge=0, le=FADE_MAX_S, step=0.1)
    fade_out_s: Real = knob(0.0, "Fade out (s)", ge=0, le=FADE_MAX_S, step=0.1)
    target_lufs: Annotated[Literal[("", *Choices)], BeforeValidator(_number)] = knob(
        "", "Loudness (LUFS)", empty="as made"
    )
    sample_rate: Annotated[Literal["48000", "44100"], BeforeValidator(_number)] = knob("48000", "Sample rate (Hz)")

    @model_validator(mode="after")
    def _title(self) -> Self:
        if "\n" in self.title:
            raise KnobError("Title must be one line.")
        return self

    def fits(self, seconds: float) -> None:
        """Raise KnobError when the fades are longer than a take of so many seconds."""
        if self.fade_in_s + self.fade_out_s > seconds:
            raise KnobError(
                f"Fade in ({self.fade_in_s:g} s) and fade out ({self.fade_out_s:g} s) are longer than the take, "
                f"{seconds:.2f} s."
            )


AFTERS = (Separate, Normalise, Export)
