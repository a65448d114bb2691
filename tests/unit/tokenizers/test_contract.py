"""What every tokenizer promises, whatever its method: ids and back, documents, places, files."""

from pathlib import Path
from unicodedata import normalize

import pytest

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest, config_of
from trainer.contracts.tokenizers import METHODS, Normalization
from trainer.data.corpus import SplitRule
from trainer.tokenizers import is_saved, load_tokenizer, train_tokenizer
from trainer.tokenizers.base import Text, Tokenizer

LINES = ["the sun was shining on the sea", "ˈqɑzɑq tɪlɪ ʃɑːr", "e\u0301tude [BOS] 😀"]
KNOWN = ["the sea", "ˈʃɑːr", "\u00e9tude", "[BOS]", "the 😀"]


def made(method: str, **fields: object) -> Tokenizer:
    values: dict[str, object] = {"method": method, "corpora": ("text",), **fields}
    config = config_of(TokenizerTrainRequest.model_validate(values))
    text = Text(CorpusRef(name="text", sha256="0" * 64, bytes=1), [normalize("NFC", line) for line in LINES])
    return train_tokenizer(config, [text], ["a line held out"], rule=SplitRule(0.1, 0.0, 1), tokenizer_id=f"{method}-0")


@pytest.mark.parametrize("method", METHODS)
def test_known_text__comes_back_in_its_normal_form(method: str) -> None:
    tokenizer = made(method)

    for text in [*KNOWN, "e\u0301tude"]:
        assert tokenizer.decode(tokenizer.encode(text)) == normalize("NFC", text)
    assert tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9")
    assert tokenizer.encode("") == []


@pytest.mark.parametrize("method", METHODS)
def test_unknown_text__is_the_unknown_token_and_a_special_token_in_a_text_is_text(method: str) -> None:
    tokenizer = made(method)
    specials = tokenizer.manifest.special_tokens

    assert specials["[UNK]"] in tokenizer.encode("Ж")
    for name in specials:
        assert set(tokenizer.encode(name)) & set(specials.values()) <= {specials["[UNK]"]}


@pytest.mark.parametrize("method", METHODS)
def test_documents__are_each_line_between_begin_and_end(method: str) -> None:
    tokenizer = made(method)
    begin, end = tokenizer.manifest.special_tokens["[BOS]"], tokenizer.manifest.special_tokens["[EOS]"]

    ids: list[int] = tokenizer.encode_documents(KNOWN).tolist()

    assert ids == [i for line in KNOWN for i in (begin, *tokenizer.encode(line), end)]
    assert max(ids) < tokenizer.vocab_size


@pytest.mark.parametrize("method", METHODS)
def test_spans__lead_each_token_to_its_place_in_the_normal_form(method: str) -> None:
    tokenizer = made(method)

    for text in KNOWN:
        spans = tokenizer.spans(text)
        assert len(spans) == len(tokenizer.encode(text)) == len(tokenizer.tokens(tokenizer.encode(text)))
        assert [start for start, _ in spans] == [0, *(end for _, end in spans)][:-1]
        assert spans[-1][1] == len(normalize("NFC", text))


@pytest.mark.parametrize("method", METHODS)
def test_lowercase__is_part_of_the_tokenizer(method: str) -> None:
    tokenizer = made(method, normalization=Normalization(lowercase=True))

    assert tokenizer.normalization.lowercase
    assert tokenizer.encode("THE Sea") == tokenizer.encode("the sea")


@pytest.mark.parametrize("method", METHODS)
def test_saved__it_is_found_by_its_manifest_and_gives_equal_ids(method: str, tmp_path: Path) -> None:
    saved = made(method)
    assert not is_saved(tmp_path / "folder")
    saved.save(tmp_path / "folder")

    loaded = load_tokenizer(tmp_path / "folder")

    assert is_saved(tmp_path / "folder")
    assert loaded.manifest == saved.manifest
    assert (loaded.manifest.method, loaded.manifest.vocab_size) == (method, saved.vocab_size)
    assert [loaded.encode(line) for line in LINES] == [saved.encode(line) for line in LINES]


def test_method_of_the_manifest_that_is_not_there__is_refused(tmp_path: Path) -> None:
    made("char").save(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"char"', '"morse"'), encoding="utf-8")

    with pytest.raises(AppError, match="method") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.code is ErrorCode.TOKENIZER_LOAD_FAILED
