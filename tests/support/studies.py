"""Requests, records and trials of small studies, and studies that are accepted as every face does it."""

from tests.support.cross_language import SHA, TINY
from tests.support.runs import record as run_record
from trainer.artifacts.kinds import STUDIES
from trainer.artifacts.studies import StudyDirectory
from trainer.config.settings import Settings
from trainer.config.validation import parse
from trainer.contracts.base import now
from trainer.contracts.cost import Cost
from trainer.contracts.runs import TrainRequest
from trainer.contracts.studies import StudyRecord, StudyRequest, StudyVariant
from trainer.data.corpora import CorpusStore
from trainer.queue.queue import JobQueue
from trainer.queue.studies import resolve_study

TRAIN: dict[str, object] = {name: value for name, value in TINY.items() if name != "num_epochs"}
TRAIN |= {"corpus": "text", "max_steps": 4, "eval_every_steps": 2}
RATES: dict[str, object] = {f"rate-{number}": {"learning_rate": 10.0**-number} for number in (1, 2, 3, 4, 5)}


def study_request(**fields: object) -> StudyRequest:
    """Five rates, of which three, then two, are trained for longer, and the best over two more seeds."""
    small: dict[str, object] = {"name": "rates", "train": TRAIN, "settings": RATES}
    small |= {"finalists": 2, "seeds": 2, "test_seeds": 2}
    return parse(StudyRequest, small | fields)


def study_record(study_id: str = "rates-01234567", n_variants: int = 4, **fields: object) -> StudyRecord:
    """An accepted study of settings of 8 steps each, which no machine has resolved."""
    run = run_record("lstm-1")
    cost = Cost(params=1, memory_bytes=1, disk_bytes=1, steps=8)
    variants = tuple(
        StudyVariant(
            number=number,
            name=f"v{number}",
            train={"learning_rate": 1 / number},
            request=run.request,
            effective=run.effective,
            cost=cost,
            chosen=(),
            notes=(),
        )
        for number in range(1, n_variants + 1)
    )
    request = study_request(**fields)
    return StudyRecord(study_id=study_id, created_at=now(), request=request, request_hash=SHA, variants=variants)


async def resolved_study(settings: Settings, request: StudyRequest, user_id: int | None = None) -> StudyRecord:
    return await resolve_study(request, CorpusStore(settings), settings, _allow, user_id=user_id)


async def started_study(queue: JobQueue, request: StudyRequest, user_id: int | None = None) -> StudyDirectory:
    record = await resolved_study(queue.settings, request, user_id)
    return await queue.jobs.accept(STUDIES, lambda: queue.stores.studies.create(record))


async def _allow(request: TrainRequest) -> TrainRequest:
    return request
