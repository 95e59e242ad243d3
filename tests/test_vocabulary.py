"""Texts as ids and back: lines of YAML, trees of values, masks, and the published planners' own ids."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import tiny_planner
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plans import CODE_COUNT
from settings import DEMO_FOLDER
from vocabulary import QWEN, QWEN_FIRST_CODE, SPECIAL, VALUES, Tree, Vocabulary, is_qwen, line, scalar

LONG = "A slow piano ballad with warm strings, a breathy female voice, brushed drums and a long fade."
MANY = settings(max_examples=400, deadline=None, database=None)


@functools.cache
def demo() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(DEMO_FOLDER / "tokenizer")


VOCABULARIES = {
    "tiny": tiny_planner.vocabulary,
    "demo": lambda: Vocabulary.qwen(demo()),
    "qwen": lambda: Vocabulary.qwen(tiny_planner.qwen()),
}
each_vocabulary = pytest.mark.parametrize("name", VOCABULARIES)


# Lines


LINES = {
    ("bpm", "120"): "bpm: 120\n",
    ("bpm", 120): "bpm: 120\n",
    ("bpm", "092"): "bpm: 92\n",
    ("duration", "12.5"): "duration: '12.5'\n",
    ("bpm", "١٢٠"): "bpm: ١٢٠\n",  # digits, but not what YAML calls a number
    ("timesignature", "4"): "timesignature: 4\n",
    ("keyscale", "F# minor"): "keyscale: F# minor\n",
    ("keyscale", "F♯ minor"): "keyscale: F♯ minor\n",
    ("language", "no"): "language: 'no'\n",
    ("language", "en"): "language: en\n",
    ("caption", "rain"): "caption: rain\n",
    ("caption", "1999"): "caption: 1999\n",
    ("caption", "style: pop"): "caption: 'style: pop'\n",
    ("caption", "it's: pop"): "caption: 'it''s: pop'\n",
    ("caption", "# pop"): "caption: '# pop'\n",
    ("caption", "ピアノ und Händel"): "caption: ピアノ und Händel\n",
    ("caption", LONG): (
        "caption: A slow piano ballad with warm strings, a breathy female voice, brushed drums\n  and a long fade.\n"
    ),
}


@pytest.mark.parametrize("field, written", LINES.items(), ids=str)
def test_a_field_is_the_line_of_yaml_that_the_model_was_taught(field: tuple[str, str], written: str) -> None:
    assert line(*field) == written


SCALARS = {
    " rain\n": "rain",
    " 'style: pop'\n": "style: pop",
    " 'it''s: pop'\n": "it's: pop",
    ' "a \\"b\\""\n': 'a "b"',
    " a piano\n  and rain\n": "a piano and rain",
    " 'style: a\n  b'\n": "style: a b",
    "   many    blanks\t here \n": "many blanks here",
    " 'no'\n": "no",
    " no\n": "no",
    " 007\n": "007",
    " style: pop\n": "style: pop",  # no YAML
    " 'open\n": "'open",
    ' "open\n  and on\n': '"open and on',
    " [a, b]\n": "[a, b]",  # YAML, but no text
    " {a: b}\n": "{a: b}",
    " - a\n": "- a",
    ":\n": ":",
    ": x\n": ": x",
    "rain": "rain",  # without its blank it is no value
    " # all of it\n": "# all of it",
    " ''\n": "''",
    "\n": "",
    " \n\n": "",
    "": "",
    " a \x00 b\n": "a \x00 b",
    ' "\\U00110000"\n': '"\\U00110000"',  # beyond Unicode, by one and by far
    ' "\\UFFFFFFFF"\n': '"\\UFFFFFFFF"',
}


@pytest.mark.parametrize("text, value", SCALARS.items(), ids=lambda text: ascii(text)[:30])
def test_the_value_of_a_field_is_unquoted_and_unfolded_and_what_is_no_yaml_stays(text: str, value: str) -> None:
    assert scalar(text) == value


def test_brackets_without_end_are_a_value_too() -> None:
    """In a thread of its own: coverage stops looking where Python's recursion limit was met."""
    with ThreadPoolExecutor(1) as aside:
        assert aside.submit(scalar, " " + "[" * 600).result() == "[" * 600


@MANY
@example('"\\U')
@given(st.text(max_size=40) | st.text("'\"\\U0F[]{}:#&*!|>%@`- \n\tab", max_size=30))
def test_any_text_has_a_value_in_single_blanks(text: str) -> None:
    value = scalar(text)
    assert value == " ".join(value.split())
    assert bool(value) == bool(text.strip())


@MANY
@given(st.text(st.characters(exclude_categories=("C", "Z")) | st.sampled_from("  \n:'\"#-"), max_size=200))
def test_a_line_and_its_value_are_inverse_but_for_white_space(caption: str) -> None:
    caption = " ".join(caption.split())
    if caption and not (caption.isascii() and caption.isdigit()):
        assert scalar(line("caption", caption).removeprefix("caption:")) == caption


# Ids


TEXTS = [
    "",
    "la la la\n",
    "<think>\nbpm: 120\n</think>\n\n",
    "<|im_start|>system\n# Instruction\n<|im_end|>\n<|im_start|>",
    "</think></think><|endoftext|>",
    "<think",
    "half <|im_ of one|>",
    "ピアノ 🎹 naïve",
]


@each_vocabulary
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_from_its_ids_with_its_special_tokens(name: str, text: str) -> None:
    vocabulary = VOCABULARIES[name]()
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == vocabulary.decode(iter(ids)) == text
    assert len([i for i in ids if i in vocabulary.special.values()]) == sum(text.count(token) for token in SPECIAL)
    assert all(i < vocabulary.first_code for i in ids)


@each_vocabulary
def test_special_tokens_are_one_id_each(name: str) -> None:
    vocabulary = VOCABULARIES[name]()
    for token in SPECIAL:
        assert vocabulary.encode(token) == [vocabulary.special[token]]


def test_a_planners_own_tokenizer_says_where_its_tokens_and_codes_are() -> None:
    tokenizer, vocabulary = tiny_planner.tokenizer(), tiny_planner.vocabulary()
    ids = tokenizer.convert_tokens_to_ids
    assert vocabulary.special == {token: ids(token) for token in SPECIAL}
    assert vocabulary.first_code == ids("<|audio_code_0|>") == ids("</think>") + 1
    assert vocabulary.codes == tiny_planner.CODES
    assert Vocabulary.of(tokenizer).codes == CODE_COUNT


def test_the_published_ids_serve_over_any_text_tokenizer() -> None:
    vocabulary = Vocabulary.qwen(demo())
    assert (
        vocabulary.special
        == QWEN
        == {
            "<|endoftext|>": 151643,
            "<|im_start|>": 151644,
            "<|im_end|>": 151645,
            "<think>": 151667,
            "</think>": 151668,
        }
    )
    assert (vocabulary.first_code, vocabulary.codes) == (QWEN_FIRST_CODE, 64_000) == (151_669, 64_000)
    assert vocabulary.encode("<think>\n")[0] == 151667


def test_the_published_ids_are_told_from_others() -> None:
    assert is_qwen(tiny_planner.qwen())
    assert not is_qwen(tiny_planner.tokenizer()) and not is_qwen(demo())
    shifted = tiny_planner.qwen().__class__(tokenizer_object=changed({"<think>": 151660}))
    assert not is_qwen(shifted)
    assert not is_qwen(tiny_planner.qwen().__class__(tokenizer_object=changed({"ĊĊ": 299})))


def changed(ids: dict[str, int]) -> Any:
    """The core of the tokenizer with the published ids, some of them changed."""
    import json

    from tokenizers import Tokenizer

    text = json.loads(tiny_planner.qwen().backend_tokenizer.to_str())
    text["model"]["vocab"] |= ids
    text["added_tokens"] = [token | {"id": ids.get(token["content"], token["id"])} for token in text["added_tokens"]]
    return Tokenizer.from_str(json.dumps(text))


# Trees


def paths(tree: Tree) -> list[list[int]]:
    return [[i, *rest] for i, node in tree.items() for rest in (paths(node) or [[]])]


@each_vocabulary
@pytest.mark.parametrize("key", VALUES)
def test_a_tree_holds_the_lines_of_all_values_and_nothing_else(name: str, key: str) -> None:
    vocabulary = VOCABULARIES[name]()
    found = [vocabulary.name(key) + path for path in paths(vocabulary.trees[key])]
    assert sorted(found) == sorted(vocabulary.encode(line(key, value)) for value in VALUES[key])
    texts = [vocabulary.decode(path) for path in paths(vocabulary.trees[key])]
    assert {scalar(text) for text in texts} == {str(value) for value in VALUES[key]}
    assert all(text.endswith("\n") and text.count("\n") == 1 for text in texts)
    assert {yaml.safe_load(key + ":" + text)[key] for text in texts} == set(VALUES[key])


def test_the_values_are_those_of_the_controls() -> None:
    sizes = {key: len(values) for key, values in VALUES.items()}
    assert sizes == {"bpm": 271, "duration": 591, "keyscale": 70, "language": 51, "timesignature": 4}
    assert set(tiny_planner.vocabulary().trees) == set(VALUES)


def test_a_tokenizer_that_joins_a_name_and_its_value_is_refused() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {token: i for i, token in enumerate([*letters, ":Ġ", *SPECIAL])}
    core = Tokenizer(models.BPE(vocab=ids, merges=[(":", "Ġ")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    joining = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=core), {t: ids[t] for t in SPECIAL}, len(ids))
    with pytest.raises(ValueError, match="joins 'bpm' and its value"):
        _ = joining.trees


# Masks


@each_vocabulary
def test_masks_end_where_the_codes_begin_and_allow_no_id_without_a_token(name: str) -> None:
    vocabulary = VOCABULARIES[name]()
    known = set(vocabulary.tokenizer.get_vocab().values()) | {vocabulary.special["<|im_end|>"]}
    assert set(vocabulary.masks) == {"lead", "caption", "lyrics"}
    for mask in vocabulary.masks.values():
        assert mask.shape == (vocabulary.first_code,) and mask.dtype == bool and mask.any()
        assert set(mask.nonzero()[0].tolist()) <= known


@each_vocabulary
def test_only_lyrics_may_end_and_no_special_token_is_ever_written(name: str) -> None:
    vocabulary = VOCABULARIES[name]()
    allowed = {n: set(mask.nonzero()[0].tolist()) for n, mask in vocabulary.masks.items()}
    special = set(vocabulary.special.values()) | set(vocabulary.tokenizer.all_special_ids)
    end = {vocabulary.special["<|im_end|>"]}
    assert allowed["lyrics"] & special == end
    assert not allowed["caption"] & special
    assert allowed["lead"] < allowed["caption"] < allowed["lyrics"]


@each_vocabulary
def test_a_caption_begins_with_a_blank_and_holds_no_backtick_and_no_return(name: str) -> None:
    vocabulary = VOCABULARIES[name]()
    text = {i: token for token, i in vocabulary.tokenizer.get_vocab().items()}
    spelled = {n: [text[i] for i in mask.nonzero()[0] if i in text] for n, mask in vocabulary.masks.items()}
    assert not [token for token in spelled["caption"] if "`" in token or "č" in token]
    assert {"`", "č"} <= set(spelled["lyrics"])
    assert all(token.startswith("Ġ") and "Ċ" not in token for token in spelled["lead"])
    left_out = set(spelled["caption"]) - set(spelled["lead"])
    assert left_out and all(not token.startswith("Ġ") or "Ċ" in token for token in left_out)


def test_what_a_tokenizer_learned_after_the_codes_is_never_written() -> None:
    import copy

    tokenizer = copy.deepcopy(tiny_planner.tokenizer())
    tokenizer.add_tokens(["afterwards"])
    after = replace(tiny_planner.vocabulary(), tokenizer=tokenizer)
    assert tokenizer.convert_tokens_to_ids("afterwards") >= after.first_code
    for name, mask in tiny_planner.vocabulary().masks.items():
        assert (after.masks[name] == mask).all()


def test_codes_are_never_text_even_where_a_text_id_is_said_to_follow_them() -> None:
    vocabulary = tiny_planner.vocabulary()
    later = replace(vocabulary, first_code=vocabulary.first_code + tiny_planner.CODES + tiny_planner.RESERVED)
    codes = slice(vocabulary.first_code, later.first_code)
    assert not any(mask[codes].any() for mask in later.masks.values())


@each_vocabulary
def test_line_ends_and_indents_are_found_inside_tokens(name: str) -> None:
    vocabulary = VOCABULARIES[name]()
    lyrics = vocabulary.masks["lyrics"].nonzero()[0].tolist()
    ends = {i: vocabulary.decode([i]).count("\n") for i in lyrics if i not in vocabulary.special.values()}
    assert vocabulary.newlines == {i: count for i, count in ends.items() if count}
    blank = [i for i in ends if not vocabulary.decode([i]).strip(" \t")]
    assert vocabulary.indents == blank and blank


def test_the_tiny_tokenizer_joins_line_ends_to_words_as_the_real_one_does() -> None:
    vocabulary = tiny_planner.vocabulary()
    by_text = {vocabulary.decode([i]): count for i, count in vocabulary.newlines.items()}
    assert by_text["\n"] == by_text[".\n"] == by_text["'\n"] == 1 and by_text["\n\n"] == 2
