"""Cancelled inference requests leave the queue, and no worker computes them."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import processes, settings_in
from tests.support.inference import RUN, TEXT, Place, place
from tests.support.runs import record
from tests.support.waiting import PATIENCE_SECONDS, captured_logs
from trainer.artifacts.runs import RunStore
from trainer.contracts.inference import GenerateChunk, InferenceRecord, ScoreRequest
from trainer.store import keys
from trainer.worker.inference_jobs import InferenceJobs
from trainer.worker.inference_process import InferenceChild


class EndlessChild(InferenceChild):
    """Is never done with an answer, and knows whether it may stop."""

    stopped = 0

    async def answer(
        self, record: InferenceRecord, on_chunk: Callable[[GenerateChunk], None] = print
    ) -> InferenceRecord:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        return record


async def asked(here: Place) -> "asyncio.Task[object]":
    """A question that somebody waits for, once it is in the queue."""
    waiting: asyncio.Task[object] = asyncio.create_task(here.queue.inference.score(RUN, ScoreRequest(text=TEXT)))
    while not await here.waiting():
        await asyncio.sleep(0.01)
    return waiting


async def test_asker_who_goes__takes_the_request_along(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        waiting = await asked(here)
        [request_id] = await here.waiting()
        assert await here.keys("runs:score:*")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await here.waiting() == []
        assert await here.keys(f"*{request_id}*") == []


async def test_asker_who_goes_at_any_moment__takes_the_request_along(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for steps in range(60):
            waiting = asyncio.create_task(here.queue.inference.score(RUN, ScoreRequest(text=TEXT)))
            for _ in range(steps):
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await here.waiting() == [], f"after {steps} steps of the loop"
            assert await here.keys("runs:score:*") == []


async def test_request_with_an_id_of_its_client__is_left_in_the_queue_at_any_moment(tmp_path: Path) -> None:
    """The client, or another copy of it, may send the request again under this id."""
    async with place(tmp_path) as here:
        for steps in range(60):
            request_id = f"own-{steps}"
            enqueue = here.queue.inference.enqueue_score
            enqueuing = asyncio.create_task(enqueue(RUN, ScoreRequest(text=TEXT), request_id=request_id))
            for _ in range(steps):
                await asyncio.sleep(0)
            enqueuing.cancel()
            await asyncio.wait([enqueuing])
            again = await enqueue(RUN, ScoreRequest(text=TEXT), request_id=request_id)
            assert again.response.request_id == request_id
            assert await here.waiting() == [request_id]
            await here.store.dequeue(keys.INTERACTIVE_QUEUE, request_id)


async def test_worker__stops_at_a_request_whose_asker_has_gone(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        waiting = await asked(here)
        [request_id] = await here.waiting()
        child = EndlessChild(settings_in(tmp_path))
        payload: dict[str, str] = {"kind": "score", "run_id": RUN, "request_id": request_id}
        with captured_logs() as logs:
            working = asyncio.create_task(InferenceJobs(here.settings, here.store, child, child).infer({}, payload))
            await asyncio.sleep(0.7)
            assert not working.done(), "somebody waits"
            waiting.cancel()
            await asyncio.wait_for(working, PATIENCE_SECONDS)
        assert child.stopped == 1
        assert await here.keys(f"runs:*:{request_id}") == []
        assert any("inference_request_withdrawn" in str(entry) for entry in logs)


async def test_answer_that_is_not_kept__leaves_nothing_behind(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        working = asyncio.create_task(here.work())
        kept = await here.queue.inference.score(RUN, ScoreRequest(text=TEXT))
        gone = await here.queue.inference.score(RUN, ScoreRequest(text=TEXT), is_kept=False)
        working.cancel()
        assert gone.status == "completed"
        assert await here.keys("runs:score:*") == [keys.inference("score", RUN, kept.request_id)]


async def test_asker_who_goes_while_the_server_is_away__is_logged(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        waiting = await asked(here)
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


async def test_heartbeat_that_is_no_time__leaves_what_the_log_says(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        run = RunStore(here.settings.app.artifacts_root).create(record("waiting-run", 7))
        await here.store.redis.set(keys.heartbeat(run.run_id), b"soon")
        told = (await here.queue.status(run.run_id)).last_heartbeat_ts
    assert told == run.follow().refresh().last_heartbeat_ts
