"""Answers of the HTTP API to a client: methods, keys, conflicts, and answers that wait."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest

from tests.faults.fuzz import end_runs
from tests.faults.prepared import Prepared, prepare, train
from tests.support.api_process import KEY, api_process
from tests.support.lab import Lab
from tests.support.waiting import PATIENCE_SECONDS
from tests.support.worker_runs import LONG
from trainer.contracts.errors import ErrorBody
from trainer.contracts.inference import ScoreRecord, ScoreRequest, ScoreResponse
from trainer.contracts.runs import RunStatus
from trainer.store import keys

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module", name="prepared")
def prepared_fixture(lab: Lab) -> Iterator[Prepared]:
    with api_process(lab.folder, QUEUE__EMBEDDED_WORKERS="0") as api:
        yield prepare(api)
        end_runs(api)


def outcome(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, ErrorBody.model_validate_json(answer.content).code


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "DELETE"])
def test_method__that_a_path_does_not_take_is_refused_with_those_that_it_takes(prepared: Prepared, method: str) -> None:
    answer = prepared.api.client.request(method, "/runs/train")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_key__that_is_wrong_is_refused_however_often(prepared: Prepared) -> None:
    wrong = [prepared.api.client.get("/runs", headers={"X-Api-Key": "wrong"}) for _ in range(30)]
    assert {outcome(answer) for answer in wrong} == {(401, "UNAUTHORIZED")}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenizers/train", {"method": "char", "corpora": ["text"]}),
        ("/runs/train", {"corpus": "text", "model_family": "gru"}),
        ("/runs/no-run/cancel", {}),
    ],
)
def test_idempotency_key__is_checked_by_every_operation(prepared: Prepared, path: str, body: object) -> None:
    headers = {**JSON, "Idempotency-Key": "two words"}
    answer = prepared.api.client.post(path, json=body, headers=headers)
    assert outcome(answer) == (422, "INVALID_INPUT")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"device": "cuda:99"}, 422, "CUDA_NOT_AVAILABLE"),
        ({"max_seq_len": 4096}, 422, "CORPUS_TOO_SHORT"),
        ({"objective": "masked_lm", "model_family": "gpt2"}, 422, "MODEL_INCOMPATIBLE"),
        ({"lr_schedule": "constant", "min_learning_rate": 0.5}, 422, "INVALID_INPUT"),
        ({"checkpoint_schedule": [3, 3]}, 422, "INVALID_INPUT"),
        ({"model_family": "t5"}, 400, "UNSUPPORTED_BACKEND"),
        ({"tokenizer": {"method": "morse"}}, 400, "UNSUPPORTED_BACKEND"),
        ({"model_size": "huge"}, 400, "INVALID_MODEL_SIZE"),
        ({"validation_corpus": "../text"}, 400, "INVALID_INPUT"),
        ({"corpus": "../text"}, 400, "INVALID_INPUT"),
        ({"corpus": "no-such-text"}, 404, "DATA_NOT_FOUND"),
        ({"max_seq_len": 7}, 422, "INVALID_INPUT"),
    ],
)
def test_training__that_cannot_be_has_the_status_of_its_code(
    prepared: Prepared, fields: dict[str, object], status: int, code: str
) -> None:
    body = {"corpus": "text", "model_family": "gru"} | fields
    assert outcome(prepared.api.client.post("/runs/train", json=body)) == (status, code)


def test_parent__that_does_not_fit_is_refused(prepared: Prepared) -> None:
    body = {"corpus": "text", "model_family": "gru", "init_from_run_id": prepared.run}
    assert outcome(prepared.api.client.post("/runs/train", json=body)) == (422, "MODEL_INCOMPATIBLE")


def test_chat__that_is_deleted_has_no_answers(prepared: Prepared) -> None:
    client, chat = prepared.api.client, prepared.chat()
    path = f"/runs/{prepared.run}/chat/{chat.session_id}"
    assert client.get(f"{path}/{chat.request_id}").status_code == 200
    assert client.delete(path).status_code == 204
    assert outcome(client.get(f"{path}/{chat.request_id}")) == (404, "DATA_NOT_FOUND")


@pytest.fixture(name="client")
async def client_fixture(prepared: Prepared) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        base_url=prepared.api.url, headers={"X-Api-Key": KEY}, timeout=PATIENCE_SECONDS
    ) as client:
        yield client


async def pending(lab: Lab, run_id: str, request_id: str) -> str:
    """Store a request that no worker knows; return its key."""
    response = ScoreResponse(request_id=request_id, run_id=run_id, status="queued")
    record = ScoreRecord(request=ScoreRequest(text="abc"), response=response)
    key = keys.inference("score", run_id, request_id)
    async with lab.store() as store:
        await store.put(key, record.model_dump_json(), ttl_seconds=PATIENCE_SECONDS)
    return key


async def test_answer__that_waits_begins_with_blanks(prepared: Prepared, lab: Lab, client: httpx2.AsyncClient) -> None:
    async def run_that_ends() -> None:
        run_id = train(prepared.api, **LONG).run_id
        async with client.stream("GET", f"/runs/{run_id}?wait=60") as answer:
            pieces = answer.aiter_raw()
            piece: bytes = await anext(pieces)
            assert piece == b" "
            await client.post(f"/runs/{run_id}/cancel")
            rest = b"".join([piece async for piece in pieces])
        assert answer.status_code == 200
        assert RunStatus.model_validate_json(rest).status == "cancelled"

    async def request_without_a_result() -> None:
        await pending(lab, prepared.run, "never-done")
        answer = await client.get(f"/runs/{prepared.run}/score/never-done?wait=9")
        assert answer.content.startswith(b" ")
        assert ScoreResponse.model_validate_json(answer.content).status == "queued"
        assert answer.status_code == 200

    async def request_that_expires_late() -> None:
        key = await pending(lab, prepared.run, "gone-late")
        with pytest.raises(httpx2.RemoteProtocolError):
            async with client.stream("GET", f"/runs/{prepared.run}/score/gone-late?wait=60") as answer:
                pieces = answer.aiter_raw()
                piece: bytes = await anext(pieces)
                assert piece == b" "
                async with lab.store() as store:
                    await store.delete(key)
                piece = await anext(pieces)

    async def request_that_expires_soon() -> None:
        key = await pending(lab, prepared.run, "gone-soon")
        waiting = asyncio.create_task(client.get(f"/runs/{prepared.run}/score/gone-soon?wait=60"))
        await asyncio.sleep(0.5)
        async with lab.store() as store:
            await store.delete(key)
        assert outcome(await waiting) == (404, "DATA_NOT_FOUND")

    await asyncio.gather(
        run_that_ends(), request_without_a_result(), request_that_expires_late(), request_that_expires_soon()
    )
