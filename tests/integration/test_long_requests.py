"""A long request may take its time while it progresses; a stalled one ends in an error."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.inference import RUN, Place, place
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import EvalRecord, EvalRequest, GenerateChunk, InferenceRecord
from trainer.queue.queue import JobQueue
from trainer.store import keys
from trainer.worker.inference_jobs import InferenceJobs
from trainer.worker.inference_process import InferenceChild

LOOKS = 6
"""At half a second each they take longer than the limit below."""
LIMIT_SECONDS = 1.0
PATIENCE_SECONDS = 5.0
"""Of who asks: long for a busy machine."""


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

    async def answer(
        self, record: InferenceRecord, on_chunk: Callable[[GenerateChunk], None] = print
    ) -> InferenceRecord:
        await self._looked_at.wait()
        done: dict[str, object] = {"status": "completed"}
        update: dict[str, object] = {"response": record.response.model_copy(update=done)}
        return record.model_copy(update=update)


async def asked(here: Place, queue: JobQueue) -> "tuple[str, asyncio.Task[object]]":
    """The id of an evaluation that somebody waits for, once it is in the queue."""
    waiting: asyncio.Task[object] = asyncio.create_task(queue.inference.evaluate(RUN, EvalRequest()))
    while not (found := await here.waiting()):
        await asyncio.sleep(0.01)
    return found[0], waiting


def hasty(settings: Settings) -> Settings:
    limit: dict[str, object] = {"interactive_timeout_seconds": LIMIT_SECONDS}
    queue: dict[str, object] = {"queue": settings.queue.model_copy(update=limit)}
    return settings.model_copy(update=queue)


@pytest.mark.parametrize("works", [True, False])
async def test_evaluation__lasts_while_it_gets_on_and_ends_where_it_does_not(works: bool, tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        request_id, waiting = await asked(here, here.queue)
        settings = hasty(here.settings)
        jobs = InferenceJobs(settings, here.store, InferenceChild(settings), SlowChild(settings, works=works))
        await jobs.infer({}, {"kind": "evaluate", "run_id": RUN, "request_id": request_id})
        stored = await here.store.get(keys.inference("evaluate", RUN, request_id))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert stored is not None
        response = EvalRecord.model_validate_json(stored).response

    if works:
        assert response.status == "completed"
    else:
        assert response.error is not None and response.error.code is ErrorCode.SERVICE_UNAVAILABLE
        assert response.error.message.startswith("The inference process stalled")


async def test_asker_of_an_evaluation__waits_while_a_worker_has_it_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.queue.inference_client._MARGIN_SECONDS", PATIENCE_SECONDS - LIMIT_SECONDS)
    monkeypatch.setattr("trainer.queue.inference_client._POLL_SECONDS", 0.1)
    async with place(tmp_path) as here:
        request_id, waiting = await asked(here, JobQueue(hasty(here.settings), here.store))
        await here.store.redis.set(keys.in_progress(request_id), "a worker")
        await asyncio.sleep(1.5 * PATIENCE_SECONDS)
        assert not waiting.done()
        await here.store.redis.delete(keys.in_progress(request_id))
        with pytest.raises(AppError, match="No worker has answered"):
            await waiting
