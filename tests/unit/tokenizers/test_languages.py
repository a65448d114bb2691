"""Round trips on real text: the Universal Declaration of Human Rights (United Nations, free to reproduce)."""

from unicodedata import normalize

import pytest

from tests.support.languages import LANGUAGES, texts_in
from tests.support.tiny_models import tokenizer_of
from trainer.contracts.tokenizers import METHODS
from trainer.tokenizers.base import Tokenizer

WITH_SUBWORDS = [method for method in METHODS if method not in ("char", "byte", "word")]


def made(method: str, lines: list[str]) -> Tokenizer:
    return tokenizer_of(method, lines, vocab_size=600 if method in WITH_SUBWORDS else None)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("method", METHODS)
def test_text_in_the_vocabulary__comes_back_as_it_was(method: str, language: str) -> None:
    lines = texts_in(language)
    tokenizer = made(method, lines)
    assert len(lines) >= 3
    for line in [*lines, normalize("NFD", lines[0])]:
        ids = tokenizer.encode(line)
        assert tokenizer.special_ids.unk not in ids
        if method == "word":  # its spaces are those of print, not of the text
            assert tokenizer.tokens(ids) == normalize("NFC", line).split()
        else:
            assert tokenizer.decode(ids) == normalize("NFC", line)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("method", ["char", *WITH_SUBWORDS])
def test_text_that_was_not_seen__loses_unknown_characters_and_nothing_else(method: str, language: str) -> None:
    *lines, unseen = texts_in(language)
    tokenizer = made(method, lines)
    known = set("".join(lines))
    ids = tokenizer.encode(unseen)
    assert tokenizer.decode(ids) == "".join(c for c in unseen if c in known)
    assert (tokenizer.special_ids.unk in ids) == bool(set(unseen) - known)


@pytest.mark.parametrize("method", WITH_SUBWORDS)
def test_subwords__are_fewer_than_characters_and_lead_to_them(method: str) -> None:
    lines = texts_in("tr")
    tokenizer = made(method, lines)
    for line in lines:
        spans = tokenizer.spans(line)
        assert len(spans) < 0.6 * len(line)
        assert [start for start, _ in spans] == [0, *(end for _, end in spans)][:-1]
        assert spans[-1][1] == len(line)
        assert not any(line[start:end].rstrip(" ").count(" ") > 1 for start, end in spans)
