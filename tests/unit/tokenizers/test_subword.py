"""The subword tokenizers of the `tokenizers` library: equal to the library, exact on any text, as large as asked."""

from collections.abc import Sequence
from time import process_time
from unicodedata import normalize

import pytest

from tests.support.any_text import anything, trained_on
from tests.support.properties import for_all_pairs
from tests.support.strategies import texts
from tests.support.subword import specials_and_text, tiles
from tests.support.tiny_models import library_tokenizer, tokenizer_of
from trainer.contracts.errors import AppError, ErrorCode
from trainer.tokenizers.base import Tokenizer

LIBRARY_METHODS = ["bpe", "wordpiece"]
LINES = [
    "the king and the queen, the king's men",
    "##a # ## [CLS] <s> the 'quoted' king",
    "o\u02bbzbek o'zbek 1616",
] * 3
KINGS = {method: tokenizer_of(method, LINES, vocab_size=200) for method in LIBRARY_METHODS}


@for_all_pairs(trained_on, anything)
def test_any_text__loses_unknown_characters_one_token_each_and_nothing_else(known_text: str, text: str) -> None:
    learned, normal = normalize("NFC", known_text), normalize("NFC", text)
    for method in LIBRARY_METHODS:
        tokenizer = tokenizer_of(method, [learned])
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == "".join(c for c in normal if c in learned)
        assert ids.count(tokenizer.special_ids.unk) == sum(c not in learned for c in normal)
        assert tiles(tokenizer.spans(text), normal)


@for_all_pairs(specials_and_text, specials_and_text)
def test_special_tokens_in_a_text__are_text_even_where_the_vocabulary_is_made_from_them(known: str, text: str) -> None:
    for method in LIBRARY_METHODS:
        tokenizer = tokenizer_of(method, [f"{known} {known} <s>[PAD]##"])
        specials = set(tokenizer.manifest.special_tokens.values()) - {tokenizer.special_ids.unk}
        ids = tokenizer.encode(text)
        assert not specials & set(ids)
        assert tokenizer.decode(ids) == "".join(c for c in text if c in f"{known} <s>[PAD]##")


@for_all_pairs(texts, specials_and_text)
def test_ids_and_spans__are_those_of_the_library_on_the_saved_file(text: str, odd: str) -> None:
    for method in LIBRARY_METHODS:
        for lowercase in (False, True):
            tokenizer = tokenizer_of(method, [*LINES, text], normalization={"lowercase": lowercase})
            library = library_tokenizer(tokenizer)
            for shown in (text, odd, text + odd, "e\u0301 ΑΣ"):
                encoding = library.encode(shown, add_special_tokens=False)
                assert tokenizer.encode(shown) == encoding.ids
                assert tokenizer.tokens(encoding.ids) == encoding.tokens
                assert tokenizer.decode(encoding.ids) == library.decode(encoding.ids)


@pytest.mark.parametrize("method", LIBRARY_METHODS)
def test_library_file__puts_a_text_between_begin_and_end(method: str) -> None:
    tokenizer = KINGS[method]
    ids = tokenizer.special_ids
    assert library_tokenizer(tokenizer).encode("the king").ids == [ids.bos, *tokenizer.encode("the king"), ids.eos]


def shown(tokenizer: Tokenizer, text: str) -> list[str]:
    return tokenizer.tokens(tokenizer.encode(text))


def test_bpe__merges_frequent_words_with_the_space_before_them() -> None:
    assert KINGS["bpe"].manifest.special_tokens == {"<s>": 0, "</s>": 1, "<unk>": 2, "<pad>": 3}
    assert shown(KINGS["bpe"], "the king's  queen") == ["the", " king's", " ", " queen"]


def test_wordpiece__goes_on_with_a_word_after_two_hashes() -> None:
    tokenizer = KINGS["wordpiece"]
    assert tokenizer.manifest.special_tokens == {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    assert shown(tokenizer, "the kings ##") == ["the", " king", "##s", " #", "#"]
    assert shown(tokenizer, "kiЖng") == ["k", "##i", "[UNK]", "n", "##g"]


@pytest.mark.parametrize("method", LIBRARY_METHODS)
def test_style__decides_the_special_tokens(method: str) -> None:
    bert = tokenizer_of(method, LINES, special_style="bert").special_ids
    masked = tokenizer_of(method, LINES, special_style="gpt2_mask").special_ids
    plain = tokenizer_of(method, LINES, special_style="gpt2").special_ids
    assert (bert.pad, bert.unk, bert.bos, bert.eos, bert.mask) == (0, 1, 2, 3, 4)
    assert (masked.bos, masked.eos, masked.unk, masked.pad, masked.mask) == (0, 1, 2, 3, 4)
    assert plain == masked._replace(mask=None)


@pytest.mark.parametrize("method", LIBRARY_METHODS)
def test_vocabulary__is_at_most_as_large_as_asked_and_holds_every_character(method: str) -> None:
    characters = len(set("".join(LINES)))
    least = 4 + characters if method == "bpe" else 5 + 2 * characters
    for size in (least, least + 5, 10_000):
        tokenizer = tokenizer_of(method, LINES, vocab_size=size)
        assert tokenizer.vocab_size == len(tokenizer.tokens(range(tokenizer.vocab_size))) <= size
        assert tokenizer.special_ids.unk not in [i for line in LINES for i in tokenizer.encode(line)]
    with pytest.raises(AppError, match=f"`vocab_size` must be at least {least} for this text") as caught:
        tokenizer_of(method, LINES, vocab_size=least - 1)
    assert caught.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize("method", LIBRARY_METHODS)
def test_rare_pairs__become_no_tokens(method: str) -> None:
    lines = ["ab ab ab ab", "cd cd"]
    tokenizer = tokenizer_of(method, lines, min_frequency=3)
    assert shown(tokenizer, " ab") == [" ab"]
    assert len(shown(tokenizer, " cd")) == 3


@pytest.mark.parametrize("method", LIBRARY_METHODS)
def test_word_of_a_hundred_thousand_letters__is_encoded_and_decoded(method: str) -> None:
    text = "king" * 25_000
    assert KINGS[method].decode(KINGS[method].encode(text)) == text


@pytest.mark.slow
@pytest.mark.parametrize("method", LIBRARY_METHODS)
def test_word_of_a_million_letters__costs_as_much_a_letter_as_shorter_ones(method: str) -> None:
    text = "king" * 250_000
    short_ids, short_seconds = encoded(method, text[:62_500])
    ids, seconds = encoded(method, text)
    assert seconds < 128 * short_seconds  # 16 times as long: 16 times as much, not 256 times
    assert KINGS[method].decode(ids) == text
    assert KINGS[method].decode(short_ids) == text[:62_500]


def encoded(method: str, text: str) -> tuple[Sequence[int], float]:
    """The ids, and the processor's seconds for them at best."""
    seconds: list[float] = []
    for _ in range(3):
        begun = process_time()
        KINGS[method].encode(text)
        seconds.append(process_time() - begun)
    return KINGS[method].encode(text), min(seconds)
