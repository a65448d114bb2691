"""What every operation of the HTTP API promises: keys, ids, methods, bodies, times to wait and repeated requests."""

import asyncio

import pytest
from aiohttp.hdrs import METH_ALL

from tests.support import tiny_request
from tests.support.http import ADMIN, ANA, Site, lab_site
from tests.support.lab import Lab
from tests.support.markers import slow_repeats
from tests.support.worker_runs import LONG
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.operations import RUN, Role
from trainer.http.operations import HttpOperation
from trainer.http.routes import OPERATIONS

UNKNOWN = {
    "run_id": "RUN_NOT_FOUND",
    "model": "RUN_NOT_FOUND",
    "item_id": "RUN_NOT_FOUND",
    "tokenizer_id": "TOKENIZER_NOT_FOUND",
    "experiment_id": "DATA_NOT_FOUND",
    "study_id": "DATA_NOT_FOUND",
    "battery_id": "DATA_NOT_FOUND",
    "reading_id": "DATA_NOT_FOUND",
    "export_id": "DATA_NOT_FOUND",
    "verification_id": "DATA_NOT_FOUND",
    "build_id": "DATA_NOT_FOUND",
    "upload_id": "DATA_NOT_FOUND",
}
"""The code of the error for an unknown id, by the first parameter of a path that is an id."""
BODIES = [one for one in OPERATIONS if one.body_model is not None]
_START_NO_JOB = ("add_corpus", "annotate_run", "check_training", "order_workers", "start_upload", "unlock")
STARTS = {one.row.name: one for one in BODIES if one.row.name not in _START_NO_JOB}
"""Operations that start a job."""
OTHER_FIELDS: dict[str, object] = {"text": "b", "prompt_text": "b", "message": "b", "split": "test", "prompt": "b"}
OTHER_FIELDS |= {
    "vocab_size": 301,
    "sequences": [{"parts": ["b"]}],
    "table": {"sentence": ["b"]},
    "files": [{"name": "b.csv", "content": "good,bad\na,b"}],
    "format": "tensorboard",
    "modes": ["unk"],
    "test_seeds": 3,
    "spillover": 1,
}
SHARED = ("tokenizer_id",)
"""Ids of jobs that equal requests of all clients share."""
OF_OWNERS = ("start_experiment",)
"""Operations that only the owner of a run and admins may start, or only admins."""
NO_JSON = [b"", b"{", b"nothing", b'{"a": NaN}', b'{"a": Infinity}', b"\xff", b'{"a": "\xe9"}', b"[" * 100_000, b"{}{}"]


def address(operation: HttpOperation, **values: str) -> str:
    """The address of an operation, with names of nothing for the ids without a value."""
    ids = dict.fromkeys(operation.path_model.model_fields, "no-such-thing") | {"kind": "models"} | values
    query = "&".join(f"{name}={value}" for name, value in operation.row.query_example.items())
    return operation.row.path.format(**ids) + (f"?{query}" if query else "")


@pytest.mark.parametrize("key", [ADMIN, ANA])
async def test_operation__finds_no_unknown_run_tokenizer_or_experiment(here: Site, key: str) -> None:
    for one in OPERATIONS:
        found = [code for name, code in UNKNOWN.items() if name in one.path_model.model_fields]
        answer = await here.ask(one.row.method, address(one), one.row.example if found else b"{}", key=key)
        if found:
            assert answer.outcome == (404, found[0]), one.row.name
        assert answer.status not in (401, 500), one.row.name
        assert answer.status != 403 or (key == ANA and one.row.role is Role.ADMIN), one.row.name


async def test_operation__finds_no_unknown_request_or_chat_of_a_run(here: Site, run: RunDirectory) -> None:
    for one in OPERATIONS:
        if {"request_id", "session_id"} & set(one.path_model.model_fields):
            answer = await here.ask(one.row.method, address(one, run_id=run.run_id))
            assert answer.outcome == (404, "DATA_NOT_FOUND"), one.row.name


async def test_operation__refuses_an_id_that_could_be_a_path(here: Site) -> None:
    reading = [one for one in OPERATIONS if one.row.method == "GET" and one.path_model.model_fields]
    for one in reading:
        for name in ("..", "%2e%2e", "%2e%2e%2f%2e%2e", "a%2fb", "%00", "A", "a%0a", "x" * 65):
            answer = await here.get(address(one, **dict.fromkeys(one.path_model.model_fields, name)))
            statuses = (400, 404, 422) if "corpus" in one.path_model.model_fields else (404, 422)  # 400: as for `train`
            assert answer.status in statuses, one.row.name
            assert answer.error.code in {"INVALID_INPUT", "NOT_FOUND", *UNKNOWN.values()}, one.row.name


async def test_address__names_the_methods_that_it_takes(here: Site) -> None:
    for method in ("GET", "OPTIONS", "DELETE"):  # another path with a parameter takes the first and the last
        refused = await here.ask(method, "/runs/train")
        assert refused.outcome == (405, "METHOD_NOT_ALLOWED")
        assert refused.headers["Allow"] == "POST"
        assert refused.error.message == f"This address does not take {method}: use POST."
    of_page = await here.post("/", {})
    assert of_page.outcome == (405, "METHOD_NOT_ALLOWED")
    assert set(of_page.headers["Allow"].split(",")) == {"GET", "HEAD"}
    for one in OPERATIONS:
        allowed = (await here.ask("PUT", address(one))).headers["Allow"].split(", ")
        assert one.row.method in allowed
        assert ("HEAD" in allowed) is ("GET" in allowed)
        assert set(allowed) <= METH_ALL


async def test_operation__refuses_a_body_that_is_no_json_or_no_record(here: Site) -> None:
    for one in BODIES:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""):
            refused = await here.post(address(one), b"{}", headers={"Content-Type": content_type})
            assert refused.outcome == (415, "UNSUPPORTED_MEDIA_TYPE"), (one.row.name, content_type)
        for body in NO_JSON:
            assert (await here.post(address(one), body)).outcome == (400, "INVALID_JSON"), (one.row.name, body)
        for body in (b"[]", b"null", b"1", b'"text"', b"true", b'{"no_such_field": 1}'):
            assert (await here.post(address(one), body)).outcome == (422, "INVALID_INPUT"), one.row.name


async def test_operation__waits_for_a_minute_at_most(here: Site) -> None:
    for one in OPERATIONS:
        for wait in ("-1", "61", "nan", "inf", "1e9", "", "0x1", "1,5", "%D9%A3"):
            if "wait" in one.query_model.model_fields:
                refused = await here.ask(one.row.method, f"{address(one)}?wait={wait}", one.row.example)
                assert refused.outcome == (422, "INVALID_INPUT"), (one.row.name, wait)


async def test_operation__refuses_a_malformed_idempotency_key(here: Site) -> None:
    for one in OPERATIONS:
        for key in ("", "a b", "x" * 256, "ä", "\t"):
            if one.row.method == "POST":
                refused = await here.post(address(one), one.row.example, headers={"Idempotency-Key": key})
                assert refused.outcome == (422, "INVALID_INPUT"), (one.row.name, key)


@pytest.mark.parametrize("name", slow_repeats(STARTS, lambda name: STARTS[name].row.tag))
async def test_idempotency_key__starts_a_job_once(lab: Lab, name: str) -> None:
    operation, once = STARTS[name], {"Idempotency-Key": f"once-{name}"}
    async with lab_site(lab, surprisals="all") as here:
        run_id = (await lab.finished_run(here.queue)).run_id
        named: dict[str, object] = {RUN: run_id, f"{[RUN]}": [run_id]}
        example = {field: named.get(f"{value}", value) for field, value in (operation.row.example or {}).items()}
        body: dict[str, object] = example
        other = {field: value for field, value in OTHER_FIELDS.items() if field in example}
        if name in ("train", "segment"):
            other = {"seed": 99}
        if name == "train":
            body = tiny_request(**LONG).model_dump(mode="json", exclude_unset=True)
        path = address(operation, run_id=run_id)
        if operation.row.tag == "inference":
            path += "?wait=60"
        at_once = await asyncio.gather(*(here.post(path, body, headers=once) for _ in range(4)))
        again = await here.post(path, body, headers=once)
    async with lab_site(lab, surprisals="all") as here:
        restarted = await here.post(path, body, headers=once)
        another = await here.post(path, body | other, headers=once)
        of_another = await here.post(path, body, headers=once, key=ANA)
    id_field = next(
        field
        for field in (
            "request_id",
            "tokenizer_id",
            "battery_id",
            "reading_id",
            "experiment_id",
            "study_id",
            "export_id",
            "run_id",
            "id",
        )
        if field in again.fields
    )
    ids = {answer.fields[id_field] for answer in (*at_once, again, restarted)}
    assert len(ids) == 1
    assert another.outcome == (409, "CONFLICT")
    if name in OF_OWNERS:
        assert of_another.outcome == (403, "FORBIDDEN")
    else:
        assert of_another.status in (200, 202)
        assert (of_another.fields[id_field] in ids) is (id_field in SHARED), id_field
    if id_field == "request_id":
        assert {answer.body.strip() for answer in (*at_once, again, restarted)} == {again.body.strip()}
