"""The reader of recipes: reads the tags of one untrusted file in a process of its own, so that a hang or a bomb ends only that.

    python -I recall.py PATH LIMITS

LIMITS is the JSON that `tags` makes. Standard output gets one line of JSON: `error` (a sentence) and `hint` when the file is
refused; otherwise `recipe` (text or null), `title`, `seconds` (or null) and `format`. What cannot be opened at all ends with
another exit status.

Of the studio only the fence of `decode.py` is imported. No sound is decoded.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, BinaryIO

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parent))  # which -I hides

from decode import Refused, fence, plain_file

DAMAGED = "This file could not be read; it may be damaged."
FOREIGN = "Not a WAV, FLAC, OGG or MP3 file."
BEGINNINGS = {
    b"RIFF": "WAV",
    b"RIFX": "WAV",
    b"RF64": "WAV",
    b"fLaC": "FLAC",
    b"OggS": "OGG",
    b"ID3": "MP3",
    b"\xff": "MP3",
}
TAG_MAX = 2**25  # bytes of an ID3 tag, which is read whole: 32 MB hold a recipe and several covers


def recalled(file: BinaryIO, limits: dict[str, Any]) -> dict[str, Any]:
    """The answer about an open file. Raises Refused, and nothing else, whatever its bytes are."""
    head = file.read(64)
    kind = next((kind for beginning, kind in BEGINNINGS.items() if head.startswith(beginning)), None)
    if kind is None or (kind == "WAV" and head[8:12] != b"WAVE"):
        raise Refused(FOREIGN)
    if head.startswith(b"ID3") and id3_size(head) > TAG_MAX:
        raise Refused(DAMAGED)
    parser = parser_of(kind, head)
    file.seek(0)
    try:
        recipe, title, seconds = (None, "", None) if parser is None else read(parser(file), limits["name"])
    except Exception as error:  # whatever foreign bytes make a parser raise, the end of memory included, means the same
        from mutagen.mp3 import HeaderNotFoundError

        raise Refused(FOREIGN if isinstance(error, HeaderNotFoundError) else DAMAGED) from error
    if recipe is not None and len(recipe) > limits["recipe"]:
        most = f"{limits['recipe']:,}"
        raise Refused(f"The recipe in this file is too long to be one: {most} characters are the limit.")
    return {"recipe": recipe, "title": title[: limits["title"]], "seconds": seconds, "format": kind}


def id3_size(head: bytes) -> int:
    """Bytes of an ID3 tag by its header: four times seven bits (ID3v2, 3.1)."""
    return head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9] if len(head) >= 10 else 0


def parser_of(kind: str, head: bytes) -> Any:
    """The class of mutagen that reads such a file; None for the kinds of WAV that it does not know, nor we write."""
    from mutagen.flac import FLAC
    from mutagen.mp3 import MP3
    from mutagen.oggflac import OggFLAC
    from mutagen.oggopus import OggOpus
    from mutagen.oggvorbis import OggVorbis
    from mutagen.wave import WAVE

    if kind == "WAV":
        return WAVE if head.startswith(b"RIFF") else None
    if kind == "OGG":
        inside = {b"\x01vorbis": OggVorbis, b"OpusHead": OggOpus, b"\x7fFLAC": OggFLAC}
        found = next((parser for beginning, parser in inside.items() if beginning in head), None)
        if found is None:
            raise Refused(FOREIGN)
        return found
    return {"FLAC": FLAC, "MP3": MP3}[kind]


def read(song: Any, name: str) -> tuple[str | None, str, float | None]:
    """Recipe, title and seconds of what mutagen has read. The length is what the header tells, or is inferred from."""
    tags = {} if song.tags is None else song.tags
    if hasattr(tags, "getall"):  # ID3
        recipes, titles = (
            [text for frame in tags.getall(key) for text in frame.text] for key in (f"TXXX:{name}", "TIT2")
        )
    else:
        recipes, titles = tags.get(name, []), tags.get("TITLE", [])
    seconds = float(song.info.length)
    recipe, title = (clean(texts[0]) if texts else None for texts in (recipes, titles))
    return recipe, title or "", seconds if math.isfinite(seconds) and seconds > 0 else None


def clean(text: str) -> str:
    """Text that every tag and program can hold: in ID3 a NUL ends a text, and half of a surrogate pair has no UTF-8."""
    return text.replace("\0", "").encode(errors="replace").decode()


def main(path: str, limits: dict[str, Any]) -> None:
    """Answer on standard output."""
    fence(limits["memory"])
    sys.path += limits["packages"]  # where the parent has its libraries; -I knows not all of these places
    try:
        with open(plain_file(path), "rb") as file:
            told = recalled(file, limits)
    except OSError as error:
        sys.exit(str(error))
    except Refused as refusal:
        sentence, *hint = refusal.args
        told = {"error": sentence, "hint": "".join(hint)}
        if refusal.__cause__:
            sys.stderr.write(f"{type(refusal.__cause__).__name__}: {refusal.__cause__}\n")
    sys.stdout.write(json.dumps(told) + "\n")  # of ASCII alone


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
