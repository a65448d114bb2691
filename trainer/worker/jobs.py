"""The arq functions: each checks its payload again, does its job, and leaves a record of how it ended."""

import asyncio

import structlog

from trainer.contracts import keys
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.inference import failed_record, inference_adapter
from trainer.contracts.jobs import InferenceJobPayload, TrainJobPayload
from trainer.contracts.settings import Settings
from trainer.contracts.store import Store
from trainer.contracts.validation import parse
from trainer.queue import tell_events
from trainer.runs import RunStore
from trainer.worker.inference_child import InferenceChild
from trainer.worker.supervisor import supervise

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class Jobs:
    """What the queue's two job functions work with."""

    def __init__(self, settings: Settings, store: Store, child: InferenceChild) -> None:
        self._settings = settings
        self._store = store
        self._child = child
        self._runs = RunStore(settings.app.artifacts_root)

    async def train(self, ctx: dict[str, object], payload: object) -> None:
        """Bring a run one attempt further; an ended one is only told again (R10)."""
        try:
            run = self._runs.get(parse(TrainJobPayload, payload).run_id)
        except AppError as error:
            log.error("training job refused", code=error.code, reason=error.message)
            return
        if run.manifest() is None:
            await supervise(run, self._settings, self._store)
        await tell_events(self._store, run)

    async def infer(self, ctx: dict[str, object], payload: object) -> None:
        """Answer a score, generate or evaluate request; its record in the store ends completed or failed."""
        try:
            job = parse(InferenceJobPayload, payload)
        except AppError as error:
            log.error("short job refused", code=error.code, reason=error.message)
            return
        key = keys.inference(job.kind, job.run_id, job.request_id)
        stored = await self._store.get(key)
        if stored is None:
            log.warning("short job has no request: it expired", run_id=job.run_id, request_id=job.request_id)
            return
        record = inference_adapter.validate_json(stored)
        try:
            async with asyncio.timeout(self._settings.queue.interactive_timeout_seconds):
                answer = await self._child.answer(record)
        except TimeoutError:
            answer = failed_record(record, RunError.of(AppError(ErrorCode.SERVICE_UNAVAILABLE, _TOO_LONG)))
        except AppError as error:
            answer = failed_record(record, RunError.of(error))
        log.info(
            "short job ended", kind=job.kind, run_id=job.run_id, request_id=job.request_id, state=answer.response.status
        )
        await self._store.put(key, answer.model_dump_json(), ttl_seconds=self._settings.queue.result_ttl_seconds)


_TOO_LONG = "The request took too long; ask for less at a time."
