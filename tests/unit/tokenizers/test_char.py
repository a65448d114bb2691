"""The character tokenizer: ids, files, statistics, and the forms of its stored files."""

import json
from collections.abc import Callable
from pathlib import Path
from time import process_time

import pytest
import tokenizers
from jsonschema_rs import Draft202012Validator
from pydantic import JsonValue

from tests.support import ROOT
from tests.support.tiny_models import char_tokenizer
from trainer.artifacts.runs import RunStore
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.char import SPECIAL_TOKENS
from trainer.training.dataset import CorpusPaths, prepare

IPA = ["ˈqɑzɑq tɪlɪ", "ɡyl ʃɑːr", "œmˈɪr 𐓀"]


def test_ids__are_specials_then_sorted_code_points() -> None:
    tokenizer = char_tokenizer(["bca", "\u00e9a", "😀"])
    assert SPECIAL_TOKENS == {"[PAD]": 0, "[UNK]": 1, "[BOS]": 2, "[EOS]": 3}
    assert tokenizer.encode("abcé😀") == [4, 5, 6, 7, 8]
    assert tokenizer.vocab_size == 9
    assert tokenizer.tokens([0, 1, 2, 3, 4]) == ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "a"]
    assert tokenizer.encode("ae\u0301x\n\0\ud800") == [4, 7, 1, 1, 1, 1]
    masked = char_tokenizer(["a"], mask_token=True)
    assert (tokenizer.special_ids.mask, masked.special_ids.mask) == (None, 4)
    assert masked.decode([4, 5]) == "a" and masked.encode("a[MASK]") == [5, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(("characters", "bytes_per_id"), [(200, 1), (300, 2), (66_000, 4)])
def test_documents__take_the_smallest_type(characters: int, bytes_per_id: int) -> None:
    text = "".join(chr(0x10000 + i) for i in range(characters))
    documents = char_tokenizer([text]).encode_documents(text)
    ids: list[int] = documents.tolist()
    assert documents.itemsize == bytes_per_id
    assert ids[1:-1] == list(range(4, characters + 4))


def test_library_file__decodes_equally_and_skips_special_tokens(tmp_path: Path) -> None:
    ours = char_tokenizer(IPA)
    ours.save(tmp_path)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    vocabulary: dict[str, int] = library.get_vocab()
    assert vocabulary == {name: token_id for token_id, name in enumerate(ours.names)}
    assert ours.names == [*SPECIAL_TOKENS, *sorted(set("".join(IPA)))]
    for line in IPA:
        assert library.decode([2, 1, *ours.encode(line), 3, 0]) == line


def test_vocabulary__drops_the_rare_and_keeps_the_most_frequent() -> None:
    lines = ["aaaa", "bbb", "cc", "dd", "e"]
    assert char_tokenizer(lines, min_frequency=3).vocab_size == 4 + 2
    assert char_tokenizer(lines, min_frequency=5).encode("a") == [1]
    capped = char_tokenizer(lines, vocab_size=7)
    assert capped.tokens(capped.encode("abcde")) == ["a", "b", "c", "[UNK]", "[UNK]"]
    assert char_tokenizer(lines, vocab_size=2).vocab_size == 4


def test_id__is_that_of_the_content(tmp_path: Path) -> None:
    manifest = char_tokenizer(["ab", "c"]).manifest
    assert (manifest.seed, manifest.holdout_fraction) == (1, 0.1)
    assert manifest.tokenizer_id == char_tokenizer(["ab", "c"]).manifest.tokenizer_id
    assert manifest.tokenizer_id != char_tokenizer(["ab", "c"], min_frequency=2).manifest.tokenizer_id
    stored = ROOT / "tests" / "fixtures" / "finished_run"
    [run] = RunStore(stored / "artifacts").all()
    first = load_tokenizer(run.tokenizer).manifest
    tokenizer, _ = prepare(run.record().effective, CorpusPaths(stored / "data" / "corpus" / "text.txt"), tmp_path)
    again = tokenizer.manifest
    assert (again.tokenizer_id, again.corpus, again.files) == (first.tokenizer_id, first.corpus, first.files)


def closed(**properties: JsonValue) -> dict[str, JsonValue]:
    """The schema of an object with exactly these properties."""
    names: list[JsonValue] = [*properties]
    return {"type": "object", "additionalProperties": False, "required": names, "properties": properties}


def array_of(items: JsonValue) -> JsonValue:
    return {"type": "array", "minItems": 1, "items": items}


TEXT: JsonValue = {"type": "string"}
COUNT: JsonValue = {"type": "integer", "minimum": 0}
SHARE: JsonValue = {"type": "number", "minimum": 0, "maximum": 1}
SHA256: JsonValue = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
SPECIALS: JsonValue = {"[PAD]": 0, "[UNK]": 1, "[BOS]": 2, "[EOS]": 3}
MANIFEST_FILE = closed(
    schema_version={"const": 1},
    tokenizer_id={"type": "string", "pattern": "^char-[0-9a-f]{16}$"},
    method={"const": "char"},
    vocab_size=COUNT,
    special_tokens={"const": SPECIALS},
    normalization={"const": {"form": "NFC", "lowercase": False}},
    documents={"const": "line"},
    corpus=array_of(closed(name=TEXT, sha256=SHA256, lines=COUNT, chars=COUNT)),
    config={"type": "object", "required": ["method", "vocab_size", "min_frequency", "normalization"]},
    stats=closed(
        coverage=SHARE,
        oov_rate=SHARE,
        unknown_char_share=SHARE,
        token_count=COUNT,
        char_coverage=SHARE,
        avg_tokens_per_char={"const": 1.0},
        avg_tokens_per_word={"type": "number", "exclusiveMinimum": 0},
        holdout_lines=COUNT,
    ),
    seed=COUNT,
    split_by={"enum": ["line", "file", "position"]},
    holdout_fraction=SHARE,
    test_fraction=SHARE,
    versions={"type": "object", "additionalProperties": TEXT},
    created_at={"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z$"},
    files=array_of(closed(path={"const": "tokenizer.json"}, bytes=COUNT, sha256=SHA256)),
)


def test_manifest__has_its_documented_form(tmp_path: Path) -> None:
    char_tokenizer([*IPA, "abc"]).save(tmp_path)
    written: JsonValue = json.loads((tmp_path / "manifest.json").read_bytes())
    Draft202012Validator(MANIFEST_FILE).validate(written)


@pytest.mark.slow
def test_encoding__is_many_times_faster_than_a_dictionary() -> None:
    line = "the quick brown fox ˈʃɑːr 😀 " * 40
    lines = [line] * 500
    block, tokenizer = "\n".join(lines), char_tokenizer([line])
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
