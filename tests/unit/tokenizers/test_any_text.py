"""Properties of the character tokenizer on any text at all: astral, combining, unassigned, even lone surrogates."""

from pathlib import Path
from tempfile import TemporaryDirectory
from unicodedata import normalize

from hypothesis import strategies as st

from tests.support.any_text import anything, trained_on
from tests.support.properties import for_all_pairs
from tests.support.tiny_models import char_tokenizer
from trainer.contracts.tokenizers import TokenizerManifest
from trainer.tokenizers import load_tokenizer


@for_all_pairs(trained_on, anything)
def test_encoding__has_one_id_and_one_span_for_each_character(known_text: str, text: str) -> None:
    known = set(normalize("NFC", known_text))
    tokenizer = char_tokenizer(["".join(known)])
    normal = normalize("NFC", text)
    ids, spans = tokenizer.encode(text), tokenizer.spans(text)
    assert [i != tokenizer.special_ids.unk for i in ids] == [c in known for c in normal]
    assert spans == [(i, i + 1) for i in range(len(normal))]
    assert tokenizer.decode(ids) == "".join(c for c in normal if c in known)


@for_all_pairs(trained_on, st.lists(trained_on, min_size=1, max_size=5))
def test_documents__are_their_lines_each_encoded_alone(known_text: str, lines: list[str]) -> None:
    tokenizer = char_tokenizer([normalize("NFC", known_text)])
    normal = [normalize("NFC", line) for line in lines]
    ids: list[int] = tokenizer.encode_documents("\n".join(normal)).tolist()
    assert ids == [i for line in normal for i in (2, *tokenizer.encode(line), 3)]


@for_all_pairs(trained_on, st.booleans())
def test_saved_tokenizer__comes_back_with_its_manifest(known_text: str, lowercase: bool) -> None:
    saved = char_tokenizer([normalize("NFC", known_text)], normalization={"lowercase": lowercase})
    with TemporaryDirectory() as folder:
        saved.save(Path(folder))
        loaded = load_tokenizer(Path(folder))
    assert loaded.manifest == saved.manifest
    assert TokenizerManifest.model_validate_json(saved.manifest.model_dump_json()) == saved.manifest
    assert loaded.encode(known_text) == saved.encode(known_text)
