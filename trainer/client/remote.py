"""An installation on a server: its operations over HTTP."""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from trainer.artifacts.job_folder import REPORT_FILE
from trainer.client.downloads import download_artifact
from trainer.client.http_api import HttpApi, StreamLost, address, new_key, quoted
from trainer.client.report_view import ReportView
from trainer.client.run_card import LossCurves, RunSnapshot
from trainer.config.settings import ClientSettings
from trainer.config.train_request import RequestDraft, with_stored_tokenizer
from trainer.config.validation import parse
from trainer.contracts.base import FileRecord, KindName, RunState, changed, narrowed, run_of
from trainer.contracts.earlier_forms import read_stored
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import RUN_ENDS, Event, event_adapter
from trainer.contracts.generations import GenerateChunk, GenerateResponse
from trainer.contracts.http_answers import ArtifactFiles
from trainer.contracts.inference_fields import Asks, ResponseT
from trainer.contracts.job_status import UnreadableJob
from trainer.contracts.looks import test_locked
from trainer.contracts.operations import JOB_ROWS
from trainer.contracts.parameters import GroupPath, LogsQuery, NoBody, NoQuery, RunPath, RunsQuery, WaitQuery
from trainer.contracts.reports import Report
from trainer.contracts.runs import EffectiveRequest, RunStatus, TrainRequest, check_completed, finished_error
from trainer.contracts.tokenizers import TokenizerManifest
from trainer.contracts.verification import Verification
from trainer.data.text import corpus_sha256
from trainer.lab.calls import (
    CANCEL_RUN,
    GET_GROUP,
    GET_LOGS,
    GET_MANIFEST,
    GET_RUN,
    JOB_CALLS,
    LIST_RUNS,
    TOKENIZERS,
    VERIFY_RUN,
    AnswerT,
    BodyT,
    Call,
    PathT,
    QueryT,
)
from trainer.lab.waits import StatusT, all_pages
from trainer.queue.inference_kinds import kind_of

RecordT = TypeVar("RecordT", bound=BaseModel)

_COMPLETE_ID = re.compile(r"[a-z0-9_]+-\d{8}-[0-9a-f]{8}", re.ASCII)
_FIRST_PAGE, _MAX_PAGE = 25, 200
_MAX_TAIL = 10_000
_LOOK_SECONDS = 1.0
"""Time between two statuses of a job that is followed."""
_WAIT_SECONDS = 30.0
"""Time that the server waits for an end or a result before it answers; a proxy may end a longer request."""
_CANCEL_SECONDS = 0.3
"""Time that a cancelled run has to end before its status is returned; a queued run ends at once."""
_PAUSE_SECONDS = 0.5
_POINTS = 400
"""Points of a curve that is drawn in a notebook."""
_RATE_SECONDS, _RATE_PAUSE_SECONDS = 90.0, 5.0
"""Time for which a request above the limit of requests per minute is repeated."""


class Remote:
    """The installation of a server, for those who have its key."""

    def __init__(self, settings: ClientSettings) -> None:
        self.api = HttpApi(settings)
        self.unreadable: list[UnreadableJob] = []
        """The runs that `newest` has left out, because the server cannot read them."""

    async def close(self) -> None:
        await self.api.close()

    async def call(
        self,
        call: Call[PathT, QueryT, BodyT, AnswerT],
        path: PathT | None = None,
        query: QueryT | None = None,
        body: BodyT | None = None,
        *,
        key: str | None = None,
    ) -> AnswerT:
        """Do an operation; raises AppError as the server does.

        A request that is repeated for want of an answer has the same Idempotency-Key, by default one of this call.
        """
        row = call.operation
        named: dict[str, object] = (path or call.path()).model_dump()
        given: dict[str, object] = (query or call.query()).model_dump(mode="json", exclude_defaults=True)
        where = row.path.format(**{name: quoted(str(value)) for name, value in named.items()})
        sent = body if not isinstance(body, NoBody) else None
        content = await self.api.send(row.method, where, given, sent, key=key)
        if call.answer is type(None) or issubclass(call.answer, str):
            return narrowed(call.answer, content.decode() if issubclass(call.answer, str) else None)
        return self.api.parsed(TypeAdapter(call.answer), content)

    async def follow(self, call: Call[PathT, WaitQuery, NoBody, StatusT], path: PathT) -> AsyncGenerator[StatusT, None]:
        """Yield the status of a job until it has ended."""
        status = await self.call(call, path)
        yield status
        while not status.has_ended:
            status = await self.call(call, path, WaitQuery(wait=_LOOK_SECONDS))
            yield status

    async def ended(
        self, call: Call[PathT, WaitQuery, BodyT, StatusT], path: PathT | None = None, body: BodyT | None = None
    ) -> StatusT:
        """Wait for the end of a job, which the same request asks for again, and return its status."""
        while not (status := await self.call(call, path, WaitQuery(wait=_WAIT_SECONDS), body)).has_ended:
            pass
        return status

    async def newest(
        self, state: RunState | None = None, *, family: str | None = None, search: str | None = None
    ) -> AsyncGenerator[RunStatus, None]:
        """Yield runs, newest first; most readers stop within the first page, which is a small one."""
        given: dict[str, object] = {"status": state, "family": family, "search": search}
        given["limit"] = min(_FIRST_PAGE, _MAX_PAGE)
        query = parse(RunsQuery, {name: value for name, value in given.items() if value is not None})
        while True:
            page = await self.call(LIST_RUNS, query=query)
            self.unreadable += page.unreadable
            for run in page.runs:
                yield run
            if page.next_cursor is None:
                return
            query = changed(query, cursor=page.next_cursor, limit=_MAX_PAGE)

    async def cancel(self, run_id: str) -> RunStatus:
        """Request the end of a run and return its status; raises RUN_FINISHED for a run that has ended."""
        path = parse(RunPath, {"run_id": run_id})
        if (await self.call(GET_RUN, path)).has_ended:  # the server answers a repeated request as the first one
            raise finished_error(run_id)
        await self.call(CANCEL_RUN, path)
        return await self.call(GET_RUN, path, WaitQuery(wait=_CANCEL_SECONDS))

    async def unfinished(self) -> list[RunStatus]:
        """List the runs that have not ended, with their places in the queue."""
        return [run for state in ("running", "queued", "paused") async for run in self.newest(state)]

    async def full_run_id(self, given: str, *, or_group: bool = False, or_checkpoint: bool = False) -> str:
        """Return the id that a name is meant for, as `one_run_id` does; a complete id of a run is not looked up."""
        name, at, checkpoint = given.rpartition("@")
        path = parse(RunPath, {"run_id": given})
        try:
            if or_group:
                return (await self.call(GET_GROUP, GroupPath(group_id=given))).group_id
            if _COMPLETE_ID.fullmatch(given):
                return given
            return (await self.call(GET_RUN, path)).run_id
        except AppError as error:
            if or_group and error.code is ErrorCode.RUN_NOT_FOUND:
                return await self.full_run_id(given, or_checkpoint=or_checkpoint)
            if or_checkpoint and at and error.code is ErrorCode.INVALID_INPUT:  # it is no label
                return f"{await self.full_run_id(name)}@{checkpoint}"
            raise

    async def run_finder(self) -> Callable[[str], Awaitable[str]]:
        """Return a function that returns the id of the run or group that a name is meant for."""
        return partial(self.full_run_id, or_group=True)

    async def job_id(self, kind: KindName, given: str) -> str:
        """Return the id of the job that a name is meant for, as `one_job_id` does."""
        calls = JOB_CALLS[kind]
        status = await self.call(calls.get, calls.named(given))
        fields: dict[str, object] = vars(status)
        return str(fields[JOB_ROWS[kind].id_field])

    async def snapshot(self, run_id: str, *, wait: float = 0.0) -> RunSnapshot:
        """Return the status and the loss curves of a run, at its end or after `wait` seconds."""
        status = await self.call(GET_RUN, RunPath(run_id=run_id), WaitQuery(wait=wait))
        return RunSnapshot(status, await self.api.get(LossCurves, address("runs", run_id, "curve"), points=_POINTS))

    async def saved_step(self, status: RunStatus) -> int | None:
        """Return the step of a run's last checkpoint."""
        return status.last_checkpoint_step

    async def check_model(self, name: str) -> None:
        """Raise an error if a run has no model; the server looks for a checkpoint when it gets a request for it."""
        if run_of(name) == name:
            await self.effective(name)
        else:
            await self.call(GET_RUN, RunPath(run_id=run_of(name)))

    async def effective(self, name: str) -> EffectiveRequest:
        """Return the resolved request that a model was trained with; raises RUN_NOT_READY for a run that trains."""
        manifest = await self.call(GET_MANIFEST, RunPath(run_id=run_of(name)))
        if run_of(name) == name:
            check_completed(manifest)
        return manifest.effective

    async def check_text(self, name: str, path: Path) -> EffectiveRequest:
        """Return the request of a model that is to score a file, of which its server sees one portion after the other.

        Raises TEST_LOCKED for the text of the run's locked test split.
        """
        effective, run = await self.effective(name), await self.call(GET_RUN, RunPath(run_id=run_of(name)))
        text, is_unread = effective.test_text, run.test_access == "locked" and run.test_loss is None
        if is_unread and text is not None and text.sha256 == await asyncio.to_thread(corpus_sha256, path):
            raise test_locked()
        return effective

    async def events(self, run_id: str) -> AsyncGenerator[Event, None]:
        """Yield the events of a run from its first one until it has ended."""
        path, last_id = address("runs", run_id, "events"), ""
        while True:
            with suppress(StreamLost):
                async with aclosing(self.api.server_events(path, last_id)) as sent:
                    async for one in sent:
                        event = event_adapter.validate_json(one.data)
                        last_id = one.id
                        yield event
                        if isinstance(event, RUN_ENDS):
                            return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def log_lines(self, run_id: str, tail: int, *, follow: bool) -> AsyncGenerator[str, None]:
        """Yield the last lines of a run's log as stored, and with `follow` each new line until the run has ended."""
        if not follow:
            query = parse(LogsQuery, {"tail": tail, "stored": True})
            text = await self.call(GET_LOGS, RunPath(run_id=run_id), query)
            for line in text.splitlines():
                yield line
            return
        path, seen = address("runs", run_id, "logs", "stream"), ""
        while True:
            # a stream that begins after the end of the run has all its lines
            is_last, after = (await self.call(GET_RUN, RunPath(run_id=run_id))).has_ended, seen
            try:
                async with aclosing(self.api.server_events(path, tail=tail, stored=True)) as sent:
                    async for one in sent:
                        written = _time_of(one.data)
                        if not after or not written or written > after:
                            yield one.data
                        seen = max(seen, written)
            except StreamLost:
                is_last = False
                await asyncio.sleep(_PAUSE_SECONDS)
            if is_last:
                return
            tail = _MAX_TAIL if seen else tail

    async def verification(self, run_id: str) -> Verification:
        """Let the server check every file of a run against its recorded hash."""
        path, key = RunPath(run_id=run_id), new_key()
        status = await self.call(VERIFY_RUN, path, key=key)  # without `wait`: an answer before any restart
        while not status.has_ended:  # a server that was restarted starts the verification again
            status = await self.call(VERIFY_RUN, path, WaitQuery(wait=_WAIT_SECONDS), key=key)
        if status.error is not None:
            raise AppError(status.error.code, status.error.message)
        return narrowed(Verification, status.verification)

    async def read(self, kind: KindName, job_id: str, name: str, record: type[RecordT]) -> RecordT:
        """Read a record from a file of a completed job."""
        place = address("artifacts", kind, job_id, "download")
        content = await self.api.send("GET", place, {"path": name})
        try:
            return read_stored(record, content)
        except ValueError:
            return self.api.parsed(TypeAdapter(record), content)  # which says what to do

    async def report(self, kind: KindName, job_id: str) -> ReportView:
        """Return the report of a completed job with its pictures."""
        full_id = await self.job_id(kind, job_id)
        report = await self.read(kind, full_id, REPORT_FILE, Report)
        place = address("artifacts", kind, full_id)
        stored = {file.path for file in (await self.api.get(ArtifactFiles, place)).files}
        names = [figure.name for figure in report.figures() if f"{figure.name}.png" in stored]
        images = [await self.api.send("GET", f"{place}/download", {"path": f"{name}.png"}) for name in names]
        return ReportView(report, dict(zip(names, images, strict=True)))

    async def download(self, kind: KindName, job_id: str, folder: Path) -> Sequence[FileRecord]:
        """Download the files of a completed job to a folder, and return their records."""
        return await download_artifact(self.api, kind, job_id, folder)

    async def send(self, call: Call[NoQuery, QueryT, TrainRequest, AnswerT], draft: RequestDraft) -> AnswerT:
        """Send the request of a draft, whose corpora are on the server; an error names fields as the draft has them."""
        request = await self.request(draft)
        try:
            return await self.call(call, body=request)
        except AppError as error:
            raise draft.combined([draft.located(error)]) from None

    async def request(self, draft: RequestDraft) -> TrainRequest:
        """Return the request of a draft, with the model family of its parent run and its labelled tokenizer."""
        parent = draft.fields.get("init_from_run_id")
        family = None
        if isinstance(parent, str):
            with suppress(AppError):  # the server refuses an unknown run
                family = (await self.call(GET_RUN, RunPath(run_id=run_of(parent)))).model_family
        request = draft.with_family(family).request()
        if request.tokenizer is None or draft.requested_paths is None:
            return request
        label = draft.requested_paths[0]
        known = await all_pages(lambda query: self.call(TOKENIZERS.list, query=query))
        for one in known.tokenizers:
            if one.label == label and one.status != "failed" and not one.is_of_run:
                path = address("artifacts", "tokenizers", one.tokenizer_id, "download")
                manifest = await self.api.get(TokenizerManifest, path, path="manifest.json")
                return with_stored_tokenizer(request, label, manifest)
        return request

    async def ask(self, model: str, request: Asks[ResponseT], *, is_kept: bool = True) -> ResponseT:
        """Send a request and wait for its result; `is_kept=False` deletes the stored result afterwards.

        Withdraws the request if the caller is cancelled, and raises the error that it ended with.
        """
        kind = kind_of(request)

        def path_of(accepted: ResponseT) -> str:
            return address("runs", accepted.run_id, kind.name, *accepted.place)

        # without a time limit, the id is needed at once, to withdraw the request
        sending = asyncio.ensure_future(
            self._accepted(model, kind.name, request, wait=0.0 if kind.is_unbounded else _WAIT_SECONDS)
        )
        try:
            response = await (asyncio.shield(sending) if kind.is_unbounded else sending)
            path = path_of(response)
            while response.status in ("queued", "running"):
                response = await self.api.get(type(response), path, wait=_WAIT_SECONDS)
        except asyncio.CancelledError:
            is_kept = False
            raise
        finally:
            if not is_kept:
                with suppress(AppError):  # the result expires by itself
                    await self.api.send("DELETE", path_of(await sending), {})
        if response.error is not None:
            raise AppError(response.error.code, response.error.message)
        return response

    async def stream(self, model: str, request: Asks[ResponseT]) -> AsyncGenerator[GenerateChunk | ResponseT, None]:
        """Yield the complete outputs of a generation as one chunk each, then the response."""
        response = await self.ask(model, request)
        written = narrowed(GenerateResponse, response)
        for index, (text, reason) in enumerate(zip(written.outputs or (), written.stop_reason or (), strict=True)):
            yield GenerateChunk(request_id=written.request_id, index=index, start=0, text=text, stop_reason=reason)
        yield response

    async def _accepted(self, model: str, kind: str, request: Asks[ResponseT], *, wait: float) -> ResponseT:
        """Send a request once; above the limit of requests per minute, wait and send it again."""
        path, key, deadline = address("runs", model, kind), new_key(), monotonic() + _RATE_SECONDS
        while True:
            try:
                content = await self.api.send("POST", path, {"wait": wait}, request, key=key)
                return self.api.parsed(TypeAdapter(request.response_type()), content)
            except AppError as error:
                if error.code is not ErrorCode.RATE_LIMIT_EXCEEDED or monotonic() > deadline:
                    raise
            await asyncio.sleep(_RATE_PAUSE_SECONDS)


class _Line(BaseModel):
    timestamp: str = ""


def _time_of(line: str) -> str:
    """Return the time of a line of a log; empty for a line without one."""
    try:
        return _Line.model_validate_json(line).timestamp
    except ValidationError:
        return ""
