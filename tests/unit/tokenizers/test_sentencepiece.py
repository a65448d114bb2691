"""SentencePiece: equal to the package on the saved file, exact on any text, equal on every machine."""

from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

import pytest
from sentencepiece import SentencePieceProcessor

from tests.support.any_text import anything, trained_on
from tests.support.properties import for_all_pairs
from tests.support.strategies import texts
from tests.support.subword import specials_and_text, tiles
from tests.support.tiny_models import tokenizer_of
from trainer.contracts.errors import AppError, ErrorCode
from trainer.tokenizers.base import Tokenizer

TYPES = ["unigram", "bpe"]
LINES = ["the king and the queen, the king's men", "a king is a king", "ˈqɑzɑq tɪlɪ ˈqɑzɑ"] * 3
RESERVED = "\0\t\x1f\u2581\u2585"


def made(model_type: str, lines: Sequence[str] = LINES, **fields: object) -> Tokenizer:
    return tokenizer_of("sentencepiece", lines, ("a b",), model_type=model_type, **fields)


def package(tokenizer: Tokenizer, folder: Path) -> SentencePieceProcessor:
    tokenizer.save(folder)
    return SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


KINGS = {model_type: made(model_type) for model_type in TYPES}


@for_all_pairs(trained_on, anything)
def test_any_text__loses_unknown_characters_and_nothing_else(known_text: str, text: str) -> None:
    learned, normal = normalize("NFC", f"x {known_text}").rstrip("\r"), normalize("NFC", text)  # no line ends in it
    known = set(learned) - set(RESERVED)
    for model_type in TYPES:
        tokenizer = made(model_type, [learned])
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == "".join(c for c in normal if c in known)
        assert (tokenizer.special_ids.unk in ids) == any(c not in known for c in normal)
        assert tiles(tokenizer.spans(text), normal)
        assert len(tokenizer.spans(text)) == len(ids)


@for_all_pairs(specials_and_text, specials_and_text)
def test_special_tokens_in_a_text__are_text_even_where_the_vocabulary_is_made_from_them(known: str, text: str) -> None:
    for model_type in TYPES:
        tokenizer = made(model_type, [f"{known} {known} <s>[PAD]##"] * 3)
        specials = set(tokenizer.manifest.special_tokens.values()) - {tokenizer.special_ids.unk}
        ids = tokenizer.encode(text)
        assert not specials & set(ids)
        assert tokenizer.decode(ids) == "".join(c for c in text if c in f"{known} <s>[PAD]##")


@pytest.mark.parametrize("model_type", TYPES)
def test_ids_and_tokens__are_those_of_the_package_on_the_saved_file(tmp_path: Path, model_type: str) -> None:
    reference = package(KINGS[model_type], tmp_path)

    @for_all_pairs(texts, specials_and_text)
    def equal(text: str, odd: str) -> None:
        for shown in (text, odd, f"{text} king {odd}"):
            if not set(shown) & set(RESERVED):
                ids: list[int] = reference.encode_as_ids(normalize("NFC", shown))
                assert KINGS[model_type].encode(shown) == ids
                documents: list[int] = KINGS[model_type].encode_documents(normalize("NFC", shown)).tolist()
                assert documents == [0, *ids, 1]

    equal()
    pieces: list[str] = reference.encode_as_pieces("the king's queen")
    assert KINGS[model_type].tokens(KINGS[model_type].encode("the king's queen")) == pieces
    text: str = reference.decode(KINGS[model_type].encode("the  king's queen"))
    assert text == "the  king's queen"


@pytest.mark.parametrize("model_type", TYPES)
def test_words__are_the_same_tokens_at_the_start_and_carry_the_space_before_them(model_type: str) -> None:
    tokenizer = KINGS[model_type]
    ids = tokenizer.encode("king king")
    assert ids[: len(ids) // 2] == ids[len(ids) // 2 :]
    assert tokenizer.tokens(ids)[0].startswith("\u2581")
    assert tokenizer.spans("king king")[len(ids) // 2][0] == 4
    assert tokenizer.manifest.special_tokens == {"<s>": 0, "</s>": 1, "<unk>": 2, "<pad>": 3}


@pytest.mark.parametrize("model_type", TYPES)
def test_reserved_characters__are_unknown_though_the_text_has_them(model_type: str) -> None:
    tokenizer = made(model_type, [*LINES, "a\tb\u2581c\u2585d"])
    ids = tokenizer.encode("a\tb\u2581c\u2585d")
    assert ids.count(2) == 3
    assert tokenizer.decode(ids) == "abcd"
    assert tokenizer.manifest.stats.char_coverage == 1


@pytest.mark.parametrize("model_type", TYPES)
def test_long_lines__are_learned_from_to_their_end(model_type: str) -> None:
    tokenizer = made(model_type, [f"{'the king ' * 3000}ж"])
    assert tokenizer.special_ids.unk not in tokenizer.encode("the king ж")


@pytest.mark.parametrize("model_type", TYPES)
def test_style__decides_the_special_tokens(model_type: str) -> None:
    bert = made(model_type, special_style="bert").special_ids
    masked = made(model_type, special_style="gpt2_mask").special_ids
    assert (bert.pad, bert.unk, bert.bos, bert.eos, bert.mask) == (0, 1, 2, 3, 4)
    assert (masked.bos, masked.eos, masked.unk, masked.pad, masked.mask) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("model_type", TYPES)
def test_vocabulary__is_at_most_as_large_as_asked_and_holds_every_character(model_type: str) -> None:
    least = 4 + len(set("".join(LINES)))
    for size in (least, least + 5, 10_000):
        tokenizer = made(model_type, vocab_size=size)
        assert tokenizer.vocab_size == len(tokenizer.tokens(range(tokenizer.vocab_size))) <= size
        assert tokenizer.special_ids.unk not in [i for line in LINES for i in tokenizer.encode(line)]
    with pytest.raises(AppError, match=f"`vocab_size` must be at least {least} for this text") as caught:
        made(model_type, vocab_size=least - 1)
    assert caught.value.code is ErrorCode.INVALID_INPUT


def test_text_of_which_nothing_can_be_made__is_refused() -> None:
    with pytest.raises(AppError, match="SentencePiece could not train 8,000 tokens on this text") as caught:
        tokenizer_of("sentencepiece", [])
    assert caught.value.code is ErrorCode.TOKENIZER_TRAIN_FAILED
