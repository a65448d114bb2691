"""A finished run, a request of each kind, and an inference queue with a worker that answers at once."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from tests.support import settings_in
from tests.support.runs import completed, put_in_place, record
from tests.support.tiny_models import POEM, make_run
from trainer.artifacts.runs import RunStore, finish_run
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.chats import ChatRequest
from trainer.contracts.completions import CompletionRequest
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.evaluations import EvalRequest
from trainer.contracts.generations import GenerateChunk, GenerateRequest
from trainer.contracts.inference import AnyRecord
from trainer.contracts.inference_fields import InferenceRecord, InferenceRequest, failed_record
from trainer.contracts.items import ItemsRequest
from trainer.contracts.predictions import PredictRequest
from trainer.contracts.scores import ScoreRequest
from trainer.contracts.sections import SectionsRequest
from trainer.contracts.segmentation import SegmentRequest
from trainer.contracts.sequences import SequenceParts, SequencesRequest
from trainer.inference.model_files import save_model
from trainer.queue.queue import JobQueue
from trainer.services.embedded import Services
from trainer.store import keys
from trainer.store.store import Store, connect
from trainer.worker.inference_jobs import InferenceJobs
from trainer.worker.inference_process import InferenceChild

any_record: TypeAdapter[AnyRecord] = TypeAdapter(AnyRecord)
OnChunk = Callable[[GenerateChunk], None]
RUN = "char_lstm-1"
TEXT = "a secret text of somebody"
REQUESTS: dict[str, InferenceRequest] = {
    "score": ScoreRequest(text=TEXT),
    "sequences": SequencesRequest(sequences=(SequenceParts(parts=(TEXT,)),)),
    "items": ItemsRequest(table={"text": (TEXT,)}, text_column="text"),
    "segment": SegmentRequest(text=f"{TEXT}\n" * 10),
    "generate": GenerateRequest(prompt_text=TEXT, seed=1),
    "complete": CompletionRequest(prompts=(TEXT,)),
    "predict": PredictRequest(text=TEXT),
    "chat": ChatRequest(message=TEXT),
    "evaluate": EvalRequest(),
    "sections": SectionsRequest(experiment_id="experiment"),
}
"""A request of each kind."""
SPOILT = 13
"""A user whose requests fail."""


class InstantChild(InferenceChild):
    """Answers before anybody can look."""

    answers = 0

    async def answer(self, record: InferenceRecord, on_chunk: OnChunk | None = None) -> InferenceRecord:
        self.answers += 1
        if record.user_id == SPOILT:
            return failed_record(record, RunError.of(AppError(ErrorCode.MODEL_LOAD_FAILED, "Its weights are gone.")))
        return changed(record, response=changed(record.response, status="completed"))


class Place(NamedTuple):
    queue: JobQueue
    store: Store
    jobs: InferenceJobs
    child: InstantChild
    settings: Settings
    services: Services

    async def work(self) -> None:
        """Be a worker without any delay: each job is done in the moment in which it is seen."""
        position = "0-0"
        while True:
            position = await self.store.wait_for_job(position, wait_seconds=5)
            for job_id in await self.waiting():
                await self.do(job_id)
                await self.store.dequeue(keys.INTERACTIVE_QUEUE, job_id)

    async def waiting(self) -> list[str]:
        found: list[bytes] = await self.store.redis.zrange(keys.INTERACTIVE_QUEUE, 0, -1)
        return [job_id.decode() for job_id in found]

    async def do(self, request_id: str) -> None:
        await self.jobs.infer({}, await self.payload(request_id))

    async def payload(self, request_id: str) -> dict[str, str]:
        [key] = [key for key in await self.keys(f"runs:*:{RUN}:{request_id}") if not key.startswith("runs:chat:")]
        kind = any_record.validate_json(await self.store.get(key) or b"").kind
        return {"kind": kind, "run_id": RUN, "request_id": request_id}

    async def keys(self, pattern: str) -> list[str]:
        found: list[bytes] = await self.store.redis.keys(pattern)
        return [key.decode() for key in found]


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    settings = settings_in(folder, embedded_workers=0)
    finished_run(folder)
    services = Services(settings)
    url = await services.start()
    queue, store, child = await JobQueue.connect(settings, url), await connect(url), InstantChild(settings)
    try:
        yield Place(queue, store, InferenceJobs(settings, store, child, child), child, settings, services)
    finally:
        await queue.close()
        await store.close()
        await services.stop()


def finished_run(folder: Path, run_id: str = RUN, user_id: int = 7) -> None:
    """A completed run whose model knows nothing."""
    made = make_run(folder, POEM)
    run = RunStore(folder / "making").create(record(run_id, user_id))  # where no worker finds it before its end
    made.tokenizer.save(run.tokenizer)
    save_model(run.path, made.fresh_model(), made.effective.model)
    with run.open_log() as events:
        finish_run(run, events, completed(run))
    put_in_place(run, folder)
