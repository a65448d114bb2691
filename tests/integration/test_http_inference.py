"""Inference over HTTP: each kind of request is answered as the queue answers it, and a key runs it once."""

import asyncio
import shutil
from pathlib import Path

import pytest
from aiohttp import ClientPayloadError

from tests.support import tiny_request, wait_for_status
from tests.support.http import ADMIN, ALL_KEYS, ANA, BOB, Site, inside, lab_site, with_api
from tests.support.lab import Lab
from tests.support.redis_servers import embedded
from tests.support.waiting import until
from tests.support.worker_runs import LONG, training
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.chats import ChatHistory, ChatRequest, ChatResponse
from trainer.contracts.evaluations import EvalRequest, EvalResponse
from trainer.contracts.generations import GenerateRequest, GenerateResponse
from trainer.contracts.inference_fields import Response
from trainer.contracts.predictions import PredictRequest, PredictResponse
from trainer.contracts.runs import Accepted, RunStatus
from trainer.contracts.scores import ScoreRecord, ScoreRequest, ScoreResponse
from trainer.store import keys
from trainer.store.store import Store

SCORE = ScoreRequest(text="abc ab c1", detail_level="per_char", top_k=2)
GENERATE = GenerateRequest(prompt_text="abc ", max_new_tokens=8, seed=7, logprobs=True)
PREDICT = PredictRequest(text="abc a", k=5)
CHAT = ChatRequest(message="abc", max_new_tokens=5, seed=7)
KINDS: dict[str, tuple[ScoreRequest | GenerateRequest | PredictRequest | ChatRequest | EvalRequest, type[Response]]] = {
    "score": (SCORE, ScoreResponse),
    "generate": (GENERATE, GenerateResponse),
    "predict": (PREDICT, PredictResponse),
    "chat": (CHAT, ChatResponse),
    "evaluate": (EvalRequest(split="test"), EvalResponse),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_request__is_queued_and_then_completed(here: Site, run: RunDirectory, kind: str) -> None:
    body, model = KINDS[kind]
    accepted = await here.post(f"/runs/{run.run_id}/{kind}?wait=0", body)
    answers = [accepted]
    while answers[-1].status == 202:
        assert answers[-1].fields["status"] in ("queued", "running")
        answers.append(await here.get(accepted.location))
        await asyncio.sleep(0.01)
    waited = await here.post(f"/runs/{run.run_id}/{kind}?wait=60", body)
    assert accepted.status == 202
    assert answers[-1].record(model).status == "completed"
    assert answers[-1].record(model).request_id == accepted.fields["request_id"]
    assert waited.status == 200
    assert waited.record(model).request_id in waited.location
    assert (await here.get(waited.location)).body == waited.body
    if kind != "chat":  # which is deleted as a whole
        assert (await here.ask("DELETE", waited.location)).status == 204
        assert (await here.get(waited.location)).outcome == (404, "DATA_NOT_FOUND")
    if kind != "evaluate":  # it has the time at which it was made
        own = {"request_id", "session_id"}
        assert len({one.record(model).model_dump_json(exclude=own) for one in (answers[-1], waited)}) == 1


async def test_prediction__is_of_the_newest_completed_run_or_of_a_given_one(here: Site, run: RunDirectory) -> None:
    unfinished = (await here.post("/runs/train", tiny_request(**LONG))).record(Accepted).run_id
    answers = [(await here.post(f"/predict{query}", PREDICT)) for query in ("", f"?run_id={run.run_id}")]
    runs = [one.run_id for one in here.queue.runs.all()]
    completed = [run_id for run_id in runs if (await here.queue.states.status(run_id)).status == "completed"]
    assert [answer.record(PredictResponse).run_id for answer in answers] == [completed[0], run.run_id]
    assert (await here.post("/predict?run_id=none", PREDICT)).outcome == (404, "RUN_NOT_FOUND")
    assert (await here.get(f"/v1/models/{run.run_id}")).fields["id"] == run.run_id
    assert (await here.get(f"/v1/models/{unfinished}")).outcome == (409, "RUN_NOT_READY")


async def test_request__that_cannot_be_answered_is_refused_and_not_queued(
    lab: Lab, here: Site, run: RunDirectory
) -> None:
    run_id = (await here.post("/runs/train", tiny_request(**LONG))).record(Accepted).run_id
    async with lab.store() as store:
        before: list[bytes] = await store.redis.keys("runs:*")
        for kind, (body, _) in KINDS.items():
            assert (await here.post(f"/runs/none/{kind}", body)).outcome == (404, "RUN_NOT_FOUND")
            assert (await here.post(f"/runs/{run_id}/{kind}", body)).outcome == (409, "RUN_NOT_READY")
            assert (await here.get(f"/runs/none/{kind}/r")).status == 404
        for text in (" ", "\n \t\n", "\u3000"):
            for refused in (
                await here.post(f"/runs/{run.run_id}/score", {"text": text}),
                await here.post(f"/runs/{run.run_id}/predict", {"text": text}),
                await here.post("/v1/completions", {"model": run.run_id, "prompt": ["a", text]}),
            ):
                assert refused.outcome == (422, "INVALID_INPUT")
                assert refused.error.message.endswith(("it is blank.", "at least one word."))
        waiting = await queued(store)
        after: list[bytes] = await store.redis.keys("runs:*")
    assert waiting == 0
    assert [key for key in set(after) - set(before) if run_id.encode() not in key] == []


async def test_request__that_fails_says_so_in_its_answer(here: Site, copied: RunDirectory) -> None:
    (copied.path / "model.safetensors").write_bytes(b"no model")
    failed = await here.post(f"/runs/{copied.run_id}/score?wait=60", SCORE)
    (copied.path / "manifest.json").write_text("{")
    damaged = await here.post(f"/runs/{copied.run_id}/score", SCORE)
    response = failed.record(ScoreResponse)
    assert (failed.status, response.status) == (200, "failed")
    assert response.error is not None and response.error.code == "MODEL_LOAD_FAILED"
    assert damaged.outcome == (500, "MODEL_LOAD_FAILED")
    assert str(copied.path) not in failed.text + damaged.text


async def test_chat__is_read_and_deleted_by_its_own_id(here: Site, run: RunDirectory) -> None:
    address = f"/runs/{run.run_id}/chat"

    async def say(message: str, session_id: str | None) -> ChatResponse:
        body = ChatRequest(message=message, session_id=session_id, max_new_tokens=3, seed=1)
        return (await here.post(f"{address}?wait=60", body)).record(ChatResponse)

    one, other = await say("first", None), await say("second", None)
    await say("more", one.session_id)
    histories = [(await here.get(f"{address}/{each.session_id}")).record(ChatHistory) for each in (one, other)]
    assert [[turn.message for turn in history.turns] for history in histories] == [["first", "more"], ["second"]]
    assert (await here.get(f"{address}/{other.session_id}/{one.request_id}")).outcome == (404, "DATA_NOT_FOUND")
    assert (await here.get(f"{address}/{one.session_id}/{one.request_id}")).record(ChatResponse) == one
    deleted = await here.ask("DELETE", f"{address}/{one.session_id}")
    assert (deleted.status, deleted.body) == (204, b"")
    assert (await here.get(f"{address}/{one.session_id}")).outcome == (404, "DATA_NOT_FOUND")
    assert (await here.get(f"{address}/{one.session_id}/{one.request_id}")).outcome == (404, "DATA_NOT_FOUND")
    assert (await here.ask("DELETE", f"{address}/{one.session_id}")).outcome == (404, "DATA_NOT_FOUND")
    with_deleted = ChatRequest(message="x", session_id=one.session_id)
    assert (await here.post(address, with_deleted)).outcome == (404, "DATA_NOT_FOUND")
    assert (await here.get(f"{address}/{other.session_id}")).record(ChatHistory) == histories[1]


async def test_key__of_a_chat_starts_one_chat_with_one_turn(here: Site, run: RunDirectory) -> None:
    path, once = f"/runs/{run.run_id}/chat", {"Idempotency-Key": "one-chat"}
    for _ in range(3):
        response = (await here.post(f"{path}?wait=60", CHAT, headers=once)).record(ChatResponse)
        history = (await here.get(f"{path}/{response.session_id}")).record(ChatHistory)
        assert [turn.message for turn in history.turns] == ["abc"]


async def test_key__of_a_client_is_no_id_that_others_can_compute(lab: Lab, here: Site, run: RunDirectory) -> None:
    """The id of a request is all that is needed to read its result."""
    path, once = f"/runs/{run.run_id}/score", {"Idempotency-Key": "1"}
    ids = [(await here.post(path, SCORE, headers=once, key=key)).fields["request_id"] for key in (ADMIN, ANA, BOB)]
    async with lab_site(lab, ALL_KEYS.replace(ANA, f"{ANA}-new")) as other:
        ids.append((await other.post(path, SCORE, headers=once, key=f"{ANA}-new")).fields["request_id"])
    assert len(set(map(str, ids))) == 4


async def test_key__of_a_resumption_starts_one_run(here: Site) -> None:
    """The run that it starts has the request of the one that it resumes."""
    request = tiny_request(**LONG, label="resumed-once", resume=True)
    first = (await here.post("/runs/train", request)).record(Accepted).run_id
    await wait_for_status(here.queue, first, lambda status: status.last_checkpoint_step is not None)
    assert (await here.post(f"/runs/{first}/resume")).outcome == (409, "RUN_NOT_READY")
    await here.post(f"/runs/{first}/cancel")
    await here.get(f"/runs/{first}?wait=60")
    for path, body in (("/runs/train", request), (f"/runs/{first}/resume", None)):
        once = {"Idempotency-Key": "resumed-once"}
        answers = [await here.post(path, body, headers=once) for _ in range(2)]
        [run_id] = {answer.record(Accepted).run_id for answer in answers}
        assert {(answer.status, answer.location) for answer in answers} == {(202, f"/runs/{run_id}")}
        record = here.queue.runs.get(run_id).record()
        assert record.resumed_from_run_id == first and record.http is not None


async def test_key__of_a_cancellation_makes_it_succeed_again(here: Site, run: RunDirectory) -> None:
    once = {"Idempotency-Key": "one-cancel"}
    run_id = (await here.post("/runs/train", tiny_request(**LONG))).record(Accepted).run_id
    await wait_for_status(here.queue, run_id, training)
    for headers in (None, once):
        cancelled = await here.post(f"/runs/{run_id}/cancel", headers=headers)
        assert (cancelled.status, cancelled.fields) == (200, {"status": "cancellation-requested"})
    assert (await here.get(f"/runs/{run_id}?wait=60")).record(RunStatus).status == "cancelled"
    assert (await here.post(f"/runs/{run_id}/cancel", headers=once)).status == 200
    assert (await here.post(f"/runs/{run_id}/cancel")).outcome == (409, "RUN_FINISHED")
    never_cancelled = await here.post(f"/runs/{run.run_id}/cancel", headers=once)
    assert never_cancelled.outcome == (409, "RUN_FINISHED")


async def test_key__of_a_prediction_keeps_its_run(here: Site, run: RunDirectory) -> None:
    """Another run may be the newest by the time at which a request is repeated."""
    once = {"Idempotency-Key": "one-prediction"}
    first = (await here.post("/predict", PREDICT, headers=once)).record(PredictResponse)
    await here.post("/runs/train?wait=60", tiny_request(max_steps=1))
    assert (await here.post("/predict", PREDICT, headers=once)).record(PredictResponse) == first
    newest = (await here.post("/predict", PREDICT)).record(PredictResponse).run_id
    assert newest != first.run_id
    assert (await here.post(f"/predict?run_id={newest}", PREDICT, headers=once)).outcome == (409, "CONFLICT")


async def test_answer__that_waits_begins_with_blanks(
    lab: Lab, here: Site, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pending(request_id: str) -> str:
        """Store a request that no worker knows; return its address."""
        response = ScoreResponse(request_id=request_id, run_id=run.run_id, status="queued")
        record = ScoreRecord(request=SCORE, response=response)
        await store.put(keys.inference("score", run.run_id, request_id), record.model_dump_json(), ttl_seconds=60)
        return f"/runs/{run.run_id}/score/{request_id}"

    async def run_that_ends() -> None:
        run_id = (await here.post("/runs/train", tiny_request(**LONG))).record(Accepted).run_id
        async with here.stream(f"/runs/{run_id}?wait=60") as answer:
            assert await answer.content.readany() == b" "
            await here.post(f"/runs/{run_id}/cancel")
            rest = await answer.content.read()
        assert answer.status == 200
        assert RunStatus.model_validate_json(rest).status == "cancelled"

    async def request_without_a_result() -> None:
        answer = await here.get(f"{await pending('never-done')}?wait=3")
        assert answer.body.startswith(b" ")
        assert (answer.status, answer.record(ScoreResponse).status) == (200, "queued")

    async def request_that_expires_late() -> None:
        async with here.stream(f"{await pending('gone-late')}?wait=60") as answer:
            assert await answer.content.readany() == b" "
            await store.delete(keys.inference("score", run.run_id, "gone-late"))
            with pytest.raises(ClientPayloadError):
                await answer.content.read()

    async def request_that_expires_soon() -> None:
        waiting = asyncio.create_task(here.get(f"{await pending('gone-soon')}?wait=60"))
        await asyncio.sleep(0.5)
        await store.delete(keys.inference("score", run.run_id, "gone-soon"))
        assert (await waiting).outcome == (404, "DATA_NOT_FOUND")

    async with lab.store() as store:
        await request_that_expires_soon()
        monkeypatch.setattr("trainer.http.waiting._BLANK_SECONDS", 0.3)
        await asyncio.gather(run_that_ends(), request_without_a_result(), request_that_expires_late())


async def test_wait__leaves_a_request_in_the_queue(run: RunDirectory, tmp_path: Path) -> None:
    """A request goes on when the time is up, and when its client leaves; but a completion is withdrawn."""
    async with embedded(tmp_path) as (settings, queue, store), inside(queue, with_api(settings)) as (site, api):
        shutil.copytree(run.path, api.settings.app.artifacts_root / "models" / run.run_id)
        path = f"/runs/{run.run_id}/score"
        in_queue = await site.post(f"{path}?wait=0.2", SCORE)
        leaving = asyncio.create_task(site.post(f"{path}?wait=60", SCORE))
        while api.open_streams == 0:
            await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert (in_queue.status, in_queue.fields["status"]) == (202, "queued")
        assert (await site.get(f"{in_queue.location}?wait=0.2")).status == 202
        assert await queued(store) == 2
        await until(lambda: api.open_streams == 0)
        leaving = asyncio.create_task(site.post("/v1/completions", {"model": run.run_id, "prompt": "ab"}))
        while await queued(store) == 2:
            await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.wait([leaving])
        await until(lambda: api.open_streams == 0)
        assert await queued(store) == 2


async def queued(store: Store) -> int:
    """The number of inference requests in the queue."""
    found: int = await store.redis.zcard(keys.INTERACTIVE_QUEUE)
    return found
