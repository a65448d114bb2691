"""The contract of every tokenizer, on known, unknown and arbitrary text."""

import json
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from unicodedata import normalize

import pytest
from hypothesis import strategies as st
from pydantic import JsonValue

from tests.support.languages import LANGUAGES, texts_in
from tests.support.properties import for_all, for_all_pairs
from tests.support.refusals import refused
from tests.support.strategies import anything, specials_and_text, texts, trained_on
from tests.support.tiny_models import integers, library_tokenizer, tokenizer_of
from trainer.artifacts.tokenizer_files import unknown_share
from trainer.contracts.errors import ErrorCode
from trainer.contracts.tokenizers import TokenizerManifest
from trainer.tokenizers import is_saved, load_tokenizer
from trainer.tokenizers.base import Span, Tokenizer

LINES = [normalize("NFC", line) for line in ("the sun shines on the sea", "ˈqɑzɑq tɪlɪ ʃɑːr", "e\u0301tude [BOS] 😀")]
KNOWN = ["the sea", "ˈqɑzɑq ʃɑːr", "\u00e9tude", "[BOS]", "the 😀"]
LOSSLESS = ["byte", "bpe with bytes", "sentencepiece with bytes"]
SUBWORD = ["bpe", "wordpiece", "sentencepiece", "sentencepiece bpe"]
LEARNED = ["char", *SUBWORD]
"""Those that lose the characters that they have not seen, and nothing else."""
KINDS = [*LEARNED, "word", *LOSSLESS]
RESERVED = "\0\t\x1f\u2581\u2585"
"""Characters that SentencePiece cannot have in its vocabulary."""
any_lines = st.text(st.characters(exclude_categories=["Cs"]))
every_kind = pytest.mark.parametrize("kind", KINDS)
OPTIONS: dict[str, dict[str, object]] = {"with bytes": {"byte_fallback": True}, "bpe": {"model_type": "bpe"}, "": {}}


def made(
    kind: str, lines: Sequence[str] = LINES, held_out: Sequence[str] = ("a line held out",), **fields: object
) -> Tokenizer:
    method, _, option = kind.partition(" ")
    return tokenizer_of(method, lines, held_out, **OPTIONS[option], **fields)


TOKENIZERS = {kind: made(kind) for kind in KINDS}
BYTES, STREAM = TOKENIZERS["byte"], tokenizer_of("byte", LINES, documents="stream")


def ids_of(tokenizer: Tokenizer, lines: Sequence[str]) -> list[int]:
    return integers(tokenizer.encode_documents("\n".join(lines)))


@every_kind
def test_known_text__is_decoded_and_special_tokens_in_it_are_text(kind: str) -> None:
    tokenizer, specials = TOKENIZERS[kind], TOKENIZERS[kind].manifest.special_tokens
    for text in [*KNOWN, "e\u0301tude"]:
        assert tokenizer.decode(tokenizer.encode(text)) == normalize("NFC", text)
    assert tokenizer.encode("e\u0301tude") == tokenizer.encode("\u00e9tude")
    assert tokenizer.encode("") == []
    ids = [*specials.values(), *tokenizer.encode("the sea"), 99_999, -1, tokenizer.vocab_size]
    assert tokenizer.decode(ids) == "the sea", "special tokens and unknown ids have no text"
    assert (tokenizer.special_ids.unk in tokenizer.encode("Ж")) == (kind not in LOSSLESS)
    for name in specials:
        assert set(tokenizer.encode(name)) & set(specials.values()) <= {tokenizer.special_ids.unk}


@every_kind
def test_documents__are_the_ids_of_each_line_between_its_special_tokens(kind: str) -> None:
    tokenizer, special_ids = TOKENIZERS[kind], TOKENIZERS[kind].special_ids
    start = [] if special_ids.bos is None else [special_ids.bos]
    for lines in ([""], ["the sea"], [*KNOWN, "\u2581the\tsea\u2585 \x1f\u4e00", "the sea", " "], ["", "b", ""]):
        ids = ids_of(tokenizer, lines)
        assert ids == [i for line in lines for i in (*start, *tokenizer.encode(line), special_ids.eos)]
        assert max(ids) < tokenizer.vocab_size


@every_kind
def test_spans_and_first_parts__lead_to_the_places_and_texts_of_tokens(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    for text in KNOWN:
        normal, spans = normalize("NFC", text), tokenizer.spans(text)
        assert len(spans) == len(tokenizer.encode(text)) == len(tokenizer.tokens(tokenizer.encode(text)))
        covered = [place for start, end in spans for place in range(start, end)]
        assert covered == sorted(set(covered))
        assert all(normal[place].isspace() for place in set(range(len(normal))) - set(covered))
    ids = tokenizer.encode(" ".join(KNOWN))
    for length in range(len(ids)):
        assert tokenizer.decode(ids).startswith(tokenizer.decode(ids[:length]))
        assert tokenizer.decode(ids[:length]) == "".join(tokenizer.pieces(ids)[:length])


@pytest.mark.parametrize(
    ("lowercase", "upper", "lower"), [(True, "THE Sea", "the sea"), ("tr", "IŞIK İZMİR", "ışık izmir")]
)
@every_kind
def test_lowercase__is_part_of_the_tokenizer_and_its_files(
    kind: str, lowercase: bool | str, upper: str, lower: str, tmp_path: Path
) -> None:
    plain, trained = (made(kind, [*LINES, lower], normalization={"lowercase": case}) for case in (False, lowercase))
    trained.save(tmp_path)
    for tokenizer in (trained, load_tokenizer(tmp_path)):
        assert tokenizer.normalization.lowercase == lowercase
        assert tokenizer.encode(upper) == tokenizer.encode(lower) == trained.encode(lower)
    assert plain.encode(upper) != plain.encode(lower)


@every_kind
def test_saved_tokenizer__loads_equal_and_is_trained_to_the_same_bytes(kind: str, tmp_path: Path) -> None:
    saved, folder = TOKENIZERS[kind], tmp_path / "folder"
    assert not is_saved(folder)
    saved.save(folder)
    loaded = load_tokenizer(folder)
    assert is_saved(folder)
    assert loaded.manifest == saved.manifest
    assert (loaded.manifest.method, loaded.manifest.vocab_size) == (kind.split()[0], saved.vocab_size)
    assert [loaded.encode(line) for line in LINES] == [saved.encode(line) for line in LINES]
    [file] = saved.manifest.files
    assert {path.name for path in folder.iterdir()} == {"manifest.json", file.path}
    again = made(kind)
    again.save(tmp_path / "again")
    assert (folder / file.path).read_bytes() == (tmp_path / "again" / file.path).read_bytes()
    assert again.manifest.tokenizer_id == saved.manifest.tokenizer_id


def check_refusal(folder: Path, sentence: str = "") -> None:
    with refused(ErrorCode.TOKENIZER_LOAD_FAILED, sentence):
        load_tokenizer(folder)


@every_kind
def test_broken_file__is_refused(kind: str, tmp_path: Path) -> None:
    TOKENIZERS[kind].save(tmp_path)
    path, manifest = tmp_path / TOKENIZERS[kind].manifest.files[0].path, tmp_path / "manifest.json"
    for file in (path, manifest):
        good = file.read_bytes()
        flipped = good[:50] + bytes([good[50] ^ 1]) + good[51:] if file == path else good.replace(b"sha", b"shb")
        for broken in (None, b"", b"{}", good[:-40], flipped):
            file.unlink(missing_ok=True)
            if broken is not None:
                file.write_bytes(broken)
            check_refusal(tmp_path)
        file.write_bytes(good)
    fields: dict[str, JsonValue] = json.loads(manifest.read_text(encoding="utf-8"))
    empty: JsonValue = [{"path": path.name, "bytes": 2, "sha256": sha256(b"{}").hexdigest()}]
    wrong: dict[str, JsonValue] = {"special_tokens": {"<unk>": 0}, "vocab_size": 3, "method": "morse", "files": empty}
    for field, value in wrong.items():
        changed: dict[str, JsonValue] = {**fields, field: value}
        manifest.write_text(json.dumps(changed), encoding="utf-8")
        if field == "files":
            path.write_bytes(b"{}")
        check_refusal(tmp_path)


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("char", b'"[PAD]"', b'"[PUD]"'),
        ("char", b'"a"', b'"ab"'),
        ("char", b'"[EOS]":3', b'"[EOS]":9'),
        ("char", b'"d":', b'"d":9'),
        ("byte", b'"<0xC3>"', b'"<0xc3>"'),
        ("word", b'"<UNK>"', b'"<unk>"'),
        ("word", b'"the"', b'"t e"'),
        ("bpe", b'"<s>"', b'"<z>"'),
        ("bpe with bytes", b'"<s>"', b'"<z>"'),
        ("wordpiece", b'"[CLS]"', b'"[CLZ]"'),
        ("sentencepiece", b"<unk>", b"<UNK>"),
    ],
)
def test_vocabulary_of_another_kind__is_refused_though_the_hash_is_right(
    kind: str, old: bytes, new: bytes, tmp_path: Path
) -> None:
    TOKENIZERS[kind].save(tmp_path)
    path, manifest = tmp_path / TOKENIZERS[kind].manifest.files[0].path, tmp_path / "manifest.json"
    before = path.read_bytes()
    after = before.replace(old, new)
    path.write_bytes(after)
    manifest.write_text(manifest.read_text().replace(sha256(before).hexdigest(), sha256(after).hexdigest()))
    check_refusal(tmp_path, "does not")


@every_kind
def test_statistics__are_measured_on_held_out_lines(kind: str) -> None:
    held_out = ["the sun Ж", "the sea"]
    tokenizer = made(kind, held_out=held_out)
    stats, ids = tokenizer.manifest.stats, [i for line in held_out for i in tokenizer.encode(line)]
    unknown = ids.count(tokenizer.special_ids.unk)
    assert unknown == (kind not in LOSSLESS)
    assert (stats.holdout_lines, stats.token_count) == (2, len(ids))
    assert stats.oov_rate == pytest.approx(unknown / len(ids))
    assert stats.unknown_char_share == unknown / 16
    assert stats.coverage == pytest.approx(1 - unknown / len(ids))
    known = set("thesuna") | (set(" Ж") if kind in LOSSLESS else set() if kind == "word" else {" "})
    assert stats.char_coverage == pytest.approx(len(known) / len(set("thesuna Ж")))
    assert stats.avg_tokens_per_char == pytest.approx(len(ids) / 16)
    assert stats.avg_tokens_per_word == pytest.approx(len(ids) / 5)
    assert [(c.lines, c.chars) for c in tokenizer.manifest.corpus] == [(3, sum(map(len, LINES)))]


@every_kind
def test_unknown_characters__are_all_that_unknown_tokens_stand_for(kind: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[kind]
    tokenizer.save(tmp_path)
    assert unknown_share(tmp_path, ["the Ж sea", "Жж", "e\u0301tude"]) == (0 if kind in LOSSLESS else 3 / (9 + 2 + 5))
    assert unknown_share(tmp_path, []) == 0
    mixed = ("the Жsea\nЖthe", 8 if kind == "word" else 2)  # an unknown word is unknown with all its letters
    for lines, expected in (("the Ж sea\nЖжшЖ шЖ\n\n\u00e9tude", 7), ("the sea\n\u00e9tude", 0), ("", 0), mixed):
        found = tokenizer.unknown_characters(lines, tokenizer.encode_documents(lines))
        assert found == (0 if kind in LOSSLESS else expected)


def tiles(spans: list[Span], text: str) -> bool:
    """Return True if the spans cover the text from start to end without gaps."""
    places = [(0, 0), *spans, (len(text), len(text))]
    return all(before[1] == after[0] for before, after in pairwise(places))


@for_all_pairs(st.sampled_from(LEARNED), st.tuples(trained_on, anything))
def test_any_text__loses_unknown_characters_and_nothing_else(kind: str, given: tuple[str, str]) -> None:
    learned = normalize("NFC", f"x {given[0]}").rstrip("\r")  # of SentencePiece no line ends in it
    text, normal, tokenizer = given[1], normalize("NFC", given[1]), made(kind, [learned])
    known = set(learned) - set(RESERVED if kind.startswith("sentencepiece") else "")
    ids, spans, unknown = tokenizer.encode(text), tokenizer.spans(text), sum(c not in known for c in normal)
    assert tokenizer.decode(ids) == "".join(c for c in normal if c in known)
    assert tiles(spans, normal) and len(spans) == len(ids)
    if kind.startswith("sentencepiece"):
        assert (tokenizer.special_ids.unk in ids) == (unknown > 0)
    else:
        assert ids.count(tokenizer.special_ids.unk) == unknown
    if kind == "char":
        assert [i != tokenizer.special_ids.unk for i in ids] == [c in known for c in normal]
        assert spans == [(i, i + 1) for i in range(len(normal))]
        with TemporaryDirectory() as folder:
            tokenizer.save(Path(folder))
            loaded = load_tokenizer(Path(folder))
        manifest = TokenizerManifest.model_validate_json(tokenizer.manifest.model_dump_json())
        assert loaded.manifest == tokenizer.manifest == manifest
        lines = [learned, "x", learned]
        assert ids_of(loaded, lines) == [i for line in lines for i in (2, *tokenizer.encode(line), 3)]


@for_all(any_lines)
def test_any_text__is_decoded_from_bytes(text: str) -> None:
    form = normalize("NFC", text)
    assert BYTES.encode(text) == [4 + byte for byte in form.encode()]
    assert ids_of(STREAM, [form]) == [4 + byte for byte in f"{form}\n".encode()]
    for kind in LOSSLESS:
        tokenizer = TOKENIZERS[kind]
        ids, start = tokenizer.encode(text), [tokenizer.special_ids.bos]
        of_package = kind.startswith("sentencepiece")  # which has a sign of its own for a space
        assert tokenizer.special_ids.unk not in ids
        assert tokenizer.decode(ids) == (form.replace("\u2581", "\0") if of_package else form)
        assert "".join(form[a:b] for a, b in tokenizer.spans(text)) == form
        for line in form.split("\n"):
            documents = tokenizer.encode_documents(line)
            assert ids_of(tokenizer, [line]) == [*start, *tokenizer.encode(line), tokenizer.special_ids.eos]
            assert tokenizer.unknown_characters(line, documents) == (line.count("\u2581") if of_package else 0)


@for_all_pairs(st.sampled_from(SUBWORD), st.tuples(specials_and_text, specials_and_text))
def test_special_tokens_in_a_text__are_text_though_learned_from(kind: str, given: tuple[str, str]) -> None:
    known, text = given
    tokenizer = made(kind, [f"{known} {known} <s>[PAD]##"] * 3)
    specials = set(tokenizer.manifest.special_tokens.values()) - {tokenizer.special_ids.unk}
    ids = tokenizer.encode(text)
    assert not specials & set(ids)
    assert tokenizer.decode(ids) == "".join(c for c in text if c in f"{known} <s>[PAD]##")


_odd = st.lists(
    st.sampled_from(["<eos>", "<UNK>", "<unk>", "<eos>x", "ﬁ", "\x1c", "\x85", "\u3000", " ", "\t", "\u0301"])
)
_of_library = st.sampled_from(["char", "word", "byte", "bpe", "wordpiece", "bpe with bytes"])


_lowercase: st.SearchStrategy[bool | str] = st.sampled_from([False, True, "tr"])


@for_all_pairs(st.tuples(_of_library, texts, _lowercase), st.one_of(specials_and_text, _odd.map("".join), any_lines))
def test_library_file__gives_equal_ids(made_from: tuple[str, str, bool | str], odd: str) -> None:
    kind, text, lowercase = made_from
    lines = [*LINES, text, "##a # ## the 'quoted' king ΑΣ İ"]
    ours = made(kind, lines, normalization={"lowercase": lowercase})
    library = library_tokenizer(ours)
    for shown in (text, odd, text + odd, "[BOS] e\u0301 ΑΣ İ I I\u0307\u0323"):
        encoding = library.encode(normalize("NFC", shown), add_special_tokens=False)
        assert encoding.ids == ours.encode(shown)
        if kind in SUBWORD:
            assert ours.tokens(encoding.ids) == encoding.tokens
            assert ours.decode(encoding.ids) == library.decode(encoding.ids)


def sized(kind: str, lines: Sequence[str]) -> Tokenizer:
    return made(kind, lines, vocab_size=600 if kind in SUBWORD else None)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ["char", "byte", "word", "bpe", "wordpiece", "sentencepiece"])
def test_text_of_a_language__loses_only_unknown_characters(kind: str, language: str) -> None:
    """The Universal Declaration of Human Rights (United Nations, free to reproduce)."""
    lines = texts_in(language)
    tokenizer = sized(kind, lines)
    assert len(lines) >= 3
    for line in [*lines, normalize("NFD", lines[0])]:
        ids = tokenizer.encode(line)
        assert tokenizer.special_ids.unk not in ids
        if kind == "word":  # its spaces are those of print, not of the text
            assert tokenizer.tokens(ids) == normalize("NFC", line).split()
        else:
            assert tokenizer.decode(ids) == normalize("NFC", line)
    if kind in LEARNED:
        *seen, unseen = lines
        tokenizer, known = sized(kind, seen), set("".join(seen))
        ids = tokenizer.encode(unseen)
        assert tokenizer.decode(ids) == "".join(c for c in unseen if c in known)
        assert (tokenizer.special_ids.unk in ids) == bool(set(unseen) - known)


@pytest.mark.parametrize("kind", SUBWORD)
def test_subwords__are_fewer_than_characters_and_lead_to_them(kind: str) -> None:
    lines = texts_in("tr")
    tokenizer = sized(kind, lines)
    for line in lines:
        spans = tokenizer.spans(line)
        assert len(spans) < 0.6 * len(line)
        assert tiles(spans, line)
        assert not any(line[start:end].rstrip(" ").count(" ") > 1 for start, end in spans)
