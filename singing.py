"""How long words take to sing: syllables by language, seconds by section, and whether a song has room for them."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from sections import Part, parts

# Sung pop has about two syllables a second over a whole section, breaths included; five are a fast rap.
EASY, FAST = 2.0, 5.0
WORDLESS_S = 8  # a tag without words: four bars of 4/4 at 120
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_DIGIT = re.compile(r"\d")
_GROUPS = {  # what makes one syllable in a word without accents
    "en": re.compile(r"[aeiouy]+"),
    "es": re.compile(r"[iuy]?[aeo][iuy]?|[iuy]+"),
    "fr": re.compile(r"[aeiouyœæ]+"),
    "de": re.compile(r"aa|ee|oo|ie|ei|ai|au|eu|äu|ey|ay|[aeiouyäöü]"),
}
_SILENT_EN = re.compile(r"(?:[^aeiouyl]e|[aeiouy]le|[^aeiouydt]ed|[^aeiouysxzcgh]es|(?<=[^s])[aeiouy][^aeiouy]ely)$")
_SPLIT_EN = re.compile(r"ia(?!l$)|io(?!n|us)|[^q]ua|(?<!p)eo(?!u)|i[eu]t|uou|[aeiouy]ing$")
_INNER_E = re.compile(r"(?:some|home|love|time|life|where|there|side|care|hope|name)(?!ly$)(?=[bcdfghjklmnpqrtvwy])")
_KNOWN_EN = {"area": 3, "beloved": 3, "business": 2, "create": 2, "created": 3, "evening": 2, "every": 2, "idea": 3}
_KNOWN_EN |= {"heartbeat": 2, "poem": 2, "poetry": 3, "real": 1, "reality": 4, "rhythm": 2, "science": 2, "theatre": 3}
_SMALL_KANA = frozenset("ァィゥェォャュョヮぁぃぅぇぉゃゅょゎ")


@dataclass(frozen=True)
class Sung:
    """What a section holds, and the seconds it needs at an easy pace."""

    tag: str
    lines: int
    syllables: int
    seconds: float


def syllables(line: str, language: str = "en") -> int:
    """The syllables of a line, morae of Japanese kana.

    A count by rules, not by a dictionary: within a tenth for running text of the languages it knows; others are counted
    by groups of vowels.
    """
    count = 2 * len(_DIGIT.findall(line))
    for word in _WORD.findall(unicodedata.normalize("NFC", line.lower())):
        east = [c for c in word if "\u2e80" <= c <= "\uffef"]
        count += sum(_eastern(c, language) for c in east)
        if west := "".join(c for c in word if c not in east):
            count += _western(west, language)
    return count


def _eastern(char: str, language: str) -> int:
    """A character of Chinese or Hangul is a syllable, one of kana a mora; a small one goes with the one before.

    In Japanese a character of Chinese has two morae on average.
    """
    return 0 if char in _SMALL_KANA else 2 if language == "ja" and "\u4e00" <= char <= "\u9fff" else 1


def _western(word: str, language: str) -> int:
    if language == "en":
        return _english(word)
    if language == "fr":
        word = re.sub(r"(?<=[^aeiouyéèê])(?:e|es|ent)$", "", word) or word
        return max(len(_GROUPS["fr"].findall(_plain(word))), 1)
    if language == "es":
        # an accent on i or u keeps it apart from the vowel beside it
        return max(
            len(_GROUPS["es"].findall(_plain(re.sub("[íú]", "-i-", re.sub(r"(?<=[gq])u(?=[eiéí])", "", word))))), 1
        )
    if language == "de":
        return max(len(_GROUPS["de"].findall(word)), 1)
    return max(len(_GROUPS["en"].findall(_plain(word))), 1)


def _plain(word: str) -> str:
    """Without accents."""
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


def _english(word: str) -> int:
    word = re.sub(r"['’](?:s|d|m|t|ll|re|ve)?$|['’]", "", _plain(word))
    if word in _KNOWN_EN:
        return _KNOWN_EN[word]
    count = len(_GROUPS["en"].findall(word)) + len(_SPLIT_EN.findall(word)) - len(_INNER_E.findall(word))
    count -= bool(_SILENT_EN.search(word)) and count > 1
    return max(count, 1)


def sung(text: str, language: str = "en") -> list[Sung]:
    """What each section of some lyrics holds and needs."""
    return [_sung(part, language) for part in parts(text) if part.tag or part.lines]


def _sung(part: Part, language: str) -> Sung:
    count = sum(syllables(line, language) for line in part.lines)
    return Sung(part.tag, len(part.lines), count, count / EASY if count else WORDLESS_S)


def verdict(found: Sequence[Sung], duration_s: float) -> tuple[bool, str]:
    """Whether words have room in a song of this length, and a sentence that says so."""
    easy = sum(section.seconds for section in found)
    fast = sum(section.syllables for section in found) / FAST
    if not any(section.syllables for section in found):
        return True, "There are no words to sing."
    if fast > duration_s:
        return (
            False,
            f"These words cannot fit into {duration_s:g} s: even fast they take {math.ceil(fast)} s, at an easy pace {math.ceil(easy)} s.",
        )
    if easy > duration_s:
        return (
            True,
            f"These words fit into {duration_s:g} s, but hurried: an easy pace takes about {math.ceil(easy)} s.",
        )
    return True, f"These words fit into {duration_s:g} s: an easy pace takes about {math.ceil(easy)} s."
