"""What a stranger's file says of itself cannot hurt: tags that lie, bombs, and a reader that hangs or breaks."""

from __future__ import annotations

import io
import logging
import struct
import time
import zlib
from pathlib import Path

import pytest
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, ID3, TIT2, TXXX
from mutagen.ogg import OggPage
from mutagen.oggvorbis import OggVorbis
from test_tags import CARD, KINDS, PLAIN, SONGS, inside, sentence

import tags
from audio_io import DAMAGED, EXPIRED
from recall import FOREIGN
from tags import RECIPE, RECIPE_MAX, read


@pytest.fixture
def reader(tmp_path: Path, monkeypatch):
    def replace(script: str) -> None:
        (tmp_path / "fake.py").write_text("import json, os, sys, time\n" + script)
        monkeypatch.setattr(tags, "READER", tmp_path / "fake.py")

    return replace


def id3(*frames, version: int = 3) -> bytes:
    tag, file = ID3(), io.BytesIO()
    for frame in frames:
        tag.add(frame)
    tag.save(file, v2_version=version)
    return file.getvalue()


def in_wav(tag: bytes) -> bytes:
    body = PLAIN["wav16"][8:] + b"id3 " + struct.pack("<I", len(tag)) + tag + b"\0" * (len(tag) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def commented(key: str, *fields: tuple[str, str], cover: bytes = b"") -> bytes:
    file = io.BytesIO(PLAIN[key])
    song = FLAC(file) if key == "flac" else OggVorbis(file)
    song.tags.extend(fields)
    if cover:
        song.add_picture(Picture())
        song.pictures[0].data = cover
    file.seek(0)
    song.save(file)
    return file.getvalue()


def test_a_tag_of_10_mb_is_read_or_refused_soon(upload) -> None:
    cover, title = bytes(10**7), [TIT2(1, ["T"]), TXXX(1, RECIPE, ["{}"])]
    tag = id3(APIC(0, "image/png", 3, "", cover), *title)
    fields = (("TITLE", "T"), (RECIPE, "{}"))
    files = {
        "mp3": tag + PLAIN["mp3"],
        "wav16": in_wav(tag),
        "flac": commented("flac", *fields, cover=cover),
        "ogg": commented("ogg", *fields, ("METADATA_BLOCK_PICTURE", "A" * 10**7)),
    }
    for key, content in files.items():
        started = time.monotonic()
        found = read(upload(content))
        assert (found.recipe, found.title, found.format) == ("{}", "T", KINDS[key])
        assert time.monotonic() - started < 5


def test_a_recipe_that_is_too_long_to_be_one(upload) -> None:
    for size in (RECIPE_MAX + 1, 10**7):
        tag = id3(TXXX(0, RECIPE, ["x" * size]))
        files = [tag + PLAIN["mp3"], in_wav(tag), *(commented(key, (RECIPE, "x" * size)) for key in ("flac", "ogg"))]
        for content in files:
            said = "The recipe in this file is too long to be one: 1,000,000 characters are the limit."
            assert sentence(upload(content)) == said


def test_a_title_is_cut_and_the_first_of_several_counts() -> None:
    found = inside(id3(TIT2(3, ["T" * 5000, "U"]), TXXX(3, RECIPE, ["first", "second"]), version=4) + PLAIN["mp3"])
    assert found["title"] == "T" * 1000 and found["recipe"] == "first"
    found = inside(commented("ogg", ("Title", "A"), ("title", "B"), ("ace_recipe", "{}"), (RECIPE, "[]")))
    assert found["title"] == "A" and found["recipe"] == "{}"


def test_text_that_is_no_unicode_cannot_break_the_answer(upload) -> None:
    content = commented("flac", ("TITLE", "t@t@"), (RECIPE, "@\1@")).replace(b"@", b"\xed")
    found = read(upload(content))
    assert found.title == "t\ufffdt\ufffd" and found.recipe == "\ufffd\1\ufffd"
    found = read(upload(commented("flac", ("TITLE", "a@b\n"), (RECIPE, "{@}")).replace(b"@", b"\0")))
    assert found.title == "ab\n" and found.recipe == "{}"
    half = id3(TXXX(1, RECIPE, ["@@"]), TIT2(1, ["T"])).replace("@@".encode("utf-16-le"), b"\0\xd8@\0")
    assert inside(half + PLAIN["mp3"])["recipe"] in (None, "\ufffd@", "?@")


def test_a_tag_that_claims_256_mb(upload) -> None:
    for content in (b"ID3\3\0\0\x7f\x7f\x7f\x7f" + SONGS["mp3"], in_wav(b"ID3\3\0\0\x7f\x7f\x7f\x7f" + bytes(99))):
        assert inside(content) == DAMAGED and sentence(upload(content)) == DAMAGED
    with open(upload(b"ID3\3\0\0\x5f\x7f\x7f\x7f", "large"), "r+b") as file:
        file.truncate(240_000_000)
    assert sentence(file.name) == DAMAGED


def test_a_wav_whose_chunks_lie(upload) -> None:
    song = SONGS["wav16"]
    for at in (4, 16, song.index(b"data") + 4, song.index(b"LIST") + 4, song.index(b"id3 ") + 4):
        for claim in (0, 1, 3, 2**31 - 1, 2**31, 2**32 - 1):
            found = inside(song[:at] + struct.pack("<I", claim) + song[at + 4 :])
            assert found in (DAMAGED, FOREIGN) or found["recipe"] in (None, CARD.recipe)
    at = song.index(b"data") + 4
    assert read(upload(song[:at] + struct.pack("<I", 2**32 - 2) + song[at + 4 :])).recipe is None
    tiny = b"RIFF" + struct.pack("<I", 2**31) + b"WAVE" + b"junk\0\0\0\0" * 100_000
    assert inside(tiny) == DAMAGED


def test_comments_that_lie_about_their_lengths(upload) -> None:
    flac = SONGS["flac"]
    block = flac.index(b"reference libFLAC") - 8  # the header of the block: kind, three bytes of length
    vendor = struct.unpack("<I", flac[block + 4 : block + 8])[0]
    count = block + 8 + vendor
    for claim in (0, 5, 2**24 - 1):
        found = inside(flac[: block + 1] + claim.to_bytes(3, "big") + flac[block + 4 :])
        assert found == DAMAGED or found["recipe"] in (None, CARD.recipe)
    for at in (block + 4, count, count + 4):
        for claim in (2**31 - 1, 2**31, 2**32 - 1):
            content = flac[:at] + struct.pack("<I", claim) + flac[at + 4 :]
            assert inside(content) == DAMAGED
        assert sentence(upload(content)) == DAMAGED


def test_an_ogg_that_claims_2_31_comments(upload) -> None:
    file = io.BytesIO(commented("ogg", ("TITLE", "T")))
    first, second = OggPage(file), OggPage(file)
    packet = second.packets[0]
    vendor = struct.unpack("<I", packet[7:11])[0]
    for claim in (2**31, 2**32 - 1):
        second.packets[0] = packet[: 11 + vendor] + struct.pack("<I", claim) + packet[15 + vendor :]
        content = first.write() + second.write() + file.getvalue()[file.tell() :]
        assert inside(content) == DAMAGED and sentence(upload(content)) == DAMAGED


def test_a_bomb_bursts_in_its_own_process(upload, monkeypatch) -> None:
    size = 200_000_000
    packer, zeros = zlib.compressobj(9), bytes(10**7)
    packed = b"".join(packer.compress(zeros) for _ in range(size // 10**7)) + packer.flush()
    frame = struct.pack(">I", size) + packed
    content = b"TXXX" + struct.pack(">IH", len(frame), 0x80) + frame
    tag = b"ID3\3\0\0" + bytes(len(content) >> shift & 0x7F for shift in (21, 14, 7, 0)) + content
    path = upload(tag + PLAIN["mp3"])
    monkeypatch.setattr(tags, "READ_MEMORY", 150_000_000)
    assert sentence(path) == DAMAGED
    path.write_bytes(SONGS["mp3"])
    assert read(path).recipe == CARD.recipe  # the same fence leaves room for a song


# The process


def test_a_reader_that_hangs_is_ended(reader, upload, monkeypatch) -> None:
    reader("time.sleep(60)")
    monkeypatch.setattr(tags, "READ_LIMIT_S", 0.3)
    started = time.monotonic()
    assert sentence(upload(SONGS["mp3"])) == "This file took too long to read."
    assert time.monotonic() - started < 5


def test_a_reader_that_breaks_is_a_damaged_file(reader, upload, caplog) -> None:
    path = upload(SONGS["mp3"])
    answers = ["", "x", "[]", "3", '{"error": 1}', '{"recipe": null}', '{"a": 1}', '"error"', "\xff"]
    for answer in answers:
        reader(f"print({answer!r})")
        assert sentence(path) == DAMAGED
    reader("sys.exit('cannot read ' + sys.argv[1])")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "ace.tags"):
        assert sentence(path) == DAMAGED
    assert "cannot read the upload" in caplog.text and str(path) not in caplog.text
    reader("os.kill(os.getpid(), 11)")
    assert sentence(path) == DAMAGED
    reader("os.remove(sys.argv[1]); sys.exit(1)")
    assert sentence(path) == EXPIRED


def test_the_reader_gets_no_secrets(reader, upload, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    fields = "recipe=' '.join(os.environ), title=str(sys.flags.isolated), seconds=None, format='WAV'"
    reader(f"print(json.dumps(dict({fields})))")
    found = read(upload(SONGS["mp3"]))
    assert found.title == "1" and not {"HF_TOKEN", "HOME", "PATH"} & set(found.recipe.split())
