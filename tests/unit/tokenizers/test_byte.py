"""The byte tokenizer and byte fallback: every text, byte by byte where that is needed."""

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all
from tests.support.tiny_models import tokenizer_of
from trainer.contracts.errors import AppError

BYTES = tokenizer_of("byte", ["a text"])


@for_all(st.lists(st.integers(min_value=0, max_value=259), max_size=60))
def test_any_ids__have_no_half_character_in_any_first_part(ids: list[int]) -> None:
    pieces = BYTES.pieces(ids)
    for end in range(len(ids) + 1):
        assert BYTES.decode(ids[:end]) == "".join(pieces[:end])
    if all(i >= 4 for i in ids):
        text = bytes(i - 4 for i in ids).decode(errors="replace")
        assert text.startswith("".join(pieces))
        assert len(text) <= len("".join(pieces)) + 1  # an open character at the end waits for its last byte


def test_names__are_ascii_characters_and_the_values_of_other_bytes() -> None:
    assert BYTES.tokens(BYTES.encode("a ğ")) == ["a", " ", "<0xC4>", "<0x9F>"]
    assert BYTES.spans("ağ€") == [(0, 1), (1, 1), (1, 2), (2, 2), (2, 2), (2, 3)]
    assert BYTES.pieces(BYTES.encode("ağ€")) == ["a", "", "ğ", "", "", "€"]


@pytest.mark.parametrize(("text", "shown"), [("\ud800", "\ufffd"), ("a\ud800b", "a\ufffdb")])
def test_lone_surrogates__are_bytes_of_no_character(text: str, shown: str) -> None:
    assert BYTES.decode(BYTES.encode(text)).replace("\ufffd" * 3, "\ufffd") == shown


def test_fallback__writes_unknown_characters_as_bytes_between_known_tokens() -> None:
    line = "the sun, the sea"
    fallback, without = (tokenizer_of("bpe", [line], byte_fallback=has_bytes) for has_bytes in (True, False))
    extra = len(fallback.manifest.special_tokens)
    assert fallback.tokens(range(extra, extra + 256)) == [f"<0x{byte:02X}>" for byte in range(256)]
    assert fallback.tokens(range(extra + 256, fallback.vocab_size)) == without.tokens(range(extra, without.vocab_size))
    assert fallback.tokens(fallback.encode(line)) == without.tokens(without.encode(line))
    names = fallback.tokens(fallback.encode("the ЖЖ\tsun"))
    assert names[:7] == ["the", " ", "<0xD0>", "<0x96>", "<0xD0>", "<0x96>", "<0x09>"]
    assert fallback.spans("the ЖЖ\tsun")[:7] == [(0, 3), (3, 4), (4, 4), (4, 5), (5, 5), (5, 6), (6, 7)]


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_fallback_of_sentencepiece__has_the_bytes_of_unknown_characters(model_type: str) -> None:
    fallback = tokenizer_of("sentencepiece", ["the sun, the sea"], byte_fallback=True, model_type=model_type)
    names = fallback.tokens(fallback.encode("the Ж\tsun"))
    assert [name for name in names if name.startswith("<0x")] == ["<0xD0>", "<0x96>", "<0x09>"]
    spans = dict(zip(names, fallback.spans("the Ж\tsun"), strict=True))
    assert (spans["<0xD0>"], spans["<0x96>"], spans["<0x09>"]) == ((4, 4), (4, 5), (5, 6))


def test_fallback__needs_room_for_the_bytes() -> None:
    least = 4 + 256 + len(set("the sun"))  # special tokens, bytes and characters
    assert tokenizer_of("bpe", ["the sun"], byte_fallback=True, vocab_size=least).vocab_size == least
    sentence = (
        f"`vocab_size` must be at least {least} for this text, because each of its 7 characters and each of the 256"
    )
    with pytest.raises(AppError, match=f"{sentence} bytes of `byte_fallback` needs a token; you gave {least - 1}"):
        tokenizer_of("bpe", ["the sun"], byte_fallback=True, vocab_size=least - 1)
    with pytest.raises(AppError, match="256 bytes of `byte_fallback` needs a token"):
        tokenizer_of("sentencepiece", ["the sun"], byte_fallback=True, vocab_size=262)
    with pytest.raises(AppError, match="`byte_fallback` is not an option of method 'char'"):
        tokenizer_of("char", ["the sun"], byte_fallback=True)
