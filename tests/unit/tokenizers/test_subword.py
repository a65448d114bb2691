"""Subword tokenizers: the merges of each method, sizes, and special tokens in every style and under other names."""

from pathlib import Path

import pytest
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from tests.support.properties import for_all
from tests.support.refusals import refused
from tests.support.tiny_models import POEM, library_tokenizer, tokenizer_of
from trainer.artifacts.tokenizer_files import unknown_share
from trainer.config.validation import parse
from trainer.contracts.errors import ErrorCode
from trainer.contracts.tokenizers import SpecialTokens
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.base import Tokenizer

METHODS = ["bpe", "wordpiece", "sentencepiece"]
OF_LIBRARY = METHODS[:2]
LINES = [
    "the king and the queen, the king's men",
    "##a # ## [CLS] <s> the 'quoted' king",
    "o\u02bbzbek o'zbek 1616",
] * 3
KINGS = {method: tokenizer_of(method, LINES, vocab_size=200) for method in METHODS}
OPTIONS: list[tuple[str, dict[str, object]]] = [("bpe", {}), ("wordpiece", {})]
OPTIONS += [("sentencepiece", {"model_type": model_type}) for model_type in ("unigram", "bpe")]
every_method = pytest.mark.parametrize("method", METHODS)
every_library_method = pytest.mark.parametrize("method", OF_LIBRARY)


def tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    return tokenizer.tokens(tokenizer.encode(text))


def test_bpe__merges_frequent_words_with_the_space_before_them() -> None:
    assert KINGS["bpe"].manifest.special_tokens == {"<s>": 0, "</s>": 1, "<unk>": 2, "<pad>": 3}
    assert tokens(KINGS["bpe"], "the king's  queen") == ["the", " king's", " ", " queen"]


def test_wordpiece__continues_a_word_after_two_hashes() -> None:
    tokenizer = KINGS["wordpiece"]
    assert tokenizer.manifest.special_tokens == {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    assert tokens(tokenizer, "the kings ##") == ["the", " king", "##s", " #", "#"]
    assert tokens(tokenizer, "kiЖng") == ["k", "##i", "[UNK]", "n", "##g"]


@pytest.mark.parametrize(("method", "options"), OPTIONS)
def test_style__decides_the_special_tokens(method: str, options: dict[str, object]) -> None:
    bert, masked, plain = (
        tokenizer_of(method, LINES, ("a b",), special_style=style, **options).special_ids
        for style in ("bert", "gpt2_mask", "gpt2")
    )
    assert (bert.pad, bert.unk, bert.bos, bert.eos, bert.mask) == (0, 1, 2, 3, 4)
    assert (masked.bos, masked.eos, masked.unk, masked.pad, masked.mask) == (0, 1, 2, 3, 4)
    assert plain == masked._replace(mask=None)


@pytest.mark.parametrize(("method", "options"), OPTIONS)
def test_vocabulary__is_at_most_as_large_as_requested_and_has_all(method: str, options: dict[str, object]) -> None:
    characters = len(set("".join(LINES)))
    least = 5 + 2 * characters if method == "wordpiece" else 4 + characters
    for size in (least, least + 5, 10_000):
        tokenizer = tokenizer_of(method, LINES, ("a b",), vocab_size=size, **options)
        assert tokenizer.vocab_size == len(tokenizer.names) <= size
        assert tokenizer.special_ids.unk not in [i for line in LINES for i in tokenizer.encode(line)]
    with refused(ErrorCode.INVALID_INPUT, f"`vocab_size` must be at least {least} for this text"):
        tokenizer_of(method, LINES, ("a b",), vocab_size=least - 1, **options)


@every_library_method
def test_rare_pairs__become_no_tokens(method: str) -> None:
    tokenizer = tokenizer_of(method, ["ab ab ab ab", "cd cd"], min_frequency=3)
    assert tokens(tokenizer, " ab") == [" ab"]
    assert len(tokens(tokenizer, " cd")) == 3


@every_library_method
def test_word_of_a_hundred_thousand_letters__is_encoded_and_decoded(method: str) -> None:
    text = "king" * 25_000
    assert KINGS[method].decode(KINGS[method].encode(text)) == text


NAMES = {
    "bos_token": "<|begin|>",
    "sep_token": "[end]",
    "unk_token": "<0.u>",
    "pad_token": "</p>",
    "mask_token": "<g_g>",
}
SPELLED = [*POEM, f"spelled {' '.join(NAMES.values())} <|begin|>the", "<g_g><g_g> ##begin"] * 2
RENAMED = {
    "gpt2_mask": {"<|begin|>": 0, "[end]": 1, "<0.u>": 2, "</p>": 3, "<g_g>": 4},
    "bert": {"</p>": 0, "<0.u>": 1, "<|begin|>": 2, "[end]": 3, "<g_g>": 4},
}


def renamed(method: str, **fields: object) -> Tokenizer:
    return tokenizer_of(method, SPELLED, ["the end"], vocab_size=160, **fields)


WITH_NAMES = {method: renamed(method, special_tokens=NAMES) for method in METHODS}


@every_method
@pytest.mark.parametrize("style", RENAMED)
def test_names__are_those_given_and_nothing_else_changes(method: str, style: str, tmp_path: Path) -> None:
    plain, other = (renamed(method, special_style=style, special_tokens=names) for names in ({}, NAMES))
    other.save(tmp_path)
    for tokenizer in (other, load_tokenizer(tmp_path)):
        assert tokenizer.manifest.special_tokens == RENAMED[style]
        assert tokenizer.special_ids == plain.special_ids
        assert tokenizer.names[5:] == plain.names[5:]
        for text in (*SPELLED, "unseen Ж"):
            assert tokenizer.encode(text) == plain.encode(text)
    assert unknown_share(tmp_path, ["the Ж"]) == 1 / 5


@every_method
def test_names__not_given_are_those_of_the_style_and_two_may_be_exchanged(method: str) -> None:
    bert = renamed(method, special_style="bert", special_tokens={"cls_token": "<s>"}).manifest.special_tokens
    assert bert == {"[PAD]": 0, "[UNK]": 1, "<s>": 2, "[SEP]": 3, "[MASK]": 4}
    masked = renamed(method, special_style="gpt2", special_tokens={"mask_token": "<gap>"})
    assert list(masked.manifest.special_tokens) == ["<s>", "</s>", "<unk>", "<pad>", "<gap>"]
    assert masked.special_ids.mask == 4
    ids = renamed(method, special_style="gpt2", special_tokens={"bos_token": "</s>", "eos_token": "<s>"}).special_ids
    assert (ids.bos, ids.eos) == (0, 1)
    names = parse(SpecialTokens, {"cls_token": "[C]", "sep_token": "[S]"})
    assert names.by_role == {"bos": "[C]", "eos": "[S]"}


@for_all(st.lists(st.sampled_from([*NAMES.values(), "begin", "the", " ", "##", "g_g", "<", ">"]), max_size=8))
def test_names_in_a_text__are_text(words: list[str]) -> None:
    for tokenizer in WITH_NAMES.values():
        ids = tokenizer.encode("".join(words))
        assert not set(tokenizer.special_ids.all) & set(ids)
        assert tokenizer.decode(ids) == "".join(words)


@every_library_method
def test_library_file__has_the_names_in_their_places_and_uses_them(method: str) -> None:
    for ours, text in ((WITH_NAMES[method], "the sun"), (KINGS[method], "the king")):
        library, special = library_tokenizer(ours), ours.special_ids
        for name, token_id in ours.manifest.special_tokens.items():
            assert library.token_to_id(name) == token_id
        assert library.encode(text).ids == [special.bos, *ours.encode(text), special.eos]
        assert library.encode("Ж", add_special_tokens=False).ids == [special.unk]


def test_sentencepiece_file__has_the_names_in_the_packages_own_places(tmp_path: Path) -> None:
    ours = WITH_NAMES["sentencepiece"]
    ours.save(tmp_path)
    processor = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    ids = (processor.bos_id(), processor.eos_id(), processor.unk_id(), processor.pad_id())
    assert ids == (ours.special_ids.bos, ours.special_ids.eos, ours.special_ids.unk, ours.special_ids.pad)
    assert {name: processor.piece_to_id(name) for name in NAMES.values()} == ours.manifest.special_tokens
    assert processor.is_control(processor.piece_to_id("<g_g>"))


def test_config_of_another_method_than_the_manifests__is_refused(tmp_path: Path) -> None:
    KINGS["bpe"].save(tmp_path)
    path = tmp_path / "manifest.json"
    text = path.read_text(encoding="utf-8")
    start, end = text.index('"config": {'), text.index('"stats"')
    path.write_text(f'{text[:start]}"config": {{"method": "word"}},\n{text[end:]}', encoding="utf-8")
    with refused(ErrorCode.TOKENIZER_LOAD_FAILED, "does not have the method of its manifest"):
        load_tokenizer(tmp_path)
