"""The byte tokenizer: every text, byte by byte."""

from unicodedata import normalize

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all
from tests.support.tiny_models import library_tokenizer, tokenizer_of

TOKENIZER = tokenizer_of("byte", ["a text"])
STREAM = tokenizer_of("byte", ["a text"], documents="stream")
LIBRARY = library_tokenizer(TOKENIZER)


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


@pytest.mark.parametrize(("text", "shown"), [("\ud800", "\ufffd"), ("a\ud800b", "a\ufffdb")])
def test_lone_surrogates__which_no_corpus_has_are_bytes_of_no_character(text: str, shown: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)).replace("\ufffd" * 3, "\ufffd") == shown
