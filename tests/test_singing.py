"""Syllables held against counts by hand in seven languages, and whether a song has room for them."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from singing import EASY, FAST, WORDLESS_S, Sung, sung, syllables, verdict

MANY = settings(max_examples=400, deadline=None, database=None)
LANGUAGES = ("en", "es", "fr", "de", "zh", "ja", "ko", "pt", "")
WORDS = {  # by language and count
    "en": {
        1: "rain night love home the time you loved walked eyes through dreams smile strength I'm don't we'll fire's stayed shh hmm real",
        2: "window river summer table little wanted moonlight sometimes going lonely apple dances houses sofa being every evening business create",
        3: "remember yesterday beautiful tomorrow piano radio family forgotten wandering memory elephant violence area idea created poetry",
        4: "television impossible america february anybody invisible reality",
        5: "university imagination electricity",
    },
    "es": {
        1: "sol mar luz bien soy ay y rey pan dios",
        2: "casa noche cielo lluvia fuego quiero puerta guerra queso agua luna amor dormir día río país maíz",
        3: "camino ventana corazón estrella palabra canciones guitarra",
        4: "primavera mariposa golondrina poesía alegría todavía",
        5: "escuchábamos",
    },
    "fr": {
        1: "nuit jour ville belle temps feu ciel pluie lune monde coeur cœur les es parlent",
        2: "amour maison soleil chanson lumière ballade demain rivière histoire toujours année",
        3: "souvenir mélodie horizon cinéma éternel",
    },
    "de": {
        1: "Nacht Licht Traum Herz Wind Zeit wie Meer Baum neu Haus süß schön",
        2: "Liebe Himmel Regen Fenster Sonne Träume fliegen Mauer Freiheit leise König",
        3: "Erinnern Abenddrot verlieren Geschichte Gedanken Sternenlicht Sehnsüchte",
        4: "Erinnerung Vergangenheit Unendlichkeit",
    },
    "zh": {1: "我 爱 雨", 2: "月亮 下雨", 4: "一路平安"},
    "ja": {
        2: "あめ 雨 そら 月 きゃく",
        3: "さくら サクラ がっこ ラーメ きょうだ",
        4: "がっこう ラーメン",
        5: "ありがとう さようなら",
    },
    "ko": {1: "비 눈", 2: "사랑 노래 바다", 3: "무지개 그리움", 5: "안녕하세요"},
}
RUNNING = {  # whole lines, counted by hand
    "en": [
        ("Walking down the empty street tonight", 9),
        ("I remember every word you said to me", 11),
        ("The river takes the color of the sky", 10),
        ("Nobody told me it would hurt like this", 10),
        ("We were dancing in the kitchen with the radio on", 14),
        ("She loved the morning and the smell of coffee", 11),
        ("All these houses have forgotten my name", 10),
        ("Somewhere behind the silence there's a song", 10),
        ("Yesterday we had the summer in our hands", 11),
        ("Give me one more reason why I should believe", 11),
    ],
    "es": [
        ("Camino solo por la ciudad", 9),
        ("Tu voz se queda en mi ventana", 10),
        ("No quiero despertar sin tu calor", 10),
        ("La lluvia cae sobre los tejados", 11),
        ("Guardo tus cartas en un cajón", 9),
    ],
    "fr": [
        ("Je marche seul dans la nuit", 7),
        ("Ton regard brille sous la pluie", 7),
        ("On chantait sur les toits de Paris", 9),
        ("Le temps passe et tu ne viens pas", 8),
        ("Mon coeur bat pour ton retour", 7),
        ("Les enfants jouent dans la rue", 7),
    ],
    "de": [
        ("Ich gehe durch die leeren Straßen", 9),
        ("Der Regen fällt auf unser Dach", 8),
        ("Du hast mir deinen Traum geschenkt", 8),
        ("Wir bleiben wach bis morgen früh", 8),
        ("Die Sterne leuchten über dem Meer", 9),
    ],
    "zh": [("我在雨中等你，回家的路很长。", 12), ("月亮代表我的心", 7)],
    "ja": [("さくらのはなが、ちるよるに", 12), ("きょうもひとりであるいてる", 12)],
    "ko": [("비가 내리는 밤에 너를 기다려", 12), ("사랑은 바람처럼", 7)],
}


@pytest.mark.parametrize(
    "language, count, word",
    [(code, n, word) for code, rows in WORDS.items() for n, said in rows.items() for word in said.split()],
)
def test_the_syllables_of_words(language: str, count: int, word: str) -> None:
    assert syllables(word, language) == syllables(f"({word.upper()}!)", language) == count


@pytest.mark.parametrize("language", RUNNING)
def test_running_text_is_within_a_tenth_of_a_count_by_hand(language: str) -> None:
    counted = sum(syllables(line, language) for line, _ in RUNNING[language])
    by_hand = sum(count for _, count in RUNNING[language])
    assert abs(counted - by_hand) <= 0.1 * by_hand
    assert syllables(" / ".join(line for line, _ in RUNNING[language]), language) == counted
    assert all(abs(syllables(line, language) - n) <= 1 for line, n in RUNNING[language])


@pytest.mark.parametrize("word, count", {"été": 2, "liberté": 3, "passé": 2, "vérités": 3}.items())
def test_an_accented_e_at_the_end_of_a_french_word_is_sung(word: str, count: int) -> None:
    assert syllables(word, "fr") == count


@pytest.mark.parametrize("word, count", {"aquí": 2, "guía": 2, "seguí": 2, "yo": 1, "ya": 1, "inyección": 3}.items())
def test_spanish_u_and_y_that_are_no_vowels_are_not_counted(word: str, count: int) -> None:
    assert syllables(word, "es") == count


def test_the_words_of_one_language_are_not_counted_by_the_rules_of_another() -> None:
    assert [syllables("home", language) for language in ("en", "fr", "es", "de")] == [1, 1, 2, 2]
    assert [syllables("雨の夜に", language) for language in ("ja", "zh")] == [6, 4]
    assert [syllables("casa", language) for language in ("pt", "", "xx")] == [2, 2, 2], "others: groups of vowels"
    assert syllables("cas\u0301a", "pt") == syllables("ca\u0301sa", "es") == 2, "accents may stand apart"
    assert syllables("scho\u0308n", "de") == 1
    assert syllables("Love 雨の夜", "ja") == 2 + 5 and syllables("我love你", "en") == 3


def test_digits_are_two_syllables_each_and_other_signs_none() -> None:
    assert [syllables(line) for line in ("7", "99", "7 days", "route66", "٣")] == [2, 4, 3, 5, 2]
    assert [syllables(line) for line in ("", "  ", "…—!?", "'", "’’", "_ * #", "🎵")] == [0] * 7


def test_an_apostrophe_makes_no_syllable() -> None:
    said = {"don't": 1, "I'll": 1, "we're": 1, "mama's": 2, "rock'n'roll": 2, "rockin'": 2, "'cause": 1, "love's": 1}
    for line, count in said.items():
        assert syllables(line) == syllables(line.replace("'", "’")) == count, line
    assert syllables("l'amour", "fr") == syllables("l’amour", "fr") == 2
    assert syllables("s'est aujourd'hui", "fr") == 4


@MANY
@given(st.text(), st.sampled_from([*RUNNING, "pt", "?"]))
@example("İŉǰ\u0301ﬁ ß", "es")
@example("ッょー" * 3, "ja")
def test_whatever_a_line_is_its_syllables_are_counted(line: str, language: str) -> None:
    count = syllables(line, language)
    assert isinstance(count, int) and 0 <= count <= 4 * len(line)
    assert syllables(f"{line} rain", language) == count + 1 or not line.isascii()


# Sections and songs


def test_every_section_is_counted_and_needs_its_time() -> None:
    text = "\n[Intro]\n\n[verse 1]\nRain on the window\n\nI remember you\n[Solo]\n"
    assert EASY == 2 and FAST == 5 and WORDLESS_S == 8
    assert sung(text) == [Sung("Intro", 0, 0, 8), Sung("verse 1", 2, 10, 5.0), Sung("Solo", 0, 0, 8)]
    assert sung("la la\nla") == [Sung("", 2, 3, 1.5)] and sung("") == sung("\n \n") == []
    assert sung("[verse]\n雨の夜", "ja")[0].syllables == 5 and sung("[verse]\n雨の夜", "zh")[0].syllables == 3
    assert sung("[verse]\n...") == [Sung("verse", 1, 0, 8)]


@pytest.mark.parametrize(
    "duration, fits, sentence",
    [
        (240, True, "These words fit into 240 s: an easy pace takes about 33 s."),
        (33.0, True, "These words fit into 33 s: an easy pace takes about 33 s."),
        (32.5, True, "These words fit into 32.5 s: an easy pace takes about 33 s."),
        (32.4, True, "These words fit into 32.4 s, but hurried: an easy pace takes about 33 s."),
        (20.0, True, "These words fit into 20 s, but hurried: an easy pace takes about 33 s."),
        (9.2, True, "These words fit into 9.2 s, but hurried: an easy pace takes about 33 s."),
        (5.0, False, "These words cannot fit into 5 s: even fast they take 10 s, at an easy pace 33 s."),
        (9.1, False, "These words cannot fit into 9.1 s: even fast they take 10 s, at an easy pace 33 s."),
    ],
)
def test_the_verdict_says_whether_words_have_room(duration: float, fits: bool, sentence: str) -> None:
    found = [Sung("intro", 0, 0, 8), Sung("verse", 4, 27, 15.0), Sung("chorus", 2, 19, 9.5)]
    assert verdict(found, duration) == (fits, sentence)


def test_without_words_there_is_no_verdict() -> None:
    for found in ([], sung("[intro]\n[solo]"), sung("[verse]\n...")):
        assert verdict(found, 1) == (True, "There are no words to sing.")
