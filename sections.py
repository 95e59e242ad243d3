"""The sections of a song: what a structure may hold, lyrics taken apart, and what no line of them may be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from errors import KnobError

SECTIONS_MAX, LINES_MAX = 24, 100  # of one song; a hundred lines are about as long as lyrics may be
LINE_TOKENS = (6, 28)  # of one line: at least, whatever the budget; at most, a breath's worth
OWN_LINES_MAX = 16  # that a structure may give a section itself
COUNTED = {  # sections with words, and which control says how many lines they have
    "verse": "verse_lines",
    "chorus": "chorus_lines",
    "hook": "chorus_lines",
    "refrain": "chorus_lines",
    "bridge": "bridge_lines",
}
FIXED = {"pre-chorus": 2, "post-chorus": 2, "outro": 2} | dict.fromkeys(
    ("intro", "instrumental", "interlude", "solo", "break", "breakdown", "build", "drop"), 0
)
NAMES = (*COUNTED, *FIXED)
_LONGEST_FIRST = sorted(NAMES, key=len, reverse=True)  # "breakdown" begins with "break"
REFRAINS = frozenset(
    name for name, count in COUNTED.items() if count == "chorus_lines"
)  # they come again word for word
TAG = re.compile(r"\s*\[([^\[\]\n]*)\]\s*")
_ASKED = re.compile(r"\[?\s*([a-z][a-z -]*?)\s*(\d{1,2})?\s*\]?\s*(?::\s*(\d{1,9}))?")
_WORDS = re.compile(r"[^\W_]+")
_LABEL = re.compile(  # a heading where a line should be: "Verse 2", "(Chorus x2)", "Bridge - softly"
    rf"\W*(?:{'|'.join(_LONGEST_FIRST)}|pre chorus|title|lyrics|end)\W*(?:x?\d+\W*)?(?:[:(].*|-\s.*)?",
    re.IGNORECASE,
)
_TALK = re.compile(
    r"\W*(?:(?:sure|certainly|of course)(?:[,!]| thing)"
    r"|(?:here(?: is| are|'s|’s) .*(?:lyrics|song|verse|chorus|version|bridge)|i hope (?:this|these|you (?:like|enjoy))"
    r"|feel free to|let me know (?:if|what)|note that|this song|these lyrics|as an ai"
    r"|the (?:first|second|third|last|next) (?:verse|line|chorus))\b)",
    re.IGNORECASE,
)
LEADS = {  # words that lead on to another
    "en": frozenset(
        "a about all an and are as at be but by for from has have he her his i if im in into is its ive like my no not of on"
        " or our she so than that thats the their them then there they this through to under until was we were when where"
        " which who with without you youre your".split()
    ),
    "es": frozenset(
        "a al como con de del el en es la las los mi mis o para por que se si sin su sus tu tus un una y".split()
    ),
    "fr": frozenset(
        "à au aux avec ce ces comme d dans de des du en est et je la le les ma me mes mon ou par pour que qui sa".split()
    )
    | frozenset("sans se ses son sur ta tes ton tu un une".split()),
    "de": frozenset(
        "als am an auf aus bei das dass dein deine dem den der des die durch ein eine einem einen einer für".split()
    )
    | frozenset("ich im in ist mein meine mit nach nicht und unter vom von vor wenn wie zu zum zur über".split()),
}
COPIED = 6  # words in a row that are the brief's, not the song's


@dataclass(frozen=True)
class Section:
    """A section to be written: its tag without brackets ("verse 1"; empty for words before any tag), and how many lines."""

    tag: str
    lines: int

    @property
    def refrain(self) -> bool:
        """Whether it comes again word for word."""
        return kind_of(self.tag) in REFRAINS


@dataclass(frozen=True)
class Said:
    """A piece of lyrics that stands already, to the last character."""

    text: str


@dataclass(frozen=True)
class Line:
    """A line to write. `longest` is its length in characters, 0 for any; `begun` is what stands on it already."""

    longest: int = 0
    begun: str = ""


@dataclass(frozen=True)
class Again:
    """So many lines once more, word for word, from line number `first` of the whole text on."""

    first: int
    lines: int


Piece = Said | Line | Again


@dataclass(frozen=True)
class Part:
    """A section as it stands in lyrics: `raw` is its text to the last character, `lines` the words without empty lines."""

    tag: str
    raw: str
    lines: tuple[str, ...]

    @property
    def edges(self) -> tuple[str, str]:
        """What stands before its first line with words and after its last one: tag and empty lines."""
        raw = self.raw.splitlines(keepends=True)
        worded = [n for n, line in enumerate(raw) if line.strip() and not TAG.fullmatch(line)]
        return "".join(raw[: worded[0]]), "".join(raw[worded[-1] + 1 :])


def kind_of(tag: str) -> str:
    """The name of a section without its number and what else a tag may say: "Verse 1 - soft" → "verse"."""
    words = re.sub(r"^pre[ -]?chorus", "pre-chorus", tag.strip().lower())
    words = re.sub(r"^post[ -]?chorus", "post-chorus", words)
    return next((name for name in _LONGEST_FIRST if re.match(rf"{name}\b", words)), words)


def structure(text: str, counts: dict[str, int]) -> tuple[Section, ...]:
    """The sections of a list such as "intro, verse 1, chorus, outro: 4". `counts` are the controls for line counts.

    Raises KnobError for a section that is unknown, for none, for too many, for too many lines.
    """
    asked = [item.strip() for item in re.split(r"[,;\n]", text.lower()) if item.strip()]
    if not asked:
        raise KnobError("Structure is empty: name at least one section, such as verse.")
    if len(asked) > SECTIONS_MAX:
        raise KnobError(f"Structure may hold {SECTIONS_MAX} sections; yours has {len(asked)}.")
    found = tuple(_section(item, counts) for item in asked)
    lines = sum(section.lines for section in found)
    if not lines:
        raise KnobError("Structure has no section with words: add a verse or a chorus.")
    if lines > LINES_MAX:
        raise KnobError(f"Structure may have {LINES_MAX} lines in all; yours has {lines}.")
    return found


def _section(asked: str, counts: dict[str, int]) -> Section:
    match = _ASKED.fullmatch(asked)
    name = match and kind_of(match[1])
    if not match or name not in NAMES or re.sub(r"[ -]", "", match[1]) != name.replace("-", ""):
        near = difflib.get_close_matches(match[1] if match else asked, NAMES, 1)
        hint = f"Did you mean {near[0]}?" if near else f"It knows {', '.join(NAMES)}."
        raise KnobError(f"Structure knows no section {asked[:40]!r}.", hint)
    own = int(match[3]) if match[3] else counts[COUNTED[name]] if name in COUNTED else FIXED[name]
    if own > OWN_LINES_MAX:
        raise KnobError(f"Structure may give a section 0 to {OWN_LINES_MAX} lines; {name} has {own}.")
    return Section(f"{name} {int(match[2])}" if match[2] else name, own)


def parts(text: str) -> list[Part]:
    """Lyrics section by section; the texts of all parts together are the whole text."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for line in text.splitlines(keepends=True):
        if match := TAG.fullmatch(line):
            found.append((match[1].strip(), [line]))
        else:
            found[-1][1].append(line)
    return [_part(tag, lines) for tag, lines in found if lines]


def _part(tag: str, raw: list[str]) -> Part:
    words = [line.strip() for line in raw if line.strip() and not TAG.fullmatch(line)]
    return Part(tag, "".join(raw), tuple(words))


def pieces(wanted: Sequence[Section], before: Sequence[Section] = ()) -> list[Piece]:
    """What has to be written for these sections, a chorus that comes again word for word; `before` are sections before them."""

    def key(section: Section) -> tuple[str, int]:
        return section.tag.lower(), section.lines

    made: list[Piece] = []
    first: dict[tuple[str, int], int] = {}
    count = 0
    for place, section in enumerate((*before, *wanted)):
        if place >= len(before):
            heading = f"[{section.tag}]\n" if section.tag else ""
            made.append(Said("\n" * bool(place) + heading))
            again = first.get(key(section)) if section.refrain else None
            made += [Line()] * section.lines if again is None else [Again(again, section.lines)]
        first.setdefault(key(section), count)
        count += section.lines
    return made


def broken(text: str, wanted: Sequence[Section]) -> str:
    """What is not as wanted in finished lyrics, for a log; empty when all is well: tags, their order, their line counts."""
    got = [(part.tag, len(part.lines)) for part in parts(text) if part.tag or part.lines]
    if [tag for tag, _ in got] != [section.tag for section in wanted]:
        return f"sections {[tag for tag, _ in got]}"
    off = [tag for (tag, lines), section in zip(got, wanted, strict=True) if lines != section.lines]
    return f"line counts of {off}" if off else ""


def words(text: str) -> list[str]:
    """The words of a text, folded: what two lines have in common, whatever their punctuation."""
    return _WORDS.findall(text.casefold())


@dataclass(frozen=True)
class Rules:
    """What a line may not be. `told` is what no line may repeat, `stale` are lines that may not come again as they were,
    `language` is a key of `LEADS`, or any other.
    """

    told: str = ""
    stale: Sequence[str] = ()
    language: str = ""

    def refusal(self, line: str, earlier: Sequence[str]) -> str:
        """Why a line cannot stand in lyrics after the `earlier` ones; empty when it can.

        It may not be a heading or talk about the lyrics, nor go in circles, nor say only what one earlier line says.
        """
        own = words(line)
        if not any(c.isalpha() for c in line):
            return "no words"
        if _LABEL.fullmatch(line) or line.rstrip().endswith((":", "：")):
            return "a heading"
        if _TALK.match(line):
            return "talk"
        if _circles(own):
            return "circles"
        if own in map(words, self.stale) or any(set(own) <= set(words(other)) for other in earlier):
            return "said before"
        heard = f" {' '.join(words(self.told))} "
        return "copied" if any(f" {' '.join(run)} " in heard for run in _runs(own)) else ""

    def whole(self, line: str) -> str:
        """A line that was cut, without the words at its end that lead on to what is missing."""
        cut = line.split(" ")
        while len(cut) > 2 and "".join(words(cut[-1])) in LEADS.get(self.language, ()):
            cut.pop()
        return " ".join(cut).rstrip(" ,;–—-")


def _circles(own: list[str]) -> bool:
    """Whether a line says the same word or two more than four times in a row."""
    return any(len(own) >= 5 * n and own[i : i + 5 * n] == own[i : i + n] * 5 for n in (1, 2) for i in range(len(own)))


def _runs(own: list[str]) -> Iterator[list[str]]:
    return (own[i : i + COPIED] for i in range(len(own) - COPIED + 1))
