"""Files of runs and tokenizers over HTTP: the ones of the manifest, complete or in ranges, and no others."""

import asyncio
import os
import random
import re
from hashlib import sha256
from pathlib import Path

import pytest
from aiohttp import ClientPayloadError

from bot.messages.answers import details_answer, files_answer
from tests.support import ended, tiny_request, wait_for_status
from tests.support.cards import Read
from tests.support.http import ADMIN, Got, Site, inside, with_api
from tests.support.lab import Lab
from tests.support.waiting import captured_logs, until
from tests.support.worker_runs import LONG
from trainer.artifacts.outcome import read_outcome
from trainer.artifacts.run_files import RunFiles
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import FileRecord, changed
from trainer.contracts.events import JobCompleted
from trainer.contracts.http_answers import ArtifactFiles
from trainer.contracts.runs import Accepted
from trainer.http.api import HttpTimeouts
from trainer.system.files import file_records

LARGE = 20 << 20


def add_file(run: RunDirectory, name: str, content: bytes) -> FileRecord:
    """A file more in the folder of a run and in its manifest."""
    (run.path / name).write_bytes(content)
    [record] = file_records(run.path, [run.path / name])
    list_file(run, record)
    return record


def list_file(run: RunDirectory, record: FileRecord) -> None:
    manifest = run.completed_manifest()
    run.write_manifest(changed(manifest, files=(*manifest.files, record)))


def address(run: RunDirectory, path: str) -> str:
    return f"/artifacts/models/{run.run_id}/download?path={path}"


async def test_list__is_the_manifest_with_its_own_file(run: RunDirectory, here: Site) -> None:
    listed = (await here.get(f"/artifacts/models/{run.run_id}")).record(ArtifactFiles)
    own = file_records(run.path, [run.path / "manifest.json"])
    assert (listed.kind, listed.id) == ("models", run.run_id)
    known = {file.path: file for file in (*run.completed_manifest().files, *own)}
    assert listed.files == tuple(known[path] for path in sorted(known))
    for file in listed.files:
        got = await here.get(address(run, file.path))
        assert (got.status, len(got.body), sha256(got.body).hexdigest()) == (200, file.bytes, file.sha256)
        assert got.headers["ETag"] == f'"{file.sha256}"'
        assert got.headers["Accept-Ranges"] == "bytes"
        assert got.headers["Content-Length"] == str(file.bytes)
        assert re.fullmatch(r'attachment; filename="[A-Za-z0-9._-]+"', got.headers["Content-Disposition"])


async def test_sizes__of_a_run_are_those_of_its_files_wherever_they_are_shown(here: Site) -> None:
    run_id = (await here.post("/runs/train", tiny_request())).record(Accepted).run_id
    status = await wait_for_status(here.queue, run_id, ended)
    run = here.queue.runs.get(run_id)
    folder = run.path
    named = [file.path for file in run.completed_manifest().files]
    result = [os.stat(folder / path).st_size for path in ("manifest.json", *named)]
    assert status.artifact_bytes == os.stat(folder / "model.safetensors").st_size
    assert (await here.get(f"/runs/{run_id}")).fields["artifact_bytes"] == status.artifact_bytes
    completed = (await here.events(f"/runs/{run_id}/events"))[-1].data
    assert JobCompleted.model_validate_json(completed).result_bytes == sum(result)
    listed = (await here.get(f"/artifacts/models/{run_id}")).record(ArtifactFiles)
    assert [file.bytes for file in listed.files if file.path == "model.safetensors"] == [status.artifact_bytes]
    assert listed.result_bytes == sum(file.bytes for file in listed.files) == sum(result)
    stored = (await here.get(f"/runs/{run_id}/files")).record(RunFiles)
    on_disk = sum(os.stat(Path(where) / name).st_size for where, _, names in os.walk(folder) for name in names)
    assert stored.disk_bytes == sum(file.bytes for file in stored.files) == on_disk
    assert stored.result_bytes == sum(result)
    in_all = f"{len(result)} files in all, {sum(result) / 1000:.1f} kB"
    assert in_all in Read(details_answer(run.record(), status, read_outcome(run))).text
    assert f"{len(result)} files of" in (title := Read(files_answer(run.record(), run.result_files())).title)
    assert title.endswith(f", {sum(result) / 1000:.1f} kB")


async def test_files__of_a_run_without_a_model_are_not_there_yet(here: Site) -> None:
    run_id = (await here.post("/runs/train", tiny_request(**LONG))).record(Accepted).run_id
    assert (await here.get(f"/artifacts/models/{run_id}")).outcome == (409, "RUN_NOT_READY")
    assert (await here.get(f"/artifacts/models/{run_id}/download?path=config.json")).status == 409
    assert (await here.get("/artifacts/corpora/text")).outcome == (422, "INVALID_INPUT")


SATISFIED = {"bytes=0-0": "0-0", "bytes=0-9": "0-9", "Bytes=5-6": "5-6", "bytes=-1": "99-99"}
SATISFIED |= dict.fromkeys(("bytes=90-", "bytes=90-99", "bytes=90-1000"), "90-99")
SATISFIED |= dict.fromkeys(("bytes=-100", "bytes=-1000", f"bytes={'0' * 21}-{'9' * 5000}"), "0-99")
SATISFIED[f"bytes=1-{10**17}"] = "1-99"
UNSATISFIABLE = ("bytes=100-", "bytes=100-200", f"bytes={10**17}-", "bytes=-0", f"bytes={'9' * 5000}-")
IGNORED = ("bytes=5-4", "bytes=0-1,5-6", "bytes=-", "bytes=a-b", "bytes=0x1-2", "bytes=٣-٤", "items=0-5", "bytes", "")


async def test_range__is_answered_as_rfc_9110_says(here: Site, copied: RunDirectory) -> None:
    content, path = bytes(range(100)), address(copied, "hundred.bin")
    add_file(copied, "hundred.bin", content)
    for given, answered in SATISFIED.items():
        first, last = map(int, answered.split("-"))
        got = await here.get(path, headers={"Range": given})
        assert (got.status, got.body) == (206, content[first : last + 1]), given
        assert got.headers["Content-Range"] == f"bytes {answered}/100"
    for given in UNSATISFIABLE:
        got = await here.get(path, headers={"Range": given})
        assert got.outcome == (416, "RANGE_NOT_SATISFIABLE"), given
        assert got.headers["Content-Range"] == "bytes */100"
    for given in IGNORED:
        got = await here.get(path, headers={"Range": given})
        assert (got.status, got.body, got.headers.get("Content-Range")) == (200, content, None), given
    add_file(copied, "empty.bin", b"")
    assert (await here.get(address(copied, "empty.bin"))).body == b""
    assert (await here.get(address(copied, "empty.bin"), headers={"Range": "bytes=0-"})).status == 416


async def test_condition__decides_between_nothing_a_range_and_the_whole_file(here: Site, copied: RunDirectory) -> None:
    record = add_file(copied, "hundred.bin", bytes(100))
    etag, wrong = f'"{record.sha256}"', f'"{"0" * 64}"'

    async def status(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await here.get(address(copied, "hundred.bin"), headers=named)).status

    assert await status(If_None_Match=etag) == 304
    assert await status(If_None_Match=f"W/{etag}") == 304
    assert await status(If_None_Match=f"{wrong}, {etag}") == 304
    assert await status(If_None_Match="*") == 304
    assert await status(If_None_Match=wrong) == 200
    assert await status(If_None_Match=record.sha256) == 200
    assert await status(If_None_Match=etag, Range="bytes=0-1") == 304
    assert await status(If_Range=etag, Range="bytes=0-1") == 206
    assert await status(If_Range=wrong, Range="bytes=0-1") == 200
    assert await status(If_Range=f"W/{etag}", Range="bytes=0-1") == 200
    assert await status(If_Range="Wed, 21 Oct 2015 07:28:00 GMT", Range="bytes=0-1") == 200
    assert await status(If_Range=wrong, Range="bytes=200-") == 200
    unchanged = await here.get(address(copied, "hundred.bin"), headers={"If-None-Match": etag})
    assert (unchanged.body, unchanged.headers["ETag"]) == (b"", etag)


async def test_head__has_the_headers_and_no_content(here: Site, copied: RunDirectory) -> None:
    record = add_file(copied, "hundred.bin", bytes(100))
    for headers in ({}, {"Range": "bytes=0-1"}):
        got = await here.ask("HEAD", address(copied, "hundred.bin"), headers=headers)
        assert (got.status, got.body, got.headers["Content-Length"]) == (200, b"", "100")
        assert got.headers["ETag"] == f'"{record.sha256}"'
    assert (await here.ask("HEAD", address(copied, "none"))).status == 404
    assert (await here.ask("HEAD", f"/artifacts/models/{copied.run_id}")).status == 200
    (copied.path / "hundred.bin").unlink()
    assert (await here.ask("HEAD", address(copied, "hundred.bin"))).status == 500


@pytest.fixture(name="large")
def large_fixture(copied: RunDirectory) -> FileRecord:
    return add_file(copied, "large.bin", random.Random(1).randbytes(LARGE))


async def test_large_file__in_parallel_ranges_is_the_file(here: Site, copied: RunDirectory, large: FileRecord) -> None:
    size = 1_999_999  # no divisor of the file or of a buffer
    headers = [{"Range": f"bytes={start}-{start + size - 1}"} for start in range(0, LARGE, size)]
    parts: list[Got] = await asyncio.gather(*(here.get(address(copied, large.path), headers=one) for one in headers))
    assert {part.status for part in parts} == {206}
    assert sha256(b"".join(part.body for part in parts)).hexdigest() == large.sha256


async def test_download__of_a_client_that_reads_nothing_is_cut(
    lab: Lab, copied: RunDirectory, large: FileRecord
) -> None:
    async with lab.queue() as queue, inside(queue, with_api(lab.settings), HttpTimeouts(send_seconds=0.2)) as slow:
        with captured_logs() as logs:
            _, writer = await slow.site.begin(address(copied, large.path))
            await until(lambda: bool(logs))
        writer.close()
    assert [(entry["event"], entry["http_status"]) for entry in logs] == [("http_request", 499)]
    assert slow.api.open_streams == 0


async def test_download__of_a_file_that_becomes_shorter_is_cut(
    here: Site, copied: RunDirectory, large: FileRecord
) -> None:
    with captured_logs() as logs, pytest.raises(ClientPayloadError):
        async with here.session.get(here.url(address(copied, large.path)), headers={"X-Api-Key": ADMIN}) as response:
            await response.content.readany()
            os.truncate(copied.path / large.path, 1000)
            await response.read()
    assert "http_request_failed" in [entry["event"] for entry in logs]


OUTSIDE = r"""
../../../data/corpus/text.txt /etc/passwd //etc/passwd file:///etc/passwd . .. ./config.json tokenizer/../config.json
..%2f..%2frequest.json %2e%2e/copied-1/request.json %2e%2e%2fcopied-1%2frequest.json ..%252frequest.json %ff %ed%a0%80
config.json/ config.json%00 config.json%00.txt CONFIG.JSON tokenizer tokenizer\..\config.json
events.jsonl.bak logs.jsonl SHA256SUMS
""".split()


async def test_path__that_is_not_listed_or_too_long_is_refused(here: Site, copied: RunDirectory) -> None:
    for path in OUTSIDE:
        assert (await here.get(address(copied, path))).outcome == (404, "NOT_FOUND"), path
        assert (await here.get(f"/artifacts/models/{path}")).status in (404, 422), path
        assert (await here.get(f"/artifacts/models/{path}/download?path=config.json")).status in (404, 422), path
    for query in ("", "?path=", f"?path={'x' * 513}", "?path=a&path=b"):
        refused = await here.get(f"/artifacts/models/{copied.run_id}/download{query}")
        assert refused.outcome == (422, "INVALID_INPUT"), query


async def test_file__outside_its_folder_or_not_regular_is_refused(here: Site, copied: RunDirectory) -> None:
    """Even if a manifest names it, which may come from an archive of somebody else."""
    secret = copied.path.parent / "secret.txt"
    secret.write_text("secret")
    (copied.path / "link.txt").symlink_to(secret)
    (copied.path / "folder").symlink_to(copied.path.parent)
    os.mkfifo(copied.path / "pipe")
    outside = ["../secret.txt", "link.txt", "folder/secret.txt", "/secret.txt", "gone.txt", "pipe"]
    for path in outside:
        list_file(copied, FileRecord(path=path, bytes=6, sha256=sha256(b"secret").hexdigest()))
    try:
        refused = [await here.get(address(copied, path)) for path in outside]
    finally:
        secret.unlink()
    assert {one.outcome for one in refused} == {(500, "MODEL_LOAD_FAILED")}
    assert not any("secret" in one.text for one in refused)


async def test_file__of_another_size_is_damaged(here: Site, copied: RunDirectory) -> None:
    record = add_file(copied, "hundred.bin", bytes(100))
    (copied.path / record.path).write_bytes(bytes(99))
    damaged = await here.get(address(copied, record.path))
    assert damaged.outcome == (500, "MODEL_LOAD_FAILED")
    assert damaged.error.message == "The file is damaged. Check the run with `mt verify`."


async def test_downloads__are_limited_like_streams(lab: Lab, copied: RunDirectory, large: FileRecord) -> None:
    settings = with_api(lab.settings, http={"max_connections": 4})
    async with lab.queue() as queue, inside(queue, settings) as (site, api):
        _, writer = await site.begin(address(copied, large.path))
        await until(lambda: api.open_streams == 1)
        refused = await site.get(address(copied, "config.json"))
        writer.transport.abort()
        await until(lambda: api.open_streams == 0)
        assert (await site.get(address(copied, "config.json"))).status == 200
    assert refused.outcome == (429, "RATE_LIMIT_EXCEEDED")
