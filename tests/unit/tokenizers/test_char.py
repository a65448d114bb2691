"""The character tokenizer: ids, spans, files, statistics."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from time import process_time
from unicodedata import normalize

import pytest
import tokenizers
from jsonschema_rs import Draft202012Validator
from pydantic import JsonValue

from tests.support.properties import for_all
from tests.support.strategies import texts
from tests.support.tiny_models import char_tokenizer, library_tokenizer
from trainer.artifacts.runs import RunStore
from trainer.contracts.errors import AppError, ErrorCode
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.base import Tokenizer
from trainer.tokenizers.char import SPECIAL_TOKENS
from trainer.training.dataset import CorpusPaths, prepare

IPA = ["ˈqɑzɑq tɪlɪ", "ɡyl ʃɑːr", "œmˈɪr 𐓀"]


def test_ids__are_specials_then_sorted_code_points() -> None:
    tokenizer = char_tokenizer(["bca", "éa", "😀"])
    assert SPECIAL_TOKENS == {"[PAD]": 0, "[UNK]": 1, "[BOS]": 2, "[EOS]": 3}
    assert tokenizer.encode("abcé😀") == [4, 5, 6, 7, 8]
    assert tokenizer.vocab_size == 9
    assert tokenizer.tokens([0, 1, 2, 3, 4]) == ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "a"]


def test_encode__normalizes_first_and_gives_unknown_for_what_it_does_not_know() -> None:
    tokenizer = char_tokenizer(["aé"])
    assert tokenizer.encode("ae\u0301x\n\0\ud800") == [4, 5, 1, 1, 1, 1]
    assert tokenizer.encode("") == []


def test_encode__a_special_token_in_the_text_is_text() -> None:
    tokenizer = char_tokenizer(["[BOS]"])
    assert tokenizer.tokens(tokenizer.encode("[BOS]")) == list("[BOS]")


def test_documents__are_the_lines_between_begin_and_end() -> None:
    tokenizer = char_tokenizer(["ab"])
    assert documents_of(tokenizer, ["a", "bx"]) == [2, 4, 3, 2, 5, 1, 3]
    assert documents_of(tokenizer, ["", "b", ""]) == [2, 3, 2, 5, 3, 2, 3]


@pytest.mark.parametrize(("characters", "bytes_per_id"), [(200, 1), (300, 2), (66_000, 4)])
def test_documents__take_the_smallest_type(characters: int, bytes_per_id: int) -> None:
    text = "".join(chr(0x10000 + i) for i in range(characters))
    tokenizer = char_tokenizer([text])
    assert tokenizer.encode_documents(text).itemsize == bytes_per_id
    assert documents_of(tokenizer, [text])[1:-1] == list(range(4, characters + 4))


def test_decode__skips_specials_and_ids_outside() -> None:
    tokenizer = char_tokenizer(IPA)
    assert tokenizer.decode([2, *tokenizer.encode(IPA[0]), 3, 0, 1, 9999, -1]) == IPA[0]


def documents_of(tokenizer: Tokenizer, lines: list[str]) -> list[int]:
    ids: list[int] = tokenizer.encode_documents("\n".join(lines)).tolist()
    return ids


TRAINED_ON_IPA = char_tokenizer(IPA)


@for_all(texts)
def test_round_trip__known_characters_come_back_and_spans_tile_the_text(text: str) -> None:
    normal = normalize("NFC", text)
    tokenizer = char_tokenizer([normal, "x"])
    ids, spans = tokenizer.encode(text), tokenizer.spans(text)
    assert tokenizer.decode(ids) == normal
    assert [normal[a:b] for a, b in spans] == tokenizer.tokens(ids)


@for_all(texts)
def test_library_file__gives_equal_ids(text: str) -> None:
    for lowercase in (False, True):
        ours = char_tokenizer(["aáBéσς İi[BOS]ˈː𐓀", text[::2]], normalization={"lowercase": lowercase})
        theirs = library_tokenizer(ours)
        for shown in (text, "[BOS] ΑΣ İ", text + "\u0301"):
            assert theirs.encode(shown, add_special_tokens=False).ids == ours.encode(shown)


def test_library_file__decodes_equally(tmp_path: Path) -> None:
    TRAINED_ON_IPA.save(tmp_path)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for line in IPA:
        assert library.decode(TRAINED_ON_IPA.encode(line)) == line


def test_vocabulary__drops_the_rare_and_keeps_the_most_frequent() -> None:
    lines = ["aaaa", "bbb", "cc", "dd", "e"]
    assert char_tokenizer(lines, min_frequency=3).vocab_size == 4 + 2
    assert char_tokenizer(lines, min_frequency=5).encode("a") == [1]
    capped = char_tokenizer(lines, vocab_size=7)
    assert capped.tokens(capped.encode("abcde")) == ["a", "b", "c", "[UNK]", "[UNK]"]
    assert char_tokenizer(lines, vocab_size=2).vocab_size == 4


def test_statistics__are_those_of_lines_that_the_vocabulary_did_not_see() -> None:
    stats = char_tokenizer(["ab c"], ["ab zz", "cz"]).manifest.stats
    assert stats.token_count == 7
    assert stats.oov_rate == pytest.approx(3 / 7)
    assert stats.coverage == pytest.approx(4 / 7)
    assert stats.char_coverage == pytest.approx(4 / 5)
    assert stats.avg_tokens_per_char == 1
    assert stats.avg_tokens_per_word == pytest.approx(7 / 3)
    assert stats.holdout_lines == 2


def test_manifest__tells_what_made_the_tokenizer() -> None:
    manifest = char_tokenizer(["ab", "c"]).manifest
    assert (manifest.method, manifest.vocab_size, manifest.special_tokens) == ("char", 7, SPECIAL_TOKENS)
    assert [(c.lines, c.chars) for c in manifest.corpus] == [(2, 3)]
    assert (manifest.seed, manifest.holdout_fraction) == (1, 0.1)
    assert manifest.tokenizer_id == char_tokenizer(["ab", "c"]).manifest.tokenizer_id
    assert manifest.tokenizer_id != char_tokenizer(["ab", "c"], min_frequency=2).manifest.tokenizer_id


def test_id__of_a_runs_own_tokenizer_is_the_same_when_it_is_trained_again(tmp_path: Path) -> None:
    first = Path(__file__).parents[2] / "fixtures" / "finished_run"
    [run] = RunStore(first / "artifacts").all()
    stored = load_tokenizer(run.tokenizer).manifest
    tokenizer, _ = prepare(run.record().effective, CorpusPaths(first / "data" / "corpus" / "text.txt"), tmp_path)
    again = tokenizer.manifest
    assert (again.tokenizer_id, again.corpus, again.files) == (stored.tokenizer_id, stored.corpus, stored.files)


LIBRARY_FILE = """{
    "type": "object", "required": ["version", "added_tokens", "normalizer", "pre_tokenizer", "decoder", "model"],
    "properties": {
        "added_tokens": {
            "type": "array", "minItems": 4, "maxItems": 4,
            "prefixItems": [
                {"properties": {"id": {"const": 0}, "content": {"const": "[PAD]"}}},
                {"properties": {"id": {"const": 1}, "content": {"const": "[UNK]"}}},
                {"properties": {"id": {"const": 2}, "content": {"const": "[BOS]"}}},
                {"properties": {"id": {"const": 3}, "content": {"const": "[EOS]"}}}
            ],
            "items": {"required": ["id", "content", "special"], "properties": {"special": {"const": true}}}
        },
        "decoder": {"properties": {"type": {"const": "Fuse"}}},
        "model": {
            "type": "object", "required": ["type", "vocab", "unk_token"],
            "properties": {
                "type": {"const": "WordLevel"},
                "unk_token": {"const": "[UNK]"},
                "vocab": {
                    "type": "object", "required": ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "a", "ˈ"],
                    "propertyNames": {"pattern": "^([\\\\s\\\\S]|\\\\[[A-Z]{3}\\\\])$"},
                    "additionalProperties": {"type": "integer", "minimum": 0}
                }
            }
        }
    }
}"""
MANIFEST_FILE = """{
    "$defs": {
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        "count": {"type": "integer", "minimum": 0},
        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    },
    "type": "object", "additionalProperties": false,
    "required": [
        "schema_version", "tokenizer_id", "method", "vocab_size", "special_tokens", "normalization", "documents",
        "corpus", "config", "stats", "seed", "split_by", "holdout_fraction", "test_fraction",
        "versions", "created_at", "files"
    ],
    "properties": {
        "schema_version": {"const": 1},
        "tokenizer_id": {"type": "string", "pattern": "^char-[0-9a-f]{16}$"},
        "method": {"const": "char"},
        "vocab_size": {"$ref": "#/$defs/count"},
        "special_tokens": {"const": {"[PAD]": 0, "[UNK]": 1, "[BOS]": 2, "[EOS]": 3}},
        "normalization": {"const": {"form": "NFC", "lowercase": false}},
        "documents": {"const": "line"},
        "corpus": {
            "type": "array", "minItems": 1,
            "items": {
                "type": "object", "additionalProperties": false, "required": ["name", "sha256", "lines", "chars"],
                "properties": {
                    "name": {"type": "string"}, "sha256": {"$ref": "#/$defs/sha256"},
                    "lines": {"$ref": "#/$defs/count"}, "chars": {"$ref": "#/$defs/count"}
                }
            }
        },
        "config": {"type": "object", "required": ["method", "vocab_size", "min_frequency", "normalization"]},
        "stats": {
            "type": "object", "additionalProperties": false,
            "required": [
                "coverage", "oov_rate", "token_count", "char_coverage", "avg_tokens_per_char", "avg_tokens_per_word",
                "holdout_lines"
            ],
            "properties": {
                "coverage": {"$ref": "#/$defs/share"}, "oov_rate": {"$ref": "#/$defs/share"},
                "unknown_char_share": {"$ref": "#/$defs/share"},
                "token_count": {"$ref": "#/$defs/count"}, "char_coverage": {"$ref": "#/$defs/share"},
                "avg_tokens_per_char": {"const": 1.0}, "avg_tokens_per_word": {"type": "number", "exclusiveMinimum": 0},
                "holdout_lines": {"$ref": "#/$defs/count"}
            }
        },
        "seed": {"$ref": "#/$defs/count"},
        "split_by": {"enum": ["line", "file", "position"]},
        "holdout_fraction": {"$ref": "#/$defs/share"}, "test_fraction": {"$ref": "#/$defs/share"},
        "versions": {"type": "object", "additionalProperties": {"type": "string"}},
        "created_at": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z$"},
        "files": {
            "type": "array", "minItems": 1, "maxItems": 1,
            "items": {
                "type": "object", "additionalProperties": false, "required": ["path", "bytes", "sha256"],
                "properties": {
                    "path": {"const": "tokenizer.json"}, "bytes": {"$ref": "#/$defs/count"},
                    "sha256": {"$ref": "#/$defs/sha256"}
                }
            }
        }
    }
}"""


@pytest.mark.parametrize(("file", "schema"), [("tokenizer.json", LIBRARY_FILE), ("manifest.json", MANIFEST_FILE)])
def test_files__have_their_documented_form(tmp_path: Path, file: str, schema: str) -> None:
    char_tokenizer([*IPA, "abc"]).save(tmp_path)
    form: dict[str, JsonValue] = json.loads(schema)
    written: dict[str, JsonValue] = json.loads((tmp_path / file).read_bytes())
    Draft202012Validator(form).validate(written)
    for name in form["required"] if isinstance(form["required"], list) else ():
        without = {key: value for key, value in written.items() if key != name}
        assert not Draft202012Validator(form).is_valid(without)


def test_load__gives_the_tokenizer_that_was_saved(tmp_path: Path) -> None:
    saved = char_tokenizer(IPA, normalization={"lowercase": True})
    saved.save(tmp_path / "folder")
    loaded = load_tokenizer(tmp_path / "folder")
    assert loaded.manifest == saved.manifest
    assert loaded.encode(IPA[0].upper()) == saved.encode(IPA[0].upper())


@pytest.mark.parametrize("file", ["tokenizer.json", "manifest.json"])
def test_load__refuses_a_missing_cut_or_changed_file(tmp_path: Path, file: str) -> None:
    TRAINED_ON_IPA.save(tmp_path)
    path = tmp_path / file
    whole = path.read_bytes()
    for broken in (None, b"", whole[:-40], whole.replace(b"[UNK]", b"[UNK!]"), b"{}"):
        path.unlink(missing_ok=True)
        if broken is not None:
            path.write_bytes(broken)
        with pytest.raises(AppError) as caught:
            load_tokenizer(tmp_path)
        assert caught.value.code == ErrorCode.TOKENIZER_LOAD_FAILED


@pytest.mark.parametrize("change", [('"a"', '"ab"'), ('"[EOS]":3', '"[EOS]":9'), ('"b":5', '"b":7')])
def test_load__refuses_a_vocabulary_that_is_none_of_characters(tmp_path: Path, change: tuple[str, str]) -> None:
    char_tokenizer(["ab"]).save(tmp_path)
    library, manifest = tmp_path / "tokenizer.json", tmp_path / "manifest.json"
    old = library.read_bytes()
    new = old.replace(change[0].encode(), change[1].encode())
    library.write_bytes(new)
    manifest.write_text(manifest.read_text().replace(sha256(old).hexdigest(), sha256(new).hexdigest()))
    with pytest.raises(AppError, match="does not have"):
        load_tokenizer(tmp_path)


@pytest.mark.slow
def test_encoding__is_many_times_faster_than_a_dictionary() -> None:
    line = "the quick brown fox ˈʃɑːr 😀 " * 40
    lines = [line] * 500
    block = "\n".join(lines)
    tokenizer = char_tokenizer([line])
    vocabulary = {c: tokenizer.encode(c)[0] for c in line}

    def by_dictionary() -> None:
        ids: list[int] = []
        for text in lines:
            for c in text:
                ids.append(int(vocabulary.get(c, 1)))  # noqa: PERF401  the loop that is compared with

    def by_table() -> None:
        tokenizer.encode_documents(block)

    assert fastest(by_dictionary) / fastest(by_table) > 8  # measured: 30 to 60


def fastest(work: Callable[[], None]) -> float:
    seconds: list[float] = []
    for _ in range(3):
        start = process_time()
        work()
        seconds.append(process_time() - start)
    return min(seconds)
