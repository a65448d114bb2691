"""Work on corpora: list them, show one, and upload one in portions that continue after any cut."""

import asyncio
from functools import partial
from hashlib import sha256

import structlog

from trainer.artifacts.deletion import delete_corpus as delete_corpus_files
from trainer.contracts.base import changed, narrowed
from trainer.contracts.corpora import CorpusList, CorpusOverview, CorpusText, UploadedFile, UploadRequest, UploadStatus
from trainer.contracts.parameters import CorpusPath, NoBody, NoQuery, UploadPath
from trainer.contracts.reports import Report
from trainer.data.corpus_overview import corpus_overview, corpus_overviews, corpus_statistics
from trainer.lab.lab import Asked, Lab
from trainer.lab.permissions import Caller
from trainer.reports.corpus_report import corpus_report

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)
_MOST_FREQUENT = 10
_TEXT_FILE = "text.txt"
"""The file that messages name where a text was sent without one."""


async def list_corpora(lab: Lab, asked: Asked[NoQuery, NoQuery, NoBody]) -> CorpusList:
    """List the corpora by name, without attached texts and uploads without a name."""
    corpora = lab.stores.corpora
    found = await asyncio.to_thread(lambda: corpus_overviews(corpora, corpora.names()))
    return CorpusList(corpora=found)


async def report_corpus(lab: Lab, asked: Asked[CorpusPath, NoQuery, NoBody]) -> Report:
    """Count the lines and characters of a corpus, or of a text that the caller has sent or trained on."""
    corpora = lab.stores.corpora
    await lab.index.refresh()
    name = await asyncio.to_thread(corpora.full_name, asked.path.corpus)
    runs = [run.name for run in lab.seen_runs(asked.caller) if run.corpus == name]
    overview = await asyncio.to_thread(corpus_overview, corpora, name)
    statistics = await asyncio.to_thread(corpus_statistics, corpora.find(name), _MOST_FREQUENT)
    return corpus_report(overview, statistics, runs)


async def delete_corpus(lab: Lab, asked: Asked[CorpusPath, NoQuery, NoBody]) -> None:
    """Delete a corpus that was added or built, or a sent text by its hash, unless a run or another job needs it.

    Only those who have sent it and admins may do this. A text that others have sent too stays for them.
    """
    corpora, name, caller = lab.stores.corpora, asked.path.corpus, asked.caller
    await lab.rights.check_deletion(caller, name)
    stays = partial(corpora.leave_to_others, name, caller.is_owner)
    sha256 = await asyncio.to_thread(delete_corpus_files, corpora, lab.settings.app.artifacts_root, name, stays)
    if sha256 is not None:
        await (await lab.live()).replication.delete_corpus(name, sha256)
    log.info("corpus_deleted", user_id=caller.discord_id, api_key=caller.key_name, corpus=name)


async def start_upload(lab: Lab, asked: Asked[NoQuery, NoQuery, UploadRequest]) -> UploadStatus:
    """Start the upload of a corpus; an equal request continues it, and nothing is sent twice."""
    caller = asked.caller
    status = await asyncio.to_thread(lab.uploads.start, asked.body, caller.key_name, is_limited=not caller.is_admin)
    return await finished_upload(lab, caller, status)


async def add_corpus(lab: Lab, asked: Asked[NoQuery, NoQuery, CorpusText]) -> CorpusOverview:
    """Store a text as a corpus, with the checks and limits of an upload; an equal request stores nothing new."""
    body, caller, data = asked.body, asked.caller, asked.body.text.encode()
    file = UploadedFile(name=_TEXT_FILE, bytes=len(data), sha256=sha256(data).hexdigest())
    request = UploadRequest(name=body.name, files=(file,), language=body.language, is_ipa=body.is_ipa)
    status = await asyncio.to_thread(lab.uploads.start, request, caller.key_name, is_limited=not caller.is_admin)
    if status.corpus is None:
        await asyncio.to_thread(lab.uploads.append, status.upload_id, status.offset, data[status.offset :])
        status = changed(status, offset=status.bytes)
    return narrowed(CorpusOverview, (await finished_upload(lab, caller, status)).corpus)


async def get_upload(lab: Lab, asked: Asked[UploadPath, NoQuery, NoBody]) -> UploadStatus:
    """Read the state of an upload of this client, whose next portion begins at `offset`."""
    return await asyncio.to_thread(lab.uploads.status, asked.path.upload_id, asked.caller.key_name)


async def delete_upload(lab: Lab, asked: Asked[UploadPath, NoQuery, NoBody]) -> None:
    """Delete an upload of this client with what has arrived; a corpus that it has become stays."""
    await asyncio.to_thread(lab.uploads.delete, asked.path.upload_id, asked.caller.key_name)


async def finished_upload(lab: Lab, caller: Caller, status: UploadStatus) -> UploadStatus:
    """Return the status of an upload, stored as a corpus if it is complete."""
    if status.corpus is not None or status.offset < status.bytes:
        return status
    async with lab.storing_upload:
        return await asyncio.to_thread(lab.uploads.finish, status.upload_id, caller.key_name)
