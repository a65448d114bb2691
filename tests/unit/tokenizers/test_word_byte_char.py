"""The tokenizers of words, bytes and characters: ids, spaces, fallback, files and their stored forms."""

import json
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import tokenizers
from hypothesis import strategies as st
from pydantic import JsonValue

from tests.support import ROOT
from tests.support.properties import for_all, for_all_pairs
from tests.support.strategies import texts
from tests.support.tiny_models import char_tokenizer, integers, library_tokenizer, tokenizer_of
from trainer.artifacts.runs import RunStore
from trainer.contracts.errors import AppError
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.char import SPECIAL_TOKENS
from trainer.tokenizers.word import with_spaces
from trainer.training.batches import NO_TARGET, Rows
from trainer.training.dataset import CorpusPaths, prepare


def test_ids__are_the_unknown_word_the_end_and_words_as_they_came() -> None:
    tokenizer = tokenizer_of("word", ["b a b", "c\ta  d"])
    assert tokenizer.manifest.special_tokens == {"<UNK>": 0, "<eos>": 1}
    assert tokenizer.encode("a b c d e") == [3, 2, 4, 5, 0]
    assert tokenizer.tokens([0, 1, 2]) == ["<UNK>", "<eos>", "b"]
    assert tokenizer.manifest.versions == {"tokenizers": tokenizers.__version__}


@pytest.mark.parametrize("name", ["<unk>", "<UNK>", "[UNK]"])
def test_name_of_an_unknown_token__in_a_text_counts_as_unknown(name: str) -> None:
    tokenizer = tokenizer_of("word", [f"the {name} sat", f"{name} {name}"])
    documents = tokenizer.encode_documents(f"the {name} sat")
    assert integers(documents) == [2, 0, 3, 1]
    assert tokenizer.unknown_characters(f"the {name} sat", documents) == len(name)
    assert library_tokenizer(tokenizer).encode(f"the {name} sat", add_special_tokens=False).ids == [2, 0, 3]


def test_vocabulary__keeps_the_most_frequent_in_the_order_of_the_text() -> None:
    lines = ["c a a", "b b c", "d a"]
    assert tokenizer_of("word", lines, min_frequency=2).encode("c a b d") == [2, 3, 4, 0]
    capped = tokenizer_of("word", lines, vocab_size=4)
    assert capped.encode("a c b d") == [3, 2, 0, 0]
    assert tokenizer_of("word", lines, vocab_size=1).vocab_size == 2


def test_rows__begin_at_the_end_of_a_line_and_predict_every_id() -> None:
    tokenizer = tokenizer_of("word", ["a b c"])
    documents = tokenizer.encode_documents("\n".join(["a b c", "a x c"] * 10))
    ids, rows = integers(documents), Rows(documents, 8, tokenizer.special_ids)
    batch = rows.batch(np.arange(len(rows)))
    inputs, targets = integers(batch.inputs), integers(batch.targets)
    assert inputs[: len(ids)] == [1, *ids[:-1]]
    assert targets == [*ids, *[NO_TARGET] * (len(targets) - len(ids))]
    assert batch.tokens == len(ids) == 80
    assert set(inputs[len(ids) :]) <= {1}


PRINTED = [
    ("the cat , the dog .", "the cat, the dog."),
    ("well ; yes : no ! why ?", "well; yes: no! why?"),
    ("a ( b ) c", "a (b) c"),
    ("x [ 1 ] y { 2 } z", "x [1] y {2} z"),
    ("John 's hat", "John's hat"),
    ("the boys ' hats", "the boys' hats"),
    ('he said " yes " twice', 'he said "yes" twice'),
    ('" a " , " b "', '"a", "b"'),
    ('( " in " )', '("in")'),
    ("plain words stay, as they are.", "plain words stay, as they are."),
    ("", ""),
]


@pytest.mark.parametrize(("words", "printed"), PRINTED)
def test_spaces__are_as_in_print(words: str, printed: str) -> None:
    assert "".join(with_spaces(words.split())) == printed
    tokenizer = tokenizer_of("word", [words or "x"])
    assert tokenizer.decode(tokenizer.encode(words)) == printed


@for_all_pairs(texts, texts)
def test_known_words__come_back_and_have_their_places(known: str, text: str) -> None:
    known, text = normalize("NFC", known), normalize("NFC", text)
    tokenizer = tokenizer_of("word", [f"{known} x"])
    words, has = text.split(), set(f"{known} x".split())
    ids = tokenizer.encode(text)
    assert tokenizer.tokens(ids) == [
        w if w in has and w not in ("<UNK>", "<unk>", "[UNK]", "<eos>") else "<UNK>" for w in words
    ]
    assert [text[a:b] for a, b in tokenizer.spans(text)] == words


def test_white_space__is_the_same_in_the_library_file() -> None:
    tokenizer = tokenizer_of("word", ["a"])
    library = library_tokenizer(tokenizer)
    for code_point in range(0x3100):
        text = f"a{chr(code_point)}a"
        assert library.encode(text, add_special_tokens=False).ids == tokenizer.encode(text)


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
def test_lone_surrogates__which_no_corpus_has_are_bytes_of_no_character(text: str, shown: str) -> None:
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
