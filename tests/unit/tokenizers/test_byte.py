"""The byte tokenizer and byte fallback: every text, byte by byte where that is needed."""

from unicodedata import normalize

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all
from tests.support.tiny_models import library_tokenizer, tokenizer_of
from trainer.contracts.errors import AppError

TOKENIZER = tokenizer_of("byte", ["a text"])
STREAM = tokenizer_of("byte", ["a text"], documents="stream")
LIBRARY = library_tokenizer(TOKENIZER)
FALLBACK = tokenizer_of("bpe", ["the sun, the sea, ЖЖ"], byte_fallback=True)
SENTENCEPIECE = tokenizer_of("sentencepiece", ["the sun, the sea, ЖЖ"], byte_fallback=True)
LIBRARY_FALLBACK = library_tokenizer(FALLBACK)


@for_all(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text__is_its_bytes_and_comes_back(text: str) -> None:
    form = normalize("NFC", text)
    ids = TOKENIZER.encode(text)
    assert ids == [4 + byte for byte in form.encode()]
    assert TOKENIZER.decode(ids) == form
    assert LIBRARY.encode(form, add_special_tokens=False).ids == ids
    assert "".join(form[start:end] for start, end in TOKENIZER.spans(text)) == form
    lines = form.split("\n")
    documents: list[int] = TOKENIZER.encode_documents(form).tolist()
    assert documents == [i for line in lines for i in (2, *TOKENIZER.encode(line), 3)]
    stream: list[int] = STREAM.encode_documents(form).tolist()
    assert stream == [4 + byte for byte in f"{form}\n".encode()]


@for_all(st.lists(st.integers(min_value=0, max_value=259), max_size=60))
def test_any_ids__have_no_half_character_in_any_first_part(ids: list[int]) -> None:
    values = bytes(i - 4 for i in ids if i >= 4)
    pieces = TOKENIZER.pieces(ids)
    for end in range(len(ids) + 1):
        assert TOKENIZER.decode(ids[:end]) == "".join(pieces[:end])
    if all(i >= 4 for i in ids):
        whole = values.decode(errors="replace")
        assert whole.startswith("".join(pieces))
        assert len(whole) <= len("".join(pieces)) + 1  # an open character at the end waits for its last byte


def test_names__are_ascii_characters_and_the_values_of_other_bytes() -> None:
    assert TOKENIZER.tokens(TOKENIZER.encode("a ğ")) == ["a", " ", "<0xC4>", "<0x9F>"]
    assert TOKENIZER.spans("ağ€") == [(0, 1), (1, 1), (1, 2), (2, 2), (2, 2), (2, 3)]
    assert TOKENIZER.pieces(TOKENIZER.encode("ağ€")) == ["a", "", "ğ", "", "", "€"]


def test_fallback__writes_unknown_characters_as_bytes_between_the_tokens_of_known_ones() -> None:
    lines = ["the sun, the sea"]
    fallback = tokenizer_of("bpe", lines, byte_fallback=True)
    without = tokenizer_of("bpe", lines)
    extra = len(fallback.manifest.special_tokens)

    assert fallback.tokens(range(extra, extra + 256)) == [f"<0x{byte:02X}>" for byte in range(256)]
    assert fallback.tokens(range(extra + 256, fallback.vocab_size)) == without.tokens(range(extra, without.vocab_size))
    for line in lines:
        assert fallback.tokens(fallback.encode(line)) == without.tokens(without.encode(line))
    ids = fallback.encode("the ЖЖ\tsun")
    assert fallback.tokens(ids) == [
        "the",
        " ",
        "<0xD0>",
        "<0x96>",
        "<0xD0>",
        "<0x96>",
        "<0x09>",
        *fallback.tokens(ids)[7:],
    ]
    assert fallback.spans("the ЖЖ\tsun")[:7] == [(0, 3), (3, 4), (4, 4), (4, 5), (5, 5), (5, 6), (6, 7)]


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_fallback_of_sentencepiece__has_the_bytes_of_unknown_characters(model_type: str) -> None:
    fallback = tokenizer_of("sentencepiece", ["the sun, the sea"], byte_fallback=True, model_type=model_type)
    ids = fallback.encode("the Ж\tsun")
    names = fallback.tokens(ids)
    assert [name for name in names if name.startswith("<0x")] == ["<0xD0>", "<0x96>", "<0x09>"]
    spans = dict(zip(names, fallback.spans("the Ж\tsun"), strict=True))
    assert (spans["<0xD0>"], spans["<0x96>"], spans["<0x09>"]) == ((4, 4), (4, 5), (5, 6))
    with pytest.raises(AppError, match="256 bytes of `byte_fallback` needs a token"):
        tokenizer_of("sentencepiece", ["the sun"], byte_fallback=True, vocab_size=262)


@for_all(st.text(st.characters(exclude_categories=["Cs"])))
def test_fallback_of_sentencepiece__gives_every_text_back_but_its_own_sign_of_a_space(text: str) -> None:
    form = normalize("NFC", text)
    ids = SENTENCEPIECE.encode(text)
    assert SENTENCEPIECE.special_ids.unk not in ids
    assert SENTENCEPIECE.decode(ids) == form.replace("\u2581", "\0")
    assert "".join(form[start:end] for start, end in SENTENCEPIECE.spans(text)) == form
    for line in form.split("\n"):
        documents = SENTENCEPIECE.encode_documents(line)
        line_ids: list[int] = documents[1:-1].tolist()
        assert line_ids == SENTENCEPIECE.encode(line)
        assert SENTENCEPIECE.unknown_characters(line, documents) == line.count("\u2581")


@for_all(st.text(st.characters(exclude_categories=["Cs"])))
def test_fallback__gives_every_text_back_with_the_ids_of_the_library(text: str) -> None:
    form = normalize("NFC", text)
    ids = FALLBACK.encode(text)
    assert FALLBACK.special_ids.unk not in ids
    assert FALLBACK.decode(ids) == form
    assert LIBRARY_FALLBACK.encode(form, add_special_tokens=False).ids == ids
    assert "".join(form[start:end] for start, end in FALLBACK.spans(text)) == form


def test_fallback__needs_room_for_the_bytes() -> None:
    least = 4 + 256 + len(set("the sun"))  # special tokens, bytes and characters
    assert tokenizer_of("bpe", ["the sun"], byte_fallback=True, vocab_size=least).vocab_size == least
    with pytest.raises(AppError) as caught:
        tokenizer_of("bpe", ["the sun"], byte_fallback=True, vocab_size=least - 1)
    assert caught.value.message == (
        f"`vocab_size` must be at least {least} for this text, because each of its 7 characters and each of the 256"
        f" bytes of `byte_fallback` needs a token; you gave {least - 1}."
    )
    with pytest.raises(AppError, match="`byte_fallback` is not an option of method 'char'"):
        tokenizer_of("char", ["the sun"], byte_fallback=True)


@pytest.mark.parametrize(("text", "shown"), [("\ud800", "\ufffd"), ("a\ud800b", "a\ufffdb")])
def test_lone_surrogates__which_no_corpus_has_are_bytes_of_no_character(text: str, shown: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)).replace("\ufffd" * 3, "\ufffd") == shown
