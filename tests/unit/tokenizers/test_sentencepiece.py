"""SentencePiece: equal to the package on the saved file, words with the space before them, reserved characters."""

from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

import pytest
from sentencepiece import SentencePieceProcessor

from tests.support.properties import for_all_pairs
from tests.support.refusals import refused
from tests.support.strategies import specials_and_text, texts
from tests.support.tiny_models import integers, tokenizer_of
from trainer.contracts.errors import ErrorCode
from trainer.tokenizers.base import Tokenizer

KING_LINES = ["the king and the queen, the king's men", "a king is a king", "ˈqɑzɑq tɪlɪ ˈqɑzɑ"] * 3
RESERVED = "\0\t\x1f\u2581\u2585"
every_type = pytest.mark.parametrize("model_type", ["unigram", "bpe"])


def sentencepiece(model_type: str, lines: Sequence[str] = KING_LINES) -> Tokenizer:
    return tokenizer_of("sentencepiece", lines, model_type=model_type)


@every_type
def test_ids_and_tokens__are_those_of_the_package_on_the_saved_file(tmp_path: Path, model_type: str) -> None:
    ours = sentencepiece(model_type)
    ours.save(tmp_path)
    package = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))

    @for_all_pairs(texts, specials_and_text)
    def equal(text: str, odd: str) -> None:
        for shown in (text, odd, f"{text} king {odd}"):
            if not set(shown) & set(RESERVED):
                ids: list[int] = package.encode_as_ids(normalize("NFC", shown))
                assert ours.encode(shown) == ids
                assert integers(ours.encode_documents(normalize("NFC", shown))) == [0, *ids, 1]

    equal()
    pieces: list[str] = package.encode_as_pieces("the king's queen")
    assert ours.tokens(ours.encode("the king's queen")) == pieces
    text: str = package.decode(ours.encode("the  king's queen"))
    assert text == "the  king's queen"


@every_type
def test_words__are_the_same_tokens_at_the_start_of_a_line(model_type: str) -> None:
    tokenizer = sentencepiece(model_type)
    ids = tokenizer.encode("king king")
    assert ids[: len(ids) // 2] == ids[len(ids) // 2 :]
    assert tokenizer.tokens(ids)[0].startswith("\u2581")
    assert tokenizer.spans("king king")[len(ids) // 2][0] == 4
    assert tokenizer.manifest.special_tokens == {"<s>": 0, "</s>": 1, "<unk>": 2, "<pad>": 3}


@every_type
def test_long_lines__are_learned_from_to_their_end(model_type: str) -> None:
    tokenizer = sentencepiece(model_type, [f"{'the king ' * 3000}ж"])
    assert tokenizer.special_ids.unk not in tokenizer.encode("the king ж")


def test_text_without_pieces__is_refused() -> None:
    with refused(ErrorCode.TOKENIZER_TRAIN_FAILED, "SentencePiece could not train 8,000 tokens on this text"):
        tokenizer_of("sentencepiece", [])
