"""Corpora by name: where they are found, how they are checked, and how attached ones are stored."""

import asyncio
import bz2
import errno
import gzip
import lzma
import os
import shutil
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support import settings_in
from trainer.config.settings import LimitSettings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.corpora import CorpusStore
from trainer.data.text import corpus_sha256


@pytest.fixture(name="corpora")
def corpora_fixture(tmp_path: Path) -> CorpusStore:
    (tmp_path / "data" / "corpus" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "corpus" / "kk.txt").write_text("бір\nекі\nүш\n", encoding="utf-8")
    (tmp_path / "data" / "corpus" / "sub" / "tr.txt").write_text("bir\n", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    return CorpusStore(settings_in(tmp_path))


async def refusal(corpora: CorpusStore, name: str, *, minimum_lines: int = 1) -> tuple[ErrorCode, str]:
    with pytest.raises(AppError) as caught:
        await corpora.describe(name, minimum_lines=minimum_lines)
    return caught.value.code, caught.value.message


async def test_names__with_and_without_suffix_and_in_folders(corpora: CorpusStore) -> None:
    text = "бір\nекі\nүш\n".encode()
    found = [await corpora.describe(name) for name in ("kk", "kk.txt")]
    assert [(ref.sha256, ref.bytes) for ref in found] == [(sha256(text).hexdigest(), len(text))] * 2
    assert (await corpora.describe("sub/tr")).bytes == 4


@pytest.mark.parametrize(
    "name",
    ["../secret.txt", "/etc/hosts", "sub/../../../secret", "..", "sub/../../corpus/../..", "/", "/etc", ".", "sub/.."],
)
async def test_names__that_lead_out_are_refused_whether_or_not_a_file_is_there(corpora: CorpusStore, name: str) -> None:
    code, message = await refusal(corpora, name)
    assert (code, message) == (
        ErrorCode.INVALID_INPUT,
        "`corpus` must be a name inside the corpus folder: no absolute path and no `..`.",
    )


async def test_names__a_link_that_leads_out_is_refused(corpora: CorpusStore, tmp_path: Path) -> None:
    (tmp_path / "data" / "corpus" / "link.txt").symlink_to(tmp_path / "secret.txt")
    assert (await refusal(corpora, "link"))[0] is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
async def test_names__that_no_file_can_have_are_unknown(corpora: CorpusStore, name: str) -> None:
    assert (await refusal(corpora, name))[0] is ErrorCode.DATA_NOT_FOUND


async def test_names__unknown_one_is_told_what_there_is(corpora: CorpusStore) -> None:
    code, message = await refusal(corpora, "uz")
    assert code is ErrorCode.DATA_NOT_FOUND
    assert message == "There is no corpus 'uz'; known are demo, kk, sub, udhr_ipa."


async def test_stored_file__that_is_deleted_is_not_called_by_its_hash(corpora: CorpusStore, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("one\ntwo\n", encoding="utf-8")
    name = await corpora.offer(tmp_path / "x.txt")
    await corpora.store_offered()
    (tmp_path / "artifacts" / "corpora" / name).unlink()
    assert await refusal(CorpusStore(settings_in(tmp_path)), name) == (
        ErrorCode.DATA_NOT_FOUND,
        "The attached text is not stored any more: give its file again.",
    )


@pytest.fixture(name="folder")
def folder_fixture(corpora: CorpusStore, tmp_path: Path) -> Path:
    """A corpus of two files, and a file that belongs to none."""
    folder = tmp_path / "data" / "corpus" / "six"
    folder.mkdir()
    (folder / "b.txt").write_text("екі\nүш", encoding="utf-8")
    (folder / "a.text").write_text("бір", encoding="utf-8")
    (folder / "notes.md").write_bytes(b"\xff")
    return folder


async def test_folder__is_a_corpus_by_its_name(corpora: CorpusStore, folder: Path) -> None:
    found = await corpora.describe("six", minimum_lines=3)
    assert corpora.find("six") == folder
    assert (found.name, found.sha256) == ("six", corpus_sha256(folder))
    assert found.bytes == sum((folder / name).stat().st_size for name in ("a.text", "b.txt"))
    assert (await refusal(corpora, "six", minimum_lines=4))[0] is ErrorCode.CORPUS_EMPTY


async def test_folder__a_file_of_the_same_name_comes_first(corpora: CorpusStore, tmp_path: Path) -> None:
    (tmp_path / "data" / "corpus" / "kk").mkdir()
    assert (await corpora.describe("kk")).bytes == len("бір\nекі\nүш\n".encode())


async def test_folder__without_a_text_is_said_to_have_none(corpora: CorpusStore, tmp_path: Path) -> None:
    (tmp_path / "data" / "corpus" / "none").mkdir()
    assert not corpora.has("none")
    assert await refusal(corpora, "none") == (
        ErrorCode.DATA_NOT_FOUND,
        "The corpus folder 'none' has no .txt or .text file.",
    )


async def test_folder__a_link_in_it_that_leads_out_is_refused(
    corpora: CorpusStore, folder: Path, tmp_path: Path
) -> None:
    (folder / "c.txt").symlink_to(tmp_path / "secret.txt")
    assert await refusal(corpora, "six") == (
        ErrorCode.INVALID_INPUT,
        "`corpus` must be a name inside the corpus folder: no absolute path and no `..`.",
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"ab\xff", "'b.txt' is not UTF-8: byte 2 cannot be decoded. Save the text as UTF-8."),
        (b"a\n" + b"b" * (2**22 + 1), "Line 2 of 'b.txt' has more than 4 MiB: give a text with shorter lines."),
    ],
)
async def test_folder__what_is_wrong_names_the_file(
    corpora: CorpusStore, folder: Path, content: bytes, sentence: str
) -> None:
    (folder / "b.txt").write_bytes(content)
    assert await refusal(corpora, "six") == (ErrorCode.INVALID_INPUT, sentence)


async def test_offered_folder__is_kept_by_content_and_stays_when_it_goes(corpora: CorpusStore, tmp_path: Path) -> None:
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

    kept = tmp_path / "artifacts" / "corpora" / name
    assert sorted(file.name for file in kept.iterdir()) == ["one.txt", "two.text"]
    assert name == corpus_sha256(kept)
    assert [path.name for path in kept.parent.iterdir()] == [name]
    again = CorpusStore(settings_in(tmp_path))
    assert again.find(name) == kept
    assert await again.describe(name) == described


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOTEMPTY])
async def test_offered_folder__appears_whole_or_not_at_all(
    corpora: CorpusStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(self: Path, target: Path) -> None:
        if number == errno.ENOTEMPTY:  # another process was first
            shutil.copytree(self, target)
        raise OSError(number, "failed", str(target))

    name = await corpora.offer(folder)
    monkeypatch.setattr(Path, "rename", fails)
    if number == errno.ENOTEMPTY:
        await corpora.store_offered()
    else:
        with pytest.raises(OSError, match="failed"):
            await corpora.store_offered()
    left = [path.name for path in (tmp_path / "artifacts" / "corpora").iterdir()]
    assert left == ([name] if number == errno.ENOTEMPTY else [])


def test_sample__is_drawn_by_seed_from_all_lines_alike(corpora: CorpusStore, tmp_path: Path) -> None:
    lines = [f"line {i}" for i in range(10)]
    (tmp_path / "data" / "corpus" / "ten.txt").write_text("\n\n".join(lines))
    assert corpora.sample_lines("ten", 10, 1) == lines
    assert corpora.sample_lines("ten", 99, 1) == lines
    assert corpora.sample_lines("ten", 4, 1) == corpora.sample_lines("ten", 4, 1)
    assert corpora.sample_lines("ten", 4, 1) != corpora.sample_lines("ten", 4, 2)
    samples = [corpora.sample_lines("ten", 3, seed) for seed in range(1000)]
    assert all(len(set(sample)) == 3 for sample in samples)
    counts = Counter(line for sample in samples for line in sample)
    assert set(counts) == set(lines)
    # each is in 3 of 10 samples: a binomial of mean 300 and standard deviation 14.5
    assert all(abs(count - 300) < 5 * 14.5 for count in counts.values())


@pytest.mark.parametrize("is_in_folder", [False, True])
async def test_pipe__is_refused_at_once_and_never_read(
    corpora: CorpusStore, tmp_path: Path, *, is_in_folder: bool
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    pipe = folder / "pipe.txt"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)  # who reads the pipe would wait until this is closed
    waiting = asyncio.create_task(corpora.offer(folder if is_in_folder else pipe))
    done, _ = await asyncio.wait([waiting], timeout=30)
    os.close(writer)
    with pytest.raises(AppError) as caught:
        await waiting
    assert done
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert caught.value.message.startswith("'pipe.txt' is a pipe or a device, but a corpus is read more than once")


async def test_text__too_few_lines_to_split(corpora: CorpusStore) -> None:
    code, message = await refusal(corpora, "sub/tr", minimum_lines=3)
    assert code is ErrorCode.CORPUS_EMPTY
    assert "has 1 line with text; it needs at least 3" in message


async def test_text__too_large(tmp_path: Path, corpora: CorpusStore) -> None:
    small = settings_in(tmp_path).model_copy(update=_limits(5))
    assert (await refusal(CorpusStore(small), "kk"))[0] is ErrorCode.PAYLOAD_TOO_LARGE
    (tmp_path / "data" / "corpus" / "sub" / "az.txt").write_text("bir\n")
    assert (await CorpusStore(small).describe("sub/az")).bytes == 4
    assert (await refusal(CorpusStore(small), "sub"))[0] is ErrorCode.PAYLOAD_TOO_LARGE


def _limits(size: int) -> dict[str, object]:
    return {"limits": LimitSettings(corpus_bytes=size)}


@pytest.mark.parametrize(
    ("data", "position"), [(b"ab\xffcd", "2"), (b"abc\xd0", "3"), ("ж".encode() * 600_000 + b"\xfe", "1,200,000")]
)
async def test_offered_file__bad_utf8_is_named_with_its_byte(
    corpora: CorpusStore, tmp_path: Path, data: bytes, position: str
) -> None:
    (tmp_path / "kk.txt").write_bytes(data)
    with pytest.raises(AppError) as caught:
        await corpora.offer(tmp_path / "kk.txt")
    assert caught.value.message == (
        f"'kk.txt' is not UTF-8: byte {position} cannot be decoded. Save the text as UTF-8."
    )


@pytest.mark.parametrize(
    ("data", "told", "code"),
    [
        (b"abc\0", "byte 3 is NUL", ErrorCode.INVALID_INPUT),
        (b"", "is empty", ErrorCode.CORPUS_EMPTY),
        (b"\n \n\t\n", "is empty", ErrorCode.CORPUS_EMPTY),
        (
            gzip.compress(b"one\ntwo\n", mtime=0),
            "'x.txt' is a gzip file, not a text. Unpack it",
            ErrorCode.INVALID_INPUT,
        ),
        (bz2.compress(b"one\ntwo\n"), "'x.txt' is a bzip2 file", ErrorCode.INVALID_INPUT),
        (lzma.compress(b"one\ntwo\n"), "'x.txt' is an xz file", ErrorCode.INVALID_INPUT),
        ("one\ntwo\n".encode("utf-16"), "'x.txt' is UTF-16 text. Save it as UTF-8", ErrorCode.INVALID_INPUT),
        ("мама мыла раму\n".encode("utf-16-be") * 99, "'x.txt' is UTF-16 text", ErrorCode.INVALID_INPUT),
        ("one two\n".encode("utf-16-le"), "'x.txt' is UTF-16 text", ErrorCode.INVALID_INPUT),
    ],
)
async def test_offered_file__binary_and_empty_are_refused(
    corpora: CorpusStore, tmp_path: Path, data: bytes, told: str, code: ErrorCode
) -> None:
    (tmp_path / "x.txt").write_bytes(data)
    with pytest.raises(AppError, match=told) as caught:
        await corpora.offer(tmp_path / "x.txt")
    assert caught.value.code is code


async def test_offered_table__is_stored_as_the_plain_text_of_its_field(corpora: CorpusStore, tmp_path: Path) -> None:
    table = tmp_path / "cats.jsonl"
    table.write_text('{"id": 1, "text": "one"}\n{"id": 2, "text": "two"}\n', encoding="utf-8")
    name = await corpora.offer(table)
    assert name == sha256(b"one\ntwo\n").hexdigest()
    assert corpora.shown(name) == "cats.jsonl" and corpora.shown("kk") == "kk"
    await corpora.store_offered()
    assert (tmp_path / "artifacts" / "corpora" / name).read_bytes() == b"one\ntwo\n"
    assert table.exists()


async def test_table_in_the_corpus_folder__is_refused(corpora: CorpusStore, tmp_path: Path) -> None:
    (tmp_path / "data" / "corpus" / "cats.tsv").write_text("text\none\n", encoding="utf-8")
    with pytest.raises(AppError, match=r"'cats.tsv' in the corpus folder is a table of texts\. Save"):
        await corpora.describe("cats.tsv")


async def test_offered_file__is_kept_by_content_once(corpora: CorpusStore, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(b"one\ntwo\n")
    first, again = [await corpora.offer(tmp_path / name) for name in ("a.txt", "b.txt")]
    second = await corpora.offer(tmp_path / "secret.txt")
    assert not (tmp_path / "artifacts" / "corpora").exists()
    assert (await corpora.describe(second)).bytes == 6
    assert not corpora.has(f"{second}/within")
    for _ in range(2):
        await corpora.store_offered()
    assert first == again == sha256(b"one\ntwo\n").hexdigest()
    kept = CorpusStore(settings_in(tmp_path))
    assert sorted(path.name for path in (tmp_path / "artifacts" / "corpora").iterdir()) == sorted([first, second])
    assert (await kept.describe(first)).sha256 == first
    assert kept.has(first) and not kept.has("other")
