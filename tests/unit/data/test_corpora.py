"""Corpora by name: where they are found, how they are checked, and how attached ones are stored."""

import asyncio
import bz2
import gzip
import lzma
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.support import settings_in
from tests.support.properties import for_all_pairs
from tests.support.refusals import refused
from trainer.config.settings import LimitSettings
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.installation import BUNDLED_CORPORA
from trainer.contracts.runs import CorpusRef
from trainer.data.corpora import CorpusStore, bundled_licence, note_path, sample_lines
from trainer.data.text import clean_corpus_name, corpus_sha256

OUTSIDE = "`corpus` must be a name inside the corpus folder: no absolute path and no `..`."
KK = "бір\nекі\nүш\n".encode()


@pytest.fixture(name="root")
def root_fixture(tmp_path: Path) -> Path:
    """The corpus folder: a file, a folder with one, and a folder of two texts with a file that is none."""
    root = tmp_path / "data" / "corpus"
    files = {"kk.txt": KK, "sub/tr.txt": b"bir\n", "six/b.txt": KK[7:-1], "six/a.text": KK[:6], "six/notes.md": b"\xff"}
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    return root


@pytest.fixture(name="corpora")
def corpora_fixture(root: Path) -> CorpusStore:
    return CorpusStore(settings_in(root.parents[1]))


def stored(folder: Path) -> Path:
    return folder / "artifacts" / "corpora"


async def test_names__with_and_without_suffix_and_in_folders(corpora: CorpusStore, root: Path) -> None:
    (root / "kk").mkdir()  # a file of the same name comes first
    found = [await corpora.describe(name) for name in ("kk", "kk.txt")]
    assert [(ref.sha256, ref.bytes) for ref in found] == [(sha256(KK).hexdigest(), len(KK))] * 2
    assert (await corpora.describe("sub/tr")).bytes == 4


OUT = ["../secret.txt", "/etc/hosts", "sub/../../../secret", "..", "sub/../../corpus/../..", "/", "/etc", ".", "sub/.."]
NOT_FOUND = {
    "uz": "There is no corpus 'uz'; known are demo, kk, six, sub, udhr_ipa.",
    **{"x" * 300: "There is no corpus", "a\0b": "There is no corpus"},
    "none": "The corpus folder 'none' has no .txt or .text file.",
    "0" * 64: "You have sent no text with this hash, or it is not stored any more: give its file again.",
}


async def test_names__that_lead_out_or_nowhere_are_refused(corpora: CorpusStore, root: Path, tmp_path: Path) -> None:
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "six" / "c.txt").symlink_to(tmp_path / "secret.txt")
    for name in (*OUT, "link", "six"):
        with refused(ErrorCode.INVALID_INPUT, OUTSIDE):
            await corpora.describe(name)
    (root / "none").mkdir()
    assert not corpora.has("none")
    for link in (root / "six" / "c.txt", root / "link.txt"):
        link.unlink()
    for name, sentence in NOT_FOUND.items():
        with refused(ErrorCode.DATA_NOT_FOUND, sentence):
            await corpora.describe(name)


async def test_note_beside_a_corpus__is_no_corpus(corpora: CorpusStore, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(KK)
    corpora.add("request", tmp_path / "text.txt", owner=7)
    assert note_path(corpora.find("request")).name == "request.json"
    for name in ("request.json", "./request.json", "request/../request.json"):
        with refused(ErrorCode.DATA_NOT_FOUND, "There is no corpus"):
            await corpora.describe(name)


def test_beginning_of_a_name__names_the_only_corpus_that_begins_so(corpora: CorpusStore, root: Path) -> None:
    given = ("k", "si", "six", "sub/tr", "none", "", "../six")
    assert [*map(corpora.full_name, given)] == ["kk", "six", "six", "sub/tr", "none", "", "../six"]
    with refused(ErrorCode.INVALID_INPUT, "'s' names 2 corpora: six, sub. Give more of the name.", "ratings"):
        corpora.full_name("s", "ratings")
    (root / "six_b.txt").write_bytes(KK)
    (root / "six" / "c.txt").symlink_to(root.parent / "none")
    assert corpora.full_name("six") == "six", "the complete name of one with a fault too"
    assert not corpora.has("k") and corpora.table_notes == {}


async def test_folder__is_a_corpus_by_its_name(corpora: CorpusStore, root: Path) -> None:
    found = await corpora.describe("six", minimum_lines=3)
    assert corpora.find("six") == root / "six"
    assert (found.name, found.sha256, found.bytes) == ("six", corpus_sha256(root / "six"), len(KK) - 2)
    with refused(ErrorCode.CORPUS_EMPTY):
        await corpora.describe("six", minimum_lines=4)
    with refused(ErrorCode.CORPUS_EMPTY, "has 1 line with text; it needs at least 3"):
        await corpora.describe("sub/tr", minimum_lines=3)


async def test_folder__a_fault_in_it_names_the_file(corpora: CorpusStore, root: Path) -> None:
    for content, sentence in (
        (b"ab\xff", "'b.txt' is not UTF-8: byte 2 cannot be decoded. Save the text as UTF-8."),
        (b"a\n" + b"b" * (2**22 + 1), "Line 2 of 'b.txt' has more than 4 MiB: give a text with shorter lines."),
    ):
        (root / "six" / "b.txt").write_bytes(content)
        with refused(ErrorCode.INVALID_INPUT, sentence):
            await corpora.describe("six")


async def test_text__larger_than_the_limit_is_refused_also_in_parts(root: Path, tmp_path: Path) -> None:
    small = CorpusStore(changed(settings_in(tmp_path), limits=LimitSettings(corpus_bytes=5)))
    (root / "sub" / "az.txt").write_text("bir\n")
    assert (await small.describe("sub/az")).bytes == 4
    for name in ("kk", "sub"):
        with refused(ErrorCode.PAYLOAD_TOO_LARGE):
            await small.describe(name)


def test_sample__is_drawn_by_seed_from_all_lines_alike(root: Path) -> None:
    lines = [f"line {i}" for i in range(10)]
    path = root / "ten.txt"
    path.write_text("\n\n".join(lines))
    assert sample_lines(path, 10, 1) == sample_lines(path, 99, 1) == lines
    assert sample_lines(path, 4, 1) == sample_lines(path, 4, 1) != sample_lines(path, 4, 2)
    samples = [sample_lines(path, 3, seed) for seed in range(1000)]
    assert all(len(set(sample)) == 3 for sample in samples)
    counts = Counter(line for sample in samples for line in sample)
    assert set(counts) == set(lines)
    # each is in 3 of 10 samples: a binomial of mean 300 and standard deviation 14.5
    assert all(abs(count - 300) < 5 * 14.5 for count in counts.values())


async def test_offered_folder__is_stored_by_content_and_outlives_the_original(
    corpora: CorpusStore, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    local.mkdir()
    for name, text in {"one.txt": "one\n", "two.text": "two\nthree\n", "other.md": "x"}.items():
        (local / name).write_text(text)
    name = await corpora.offer(local)
    assert not (tmp_path / "artifacts").exists()
    described = await corpora.describe(name)
    await corpora.store_offered()
    await corpora.store_offered()
    shutil.rmtree(local)
    kept, again = stored(tmp_path) / name, CorpusStore(settings_in(tmp_path))
    assert sorted(file.name for file in kept.iterdir()) == ["one.txt", "two.text"]
    assert name == corpus_sha256(kept)
    assert [path.name for path in kept.parent.iterdir()] == [name]
    assert (again.find(name), await again.describe(name)) == (kept, described)


async def test_offered_file__is_stored_once_by_content(corpora: CorpusStore, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(b"one\ntwo\n")
    first, again = [await corpora.offer(tmp_path / name) for name in ("a.txt", "b.txt")]
    second = await corpora.offer(tmp_path / "secret.txt")
    assert not stored(tmp_path).exists()
    assert (await corpora.describe(second)).bytes == 6
    assert not corpora.has(f"{second}/within")
    for _ in range(2):
        await corpora.store_offered()
    assert first == again == sha256(b"one\ntwo\n").hexdigest()
    kept = CorpusStore(settings_in(tmp_path))
    assert sorted(path.name for path in stored(tmp_path).iterdir()) == sorted([first, second])
    assert (await kept.describe(first)).sha256 == first
    assert kept.has(first) and not kept.has("other")


OFFERED: list[tuple[bytes, str, ErrorCode]] = [
    (b"abc\xd0", "'x.txt' is not UTF-8: byte 3 cannot be decoded. Save the text as UTF-8.", ErrorCode.INVALID_INPUT),
    (b"", "is empty", ErrorCode.CORPUS_EMPTY),
    (b"\n \n\t\n", "is empty", ErrorCode.CORPUS_EMPTY),
    (gzip.compress(b"one\ntwo\n", mtime=0), "'x.txt' is a gzip file, not a text. Unpack it", ErrorCode.INVALID_INPUT),
    (bz2.compress(b"one\ntwo\n"), "'x.txt' is a bzip2 file", ErrorCode.INVALID_INPUT),
    (lzma.compress(b"one\ntwo\n"), "'x.txt' is an xz file", ErrorCode.INVALID_INPUT),
    (
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "'x.txt' is a PDF document, not a text. Save it",
        ErrorCode.INVALID_INPUT,
    ),
    (b"{\\rtf1\\ansi one two}\n" * 9, "'x.txt' is an RTF document", ErrorCode.INVALID_INPUT),
    (b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml", "'x.txt' is an Office document", ErrorCode.INVALID_INPUT),
    (b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/vnd.oasis", "'x.txt' is an Office", ErrorCode.INVALID_INPUT),
    ("one\ntwo\n".encode("utf-16"), "'x.txt' is UTF-16 text. Save it as UTF-8", ErrorCode.INVALID_INPUT),
    ("мама мыла раму\n".encode("utf-16-be") * 99, "'x.txt' is UTF-16 text", ErrorCode.INVALID_INPUT),
    ("one two\n".encode("utf-16-le"), "'x.txt' is UTF-16 text", ErrorCode.INVALID_INPUT),
]


async def test_offered_file__that_is_no_text_is_refused(corpora: CorpusStore, tmp_path: Path) -> None:
    for data, said, code in OFFERED:
        (tmp_path / "x.txt").write_bytes(data)
        with refused(code, said):
            await corpora.offer(tmp_path / "x.txt")


async def test_offered_table__is_stored_as_its_plain_text(corpora: CorpusStore, root: Path, tmp_path: Path) -> None:
    table = tmp_path / "cats.jsonl"
    table.write_text('{"id": 1, "text": "one"}\n{"id": 2, "text": "two"}\n', encoding="utf-8")
    name = await corpora.offer(table)
    assert name == sha256(b"one\ntwo\n").hexdigest()
    assert corpora.shown(name) == "cats.jsonl" and corpora.shown("kk") == "kk"
    await corpora.store_offered()
    assert (stored(tmp_path) / name).read_bytes() == b"one\ntwo\n"
    assert table.exists()
    table.rename(root / "cats.jsonl")
    with refused(ErrorCode.INVALID_INPUT, "'cats.jsonl' in the corpus folder is a table or a transcript. Save"):
        await corpora.describe("cats.jsonl")


@pytest.mark.parametrize("is_in_folder", [False, True])
async def test_pipe__is_refused_at_once_and_unread(corpora: CorpusStore, tmp_path: Path, *, is_in_folder: bool) -> None:
    folder, pipe = tmp_path / "texts", tmp_path / "texts" / "pipe.txt"
    folder.mkdir()
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)  # who reads the pipe would wait until this is closed
    waiting = asyncio.create_task(corpora.offer(folder if is_in_folder else pipe))
    done, _ = await asyncio.wait([waiting], timeout=30)
    os.close(writer)
    with refused(ErrorCode.INVALID_INPUT, "'pipe.txt' is a pipe or a device, but a corpus is read more than once"):
        await waiting
    assert done


@pytest.mark.parametrize(
    ("name", "licence"),
    [("demo", "CC0-1.0"), ("udhr_ipa/kk", "text of the United Nations, free to reproduce"), ("other", None)],
)
def test_licence_of_a_corpus__is_known_if_it_is_part_of_the_program(name: str, licence: str | None) -> None:
    path = BUNDLED_CORPORA / f"{name}.txt"
    content = path.read_bytes() if licence else b""
    shipped = CorpusRef(name=name, sha256=sha256(content).hexdigest(), bytes=len(content))
    assert bundled_licence(shipped) == licence
    assert bundled_licence(changed(shipped, sha256="0" * 64)) is None
    assert bundled_licence(changed(shipped, name=f"{name}/none")) is None


_parts = st.lists(st.sampled_from([".txt", ".json", "_manifest", ".", "-", "x", "y", "TXT", " "]), max_size=9)


@for_all_pairs(_parts, _parts)
def test_names__of_two_corpora_never_share_a_file(one: Sequence[str], other: Sequence[str]) -> None:
    """A corpus is a file or a folder with a note beside it; the manifest of a build is another file there."""
    cleaned = (clean_corpus_name("".join(parts)) for parts in (one, other))
    names = {name for name in cleaned if name is not None}
    files = [file for name in names for file in {name, f"{name}.txt", note_path(Path(name)).name}]
    assert len(files) == len({*files}) == 3 * len(names)
    assert all(note_path(Path(name)) == note_path(Path(f"{name}.txt")) for name in names)
    assert not any(file.endswith("_manifest.json") for file in files)
    assert all(clean_corpus_name(name) == name for name in names)
