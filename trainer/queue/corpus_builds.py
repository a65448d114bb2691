"""Builds of corpora: check a request, then let a worker build."""

import asyncio

from trainer.artifacts.corpus_builds import BuildDirectory, BuildRecord, BuildRequest, BuildStatus, BuildStore
from trainer.artifacts.kinds import BUILDS
from trainer.config.settings import Settings
from trainer.config.validation import safe_name
from trainer.contracts.base import now
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.wording import counted
from trainer.data.cleaning import ALPHABETS
from trainer.queue.queue import JobQueue


async def start_build(request: BuildRequest, settings: Settings, queue: JobQueue) -> BuildDirectory:
    """Start a build; raises INVALID_INPUT, and CONFLICT while another build runs."""
    unknown = [language for language in request.languages if language not in ALPHABETS]
    if unknown:
        message = f"must be of {', '.join(ALPHABETS)}, you gave '{safe_name(','.join(unknown))}'."
        raise field_error(ErrorCode.INVALID_INPUT, "languages", message)
    builds = BuildStore(settings.app.artifacts_root)
    for earlier in await asyncio.to_thread(builds.unfinished):
        status = earlier.status()
        verb = "waits for a worker" if status.status == "queued" else "is running"
        raise AppError(ErrorCode.CONFLICT, f"A build {verb}: {_summary(status)}.")
    record = BuildRecord(created_at=now(), request=request)
    return await queue.jobs.accept(BUILDS, lambda: builds.create(record), ())


def _summary(status: BuildStatus) -> str:
    """Return the progress of a build in a few words."""
    done = ", ".join(f"{one.language} {counted(one.documents, 'document')}" for one in status.progress)
    return f"{status.request.source}, {done or 'no document yet'}"
