"""Texts by name: found where they may lie, checked whole, kept by content; what is wrong is said with its place."""

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.properties import for_all_pairs
from tests.support import settings_in
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.settings import LimitSettings
from trainer.corpora import CorpusStore, TextCheck


@pytest.fixture(name="corpora")
def corpora_fixture(tmp_path: Path) -> CorpusStore:
    (tmp_path / "data" / "corpus" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "corpus" / "kk.txt").write_text("бір\nекі\nүш\n", encoding="utf-8")
    (tmp_path / "data" / "corpus" / "sub" / "tr.txt").write_text("bir\n", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    return CorpusStore(settings_in(tmp_path))


async def refusal(corpora: CorpusStore, name: str, **options: int) -> tuple[ErrorCode, str]:
    with pytest.raises(AppError) as caught:
        await corpora.describe(name, **options)

    return caught.value.code, caught.value.message


async def test_names__with_and_without_suffix_and_in_folders(corpora: CorpusStore) -> None:
    text = "бір\nекі\nүш\n".encode()

    found = [await corpora.describe(name) for name in ("kk", "kk.txt")]

    assert [(ref.sha256, ref.bytes) for ref in found] == [(sha256(text).hexdigest(), len(text))] * 2
    assert (await corpora.describe("sub/tr")).bytes == 4


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/hosts", "sub/../../../secret", "..", "sub/../../corpus/../.."])
async def test_names__that_lead_out_are_refused_whether_or_not_a_file_is_there(corpora: CorpusStore, name: str) -> None:
    code, message = await refusal(corpora, name)

    assert (code, message) == (
        ErrorCode.INVALID_INPUT,
        "`corpus` must be a name inside the corpus folder: no absolute path and no `..`.",
    )


async def test_names__a_link_that_leads_out_is_refused(corpora: CorpusStore, tmp_path: Path) -> None:
    (tmp_path / "data" / "corpus" / "link.txt").symlink_to(tmp_path / "secret.txt")

    assert (await refusal(corpora, "link"))[0] is ErrorCode.INVALID_INPUT


async def test_names__unknown_one_is_told_what_there_is(corpora: CorpusStore) -> None:
    code, message = await refusal(corpora, "uz")

    assert code is ErrorCode.DATA_NOT_FOUND
    assert message.startswith("There is no corpus 'uz'; known are ")
    assert "kk" in message


async def test_text__too_few_lines_to_split(corpora: CorpusStore) -> None:
    code, message = await refusal(corpora, "sub/tr", minimum_lines=3)

    assert code is ErrorCode.CORPUS_EMPTY
    assert "has 1 line(s) with text; it needs at least 3" in message


async def test_text__too_large(tmp_path: Path, corpora: CorpusStore) -> None:
    small = settings_in(tmp_path).model_copy(update=_limits(5))

    assert (await refusal(CorpusStore(small), "kk"))[0] is ErrorCode.PAYLOAD_TOO_LARGE
    with pytest.raises(AppError, match="at most 5 are taken here"):
        await CorpusStore(small).store_attachment("a.txt", b"123456")


def _limits(size: int) -> dict[str, object]:
    return {"limits": LimitSettings(corpus_bytes=size, attachment_bytes=size)}


@pytest.mark.parametrize(
    ("data", "position"), [(b"ab\xffcd", "2"), (b"abc\xd0", "3"), ("ж".encode() * 600_000 + b"\xfe", "1,200,000")]
)
async def test_attachment__bad_utf8_is_named_with_its_byte(corpora: CorpusStore, data: bytes, position: str) -> None:
    with pytest.raises(AppError) as caught:
        await corpora.store_attachment("/home/me/kk.txt", data)

    assert caught.value.message == (
        f"'kk.txt' is not UTF-8: byte {position} cannot be decoded. Save the text as UTF-8."
    )


async def test_attachment__binary_and_empty_are_refused(corpora: CorpusStore) -> None:
    with pytest.raises(AppError, match="byte 3 is NUL"):
        await corpora.store_attachment("x.txt", b"abc\0")
    for blank in (b"", b"\n \n\t\n"):
        with pytest.raises(AppError, match="is empty") as caught:
            await corpora.store_attachment("x.txt", blank)
        assert caught.value.code is ErrorCode.CORPUS_EMPTY


async def test_attachment__is_kept_by_content_once(corpora: CorpusStore, tmp_path: Path) -> None:
    first = await corpora.store_attachment("a.txt", b"one\ntwo\n")
    second = await corpora.offer(tmp_path / "secret.txt")
    assert not (tmp_path / "artifacts" / "corpora" / second).exists()
    assert (await corpora.describe(second)).bytes == 6
    await corpora.keep_offered()
    again = await corpora.store_attachment("b.txt", b"one\ntwo\n")

    assert first == again == sha256(b"one\ntwo\n").hexdigest()
    assert sorted(path.name for path in (tmp_path / "artifacts" / "corpora").iterdir()) == sorted([first, second])
    assert (await corpora.describe(first)).sha256 == first
    assert corpora.has(first) and not corpora.has("other")


@for_all_pairs(st.text(alphabet=st.sampled_from("aж\n 🙂\t"), max_size=40), st.integers(1, 5))
def test_check__pieces_do_not_matter(text: str, size: int) -> None:
    data = text.encode()
    lines = sum(1 for line in text.split("\n") if line.strip())
    check = TextCheck("x")
    for start in range(0, len(data), size):
        check.add(data[start : start + size])
    if lines == 0:
        with pytest.raises(AppError):
            check.finish()
    else:
        facts = check.finish()
        assert (facts.lines, facts.bytes, facts.sha256) == (lines, len(data), sha256(data).hexdigest())


@for_all_pairs(st.binary(max_size=12), st.integers(1, 4))
def test_check__position_is_where_python_finds_the_first_bad_byte(data: bytes, size: int) -> None:
    try:
        data.decode()
        expected = None
    except UnicodeDecodeError as error:
        expected = error.start
    check = TextCheck("x")
    try:
        for start in range(0, len(data), size):
            check.add(data[start : start + size])
        check.finish()
    except AppError as error:
        if "not UTF-8" in error.message:
            assert expected is not None and f"byte {expected:,} " in error.message
        else:
            assert "NUL" in error.message or error.code is ErrorCode.CORPUS_EMPTY
    else:
        assert expected is None
