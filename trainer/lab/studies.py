"""Work on studies: preview one, and start one."""

import asyncio

from trainer.artifacts.kinds import STUDIES
from trainer.config.studies import full_runs
from trainer.contracts.base import HttpOrigin
from trainer.contracts.parameters import NoQuery, WaitQuery
from trainer.contracts.runs import Accepted, TrainRequest
from trainer.contracts.studies import StudyRecord, StudyRequest, StudyStatus
from trainer.lab.lab import Asked, Lab
from trainer.lab.permissions import Caller
from trainer.lab.runs import allowed_request
from trainer.lab.waits import check_first
from trainer.queue.studies import resolve_study


async def preview_study(
    lab: Lab, caller: Caller, request: StudyRequest, origin: HttpOrigin | None = None
) -> StudyRecord:
    """Return a study with all of its settings, checked for a person, without starting it."""

    async def allow(training: TrainRequest) -> TrainRequest:
        return await allowed_request(lab, caller, training)

    return await resolve_study(request, lab.stores.corpora, lab.settings, allow, user_id=caller.discord_id, http=origin)


async def start_study(lab: Lab, asked: Asked[NoQuery, WaitQuery, StudyRequest]) -> StudyStatus:
    """Start a study; an equal request of the same person names the same study. All of its runs count for the day."""
    record = await preview_study(lab, asked.caller, asked.body, asked.origin)
    await check_first(lab, asked, record.study_id)

    async def accept() -> Accepted:
        job = await (await lab.live()).jobs.accept(STUDIES, lambda: lab.stores.studies.create(record))
        return Accepted(run_id=job.study_id, job_id=job.study_id, status="queued")

    job = lab.stores.studies.find(record.study_id)
    if job is None or job.may_begin():
        await lab.index.refresh()
        index, in_all = lab.index, full_runs(record)
        await lab.limits.accept_run(asked.caller, index.unfinished, accept, in_all=in_all, recent=index.recent)
    return await asyncio.to_thread(lab.stores.studies.get(record.study_id).status)
