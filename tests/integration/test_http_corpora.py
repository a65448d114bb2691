"""Corpora over HTTP: the list, and uploads in portions that continue where they ended."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support import settings_in
from tests.support.http import ADMIN, ANA, BOB, Got, Inside, Site, inside, with_api
from tests.support.lab import Lab
from tests.support.waiting import PATIENCE_SECONDS
from trainer.artifacts.cleanup import clean_up
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.corpora import CorpusList, CorpusNote, CorpusOverview, UploadStatus
from trainer.data.corpora import CorpusStore
from trainer.data.text import corpus_sha256
from trainer.http.api import HttpTimeouts
from trainer.queue.queue import JobQueue
from trainer.system.files import read_record

BYTES = {"Content-Type": "application/octet-stream"}
TEXT = "алма ағаш\nкөк аспан\n".encode() * 40
UPLOAD_BYTES, TTL_SECONDS = 4_000_000, 3600


@pytest.fixture(name="settings")
def settings_fixture(tmp_path: Path) -> Settings:
    limits = {"upload_bytes": UPLOAD_BYTES, "uploads_per_user": 2, "upload_ttl_seconds": TTL_SECONDS}
    return with_api(settings_in(tmp_path), limits=limits)


@pytest.fixture(name="inner")
async def inner_fixture(lab: Lab, settings: Settings) -> AsyncIterator[Inside]:
    """An API with folders of its own, behind the queue of the lab."""
    queue = await JobQueue.connect(settings, await lab.address())
    try:
        async with inside(queue, settings, HttpTimeouts(body_seconds=0.5)) as inner:
            yield inner
    finally:
        await queue.close()


@pytest.fixture(name="at")
def at_fixture(inner: Inside) -> Site:
    return inner.site


def request_of(*files: tuple[str, bytes], name: str | None = "kazakh", **more: object) -> dict[str, object]:
    described = [{"name": one, "bytes": len(data), "sha256": sha256(data).hexdigest()} for one, data in files]
    return {"name": name, "files": described, **more}


async def start(at: Site, body: Mapping[str, object], key: str = ANA) -> UploadStatus:
    answer = await at.post("/corpora", body, key=key)
    status = answer.record(UploadStatus)
    assert answer.status == (201 if status.corpus is None else 200)
    assert answer.location == path_of(status)
    assert answer.headers["Upload-Offset"] == f"{status.offset}"
    return status


def path_of(status: UploadStatus) -> str:
    return f"/corpora/uploads/{status.upload_id}"


async def send(at: Site, status: UploadStatus, data: bytes, key: str = ANA) -> Got:
    return await at.ask("PATCH", f"{path_of(status)}?offset={status.offset}", data, key=key, headers=BYTES)


async def uploaded(at: Site, data: bytes, body: Mapping[str, object], key: str = ANA) -> Got:
    """The answer to the last portion of an upload, or to its start if that was the end of it."""
    answer = await at.post("/corpora", body, key=key)
    return await send(at, answer.record(UploadStatus), data, key) if answer.status == 201 else answer


async def test_upload__in_portions_becomes_a_corpus_that_the_list_shows(at: Site, settings: Settings) -> None:
    body = request_of(("қазақ.txt", TEXT), language="kk", is_ipa=False)
    status = await start(at, body)
    assert (status.bytes, status.offset, status.corpus) == (len(TEXT), 0, None)
    for offset in range(0, len(TEXT), 500):
        answer = await send(at, changed(status, offset=offset), TEXT[offset : offset + 500])
        arrived = min(offset + 500, len(TEXT))
        assert (answer.status, answer.headers["Upload-Offset"]) == (200, f"{arrived}")
    stored = (await at.get(path_of(status), key=ANA)).record(UploadStatus).corpus
    assert stored is not None
    assert (stored.name, stored.bytes, stored.lines) == ("kazakh", len(TEXT), 80)
    assert (stored.languages, stored.is_ipa) == (("kk",), False)
    assert stored in (await at.get("/corpora", key=BOB)).record(CorpusList).corpora
    path = settings.app.artifacts_root / "corpora" / "kazakh.txt"
    assert path.read_bytes() == TEXT
    assert read_record(path.with_suffix(".json"), CorpusNote).language == "kk"
    assert os.listdir(settings.app.artifacts_root / "uploads" / status.upload_id) == ["record.json"]


async def test_upload__without_a_name_is_found_by_its_hash_and_gets_a_name_of_its_client_only(
    at: Site, settings: Settings
) -> None:
    status = (await uploaded(at, TEXT, request_of(("a.txt", TEXT), name=None))).record(UploadStatus)
    digest = sha256(TEXT).hexdigest()
    assert status.corpus is not None and status.corpus.name == digest
    assert CorpusStore(settings).find(digest).read_bytes() == TEXT
    names = [corpus.name for corpus in (await at.get("/corpora")).record(CorpusList).corpora]
    assert digest not in names
    assert (await start(at, request_of(("a.txt", TEXT), name=None))).corpus == status.corpus
    for request in (request_of(("a.txt", TEXT), name="My corpus.txt"), request_of(("a.txt", TEXT), name=None)):
        known = await start(at, request, key=BOB)
        assert (known.corpus, known.offset) == (None, 0), "who knows the hash has not sent the text"
    named = await start(at, request_of(("a.txt", TEXT), name="My corpus.txt"))
    assert named.corpus is not None and named.corpus.name == "My_corpus"


async def test_upload__without_a_hash_continues_by_name_size_and_time_and_gets_the_hash(at: Site) -> None:
    files = [{"name": "a.txt", "bytes": len(TEXT), "modified_at": "2026-01-02T03:04:05Z"}]
    body = {"name": "kazakh", "files": files}
    await send(at, await start(at, body), TEXT[:100])
    changed_file = await start(at, {"name": "kazakh", "files": [{**files[0], "modified_at": "2026-01-02T03:04:06Z"}]})
    continued = await start(at, body)
    assert (changed_file.offset, continued.offset) == (0, 100)
    stored = (await send(at, continued, TEXT[100:])).record(UploadStatus)
    assert stored.corpus is not None and stored.sha256 == sha256(TEXT).hexdigest()
    assert await start(at, body) == stored
    longer = await at.post("/corpora", {"name": "kazakh", "files": [{"name": "b.txt", "bytes": len(TEXT) + 1}]})
    assert longer.outcome == (409, "CONFLICT")


async def test_upload__of_a_folder_is_a_corpus_of_several_files(at: Site, settings: Settings) -> None:
    files = [("valid.txt", b"b\n" * 9), ("test.text", b"c\n"), ("train.txt", TEXT), ("README.txt", b"d\n")]
    content = b"".join(data for _, data in files)
    status = await start(at, request_of(*files))
    await send(at, status, content[:100])
    answer = await send(at, changed(status, offset=100), content[100:])
    folder = settings.app.artifacts_root / "corpora" / "kazakh"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == dict(files[:3])
    again = await uploaded(at, content, request_of(*files), key=BOB)
    assert answer.record(UploadStatus).corpus == again.record(UploadStatus).corpus
    uses = "train.txt for training, valid.txt for validation and test.text for test."
    [stored] = [one for one in (await at.get("/corpora")).record(CorpusList).corpora if one.name == "kazakh"]
    assert stored.notes == (f"The files of 'kazakh' are splits by their names: {uses}",)
    by_hash = (await uploaded(at, content, request_of(*files, name=None))).record(UploadStatus)
    assert by_hash.corpus is not None and by_hash.corpus.name == "kazakh"
    (folder / "more.txt").write_bytes(b"e\n")
    [stored] = [one for one in (await at.get("/corpora")).record(CorpusList).corpora if one.name == "kazakh"]
    assert stored.notes[0].startswith("The files of 'kazakh' have names of splits, but are not one file each")
    (folder / "more.txt").unlink()
    folder.rename(folder.with_name("other"))
    unnamed = (await uploaded(at, content, request_of(*files, name=None))).record(UploadStatus)
    assert unnamed.corpus is not None and unnamed.corpus.name == corpus_sha256(folder.with_name("other"))


@pytest.mark.parametrize(
    ("name", "data", "code", "sentence"),
    [
        ("a.txt", b"", "CORPUS_EMPTY", "'a.txt' is empty: it needs lines of text to learn from."),
        ("a.txt", b"ab\n\xff\n", "INVALID_INPUT", "'a.txt' is not UTF-8"),
        ("a.jsonl", b'{"text": 1}', "INVALID_INPUT", "'a.jsonl': line 1 must be a text"),
    ],
)
async def test_upload__with_a_wrong_content_is_refused_and_leaves_nothing(
    at: Site, settings: Settings, name: str, data: bytes, code: str, sentence: str
) -> None:
    for corpus in ("kazakh", None):
        body = request_of((name, data), name=corpus)
        refused = await uploaded(at, data, body) if data else await at.post("/corpora", body)
        assert refused.error.code == code
        assert sentence in refused.error.message
    assert os.listdir(settings.app.artifacts_root / "uploads") == []
    assert not (settings.app.data_root / "corpus").exists() and not (settings.app.artifacts_root / "corpora").exists()


async def test_upload__with_other_bytes_than_its_hash_is_refused(at: Site, settings: Settings) -> None:
    for files in ([("a.txt", TEXT)], [("a.txt", TEXT), ("b.txt", TEXT)]):
        whole = TEXT * len(files)
        refused = await uploaded(at, whole[:-2] + b"!\n", request_of(*files))
        assert refused.outcome == (422, "INVALID_INPUT")
        assert refused.error.message.endswith("has arrived with another SHA-256 than its own. Upload it again.")
    assert os.listdir(settings.app.artifacts_root / "uploads") == []


@pytest.mark.parametrize(
    ("body", "code", "sentence"),
    [
        (
            request_of(("a.tar.gz", b"a")),
            "UNSUPPORTED_MEDIA_TYPE",
            "'a.tar.gz' is an archive. Unpack it and give a file whose name ends in .txt or .jsonl or",
        ),
        (request_of(("a.txt", b"a"), name="../.."), "INVALID_INPUT", "`name` must have a letter or a digit."),
        (request_of(("a.txt", b"a"), ("a.txt", b"b")), "INVALID_INPUT", "different names that end in .txt or .text."),
        (request_of(("a/b.txt", b"a")), "INVALID_INPUT", "name"),
        (request_of(), "INVALID_INPUT", "files"),
        (request_of(("a.txt", b"a"), language="Kazakh"), "INVALID_INPUT", "language"),
        (
            {"files": [{"name": "a.txt", "bytes": UPLOAD_BYTES + 1, "sha256": "0" * 64}]},
            "PAYLOAD_TOO_LARGE",
            "The corpus has 4,000,001 bytes; at most 4,000,000 can be uploaded (LIMITS__UPLOAD_BYTES).",
        ),
    ],
)
async def test_upload__is_refused_before_anything_is_sent(
    at: Site, body: Mapping[str, object], code: str, sentence: str
) -> None:
    refused = await at.post("/corpora", body, key=ANA)
    assert refused.error.code == code
    assert sentence in refused.error.message


async def test_upload__larger_than_the_disk_is_refused(lab: Lab, settings: Settings) -> None:
    settings = with_api(settings, limits={"upload_bytes": 2**50, "corpus_bytes": 2**50})
    queue = await JobQueue.connect(settings, await lab.address())
    async with inside(queue, settings) as inner:
        body = {"files": [{"name": "a.txt", "bytes": 2**50, "sha256": "0" * 64}]}
        refused = await inner.site.post("/corpora", body)
    await queue.close()
    assert refused.outcome == (507, "INSUFFICIENT_STORAGE")


async def test_name__of_another_corpus_is_a_conflict_before_and_after_the_upload(at: Site) -> None:
    first, second = request_of(("a.txt", b"ab\n")), request_of(("b.txt", b"cd\n"))
    table = request_of(("c.jsonl", b'"ef"\n'))
    started = [await start(at, body, key) for body, key in ((first, ANA), (second, BOB), (table, ADMIN))]
    assert (await send(at, started[0], b"ab\n", ANA)).status == 200
    late = [await send(at, started[1], b"cd\n", BOB), await send(at, started[2], b'"ef"\n', ADMIN)]
    early = await at.post("/corpora", request_of(("d.txt", b"gh\n")))
    for refused in (*late, early):
        assert refused.outcome == (409, "CONFLICT")
        assert refused.error.message == "There is another corpus 'kazakh': give another `name`."
    assert (await at.get(path_of(started[1]), key=BOB)).outcome == (404, "DATA_NOT_FOUND")


async def test_portion__at_another_offset_is_refused_with_the_right_one(at: Site) -> None:
    status = await start(at, request_of(("a.txt", TEXT)))
    await send(at, status, TEXT[:100])
    for offset in (0, 99, 101, 10**15):
        refused = await send(at, changed(status, offset=offset), TEXT[offset : offset + 10])
        assert refused.outcome == (409, "CONFLICT")
        assert refused.headers["Upload-Offset"] == "100"
        assert refused.error.message == "The server has 100 bytes of this upload: continue there."
    for text in ("-1", "x", "1.5", ""):
        wrong = await at.ask("PATCH", f"{path_of(status)}?offset={text}", b"a", headers=BYTES, key=ANA)
        assert wrong.outcome == (422, "INVALID_INPUT")
    read = await at.ask("HEAD", path_of(status), key=ANA)
    assert (read.status, read.headers["Upload-Offset"]) == (200, "100")
    again = await start(at, request_of(("a.txt", TEXT)))
    assert again == changed(status, offset=100)


async def test_portion__of_another_type_or_too_long_is_refused(at: Site) -> None:
    status = await start(at, request_of(("a.txt", TEXT)))
    path = f"{path_of(status)}?offset=0"
    for headers in ({"Content-Type": "application/json"}, {**BYTES, "Content-Encoding": "gzip"}):
        refused = await at.ask("PATCH", path, TEXT, headers=headers, key=ANA)
        assert refused.outcome == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert (await send(at, status, TEXT + b"a")).outcome == (413, "PAYLOAD_TOO_LARGE")
    chunks = b"%x\r\n%s\r\n" % (len(TEXT) + 1, TEXT + b"a")
    assert b" 413 " in await raw(at, path, b"Transfer-Encoding: chunked", chunks + b"0\r\n\r\n")
    assert (await at.get(path_of(status), key=ANA)).record(UploadStatus).offset == 0


async def raw(at: Site, path: str, header: bytes, body: bytes) -> bytes:
    """The answer to a portion that is sent as it is, on a connection that the server closes."""
    head = f"PATCH {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {ANA}\r\nConnection: close\r\n".encode()
    return await at.say(head + b"Content-Type: application/octet-stream\r\n" + header + b"\r\n\r\n" + body)


@pytest.mark.slow
async def test_portion__that_breaks_off_or_takes_too_long_leaves_what_has_arrived(at: Site, settings: Settings) -> None:
    text = (b"a" * 79 + b"\n") * 40_000  # several writes
    status = await start(at, request_of(("a.txt", text)))
    path = f"{path_of(status)}?offset="
    answer = await raw(at, f"{path}0", b"Content-Length: 2000", text[:1000])
    assert b" 200 " in answer and b"Upload-Offset: 1000" in answer
    _, writer = await at.connect()
    head = f"PATCH {path}1000 HTTP/1.1\r\nHost: x\r\nX-Api-Key: {ANA}\r\n".encode()
    head += b"Content-Type: application/octet-stream\r\nContent-Length: 3000000\r\n\r\n"
    writer.write(head + text[1000:2_500_000])
    await writer.drain()
    writer.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while status.offset <= 1000:
            status = (await at.get(path_of(status), key=ANA)).record(UploadStatus)
        while status.corpus is None:
            await send(at, status, text[status.offset :])  # refused while the server writes the rest
            status = (await at.get(path_of(status), key=ANA)).record(UploadStatus)
    assert (settings.app.artifacts_root / "corpora" / "kazakh.txt").read_bytes() == text


async def test_two_connections__with_the_same_upload_lose_and_double_nothing(at: Site, settings: Settings) -> None:
    text = os.urandom(500_000).hex().encode() * 2
    data = b"\n".join(text[begin : begin + 99] for begin in range(0, len(text), 99))

    async def send_all() -> int:
        status, refused = await start(at, request_of(("a.txt", data))), 0
        while status.corpus is None:
            answer = await send(at, status, data[status.offset : status.offset + 150_000])
            refused += answer.status == 409
            status = (await at.get(path_of(status), key=ANA)).record(UploadStatus)
        return refused

    refused = await asyncio.gather(*(send_all() for _ in range(3)))
    assert sum(refused) > 0
    assert (settings.app.artifacts_root / "corpora" / "kazakh.txt").read_bytes() == data


async def test_complete_upload__that_a_killed_server_has_not_stored_is_stored_by_the_next_request(
    at: Site, settings: Settings
) -> None:
    status = await start(at, request_of(("a.txt", TEXT)))
    folder = settings.app.artifacts_root / "uploads" / status.upload_id
    (folder / "content").write_bytes(TEXT)  # as a killed server leaves it
    (folder / "files").mkdir()
    (folder / "files" / "rest").write_bytes(b"a")
    at_once = await asyncio.gather(*(start(at, request_of(("a.txt", TEXT))) for _ in range(3)))
    assert {one.corpus for one in at_once} == {at_once[0].corpus} != {None}
    assert os.listdir(folder) == ["record.json"]


async def test_upload__is_for_its_client_only_and_can_be_deleted(at: Site, settings: Settings) -> None:
    status = await start(at, request_of(("a.txt", TEXT)))
    for method in ("GET", "DELETE"):
        for key in (BOB, ADMIN):
            assert (await at.ask(method, path_of(status), key=key)).outcome == (404, "DATA_NOT_FOUND")
    assert (await send(at, status, TEXT, BOB)).outcome == (404, "DATA_NOT_FOUND")
    assert (await at.ask("DELETE", path_of(status), key=ANA)).status == 204
    assert (await send(at, status, TEXT)).outcome == (404, "DATA_NOT_FOUND")
    assert os.listdir(settings.app.artifacts_root / "uploads") == []


async def test_uploads__of_a_user_are_limited_and_expired_ones_make_room(at: Site, settings: Settings) -> None:
    first = await start(at, request_of(("a.txt", b"a"), name="a"))
    (settings.app.artifacts_root / "uploads" / ".tmp-0").mkdir()  # of another upload that starts just now
    await start(at, request_of(("b.txt", b"b"), name="b"))
    refused = await at.post("/corpora", request_of(("c.txt", b"c"), name="c"), key=ANA)
    assert refused.outcome == (429, "RATE_LIMIT_EXCEEDED")
    await start(at, request_of(("a.txt", b"a"), name="a"))  # it continues
    for name in ("d", "e", "f"):
        await start(at, request_of(("d.txt", b"d"), name=name), key=ADMIN)
    make_old(settings, first)
    await start(at, request_of(("c.txt", b"c"), name="c"))
    assert (await at.get(path_of(first), key=ANA)).outcome == (404, "DATA_NOT_FOUND")


async def test_cleanup__removes_uploads_that_have_received_nothing_for_long(at: Site, settings: Settings) -> None:
    assert clean_up(settings).removals == ()
    old, new = [await start(at, request_of((f"{name}.txt", TEXT), name=name)) for name in ("old", "new")]
    make_old(settings, old)
    [listed] = clean_up(settings, dry_run=True).removals
    report = clean_up(settings)
    assert report.removals == (listed,)
    assert listed.path == f"uploads/{old.upload_id}"
    assert (await at.get(path_of(old), key=ANA)).outcome == (404, "DATA_NOT_FOUND")
    assert (await send(at, new, TEXT)).status == 200


def make_old(settings: Settings, status: UploadStatus) -> None:
    """Let an upload have received its last byte just before its time is over."""
    folder = settings.app.artifacts_root / "uploads" / status.upload_id
    for path in (*folder.iterdir(), folder):
        before = path.stat().st_mtime - TTL_SECONDS - 1
        os.utime(path, (before, before))


async def test_text__becomes_the_corpus_that_an_upload_of_its_bytes_becomes(at: Site) -> None:
    body = {"name": "Kazakh text", "text": TEXT.decode(), "language": "kk"}
    stored = (await at.post("/corpora/texts", body, key=ANA)).record(CorpusOverview)
    assert (stored.name, stored.bytes, stored.lines, stored.languages) == ("Kazakh_text", len(TEXT), 80, ("kk",))
    assert (await at.post("/corpora/texts", body, key=BOB)).record(CorpusOverview) == stored
    uploaded = await start(at, request_of(("text.txt", TEXT), name="Kazakh text"))
    assert uploaded.corpus == stored, "the server has these bytes already"
    other = {**body, "text": "another\n"}
    assert (await at.post("/corpora/texts", other, key=ANA)).outcome == (409, "CONFLICT")
    large = {"name": "large", "text": "ab\n" * (UPLOAD_BYTES // 3 + 1)}
    assert (await at.post("/corpora/texts", large, key=ANA)).outcome == (413, "PAYLOAD_TOO_LARGE")
    assert (await at.post("/corpora/texts", {"name": "..", "text": "a"}, key=ANA)).outcome == (422, "INVALID_INPUT")
    assert [one.name for one in (await at.get("/corpora")).record(CorpusList).corpora].count("large") == 0


async def test_text__continues_an_upload_that_was_cut(at: Site) -> None:
    cut = await start(at, request_of(("text.txt", TEXT), name="cut"))
    await send(at, cut, TEXT[:100])
    stored = await at.post("/corpora/texts", {"name": "cut", "text": TEXT.decode()}, key=ANA)
    assert stored.record(CorpusOverview).bytes == len(TEXT)
