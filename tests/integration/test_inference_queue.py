"""Inference requests in the queue: taken at once, answered once; their records only move forward and expire."""

import asyncio
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support import settings_in
from tests.support.inference import RUN, TEXT, finished_run, place
from tests.support.runs import record
from tests.support.waiting import PATIENCE_SECONDS, captured_logs
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import InferenceCompleted, InferenceEvent, InferenceFailed, InferenceStarted
from trainer.contracts.inference import (
    GenerateRequest,
    InferenceRecord,
    ScoreRequest,
)
from trainer.queue.queue import JobQueue
from trainer.services.embedded import Services
from trainer.store import keys
from trainer.store.store import Store
from trainer.worker.inference_jobs import InferenceJobs

ORDER = ["queued", "running", "completed"]


Told = InferenceStarted | InferenceCompleted | InferenceFailed
_event: TypeAdapter[Told] = TypeAdapter(Annotated[Told, Field(discriminator="type")])


async def test_enqueue__returns_at_once_with_the_id_that_the_answer_is_found_by(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        score = await here.queue.inference.enqueue_score(RUN, ScoreRequest(text=TEXT))
        sample = await here.queue.inference.enqueue_generate(RUN, GenerateRequest(prompt_text="the "))
        before = [await here.queue.inference.get_score(RUN, score.response.request_id)]
        for request_id in await here.waiting():
            await here.do(request_id)
        scored = await here.queue.inference.get_score(RUN, score.response.request_id)
        written = await here.queue.inference.get_generate(RUN, sample.response.request_id)
    assert before == [score] and score.response.status == "queued"
    assert (scored.response.status, scored.request.text) == ("completed", TEXT)
    assert (written.response.status, written.request.prompt_text) == ("completed", "the ")


async def test_records__never_go_back_beside_an_instant_worker(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        working = asyncio.create_task(here.work())
        watched: dict[str, list[str]] = {}

        async def ask(number: int) -> None:
            asked = await here.queue.inference.enqueue_score(RUN, ScoreRequest(text=f"text {number}"))
            seen = watched.setdefault(asked.response.request_id, [asked.response.status])
            while seen[-1] != "completed":
                stored = await here.queue.inference.get_score(RUN, asked.response.request_id)
                assert stored.request.text == f"text {number}"
                seen.append(stored.response.status)
                await asyncio.sleep(0.01)

        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*(ask(number) for number in range(200)))
        working.cancel()

    assert len(watched) == here.child.answers == 200
    assert all(seen == sorted(seen, key=ORDER.index) for seen in watched.values())


async def test_job_that_the_queue_gives_twice__is_answered_once(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        asked = await here.queue.inference.enqueue_generate(RUN, GenerateRequest(prompt_text="the "))
        request_id = asked.response.request_id
        await here.do(request_id)
        first = await here.queue.inference.get_generate(RUN, request_id)
        await here.do(request_id)
        assert await here.queue.inference.get_generate(RUN, request_id) == first
        assert here.child.answers == 1


async def test_failure__is_kept_with_its_code_and_told_to_who_waits(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        working = asyncio.create_task(here.work())
        with pytest.raises(AppError, match="Its weights are gone") as told:
            await here.queue.inference.generate(RUN, GenerateRequest(prompt_text="spoilt"))
        working.cancel()
        [key] = await here.keys("runs:gen:*")
        kept = await here.queue.inference.get_generate(RUN, key.rsplit(":", 1)[1])
        left: int = await here.store.redis.pttl(key)
    assert here.settings.queue.result_ttl_seconds < left / 1000 <= here.settings.queue.failure_ttl_seconds
    assert told.value.code is ErrorCode.MODEL_LOAD_FAILED
    assert kept.response.status == "failed"
    assert kept.response.error is not None and kept.response.error.code is ErrorCode.MODEL_LOAD_FAILED


async def test_text_that_looks_like_a_record__is_answered_like_any_other(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        working = asyncio.create_task(here.work())
        async with asyncio.timeout(PATIENCE_SECONDS):
            scored = await here.queue.inference.score(RUN, ScoreRequest(text='"status":"queued" "status":"failed"'))
        working.cancel()
    assert scored.status == "completed"


async def test_texts_and_answers__are_under_keys_that_expire_and_nowhere_else(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        await here.queue.inference.enqueue_score(RUN, ScoreRequest(text=TEXT))
        await here.queue.inference.enqueue_generate(RUN, GenerateRequest(prompt_text=TEXT))
        with_text = [key for key in await here.keys("*") if TEXT.encode() in await dumped(here.store, key)]
        for request_id in await here.waiting():
            await here.do(request_id)
        left: list[int] = [await here.store.redis.pttl(key) for key in await here.keys("runs:*")]
    assert sorted(key.rsplit(":", 1)[0] for key in with_text) == [f"runs:gen:{RUN}", f"runs:score:{RUN}"]
    assert len(left) == 2
    assert all(0 < milliseconds <= here.settings.queue.result_ttl_seconds * 1000 for milliseconds in left)


async def dumped(store: Store, key: str) -> bytes:
    kind: bytes = await store.redis.type(key)
    return await store.get(key) or b"" if kind == b"string" else b""


async def test_question_that_is_no_longer_kept__is_said_in_one_sentence(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for get in (here.queue.inference.get_score, here.queue.inference.get_generate):
            with pytest.raises(AppError, match="have expired") as told:
                await get(RUN, "0" * 16)
            assert told.value.code is ErrorCode.DATA_NOT_FOUND


async def test_events_of_short_jobs__are_on_the_stream_in_order_and_ring_for_no_run(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        working = asyncio.create_task(here.work())
        scored = (await here.queue.inference.score(RUN, ScoreRequest(text=TEXT), user_id=7)).request_id
        spoilt = GenerateRequest(prompt_text="spoilt")
        failed = (await here.queue.inference.enqueue_generate(RUN, spoilt, user_id=8)).response.request_id
        with pytest.raises(AppError, match="Its weights are gone"):
            await here.queue.inference.generate(RUN, spoilt)
        working.cancel()
        with captured_logs() as logs:
            rung = [await here.store.next_run_ids(wait_seconds=1) for _ in range(2)]  # the first makes the group
        entries: list[tuple[bytes, dict[bytes, bytes]]] = await here.store.redis.xrange(keys.EVENT_STREAM)

    told = [_event.validate_json(fields[b"event"]) for _, fields in entries]
    assert [(event.request_id, event.kind, type(event)) for event in told[:4]] == [
        (scored, "score", InferenceStarted),
        (scored, "score", InferenceCompleted),
        (failed, "generate", InferenceStarted),
        (failed, "generate", InferenceFailed),
    ]
    assert {event.job_id for event in told} == {RUN}
    assert [event.user_id for event in told] == [7, 7, 8, 8, None, None]
    assert len({event.event_id for event in told}) == len(told) == 6
    assert told[0].event_id == f"{RUN}:score:{scored}:started"
    assert isinstance(told[3], InferenceFailed) and told[3].code is ErrorCode.MODEL_LOAD_FAILED
    assert not any(word in str(entries) for word in (TEXT, "spoilt", "weights"))
    assert rung == [[], []]
    assert logs == []


async def test_answer__is_given_also_where_its_start_could_not_be_told(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        record = await here.queue.inference.enqueue_score(RUN, ScoreRequest(text=TEXT))
        with captured_logs() as logs:
            away = DeafStream(here.store.redis)
            await InferenceJobs(here.settings, away, here.child, here.child).infer({}, payload_of(record))
        answered = await here.queue.inference.get_score(RUN, record.response.request_id)
    assert answered.response.status == "completed"
    assert "event_publication_failed" in [line["event"] for line in logs]


class DeafStream(Store):
    """A server that goes away for as long as it takes to tell an event."""

    async def publish_inference(self, event: InferenceEvent) -> None:
        raise RedisConnectionError


def payload_of(record: InferenceRecord) -> dict[str, str]:
    return {"kind": record.kind, "run_id": RUN, "request_id": record.response.request_id}


@pytest.mark.parametrize(("run", "code"), [("no-run", ErrorCode.RUN_NOT_FOUND), ("new-1", ErrorCode.RUN_NOT_READY)])
async def test_run_that_cannot_be_asked__is_refused_before_anything_is_queued(
    tmp_path: Path, run: str, code: ErrorCode
) -> None:
    async with place(tmp_path) as here:
        here.queue.runs.create(record("new-1"))
        for asked in (
            here.queue.inference.enqueue_score(run, ScoreRequest(text="a")),
            here.queue.inference.enqueue_generate(run, GenerateRequest(prompt_text="a")),
        ):
            with pytest.raises(AppError) as told:
                await asked
            assert told.value.code is code
        assert await here.waiting() == []
        assert await here.keys("runs:*") == []


async def test_store_that_is_away__is_busy_and_no_fault(tmp_path: Path) -> None:
    finished_run(tmp_path)
    settings = settings_in(tmp_path, embedded_workers=0)
    services = Services(settings)
    queue = await JobQueue.connect(settings, await services.start())
    asked = await queue.inference.enqueue_score(RUN, ScoreRequest(text="a"))
    await services.stop()
    told = await asyncio.gather(
        queue.inference.get_score(RUN, asked.response.request_id),
        queue.inference.enqueue_score(RUN, ScoreRequest(text="a")),
        return_exceptions=True,
    )
    await queue.close()
    assert [isinstance(error, AppError) and error.code for error in told] == [ErrorCode.SERVICE_UNAVAILABLE] * 2


async def test_text_as_read__is_the_form_that_places_in_a_score_are_of(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        assert here.queue.inference.normalize_input(RUN, "e\u0301A") == "\u00e9A"
