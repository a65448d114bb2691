"""The contract of every tokenizer method."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from unicodedata import normalize

import pytest
from pydantic import JsonValue

from tests.support.tiny_models import tokenizer_of
from trainer.artifacts.tokenizer_files import unknown_share
from trainer.contracts import tokenizers
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import Normalization
from trainer.tokenizers import is_saved, load_tokenizer
from trainer.tokenizers.base import Tokenizer

LINES = [normalize("NFC", line) for line in ("the sun shines on the sea", "ˈqɑzɑq tɪlɪ ʃɑːr", "e\u0301tude [BOS] 😀")]
KNOWN = ["the sea", "ˈqɑzɑq ʃɑːr", "\u00e9tude", "[BOS]", "the 😀"]


FALLBACK = "bpe with bytes"
FALLBACKS = [FALLBACK, "sentencepiece with bytes"]
METHODS = [*tokenizers.METHODS, *FALLBACKS]
LOSSLESS = ["byte", *FALLBACKS]
WITH_UNKNOWN = [method for method in METHODS if method not in LOSSLESS]


def made(method: str, held_out: Sequence[str] = ("a line held out",), **fields: object) -> Tokenizer:
    fallback: dict[str, object] = {"byte_fallback": True} if method in FALLBACKS else {}
    return tokenizer_of(method.split()[0], LINES, held_out, **fallback, **fields)


@pytest.mark.parametrize("method", METHODS)
def test_known_text__comes_back_in_its_normal_form(method: str) -> None:
    tokenizer = made(method)
    for text in [*KNOWN, "e\u0301tude"]:
        assert tokenizer.decode(tokenizer.encode(text)) == normalize("NFC", text)
    assert tokenizer.encode("e\u0301tude") == tokenizer.encode("\u00e9tude")
    assert tokenizer.encode("") == []


@pytest.mark.parametrize("method", METHODS)
def test_unknown_text__is_the_unknown_token_and_a_special_token_in_a_text_is_text(method: str) -> None:
    tokenizer = made(method)
    specials = tokenizer.manifest.special_tokens
    assert (tokenizer.special_ids.unk in tokenizer.encode("Ж")) == (method not in LOSSLESS)
    for name in specials:
        assert set(tokenizer.encode(name)) & set(specials.values()) <= {tokenizer.special_ids.unk}


@pytest.mark.parametrize("method", METHODS)
def test_documents__are_each_line_between_begin_and_end(method: str) -> None:
    tokenizer = made(method)
    ids_of = tokenizer.special_ids
    begin = [] if ids_of.bos is None else [ids_of.bos]
    ids: list[int] = tokenizer.encode_documents("\n".join(KNOWN)).tolist()
    assert ids == [i for line in KNOWN for i in (*begin, *tokenizer.encode(line), ids_of.eos)]
    assert max(ids) < tokenizer.vocab_size


@pytest.mark.parametrize("method", METHODS)
def test_spans__lead_each_token_to_its_place_in_the_normal_form(method: str) -> None:
    tokenizer = made(method)
    for text in KNOWN:
        normal, spans = normalize("NFC", text), tokenizer.spans(text)
        assert len(spans) == len(tokenizer.encode(text)) == len(tokenizer.tokens(tokenizer.encode(text)))
        covered = [place for start, end in spans for place in range(start, end)]
        left_out = set(range(len(normal))) - set(covered)
        assert covered == sorted(set(covered))
        assert all(normal[place].isspace() for place in left_out)


@pytest.mark.parametrize("method", METHODS)
def test_decoded_text__begins_with_that_of_every_first_part(method: str) -> None:
    tokenizer = made(method)
    ids = tokenizer.encode(" ".join(KNOWN))
    for length in range(len(ids)):
        assert tokenizer.decode(ids).startswith(tokenizer.decode(ids[:length]))
        assert tokenizer.decode(ids[:length]) == "".join(tokenizer.pieces(ids)[:length])


@pytest.mark.parametrize("method", METHODS)
def test_decode__skips_specials_and_ids_outside(method: str) -> None:
    tokenizer = made(method)
    specials = list(tokenizer.manifest.special_tokens.values())
    ids = [*specials, *tokenizer.encode("the sea"), 99_999, -1, tokenizer.vocab_size]
    assert tokenizer.decode(ids) == "the sea"


@pytest.mark.parametrize("method", METHODS)
def test_lowercase__is_part_of_the_tokenizer(method: str) -> None:
    tokenizer = made(method, normalization=Normalization(lowercase=True))
    assert tokenizer.normalization.lowercase
    assert tokenizer.encode("THE Sea") == tokenizer.encode("the sea")
    assert made(method).encode("THE sea") != made(method).encode("the sea")


@pytest.mark.parametrize("method", METHODS)
def test_saved__it_is_found_by_its_manifest_and_gives_equal_ids(method: str, tmp_path: Path) -> None:
    saved = made(method)
    assert not is_saved(tmp_path / "folder")
    saved.save(tmp_path / "folder")
    loaded = load_tokenizer(tmp_path / "folder")
    assert is_saved(tmp_path / "folder")
    assert loaded.manifest == saved.manifest
    assert (loaded.manifest.method, loaded.manifest.vocab_size) == (method.split()[0], saved.vocab_size)
    assert [loaded.encode(line) for line in LINES] == [saved.encode(line) for line in LINES]
    names = {path.name for path in (tmp_path / "folder").iterdir()}
    assert names == {"manifest.json", *(file.path for file in saved.manifest.files)}


@pytest.mark.parametrize("method", METHODS)
def test_training__gives_equal_bytes_each_time(method: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        made(method).save(tmp_path / name)
    [file] = made(method).manifest.files
    assert (tmp_path / "one" / file.path).read_bytes() == (tmp_path / "two" / file.path).read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_broken_file__is_refused(method: str, tmp_path: Path) -> None:
    made(method).save(tmp_path)
    [file] = made(method).manifest.files
    path = tmp_path / file.path
    whole = path.read_bytes()
    for broken in (None, b"", whole[:-40], whole[:50] + bytes([whole[50] ^ 1]) + whole[51:]):
        path.unlink(missing_ok=True)
        if broken is not None:
            path.write_bytes(broken)
        with pytest.raises(AppError) as caught:
            load_tokenizer(tmp_path)
        assert caught.value.code is ErrorCode.TOKENIZER_LOAD_FAILED


@pytest.mark.parametrize("method", METHODS)
def test_file_or_manifest_of_something_else__is_refused_though_the_hash_is_right(method: str, tmp_path: Path) -> None:
    made(method).save(tmp_path)
    path = tmp_path / made(method).manifest.files[0].path
    manifest_path = tmp_path / "manifest.json"
    manifest: dict[str, JsonValue] = json.loads(manifest_path.read_text(encoding="utf-8"))
    empty: JsonValue = [{"path": path.name, "bytes": 2, "sha256": sha256(b"{}").hexdigest()}]
    changes: list[tuple[bytes, str, JsonValue]] = [
        (b"{}", "files", empty),
        (path.read_bytes(), "special_tokens", {"<unk>": 0}),
        (path.read_bytes(), "vocab_size", 3),
    ]

    for content, field, value in changes:
        path.write_bytes(content)
        manifest_path.write_text(json.dumps(manifest | {field: value}), encoding="utf-8")
        with pytest.raises(AppError) as caught:
            load_tokenizer(tmp_path)
        assert caught.value.code is ErrorCode.TOKENIZER_LOAD_FAILED


@pytest.mark.parametrize(
    ("method", "old", "new"),
    [
        ("char", b'"[PAD]"', b'"[PUD]"'),
        ("byte", b'"<0xC3>"', b'"<0xc3>"'),
        ("word", b'"<UNK>"', b'"<unk>"'),
        ("word", b'"the"', b'"t e"'),
        ("bpe", b'"<s>"', b'"<z>"'),
        (FALLBACK, b'"<s>"', b'"<z>"'),
        ("wordpiece", b'"[CLS]"', b'"[CLZ]"'),
        ("sentencepiece", b"<unk>", b"<UNK>"),
    ],
)
def test_vocabulary_of_another_kind__is_refused_though_the_hash_is_right(
    method: str, old: bytes, new: bytes, tmp_path: Path
) -> None:
    made(method).save(tmp_path)
    path, manifest = tmp_path / made(method).manifest.files[0].path, tmp_path / "manifest.json"
    before = path.read_bytes()
    after = before.replace(old, new)
    path.write_bytes(after)
    manifest.write_text(manifest.read_text().replace(sha256(before).hexdigest(), sha256(after).hexdigest()))
    with pytest.raises(AppError, match="does not") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.code is ErrorCode.TOKENIZER_LOAD_FAILED


@pytest.mark.parametrize("method", METHODS)
def test_statistics__are_those_of_lines_that_it_was_not_made_from(method: str) -> None:
    held_out = ["the sun Ж", "the sea"]
    tokenizer = made(method, held_out)
    stats = tokenizer.manifest.stats
    ids = [i for line in held_out for i in tokenizer.encode(line)]
    unknown = ids.count(tokenizer.special_ids.unk)

    assert unknown == (method not in LOSSLESS)
    assert (stats.holdout_lines, stats.token_count) == (2, len(ids))
    assert stats.oov_rate == pytest.approx(unknown / len(ids))
    assert stats.unknown_char_share == unknown / 16
    assert stats.coverage == pytest.approx(1 - unknown / len(ids))
    spaces = " " if method != "word" else ""  # white space is part of no word
    known = set("thesuna Ж") if method in LOSSLESS else set("thesuna" + spaces)
    assert stats.char_coverage == pytest.approx(len(known) / len(set("thesuna Ж")))
    assert stats.avg_tokens_per_char == pytest.approx(len(ids) / 16)
    assert stats.avg_tokens_per_word == pytest.approx(len(ids) / 5)
    assert [(c.lines, c.chars) for c in tokenizer.manifest.corpus] == [(3, sum(map(len, LINES)))]


@pytest.mark.parametrize("method", METHODS)
def test_unknown_share__counts_as_the_tokenizer_does(method: str, tmp_path: Path) -> None:
    tokenizer = made(method)
    tokenizer.save(tmp_path)
    lines = ["the Ж sea", "Жж", "e\u0301tude"]
    assert unknown_share(tmp_path, lines) == (0 if method in LOSSLESS else 3 / (9 + 2 + 5))
    assert unknown_share(tmp_path, []) == 0


@pytest.mark.parametrize("method", WITH_UNKNOWN)
def test_unknown_characters__are_all_that_unknown_tokens_stand_for(method: str) -> None:
    tokenizer = made(method)
    for lines, expected in (("the Ж sea\nЖжшЖ шЖ\n\n\u00e9tude", 7), ("the sea\n\u00e9tude", 0), ("", 0)):
        assert tokenizer.unknown_characters(lines, tokenizer.encode_documents(lines)) == expected
    mixed = "the Жsea\nЖthe"  # an unknown word is unknown with all its letters
    unknown = 8 if method == "word" else 2
    assert tokenizer.unknown_characters(mixed, tokenizer.encode_documents(mixed)) == unknown


def test_method_of_the_manifest_that_is_not_there__is_refused(tmp_path: Path) -> None:
    made("char").save(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"char"', '"morse"'), encoding="utf-8")
    with pytest.raises(AppError, match="method") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.code is ErrorCode.TOKENIZER_LOAD_FAILED


@pytest.mark.parametrize("method", METHODS)
def test_documents__are_the_ids_of_each_line_between_its_special_tokens(method: str) -> None:
    tokenizer = made(method)
    special_ids = tokenizer.special_ids
    start = [] if special_ids.bos is None else [special_ids.bos]
    for lines in ([""], ["the sea"], [*KNOWN, "\u2581the\tsea\u2585 \x1f\u4e00", "the sea", " "]):
        ids: list[int] = tokenizer.encode_documents("\n".join(lines)).tolist()
        assert ids == [i for line in lines for i in (*start, *tokenizer.encode(line), special_ids.eos)]
