"""What a song's file says of itself: title, artist, lyrics, and the recipe that makes it again.

`tagged` writes them into the file's own tags and leaves the sound as it is. `read` gets recipe and title out of a file that
nobody vouches for; `recall.py` does that in a process of its own.
"""

from __future__ import annotations

import io
import json
import logging
import struct
from dataclasses import dataclass
from pathlib import Path

from audio_io import DAMAGED, check_file, in_child
from errors import AudioError, ExportError
from formats import Format
from recall import clean
from settings import ROOT

log = logging.getLogger("ace.tags")

RECIPE = "ACE_RECIPE"  # the name of the recipe's own field
RECIPE_MAX = 1_000_000  # characters
TITLE_MAX = 1_000  # characters of a foreign title, of which the rest is dropped
READER = ROOT / "recall.py"
READ_LIMIT_S = 10  # a song of the studio takes 0.2 s
READ_MEMORY = 2**28  # bytes of addresses: a cover of some MB may lie beside the recipe


@dataclass(frozen=True)
class Card:
    """What a file shall say; empty fields are left out. `recipe` is JSON text of at most RECIPE_MAX characters."""

    title: str
    artist: str
    lyrics: str
    recipe: str


@dataclass(frozen=True)
class Found:
    """What a file says. `recipe` is None when it has none; `seconds` is None when nobody counted.

    `format` is "WAV", "FLAC", "OGG" or "MP3". The recipe is whatever text stands in its place: JSON or not.
    """

    recipe: str | None
    title: str
    seconds: float | None
    format: str


def tagged(content: bytes, format: Format, card: Card) -> bytes:
    """The file `content`, as `formats.encoded` made it, with the card in its tags. The sound stays bit for bit.

    The same input gives the same bytes. Raises ExportError when the recipe is too long to be read back.
    """
    if len(card.recipe) > RECIPE_MAX:
        raise ExportError(f"The recipe is too long for the file: {RECIPE_MAX:,} characters are the limit.")
    card = Card(*(clean(text) for text in (card.title, card.artist, card.lyrics, card.recipe)))
    if card == Card("", "", "", ""):
        return content
    if format.container == "MP3":
        return _id3(card) + content
    if format.container == "WAV":
        return _with_chunks(content, card)
    return _with_comments(content, format, card)


def _id3(card: Card) -> bytes:
    """The card as ID3 version 2.3, which every player and the Windows Explorer know; 2.4 says nothing more here.

    M. Nilsson: ID3 tag version 2.3.0, 1999. "XXX" stands for lyrics in a language nobody stated.
    """
    from mutagen.id3 import ID3, TIT2, TPE1, TXXX, USLT

    def code(text: str) -> int:  # ISO 8859-1, which is half as long, or UTF-16; version 2.3 has no other
        return 0 if text.isascii() else 1

    tag = ID3()
    if card.title:
        tag.add(TIT2(code(card.title), [card.title]))
    if card.artist:
        tag.add(TPE1(code(card.artist), [card.artist]))
    if card.lyrics:
        tag.add(USLT(code(card.lyrics), "XXX", "", card.lyrics))
    if card.recipe:
        tag.add(TXXX(code(card.recipe), RECIPE, [card.recipe]))
    file = io.BytesIO()
    tag.save(file, v1=0, v2_version=3, v23_sep=None, padding=lambda _: 0)
    return file.getvalue()


def _with_chunks(wav: bytes, card: Card) -> bytes:
    """A WAV with two more chunks at its end: the ID3 tag, and title, artist and lyrics for players that look for no ID3.

    IBM, Microsoft: Multimedia programming interface and data specifications 1.0, 1991: LIST of type INFO, with INAM, IART
    and ICMT, whose text ends with a NUL. It knows no encoding; players of today take UTF-8. Lyrics have no place of their
    own there: they are the comment, since FFmpeg up to 5.1 drops all ID3 beside an INFO.
    """
    texts = {b"INAM": card.title, b"IART": card.artist, b"ICMT": card.lyrics}
    info = b"".join(_chunk(name, text.encode() + b"\0") for name, text in texts.items() if text)
    more = (_chunk(b"LIST", b"INFO" + info) if info else b"") + _chunk(b"id3 ", _id3(card))
    return b"".join((wav[:4], struct.pack("<I", len(wav) + len(more) - 8), memoryview(wav)[8:], more))


def _chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a RIFF file, padded to an even length that its size does not count."""
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _with_comments(content: bytes, format: Format, card: Card) -> bytes:
    """A FLAC or OGG file with the card as Vorbis comments."""
    from mutagen.flac import FLAC
    from mutagen.oggvorbis import OggVorbis

    file = io.BytesIO(content)
    song = FLAC(file) if format.container == "FLAC" else OggVorbis(file)
    fields = {"TITLE": card.title, "ARTIST": card.artist, "LYRICS": card.lyrics, RECIPE: card.recipe}
    for name, text in fields.items():
        if text:
            song.tags[name] = [text]
    file.seek(0)
    song.save(file, padding=lambda _: 0)
    return file.getvalue()


def read(path: str | Path) -> Found:
    """Recipe, title and length of a file. Raises AudioError with one sentence, which never holds the path."""
    check_file(path)
    limits = {"name": RECIPE, "recipe": RECIPE_MAX, "title": TITLE_MAX, "memory": READ_MEMORY}
    output = in_child(READER, path, limits, READ_LIMIT_S)
    try:
        answer = json.loads(output)
        if "error" in answer:
            raise AudioError(answer["error"], answer["hint"])
        return Found(**answer)
    except (ValueError, KeyError, TypeError) as error:
        log.warning("reader answered %r: %s", output[:200], error)
        raise AudioError(DAMAGED) from None
