"""Errors of the HTTP API: one form for all of them, an id on every answer, and nothing of the server's inside."""

import logging
import re
from collections.abc import Mapping, Sequence

import pytest

from tests.support.http import ADMIN, ANA, Site, inside, with_api
from tests.support.lab import Lab
from tests.support.waiting import captured_logs, until
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.http_answers import RunPage
from trainer.contracts.job_status import UnreadableJob
from trainer.lab.requests import MAX_BODY_BYTES


def events_of(logs: Sequence[Mapping[str, object]], field: str) -> list[tuple[object, object]]:
    return [(log["event"], log.get(field)) for log in logs]


async def test_id__of_a_request_comes_back_on_every_answer(here: Site, run: RunDirectory) -> None:
    own = {"X-Request-ID": "my.id-1_A"}
    paths = ("/healthz", "/no-such-page", f"/runs/{run.run_id}/events", f"/artifacts/models/{run.run_id}")
    answers = [await here.get(path, headers=own) for path in paths]
    answers += [await here.get("/runs", key=None, headers=own), await here.ask("PUT", "/runs", headers=own)]
    assert [answer.status for answer in answers] == [200, 404, 200, 200, 401, 405]
    assert {answer.headers["X-Request-ID"] for answer in answers} == {"my.id-1_A"}


async def test_id__that_is_malformed_is_replaced(here: Site) -> None:
    given = ("", "a b", "a;b", "ä", "x" * 65, '"') * 2
    ids = {(await here.get("/nowhere", headers={"X-Request-ID": one})).error.request_id for one in given}
    assert len(ids) == len(given)
    assert all(re.fullmatch("[0-9a-f]{8}", one) for one in ids)


async def test_answer__is_not_stored_and_names_no_library(here: Site) -> None:
    answers = [(await here.get(path)).headers for path in ("/runs", "/nowhere", "/")]
    assert {headers["Server"] for headers in answers} == {"Model-Trainer"}
    assert {headers["X-Content-Type-Options"] for headers in answers} == {"nosniff"}
    assert [headers["Cache-Control"] for headers in answers] == ["no-store", "no-store", "no-cache"]
    assert b"\r\nServer: Model-Trainer\r\n" in await here.say(MALFORMED[0])


async def test_address__that_does_not_exist_is_not_found(here: Site) -> None:
    for path in ("/nowhere", "/runs/", "/runs/a/b/c/d", "/RUNS", "//runs", "/runs/../x", "/%00", "/%E2%80%A8"):
        for key in (ADMIN, None):
            assert (await here.get(path, key=key)).outcome == (404, "NOT_FOUND"), path


async def test_body__in_chunks_that_break_off_is_refused(here: Site) -> None:
    head = f"POST /runs/train HTTP/1.1\r\nHost: x\r\nX-Api-Key: {ADMIN}\r\nContent-Type: application/json\r\n"
    broken = await here.say(head.encode() + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n")
    assert broken.split(b" ")[1] == b"400"
    assert b'"code":"BAD_REQUEST"' in broken


async def test_body__that_is_compressed_is_not_read(here: Site) -> None:
    """A megabyte of zeros has a kilobyte when it is compressed."""
    for encoding in ("gzip", "deflate", "br", "x-own", "gzip, identity"):
        refused = await here.post("/runs/train", b"{}", headers={"Content-Encoding": encoding})
        assert refused.outcome == (415, "UNSUPPORTED_MEDIA_TYPE"), encoding
        assert refused.headers["Accept-Encoding"] == "identity"
    for plain in ({"Content-Encoding": "Identity"}, {"Content-Type": "application/json; charset=utf-8"}):
        assert (await here.post("/runs/train", b"{}", headers=plain)).outcome == (422, "INVALID_INPUT")


async def test_body__of_the_wrong_form_names_each_field(here: Site) -> None:
    for body, name in (
        (b'{"corpus": "a", "seed": 1, "seed": 1}', "seed"),
        (b'{"corpus": "a", "seed": 1, "\\u0073eed": 2}', "seed"),
        (b'{"model": {"dropout": 0.1, "dropout": 0.2}}', "dropout"),
        (b'{"tags": ["a", [{"b": null, "c": 1, "b": {}}]]}', "b"),
        (b'{"": 1, "": 2}', ""),
    ):
        twice = await here.post("/runs/train", body)
        assert twice.outcome == (422, "INVALID_INPUT")
        assert twice.error.message == f"`{name}` is given twice in one block: give it once."
        assert [problem.path for problem in twice.error.details] == [name]
    refused = await here.post("/runs/train", {"corpus": 1, "model_family": "char_lstm", "no_such": "x"})
    assert refused.outcome == (422, "INVALID_INPUT")
    assert {problem.path for problem in refused.error.details} == {"corpus", "no_such"}


async def test_integer__may_be_written_with_a_point(here: Site, run: RunDirectory) -> None:
    """For JSON, 2.0 and 2 are the same number."""
    for k, status in ((b"2.0", 200), (b"2", 200), (b"2e0", 200), (b"2.5", 422), (b"1e300", 422), (b'"2"', 422)):
        body = b'{"text": "abc", "k": ' + k + b"}"
        assert (await here.post(f"/runs/{run.run_id}/predict", body)).status == status, k
    body = b'{"message": "abc", "stop_sequences": ["x", "y"], "temperature": 1, "max_new_tokens": 3.0}'
    assert (await here.post(f"/runs/{run.run_id}/chat?wait=60", body)).status == 200


async def test_body__that_is_too_large_is_refused(here: Site) -> None:
    refused = await here.post("/runs/train", b" " * (MAX_BODY_BYTES + 1))
    assert refused.outcome == (413, "PAYLOAD_TOO_LARGE")
    said = "The body has more than 16,777,216 bytes. Send less at a time, or use `mt` on the machine of the server"
    assert refused.error.message.startswith(said)


async def test_text__of_the_largest_size_is_accepted_in_its_longest_form(here: Site, run: RunDirectory) -> None:
    body = b'{"text": "' + rb"\u0061" * 2_000_000 + b'", "detail_level": "none_such"}'
    assert len(body) < MAX_BODY_BYTES
    refused = await here.post(f"/runs/{run.run_id}/score", body)
    assert [problem.path for problem in refused.error.details] == ["detail_level"]


async def test_damaged_file__is_an_error_without_a_word_of_the_server(here: Site, copied: RunDirectory) -> None:
    (copied.path / "events.jsonl").unlink()
    (copied.path / "events.jsonl").mkdir()
    (copied.path / "eval" / "metrics.json").write_text("{")
    for path in ("", "/events", "/curve", "/eval"):
        with captured_logs() as logs:
            failed = await here.get(f"/runs/{copied.run_id}{path}")
        assert failed.outcome == (409, "RECORD_UNREADABLE"), path
        assert ("'metrics.json' of" if path == "/eval" else "'events.jsonl' of") in failed.error.message
        assert str(copied.path.parent) not in failed.error.message
        assert ("http_request_failed", failed.error.request_id) in events_of(logs, "request_id")
    (copied.path / "request.json").write_text("{")
    assert (await here.get(f"/runs/{copied.run_id}", key=ANA)).outcome == (409, "RECORD_UNREADABLE")
    assert (await here.get(f"/runs/{copied.run_id}/config.yaml")).outcome == (409, "RECORD_UNREADABLE")


async def test_damaged_run__does_not_hide_the_others(
    here: Site, lab: Lab, run: RunDirectory, copied: RunDirectory
) -> None:
    assert copied.run_id in (await here.get("/runs?limit=200")).text  # the lab may have many newer runs
    (copied.path / "events.jsonl").unlink()
    with captured_logs() as logs:
        async with inside(here.queue, with_api(lab.settings)) as (other, _):
            listed = await other.get("/runs?limit=200")
    page = listed.record(RunPage)
    assert run.run_id in {one.run_id for one in page.runs} and copied.run_id not in {one.run_id for one in page.runs}
    reason = "The file 'events.jsonl' cannot be read (No such file or directory)."
    assert page.unreadable == (UnreadableJob(job_id=copied.run_id, reason=reason),)
    assert ("run_unreadable", copied.run_id) in events_of(logs, "run_id")


MALFORMED = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    b"GET / HTTP/1.1\r\nHost: x\r\nX-Api-Key: secret\x00key\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-Api-Key secretkey\r\n\r\n",
    b"GET  /  HTTP/9.9\r\n\r\n",
    b"POST /runs/train HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: /" + b"a" * 20_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"h%d: x\r\n" % number for number in range(200)) + b"\r\n",
]


async def test_request__that_is_no_http_is_refused_in_the_same_form(here: Site) -> None:
    form = b'{"code":"BAD_REQUEST","message":"This is not a valid HTTP request.","request_id":"%s","details":[]}'
    with captured_logs() as logs:
        answers = [await here.say(data) for data in MALFORMED]
    for answer in answers:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
        found: list[bytes] = re.findall(rb"X-Request-ID: ([0-9a-f]{8})", head)
        [request_id] = found
        assert body == form % request_id
    assert logs == []


async def test_address__that_is_too_long_is_refused_by_its_own_code(here: Site) -> None:
    for address in ("/runs/" + "a" * 8000, "/runs?search=" + "a" * 20_000):
        refused = await here.get(address)
        assert refused.outcome == (414, "URI_TOO_LONG")
        assert refused.error.message == "The address has more than 8,000 bytes. Send a shorter one."
    assert (await here.get(f"/runs?search={'a' * 7900}")).outcome == (422, "INVALID_INPUT")


async def test_expectation__that_nobody_knows_is_refused_with_an_id(here: Site) -> None:
    answer = await here.say(b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: magic\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 417 ")
    assert re.search(rb"X-Request-ID: [0-9a-f]{8}\r\n", answer)


async def test_client__that_leaves_is_no_error(here: Site, run: RunDirectory, caplog: pytest.LogCaptureFixture) -> None:
    with captured_logs() as logs:
        for path in (f"/runs/{run.run_id}/events", f"/artifacts/models/{run.run_id}/download?path=config.json"):
            _, writer = await here.begin(path)
            writer.transport.abort()
        await here.get("/healthz")
    assert [log["event"] for log in logs if log["log_level"] == "error"] == []
    records: list[logging.LogRecord] = caplog.records
    assert [record.getMessage() for record in records if record.name.startswith("aiohttp")] == []


@pytest.mark.parametrize("sign", ["\n", "\r\n", "\x1b[31m", "\u2028", "\u0085", "\x00"], ids=ascii)
async def test_log__has_one_line_a_request_whatever_is_in_it(here: Site, sign: str) -> None:
    forged = f"x{sign}forged level=error"
    with captured_logs() as logs:
        await here.get("/runs?search=" + "".join(f"%{byte:02x}" for byte in forged.encode()))
        await here.get("/" + "".join(f"%{byte:02x}" for byte in forged.encode()))
        await here.post("/runs/train", {"corpus": "text", "model_family": "char_lstm", "label": forged, forged: 1})
        await until(lambda: len(logs) == 3)
    assert "forged" not in repr(logs)
    assert {frozenset(log) for log in logs} == {
        frozenset(("event", "log_level", "request_id", "method", "route", "http_status", "seconds"))
    }


async def test_key__is_in_no_log(here: Site) -> None:
    with captured_logs() as logs:
        await here.get("/runs")
        await here.get(f"/runs?{ADMIN}=1")
        await here.get(f"/{ADMIN}", key=None)
        await until(lambda: len(logs) == 3)
    assert ADMIN not in repr(logs)
