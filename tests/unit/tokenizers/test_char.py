"""The character tokenizer: ids, files, and the forms of its stored files."""

import json
from pathlib import Path

import pytest
from pydantic import JsonValue

from tests.support import ROOT
from tests.support.tiny_models import char_tokenizer, integers, library_tokenizer
from trainer.artifacts.runs import RunStore
from trainer.data.run_corpora import CorpusPaths
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.char import SPECIAL_TOKENS
from trainer.training.dataset import prepare

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
    assert documents.itemsize == bytes_per_id
    assert integers(documents)[1:-1] == list(range(4, characters + 4))


def test_library_file__decodes_equally_and_skips_special_tokens() -> None:
    ours = char_tokenizer(IPA)
    library = library_tokenizer(ours)
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


def test_id__depends_on_the_content_alone(tmp_path: Path) -> None:
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


def test_manifest__has_its_documented_fields(tmp_path: Path) -> None:
    char_tokenizer([*IPA, "abc"]).save(tmp_path)
    manifest: dict[str, JsonValue] = json.loads((tmp_path / "manifest.json").read_bytes())
    fields = "schema_version tokenizer_id method vocab_size special_tokens normalization documents corpus config stats"
    fields += " seed split_by holdout_fraction test_fraction versions created_at files"
    parts = {
        "stats": "coverage oov_rate unknown_char_share token_count char_coverage avg_tokens_per_char"
        " avg_tokens_per_word holdout_lines",
        "corpus": "name sha256 lines chars",
        "files": "path bytes sha256",
        "normalization": "form lowercase",
    }
    assert list(manifest) == fields.split()
    for name, expected in parts.items():
        part = manifest[name]
        [values] = part if isinstance(part, list) else [part]
        assert isinstance(values, dict) and list(values) == expected.split()
    assert manifest["special_tokens"] == {"[PAD]": 0, "[UNK]": 1, "[BOS]": 2, "[EOS]": 3}
