"""Uploads of corpora by the client, which continue after cuts, kills and in another process."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.api_process import KEY as PROCESS_KEY
from tests.support.api_process import api_process
from tests.support.api_server import KEY, USER_KEY, LabServer, Prepared, prepared
from tests.support.faulty_proxy import Fault, FaultyProxy, free_port
from tests.support.markers import slow_except
from tests.support.refusals import refused
from tests.support.reverse_proxy import reverse_proxy
from tests.support.waiting import wait_until
from trainer.client import uploads
from trainer.client.client import Client
from trainer.contracts.corpora import CorpusOverview, UploadStatus
from trainer.contracts.errors import ErrorBody, ErrorCode
from trainer.data.text import corpus_sha256

MIB = 1 << 20
CORPUS = CorpusOverview(name="a", bytes=6, lines=1, languages=(), is_ipa=None)


class Cut(Exception):
    """The end of a process in the middle of an upload."""


@pytest.fixture(name="text")
def text_fixture(tmp_path: Path) -> Path:
    """A text of 12 MB, which no other test has."""
    path = tmp_path / f"{tmp_path.name.replace('_', '-')}.txt"
    lines = (sha256(f"{path.name} {number}".encode()).hexdigest() + "\n" for number in range(185_000))
    path.write_text("".join(lines), encoding="utf-8")
    return path


async def test_upload__continues_after_cuts_of_the_connection(server: LabServer, text: Path) -> None:
    loop, proxy = asyncio.get_running_loop(), FaultyProxy(int(server.url.rpartition(":")[2]))
    faults: list[tuple[int, Fault]] = [(MIB, "reset"), (5 * MIB, "refused"), (9 * MIB, "reset")]

    def show(done: int, total: int) -> None:
        if faults and done >= faults[0][0]:
            asyncio.run_coroutine_threadsafe(proxy.break_for(faults.pop(0)[1], 0.3), loop)

    await proxy.start()
    with Client(f"http://127.0.0.1:{proxy.port}", KEY) as client:
        stored = await asyncio.to_thread(client.upload, text, progress=show)
    await proxy.stop()
    assert faults == []
    assert (stored.name, stored.lines) == (text.stem, 185_000)
    assert corpus_sha256(server.lab.folder / "artifacts" / "corpora" / f"{text.stem}.txt") == corpus_sha256(text)


@pytest.mark.parametrize("most_bytes", slow_except([MIB, 300_000], MIB))
async def test_upload__through_a_proxy_that_takes_small_bodies_sends_smaller_ones(
    server: LabServer, text: Path, most_bytes: int
) -> None:
    async with reverse_proxy(server.url, most_bytes) as proxy:
        with Client(proxy.url, KEY) as client:
            stored = await asyncio.to_thread(client.upload, text, progress=lambda done, total: None)
    assert (stored.name, stored.lines, proxy.outside) == (text.stem, 185_000, [])
    assert proxy.refused_bytes == ([2 * MIB] if most_bytes == MIB else [MIB, MIB // 2])
    assert corpus_sha256(server.lab.folder / "artifacts" / "corpora" / f"{text.stem}.txt") == corpus_sha256(text)


async def test_upload__through_a_proxy_that_takes_no_bodies_says_so(server: LabServer, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("ab\n" * 4000, encoding="utf-8")
    async with reverse_proxy(server.url, 400) as proxy:
        said = f"A proxy before {proxy.url} answered 413 (Request Entity Too Large): it takes no body of 750 bytes."
        with Client(proxy.url, KEY) as client, refused(ErrorCode.PAYLOAD_TOO_LARGE, said):
            await asyncio.to_thread(client.upload, tmp_path / "own.txt", progress=lambda done, total: None)
    assert proxy.refused_bytes == [12_000, 6000, 3000, 1500, 750]


def test_upload__of_a_new_process_continues_where_the_last_one_ended(server: LabServer, text: Path) -> None:
    seen: list[int] = []

    def cut(done: int, total: int) -> None:
        seen.append(done)
        if done >= 3 * MIB:
            raise Cut

    def show(done: int, total: int) -> None:
        seen.append(done)

    with Client(server.url, USER_KEY) as client, pytest.raises(Cut):
        client.upload(text, "continued", language="kk", progress=cut)
    server.stop()
    server.start()
    before = seen.pop()
    seen.clear()
    with Client(server.url, USER_KEY) as client:
        client.upload(text, "continued", language="kk", progress=show)
        assert seen[0] == before and seen[-1] == text.stat().st_size
        seen.clear()
        again = client.upload(text, "continued", language="kk", progress=show)
        assert seen == [] and again in client.corpora()
    assert (server.lab.folder / "artifacts" / "corpora" / "continued.txt").read_bytes() == text.read_bytes()


@pytest.mark.slow
def test_upload__continues_when_the_server_was_killed_and_started_again(tmp_path: Path, text: Path) -> None:
    environment = {"HTTP__PORT": f"{free_port()}", "QUEUE__EMBEDDED_WORKERS": "0"}
    with ThreadPoolExecutor(1) as pool, api_process(tmp_path, **environment) as api:
        reached: list[int] = []

        def show(done: int, total: int) -> None:
            reached.append(done)
            if done >= 3 * MIB:
                api.process.kill()

        with Client(api.url, PROCESS_KEY) as client:
            uploading = pool.submit(client.upload, text, "killed", progress=show)
            wait_until(lambda: api.process.poll() is not None)
            with api_process(tmp_path, **environment):
                assert uploading.result().lines == 185_000
    assert (tmp_path / "artifacts" / "corpora" / "killed.txt").read_bytes() == text.read_bytes()


def test_upload__of_no_text_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    files = {"a.txt": b"\xff", "b.txt": b"\n", "c.zip": b"PK", "d.txt": b"a"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with prepared() as server, Client(server.url, KEY) as client:
        for name, code, sentence in (
            ("a.txt", ErrorCode.INVALID_INPUT, "not UTF-8"),
            ("b.txt", ErrorCode.CORPUS_EMPTY, "is empty"),
            ("c.zip", ErrorCode.UNSUPPORTED_MEDIA_TYPE, "is an archive"),
            ("none.jsonl", ErrorCode.DATA_NOT_FOUND, "There is no file"),
        ):
            with refused(code, sentence):
                client.upload(tmp_path / name)
        with refused(ErrorCode.INVALID_INPUT, "language"):
            client.upload(tmp_path / "d.txt", language="Kazakh")


def answer(offset: int, *, total: int = 6, is_stored: bool = False) -> Prepared:
    status = UploadStatus(upload_id="u", bytes=total, offset=offset, corpus=CORPUS if is_stored else None)
    return Prepared(201, status.model_dump_json().encode())


def conflict(message: str) -> Prepared:
    body = ErrorBody(code=ErrorCode.CONFLICT, message=message, request_id="r")
    return Prepared(409, body.model_dump_json().encode())


def test_upload__sends_smaller_portions_where_one_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("abcde\n", encoding="utf-8")
    monkeypatch.setattr(uploads, "_PORTION_BYTES", 4)
    monkeypatch.setattr(uploads, "_MIN_PORTION_BYTES", 1)
    monkeypatch.setattr(uploads, "_SHORT_SECONDS", -1.0)
    monkeypatch.setattr(uploads, "_LONG_SECONDS", -1.0)
    with prepared(answer(0), answer(0), answer(0), answer(1), answer(6, is_stored=True)) as server:
        with Client(server.url, KEY) as client:
            client.upload(tmp_path / "a.txt", progress=lambda done, total: None)
        assert [one.headers["Content-Length"] for one in server.sent[1:]] == ["4", "2", "1", "1"]


def test_upload__that_was_complete_is_stored_by_the_next_request(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcde\n", encoding="utf-8")
    refusal = conflict("The server has 6 bytes of this upload: continue there.")
    with prepared(answer(0), refusal, answer(6), answer(6, is_stored=True)) as server:
        with Client(server.url, KEY) as client:
            assert client.upload(tmp_path / "a.txt") == CORPUS
        assert [one.method for one in server.sent] == ["POST", "PATCH", "GET", "POST"]


def test_upload__that_cannot_continue_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcde\n", encoding="utf-8")
    other = conflict("There is another corpus 'a': give another `name`.")
    gone = Prepared(
        404, ErrorBody(code=ErrorCode.DATA_NOT_FOUND, message="Gone.", request_id="r").model_dump_json().encode()
    )
    for answers, code, sentence in (
        ((answer(0), other, gone), ErrorCode.CONFLICT, "There is another corpus 'a'"),
        ((answer(0), gone), ErrorCode.DATA_NOT_FOUND, "Gone."),
        ((answer(7, total=9),), ErrorCode.INVALID_INPUT, "has become shorter"),
    ):
        with prepared(*answers) as server, Client(server.url, KEY) as client, refused(code, sentence):
            client.upload(tmp_path / "a.txt")
