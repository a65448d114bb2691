"""Inference requests of all kinds in the queue: submitted, answered once, kept for a time, withdrawn."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support import processes
from tests.support.inference import REQUESTS, RUN, SPOILT, TEXT, InstantChild, OnChunk, Place, place
from tests.support.runs import record
from tests.support.stories import Story, run_record
from tests.support.waiting import PATIENCE_SECONDS, captured_logs
from trainer.config.settings import Settings
from trainer.contracts.base import changed, narrowed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalRecord, EvalRequest
from trainer.contracts.events import InferenceCompleted, InferenceEvent, InferenceFailed, InferenceStarted
from trainer.contracts.inference_fields import InferenceRecord, InferenceRequest
from trainer.contracts.scores import ScoreRecord, ScoreRequest
from trainer.queue.inference_kinds import KINDS, kind_of
from trainer.queue.queue import JobQueue
from trainer.store import keys
from trainer.store.store import Store
from trainer.worker.inference_jobs import InferenceJobs
from trainer.worker.inference_process import InferenceChild

ORDER = ["queued", "running", "completed"]
LIMIT_SECONDS = 1.0
LOOKS = 6
"""At half a second each they take longer than the limit."""
Told = InferenceStarted | InferenceCompleted | InferenceFailed
_event: TypeAdapter[Told] = TypeAdapter(Annotated[Told, Field(discriminator="type")])


@pytest.fixture(name="here")
async def here_fixture(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as here:
        yield here


def code_of(outcome: object) -> ErrorCode:
    return narrowed(AppError, outcome).code


async def test_requests__of_each_kind_are_answered_once_under_their_id(here: Place) -> None:
    assert REQUESTS.keys() == KINDS.keys()
    for number, (kind, request) in enumerate(REQUESTS.items(), 1):
        queued = await here.queue.inference.submit(RUN, request, user_id=7)
        before = await here.queue.inference.get(KINDS[kind].record, RUN, queued.request_id)
        await here.do(queued.request_id)
        answered = await here.queue.inference.get(KINDS[kind].record, RUN, queued.request_id)
        await here.do(queued.request_id)  # as a queue that delivers a job twice
        assert (before.response, before.request, before.user_id) == (queued, request, 7)
        assert (queued.status, answered.response.status, answered.request) == ("queued", "completed", request)
        assert await here.queue.inference.wait(queued) == answered.response
        assert await here.queue.inference.follow(queued, wait_seconds=0) == answered.response
        assert here.child.answers == number


async def test_request__with_an_id_of_its_client_is_queued_once(here: Place) -> None:
    for kind, request in REQUESTS.items():
        submit, request_id = here.queue.inference.submit, f"own-{kind}"
        first = await submit(RUN, request, request_id=request_id)
        assert await submit(RUN, request, request_id=request_id) == first
        await here.do(request_id)
        assert (await submit(RUN, request, request_id=request_id)).status == "completed"
        refused = await asyncio.gather(submit(RUN, request, user_id=8, request_id=request_id), return_exceptions=True)
        assert code_of(refused[0]) is ErrorCode.CONFLICT
    assert here.child.answers == len(REQUESTS) == len(await here.waiting())


async def test_failure__is_stored_with_its_code_and_raised(here: Place) -> None:
    working = asyncio.create_task(here.work())
    for kind, request in REQUESTS.items():
        with pytest.raises(AppError, match="Its weights are gone") as caught:
            await here.queue.inference.ask(RUN, request, user_id=SPOILT)
        assert caught.value.code is ErrorCode.MODEL_LOAD_FAILED, kind
    working.cancel()
    lives: list[int] = [await here.store.redis.pttl(key) for key in await results(here)]
    queue = here.settings.queue
    assert len(lives) == len(REQUESTS)
    assert all(queue.result_ttl_seconds < life / 1000 <= queue.failure_ttl_seconds for life in lives)


async def test_results__are_deleted_unreadable_or_expired(here: Place) -> None:
    client = here.queue.inference
    for kind, request in REQUESTS.items():
        model = KINDS[kind].record
        response = await client.submit(RUN, request)
        await here.store.put(keys.inference(kind, RUN, response.request_id), "{}", ttl_seconds=9)
        with pytest.raises(AppError, match="cannot be read") as unreadable:
            await client.get(model, RUN, response.request_id)
        with pytest.raises(AppError, match="cannot be read"):
            await client.wait(response)
        deleted = await client.submit(RUN, request)
        await client.delete(model, RUN, deleted.request_id)
        gone = await asyncio.gather(
            client.get(model, RUN, deleted.request_id),
            client.delete(model, RUN, deleted.request_id),
            client.follow(deleted, wait_seconds=1),
            client.wait(deleted),
            return_exceptions=True,
        )
        assert unreadable.value.code is ErrorCode.SERVICE_UNAVAILABLE
        assert [*map(code_of, gone)] == [ErrorCode.DATA_NOT_FOUND] * 3 + [ErrorCode.SERVICE_UNAVAILABLE]
        assert deleted.request_id not in await here.waiting()


async def test_states__only_advance_beside_a_fast_worker(here: Place) -> None:
    working = asyncio.create_task(here.work())
    watched: dict[str, list[str]] = {}

    async def ask(request: InferenceRequest) -> None:
        queued = await here.queue.inference.submit(RUN, request)
        seen = watched.setdefault(queued.request_id, [queued.status])
        while seen[-1] != "completed":
            stored = await here.queue.inference.get(kind_of(request).record, RUN, queued.request_id)
            seen.append(stored.response.status)
            await asyncio.sleep(0.01)

    asked = [*REQUESTS.values(), ScoreRequest(text='"status":"queued" "status":"failed"')] * 10
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*map(ask, asked))
    working.cancel()
    assert len(watched) == here.child.answers == len(asked)
    assert all(seen == sorted(seen, key=ORDER.index) for seen in watched.values())


async def test_texts__are_only_under_keys_that_expire(here: Place) -> None:
    for request in REQUESTS.values():
        await here.queue.inference.submit(RUN, request)
    with_text = {key.split(":")[1] for key in await here.keys("*") if TEXT.encode() in await dumped(here.store, key)}
    for request_id in await here.waiting():
        await here.do(request_id)
    lives: list[int] = [await here.store.redis.pttl(key) for key in await results(here)]
    assert with_text == {"score", "sequences", "items", "segment", "gen", "complete", "predict", "turn"}
    assert len(lives) == len(REQUESTS)
    assert all(0 < life <= here.settings.queue.result_ttl_seconds * 1000 for life in lives)


async def test_slow_requests__are_answered_beside_the_others(here: Place) -> None:
    beside = InstantChild(here.settings)
    both = here._replace(jobs=InferenceJobs(here.settings, here.store, here.child, beside))
    for kind, number in {"score": 0, "segment": 1, "evaluate": 2}.items():
        queued = await here.queue.inference.submit(RUN, REQUESTS[kind])
        await both.do(queued.request_id)
        assert beside.answers == number
    assert here.child.answers == 1


async def results(here: Place) -> list[str]:
    return [key for key in await here.keys("runs:*") if "chat:" not in key]


async def dumped(store: Store, key: str) -> bytes:
    kind: bytes = await store.redis.type(key)
    return await store.get(key) or b"" if kind == b"string" else b""


async def test_events__are_on_the_stream_in_order(here: Place) -> None:
    expected: list[tuple[str, str, int, type[Told]]] = []
    for kind, request in REQUESTS.items():
        for user, end in ((7, InferenceCompleted), (SPOILT, InferenceFailed)):
            queued = await here.queue.inference.submit(RUN, request, user_id=user)
            await here.do(queued.request_id)
            expected += [(queued.request_id, kind, user, one) for one in (InferenceStarted, end)]
    with captured_logs() as logs:
        woken = [await here.store.next_run_ids(wait_seconds=1) for _ in range(2)]  # the first makes the group
    entries: list[tuple[bytes, dict[bytes, bytes]]] = await here.store.redis.xrange(keys.EVENT_STREAM)
    events = [_event.validate_json(fields[b"event"]) for _, fields in entries]
    assert [(event.request_id, event.kind, event.user_id, type(event)) for event in events] == expected
    assert {event.job_id for event in events} == {RUN}
    assert len({event.event_id for event in events}) == len(events)
    assert events[0].event_id == f"{RUN}:score:{events[0].request_id}:started"
    assert {event.code for event in events if isinstance(event, InferenceFailed)} == {ErrorCode.MODEL_LOAD_FAILED}
    assert not any(word in str(entries) for word in (TEXT, "weights"))
    assert (woken, logs) == ([[], []], [])


async def test_answer__is_stored_although_its_start_could_not_be_published(here: Place) -> None:
    class DeafStream(Store):
        async def publish_inference(self, event: InferenceEvent) -> None:
            raise RedisConnectionError

    queued = await here.queue.inference.submit(RUN, ScoreRequest(text=TEXT))
    with captured_logs() as logs:
        jobs = InferenceJobs(here.settings, DeafStream(here.store.redis), here.child, here.child)
        await jobs.infer({}, await here.payload(queued.request_id))
    answered = await here.queue.inference.get(ScoreRecord, RUN, queued.request_id)
    assert answered.response.status == "completed"
    assert "event_publication_failed" in [line["event"] for line in logs]


@pytest.mark.parametrize(("run", "code"), [("no-run", ErrorCode.RUN_NOT_FOUND), ("new-1", ErrorCode.RUN_NOT_READY)])
async def test_run__without_a_model_is_refused_before_anything_is_queued(
    here: Place, run: str, code: ErrorCode
) -> None:
    here.queue.runs.create(record("new-1"))
    submitted = [here.queue.inference.submit(run, request) for request in REQUESTS.values()]
    refused = await asyncio.gather(*submitted, return_exceptions=True)
    assert {*map(code_of, refused)} == {code}
    assert (await here.waiting(), await here.keys("runs:*")) == ([], [])


async def test_normalized_input__is_the_text_of_score_spans(here: Place) -> None:
    assert here.queue.inference.normalize_input(RUN, "e\u0301A") == "\u00e9A"


async def asked(here: Place, request: InferenceRequest) -> "asyncio.Task[object]":
    """A request that somebody waits for, once it is in the queue."""
    waiting: asyncio.Task[object] = asyncio.create_task(here.queue.inference.ask(RUN, request))
    while not await here.waiting():
        await asyncio.sleep(0.01)
    return waiting


async def test_request__is_withdrawn_when_its_client_disconnects(here: Place) -> None:
    for request in REQUESTS.values():
        waiting = await asked(here, request)
        [request_id] = await here.waiting()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await here.waiting() == []
        assert await here.keys(f"*{request_id}*") == []


async def test_cancelled_submission__is_withdrawn_or_stored(here: Place) -> None:
    """One with an id of its client is kept: the client, or another copy of it, may send it again under this id."""
    for steps in range(60):
        for request_id in (None, f"own-{steps}"):
            submitting = asyncio.create_task(
                here.queue.inference.ask(RUN, ScoreRequest(text=TEXT))
                if request_id is None
                else here.queue.inference.submit(RUN, ScoreRequest(text=TEXT), request_id=request_id)
            )
            for _ in range(steps):
                await asyncio.sleep(0)
            submitting.cancel()
            await asyncio.wait([submitting])
            if request_id is not None:
                await here.queue.inference.submit(RUN, ScoreRequest(text=TEXT), request_id=request_id)
                assert await here.waiting() == [request_id]
                await here.queue.inference.delete(ScoreRecord, RUN, request_id)
            assert await here.waiting() == [], f"after {steps} steps of the loop"
            assert await here.keys("runs:score:*") == []


class EndlessChild(InferenceChild):
    """Never finishes an answer, and counts the answers that it may stop."""

    stopped = 0

    async def answer(self, record: InferenceRecord, on_chunk: OnChunk | None = None) -> InferenceRecord:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        return record


async def test_worker__stops_a_withdrawn_request(here: Place) -> None:
    waiting = await asked(here, ScoreRequest(text=TEXT))
    [request_id] = await here.waiting()
    child = EndlessChild(here.settings)
    with captured_logs() as logs:
        jobs = InferenceJobs(here.settings, here.store, child, child)
        working = asyncio.create_task(jobs.infer({}, await here.payload(request_id)))
        await asyncio.sleep(0.7)
        assert not working.done(), "somebody waits"
        waiting.cancel()
        await asyncio.wait_for(working, PATIENCE_SECONDS)
    assert child.stopped == 1
    assert await here.keys(f"runs:*:{request_id}") == []
    assert any("inference_request_withdrawn" in str(entry) for entry in logs)


async def test_answer__without_storage_is_deleted(here: Place) -> None:
    working = asyncio.create_task(here.work())
    kept = await here.queue.inference.ask(RUN, ScoreRequest(text=TEXT))
    gone = await here.queue.inference.ask(RUN, ScoreRequest(text=TEXT), is_kept=False)
    working.cancel()
    assert gone.status == "completed"
    assert await here.keys("runs:score:*") == [keys.inference("score", RUN, kept.request_id)]


async def test_failed_withdrawal__is_logged(here: Place, tmp_path: Path) -> None:
    waiting = await asked(here, ScoreRequest(text=TEXT))
    [server] = processes(tmp_path, "valkey-server")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with captured_logs() as logs:
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert any("withdrawal_failed" in str(entry) for entry in logs)


async def test_malformed_heartbeat__is_ignored(here: Place) -> None:
    run = Story(here.settings.app.artifacts_root, run_record("lstm-1")).start().run
    for heartbeat in (b"soon", b"1764510000.000"):  # the second one is that of a worker before version 0.2.0
        await here.store.redis.set(keys.heartbeat(run.run_id), heartbeat, px=60_000)
        status = await here.queue.states.steady_status(run.follow().refresh())
        assert (status.last_heartbeat_ts, status.reachable) == (run.follow().refresh().last_heartbeat_ts, False)


class SlowChild(InferenceChild):
    """Answers when it was looked at a number of times; it works all the while, or stands still."""

    def __init__(self, settings: Settings, *, works: bool) -> None:
        super().__init__(settings)
        self._looks = 0
        self._works = works
        self._looked_at = asyncio.Event()

    def processor_ticks(self) -> float:
        self._looks += 1
        if self._looks > LOOKS:
            self._looked_at.set()
        return float(self._looks if self._works else 1)

    async def answer(self, record: InferenceRecord, on_chunk: OnChunk | None = None) -> InferenceRecord:
        await self._looked_at.wait()
        return changed(record, response=changed(record.response, status="completed"))


def hasty(settings: Settings) -> Settings:
    return changed(settings, queue=changed(settings.queue, interactive_timeout_seconds=LIMIT_SECONDS))


@pytest.mark.parametrize("works", [True, False])
async def test_evaluation__lasts_while_it_progresses_and_ends_when_it_stalls(here: Place, works: bool) -> None:
    settings = hasty(here.settings)
    queued = await here.queue.inference.submit(RUN, EvalRequest())
    jobs = InferenceJobs(settings, here.store, InferenceChild(settings), SlowChild(settings, works=works))
    await jobs.infer({}, await here.payload(queued.request_id))
    response = (await here.queue.inference.get(EvalRecord, RUN, queued.request_id)).response
    if works:
        assert response.status == "completed"
    else:
        assert response.error is not None and response.error.code is ErrorCode.SERVICE_UNAVAILABLE
        assert response.error.message.startswith("The inference process stalled")


async def test_wait__lasts_while_a_worker_has_an_evaluation_and_no_longer(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience_seconds = 3.0  # long for a busy machine
    monkeypatch.setattr("trainer.queue.inference_client._MARGIN_SECONDS", patience_seconds - LIMIT_SECONDS)
    monkeypatch.setattr("trainer.queue.inference_client._POLL_SECONDS", 0.1)
    queue = JobQueue(hasty(here.settings), here.store)
    queued = await queue.inference.submit(RUN, EvalRequest())
    await here.store.redis.set(keys.in_progress(queued.request_id), "a worker")
    waiting = asyncio.create_task(queue.inference.wait(queued))
    await asyncio.sleep(1.5 * patience_seconds)
    assert not waiting.done()
    await here.store.redis.delete(keys.in_progress(queued.request_id))
    with pytest.raises(AppError, match="No worker has answered"):
        await waiting


def test_narrowed__refuses_a_value_of_another_class() -> None:
    assert narrowed(ScoreRequest, REQUESTS["score"]) is REQUESTS["score"]
    with pytest.raises(TypeError, match="This is a EvalRequest, and no ScoreRequest"):
        narrowed(ScoreRequest, REQUESTS["evaluate"])
