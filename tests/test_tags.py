"""What a file says of itself is seen by every player and comes back; other files are refused by what is in them."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import subprocess
import sys
import time
from pathlib import Path

import av
import mutagen
import numpy as np
import pytest
import soundfile

import recall
from audio_io import DAMAGED, EXPIRED
from errors import AudioError, ExportError
from formats import FORMATS, encoded
from recall import FOREIGN, Refused, recalled
from settings import ROOT
from tags import RECIPE, RECIPE_MAX, Card, Found, read, tagged

ALL = list(FORMATS)
KINDS = {"mp3": "MP3", "flac": "FLAC", "wav16": "WAV", "ogg": "OGG"}  # one of each container
LENGTH, RATE = 48_001, 48_000
TIME = np.arange(LENGTH) / RATE
SONG = (0.4 * np.stack([np.sin(2 * np.pi * 220 * TIME), np.sin(2 * np.pi * 331 * TIME)])).astype(np.float32)
PLAIN = {key: encoded(SONG, RATE, FORMATS[key]) for key in ALL}
CARD = Card(
    title='AC/DC & "Ünïcode" = 夜の歌 🎵; 100% <b>',
    artist="ACE Music Studio",
    lyrics='[verse]\nIch sag\' "hallo"\n\n[chorus]\n夜の歌 🎵 = на краю\n',
    recipe=json.dumps({"lyrics": "夜の歌 🎵 \" ' \\ / = ; \n\t" * 10, "codes": list(range(4000))}, ensure_ascii=False),
)
SONGS = {key: tagged(PLAIN[key], FORMATS[key], CARD) for key in ALL}
LIMITS = {"name": RECIPE, "recipe": RECIPE_MAX, "title": 1000}


def sentence(path: Path | str) -> str:
    """Why `path` is refused: one clear sentence, and nothing of this machine."""
    with pytest.raises(AudioError) as refused:
        read(path)
    error = refused.value
    assert error.message.endswith(".") and "\n" not in str(error)
    assert not [
        place for place in (str(Path(path).parent), str(ROOT), "/tmp", "recall") if place != "." and place in str(error)
    ]
    return error.message


def inside(content: bytes) -> dict | str:
    """What the reader makes of bytes, without a process: its answer, which is whole, or the sentence of its refusal."""
    try:
        found = recalled(io.BytesIO(content), LIMITS)
    except Refused as refusal:
        return refusal.args[0]
    again = json.loads(json.dumps(found).encode("ascii"))
    assert again == found and set(found) == {"recipe", "title", "seconds", "format"}
    assert found["format"] in KINDS.values() and len(found["title"]) <= 1000
    assert found["recipe"] is None or (type(found["recipe"]) is str and len(found["recipe"]) <= RECIPE_MAX)
    assert found["seconds"] is None or 0 < found["seconds"] < float("inf")
    (found["title"] + (found["recipe"] or "")).encode()
    return found


# What is written


@pytest.mark.parametrize("key", ALL)
def test_ffmpeg_sees_the_card(key: str) -> None:
    with av.open(io.BytesIO(SONGS[key])) as file:
        found = {name.lower(): text for name, text in {**file.metadata, **file.streams.audio[0].metadata}.items()}
        assert file.duration / 1e6 == pytest.approx(LENGTH / RATE, abs=1e-3)
    assert found["title"] == CARD.title and found["artist"] == CARD.artist and found["ace_recipe"] == CARD.recipe
    assert [text for name, text in found.items() if name.startswith("lyrics")] == [CARD.lyrics]
    assert not {"date", "encoded_by", "tsse"} & set(found)
    assert found.get("comment", CARD.lyrics) == CARD.lyrics


@pytest.mark.parametrize("key", ALL)
def test_mutagen_sees_the_card(key: str) -> None:
    file = mutagen.File(io.BytesIO(SONGS[key]))
    if FORMATS[key].container in ("MP3", "WAV"):
        assert file.tags.version == (2, 3, 0)
        assert {name: frame.text for name, frame in file.tags.items()} == {
            "TIT2": [CARD.title],
            "TPE1": [CARD.artist],
            "USLT::XXX": CARD.lyrics,
            f"TXXX:{RECIPE}": [CARD.recipe],
        }
    else:
        found = {name.upper(): text for name, text in file.tags.as_dict().items() if name.upper() != "ENCODER"}
        assert found == {"TITLE": [CARD.title], "ARTIST": [CARD.artist], "LYRICS": [CARD.lyrics], RECIPE: [CARD.recipe]}
        assert "Mutagen" not in file.tags.vendor
    assert file.info.length == pytest.approx(LENGTH / RATE, abs=1e-9)


@pytest.mark.parametrize("text", ["plain", "Grüße", "夜 🎵", "\xff\xfe", " a  b ", "a/b;c", "\r\n\t"])
@pytest.mark.parametrize("key", KINDS)
def test_every_text_comes_back_as_it_was(key: str, text: str) -> None:
    content = tagged(PLAIN[key], FORMATS[key], Card(text, text, text, text))
    assert inside(content)["recipe"] == inside(content)["title"] == text
    with av.open(io.BytesIO(content)) as file:
        found = {name.lower(): text for name, text in {**file.metadata, **file.streams.audio[0].metadata}.items()}
    assert found["ace_recipe"] == found["artist"] == text


@pytest.mark.parametrize("key", KINDS)
def test_a_recipe_takes_no_more_room_than_its_characters(key: str) -> None:
    grown = len(tagged(PLAIN[key], FORMATS[key], Card("", "", "", "r" * 20_000))) - len(PLAIN[key])
    assert 20_000 < grown < 20_400


@pytest.mark.parametrize("key", ALL)
def test_the_sound_is_not_touched(key: str) -> None:
    plain, rate = soundfile.read(io.BytesIO(PLAIN[key]), dtype="float32")
    assert rate == RATE and len(plain) == LENGTH
    assert np.array_equal(soundfile.read(io.BytesIO(SONGS[key]), dtype="float32")[0], plain)
    before = bytes(PLAIN[key])
    assert tagged(PLAIN[key], FORMATS[key], CARD) == SONGS[key] and PLAIN[key] == before


def test_the_same_card_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    for key in ALL:
        (tmp_path / key).write_bytes(PLAIN[key])
    (tmp_path / "card").write_text(json.dumps(vars(CARD)))
    script = "import sys, json, pathlib; sys.path.insert(0, sys.argv[1]); folder = pathlib.Path(sys.argv[2])\n"
    script += "from tags import *; from formats import FORMATS\n"
    script += "card = Card(**json.loads((folder / 'card').read_text()))\n"
    script += (
        "for f in FORMATS.values():\n (folder / f.key).write_bytes(tagged((folder / f.key).read_bytes(), f, card))"
    )
    subprocess.run([sys.executable, "-c", script, str(ROOT), str(tmp_path)], check=True)
    assert {key: (tmp_path / key).read_bytes() for key in ALL} == SONGS


def chunks(wav: bytes) -> dict[bytes, bytes]:
    """The chunks of a WAV by name, whose sizes have to add up to the file."""
    assert wav[:4] == b"RIFF" and wav[8:12] == b"WAVE" and struct.unpack("<I", wav[4:8])[0] == len(wav) - 8
    found, at = {}, 12
    while at < len(wav):
        name, size = struct.unpack("<4sI", wav[at : at + 8])
        found[name] = wav[at + 8 : at + 8 + size]
        assert len(found[name]) == size
        at += 8 + size + size % 2
    assert at == len(wav)
    return found


@pytest.mark.parametrize("key", ["wav16", "wav24", "wav32"])
def test_players_that_know_no_id3_in_a_wav_see_title_artist_and_lyrics(key: str) -> None:
    found = chunks(SONGS[key])
    assert list(found)[-2:] == [b"LIST", b"id3 "]
    texts = {b"INAM": CARD.title, b"IART": CARD.artist, b"ICMT": CARD.lyrics}
    info = b"INFO"
    for name, text in texts.items():
        content = text.encode() + b"\0"
        info += name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    assert found[b"LIST"] == info
    for size in range(4):  # odd and even
        assert b"LIST" in chunks(tagged(PLAIN[key], FORMATS[key], Card("x" * size, "y", "", "z" * size)))
    with soundfile.SoundFile(io.BytesIO(SONGS[key])) as file:
        assert (file.title, file.artist, file.comment) == (CARD.title, CARD.artist, CARD.lyrics)


@pytest.mark.parametrize("key", ALL)
def test_an_empty_field_leaves_no_trace(key: str) -> None:
    assert tagged(PLAIN[key], FORMATS[key], Card("", "", "", "")) == PLAIN[key]
    content = tagged(PLAIN[key], FORMATS[key], Card("", "", "la", ""))
    names = [name for name, _ in getattr(mutagen.File(io.BytesIO(content)).tags, "items", list)()]
    assert [name for name in names if name.lower() not in ("encoder", "lyrics", "uslt::xxx")] == []
    assert b"INAM" not in content and b"IART" not in content
    only = tagged(PLAIN[key], FORMATS[key], Card("T", "", "", ""))
    assert b"IART" not in only and inside(only) == {**inside(PLAIN[key]), "title": "T"}
    assert inside(PLAIN[key])["recipe"] is None


@pytest.mark.parametrize("key", ALL)
def test_what_no_tag_can_hold_is_left_out(key: str) -> None:
    content = tagged(PLAIN[key], FORMATS[key], Card("a\0b\ud800c", "", "", '{"a":\0 1}'))
    found = inside(content)
    assert found["title"] == "ab?c" and found["recipe"] == '{"a": 1}'


@pytest.mark.parametrize("key", KINDS)
def test_the_longest_recipe_travels_and_a_longer_one_is_refused(key: str, upload) -> None:
    longest = "é" * RECIPE_MAX
    content = tagged(PLAIN[key], FORMATS[key], Card("T", "", "", longest))
    assert read(upload(content)).recipe == longest
    assert len(soundfile.read(io.BytesIO(content))[0]) == LENGTH
    with pytest.raises(ExportError, match="1,000,000 characters"):
        tagged(PLAIN[key], FORMATS[key], Card("T", "", "", longest + "é"))


# What is read


@pytest.mark.parametrize("key", ALL)
def test_a_song_comes_back(key: str, upload) -> None:
    found = read(upload(SONGS[key], "no extension"))
    assert found == Found(CARD.recipe, CARD.title, pytest.approx(LENGTH / RATE, abs=1e-9), FORMATS[key].container)
    assert read(str(upload(PLAIN[key]))).recipe is None


def test_neither_name_nor_folder_matter(upload, tmp_path: Path, monkeypatch) -> None:
    upload(b"raise SystemExit('imported from the upload folder')", "mutagen.py")
    upload(b"raise SystemExit('imported from the upload folder')", "json.py")
    monkeypatch.chdir(tmp_path)
    for name in ("-I.wav", "nœud 歌.flac", "%s{}$(x)"):
        upload(SONGS["mp3"], name)
        assert read(name).recipe == CARD.recipe


def recontained(kind: str, code: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, SONG.T, RATE, format=kind, subtype=code)
    return file.getvalue()


def test_other_files_of_these_kinds_have_no_recipe() -> None:
    for kind, code in (("RF64", "PCM_16"), ("WAVEX", "PCM_24"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")):
        found = inside(recontained(kind, code))
        assert found["recipe"] is None and found["title"] == ""
        assert found["seconds"] is None if kind == "RF64" else found["seconds"] == pytest.approx(1, abs=0.1)
    opus = io.BytesIO(recontained("OGG", "OPUS"))
    song = mutagen.File(opus)
    song.tags[RECIPE.lower()] = ["{}"]
    opus.seek(0)
    song.save(opus)
    assert inside(opus.getvalue())["recipe"] == "{}"
    assert inside(b"RIFX" + PLAIN["wav16"][4:])["recipe"] is None


BAD = {
    "text": b"A song about the sea.\n" * 50,
    "html": b"<html><body>not found</body></html>",
    "zip": b"PK\3\4" + bytes(999),
    "json": b'{"recipe": {}}',
    "utf-16": "<html>".encode("utf-16") * 99,
    "m4a": b"\0\0\0 ftypM4A \0\0\0\0M4A mp42isom" + bytes(999),
    "avi": b"RIFF" + struct.pack("<I", 999) + b"AVI LIST" + bytes(999),
    "aiff": recontained("AIFF", "PCM_16"),
    "only a tag": b"ID3\4\0\0\0\0\0\0" + bytes(999),
    "another ogg": PLAIN["ogg"].replace(b"\1vorbis", b"\1theora"),
    "four bytes": b"OggS",
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_other_files_are_refused_by_what_is_in_them(content: bytes) -> None:
    assert inside(content) == FOREIGN


def test_what_is_no_plain_file(upload, tmp_path: Path) -> None:
    song = upload(SONGS["mp3"])
    (tmp_path / "link").symlink_to(song)
    os.mkfifo(tmp_path / "pipe")
    assert (
        sentence(tmp_path / "link") == sentence(tmp_path) == sentence(tmp_path / "pipe") == "This is not a plain file."
    )
    assert sentence(tmp_path / "gone") == EXPIRED
    assert sentence(upload(b"", "empty")) == "The file is empty."
    assert sentence(upload(b"text", "text")) == FOREIGN
    assert sentence("a\0b") == DAMAGED
    for name in ("link", "pipe", "."):  # the reader itself has the same rules, should the file change in between
        with pytest.raises(OSError):
            recall.plain_file(str(tmp_path / name))
    with open(tmp_path / "large", "wb") as file:
        file.truncate(250_000_001)
    assert sentence(tmp_path / "large").startswith("Largest is 250 MB")


@pytest.mark.parametrize("key", ALL)
def test_a_file_cut_anywhere_answers(key: str, upload) -> None:
    song = SONGS[key]
    for end in [*range(0, 300, 7), *np.linspace(300, len(song) - 1, 60, dtype=int)]:
        found = inside(song[:end])
        assert found in (FOREIGN, DAMAGED) or found["recipe"] in (None, CARD.recipe)
    in_sound = song.index(b"LIST") - 100 if FORMATS[key].container == "WAV" else -500  # its tags stand at the end
    assert inside(song[:in_sound])["recipe"] == (None if in_sound > 0 else CARD.recipe)
    assert sentence(upload(song[:30])) in (DAMAGED, FOREIGN)


@pytest.mark.parametrize("key", KINDS)
def test_flipped_bits_do_no_harm(key: str, upload) -> None:
    dice, started = random.Random(key), time.process_time()
    song = tagged(PLAIN[key], FORMATS[key], Card(CARD.title, CARD.artist, CARD.lyrics, CARD.recipe[:2000]))
    near = song.index(b"LIST") if key == "wav16" else 0  # where the tags are
    for turn in range(200):
        content, (start, span) = bytearray(song), ((near, 20_000), (near, 300), (0, 200))[turn % 3]
        for _ in range(dice.randint(1, 10)):
            content[start + dice.randrange(min(span, len(song) - start))] ^= 1 << dice.randrange(8)
        inside(bytes(content))
    assert time.process_time() - started < 20
    for _ in range(2):
        content[dice.randrange(64)] = dice.randrange(256)
        try:
            read(upload(bytes(content)))
        except AudioError as error:
            assert error.message in (DAMAGED, FOREIGN)
