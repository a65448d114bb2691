"""A server of the HTTP API: its runs, tokenizers and inference."""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Literal

from pydantic import BaseModel, ValidationError

from trainer.artifacts.run_files import RunFiles
from trainer.artifacts.runs import RunDirectory
from trainer.client.downloads import Progress
from trainer.client.exports import export_run, pull_run
from trainer.client.http_api import HttpApi, RecordT, StreamLost, address, new_key
from trainer.client.jobs import RemoteJobs, follow
from trainer.client.run_card import LossCurves, RunSnapshot
from trainer.client.uploads import UploadProgress, upload_corpus
from trainer.config.settings import ClientSettings
from trainer.config.train_request import RequestDraft, with_stored_tokenizer
from trainer.contracts.base import RunState, narrowed, run_of
from trainer.contracts.corpora import CorpusList, CorpusOverview
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.events import Event, JobCancelled, JobCompleted, JobFailed, event_adapter
from trainer.contracts.exports import ExportRequest
from trainer.contracts.generations import GenerateChunk, GenerateResponse
from trainer.contracts.groups import GroupStatus, RunRows
from trainer.contracts.http_answers import CancelAnswer, CheckedTraining, JobKindName, RunPage
from trainer.contracts.inference_fields import Asks, ResponseT
from trainer.contracts.jobs import WorkerOrder, WorkersState
from trainer.contracts.runs import (
    Accepted,
    EffectiveRequest,
    RunManifest,
    RunStatus,
    TrainRequest,
    check_completed,
    finished_error,
)
from trainer.contracts.tokenizer_jobs import TokenizerAccepted, TokenizerList, TokenizerStatus, TokenizerTrainRequest
from trainer.contracts.tokenizers import TokenizerManifest
from trainer.contracts.verification import Verification, VerificationStatus
from trainer.queue.inference_kinds import kind_of

_COMPLETE_ID = re.compile(r"[a-z0-9_]+-\d{8}-[0-9a-f]{8}", re.ASCII)
_MAX_PAGE = 200
_MAX_TAIL = 10_000
_CANCEL_SECONDS = 0.3
"""Time that a cancelled run has to end before its status is returned; a queued run ends at once."""
_END_SECONDS = 30.0
"""Time that one request waits for the end of a run."""
_PAUSE_SECONDS = 0.5
_POINTS = 400
"""Points of a curve that is drawn in a notebook."""
_WAIT_SECONDS = 30.0
"""Time that the server waits for a result before it answers; a proxy may end a longer request."""
_RATE_SECONDS, _RATE_PAUSE_SECONDS = 90.0, 5.0
"""Time for which a request above the limit of requests per minute is repeated."""
_ENDS = (JobCompleted, JobFailed, JobCancelled)


class Server:
    """Runs, tokenizers, inference, experiments and batteries, over HTTP."""

    def __init__(self, settings: ClientSettings) -> None:
        self.api = HttpApi(settings)
        self.inference = RemoteInference(self.api)
        self.jobs = RemoteJobs(self.api)

    async def close(self) -> None:
        await self.api.close()

    async def runs(self, status: RunState | None = None, limit: int = 20, *, by_group: bool = False) -> list[RunStatus]:
        """List runs, newest first; with `by_group`, the runs of a group count as one."""
        rows = RunRows(limit, by_group=by_group)
        async with aclosing(self.all_runs(status, page_size=min(limit + 1, _MAX_PAGE))) as runs:
            async for run in runs:
                if not rows.take(run):
                    break
        return rows.runs

    async def all_runs(
        self,
        status: RunState | None = None,
        *,
        family: str | None = None,
        search: str | None = None,
        page_size: int | None = None,
    ) -> AsyncGenerator[RunStatus, None]:
        """Yield all runs, newest first."""
        cursor: str | None = None
        while True:
            page = await self.api.get(
                RunPage,
                "/runs",
                status=status,
                limit=page_size or _MAX_PAGE,
                family=family,
                search=search,
                cursor=cursor,
            )
            for run in page.runs:
                yield run
            cursor = page.next_cursor
            if cursor is None:
                return

    async def full_run_id(self, given: str, *, or_group: bool = False, or_checkpoint: bool = False) -> str:
        """Return the id that a name is meant for, as `one_run_id` does; a complete id of a run is not looked up."""
        name, at, checkpoint = given.rpartition("@")
        try:
            if or_group:
                return (await self.group(given)).group_id
            return given if _COMPLETE_ID.fullmatch(given) else (await self.status(given)).run_id
        except AppError as error:
            if or_group and error.code is ErrorCode.RUN_NOT_FOUND:
                return await self.full_run_id(given, or_checkpoint=or_checkpoint)
            if or_checkpoint and at and error.code is ErrorCode.INVALID_INPUT:  # it is no label
                return f"{await self.full_run_id(name)}@{checkpoint}"
            raise

    async def run_finder(self) -> Callable[[str], Awaitable[str]]:
        """Return a function that returns the id of the run or group that a name is meant for."""
        return partial(self.full_run_id, or_group=True)

    async def job_id(self, kind: JobKindName | Literal["tokenizers"], given: str) -> str:
        """Return the id of the experiment, battery or tokenizer that a name is meant for."""
        if kind == "experiments":
            return (await self.jobs.experiment(given)).experiment_id
        if kind == "batteries":
            return (await self.jobs.battery(given)).battery_id
        return (await self.tokenizer(given)).tokenizer_id

    async def group(self, group_id: str, *, wait: float = 0.0) -> GroupStatus:
        """Return the status of a group of runs at its end, or after `wait` seconds."""
        return await self.api.get(GroupStatus, address("groups", group_id), wait=wait)

    async def unfinished(self) -> list[RunStatus]:
        """List the runs that have not ended."""
        states: tuple[RunState, ...] = ("running", "queued", "paused")
        return [run for state in states async for run in self.all_runs(state)]

    async def status(self, run_id: str, *, wait: float = 0.0) -> RunStatus:
        """Return the status of a run at its end, or after `wait` seconds."""
        return await self.api.get(RunStatus, address("runs", run_id), wait=wait)

    async def snapshot(self, run_id: str, *, wait: float = 0.0) -> RunSnapshot:
        """Return the status and the loss curves of a run, at its end or after `wait` seconds."""
        status = await self.status(run_id, wait=wait)
        return RunSnapshot(status, await self.api.get(LossCurves, address("runs", run_id, "curve"), points=_POINTS))

    async def ended(self, run_id: str) -> RunStatus:
        """Wait for the end of a run and return its status."""
        while not (status := await self.status(run_id, wait=_END_SECONDS)).has_ended:
            pass
        return status

    def follow(self, run_id: str) -> AsyncGenerator[RunStatus, None]:
        """Yield the status of a run every second until it has ended."""
        return follow(lambda wait: self.status(run_id, wait=wait))

    async def saved_step(self, status: RunStatus) -> int | None:
        """Return the step of a run's last checkpoint."""
        return status.last_checkpoint_step

    async def train(self, draft: RequestDraft) -> Accepted:
        """Start the training of a draft, whose corpora are on the server."""
        return await self._sent(draft, Accepted, "/runs/train")

    async def check_training(self, draft: RequestDraft) -> CheckedTraining:
        """Check a draft, whose corpora are on the server, without starting anything."""
        return await self._sent(draft, CheckedTraining, "/runs/check")

    async def resume(self, run_id: str) -> Accepted:
        """Resume a paused run, or a failed or cancelled one as a new run."""
        return await self.api.post(Accepted, address("runs", run_id, "resume"))

    async def cancel(self, run_id: str) -> RunStatus:
        """Request the end of a run and return its status; raises RUN_FINISHED for a run that has ended."""
        if (await self.status(run_id)).has_ended:
            raise finished_error(run_id)
        await self.api.post(CancelAnswer, address("runs", run_id, "cancel"))
        return await self.status(run_id, wait=_CANCEL_SECONDS)

    async def delete(self, run_id: str) -> None:
        """Delete a run that has ended, with its files; raises CONFLICT if an experiment or another run needs it."""
        await self.api.delete(address("runs", run_id))

    async def manifest(self, run_id: str) -> RunManifest:
        """Return the manifest of a run that has ended; raises RUN_NOT_READY."""
        return await self.api.get(RunManifest, address("runs", run_id, "manifest"))

    async def completed_manifest(self, run_id: str) -> RunManifest:
        """Return the manifest of a completed run; raises RUN_NOT_READY."""
        manifest = await self.manifest(run_id)
        check_completed(manifest)
        return manifest

    async def check_model(self, name: str) -> None:
        """Raise an error if a run has no model; the server looks for a checkpoint when it gets a request for it."""
        if run_of(name) == name:
            await self.completed_manifest(name)
        else:
            await self.status(run_of(name))

    async def effective(self, name: str) -> EffectiveRequest:
        """Return the resolved request that a model was trained with; raises RUN_NOT_READY for a run that trains."""
        await self.check_model(name)
        return (await self.manifest(run_of(name))).effective

    async def experiment_file(self, run_id: str) -> str:
        """Return the request of a run as an experiment file."""
        return await self.api.text(address("runs", run_id, "config.yaml"))

    async def export(
        self, name: str, request: ExportRequest, out: Path, report: Progress, *, force: bool = False
    ) -> str:
        """Export a model to a new path of this machine, as `export_run` does; return the name of the model."""
        return await export_run(self.api, name, request, out, report, force=force)

    async def pull(self, run_id: str, artifacts_root: Path, report: Progress) -> tuple[RunDirectory, bool]:
        """Bring a run to an artifacts folder, as `pull_run` does."""
        return await pull_run(self.api, run_id, artifacts_root, report)

    async def files(self, name: str) -> RunFiles:
        """List the files of a run, or of one of its checkpoints."""
        return await self.api.get(RunFiles, address("runs", name, "files"))

    async def evaluation(self, run_id: str) -> EvalMetrics:
        """Return the latest evaluation of a run."""
        return await self.api.get(EvalMetrics, address("runs", run_id, "eval"))

    async def last_lines(self, run_id: str) -> tuple[str, ...]:
        """Return the last lines of the error output of a run whose process ended without an error of its own."""
        try:
            return (await self.manifest(run_id)).last_lines
        except AppError as error:
            if error.code is not ErrorCode.RUN_NOT_READY:
                raise
            return ()

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
                        if isinstance(event, _ENDS):
                            return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def log_lines(self, run_id: str, tail: int, *, follow: bool) -> AsyncGenerator[str, None]:
        """Yield the last lines of a run's log as stored, and with `follow` each new line until the run has ended."""
        if not follow:
            text = await self.api.text(address("runs", run_id, "logs"), tail=tail, stored=True)
            for line in text.splitlines():
                yield line
            return
        path, seen = address("runs", run_id, "logs", "stream"), ""
        while True:
            # a stream that begins after the end of the run has all its lines
            is_last, after = (await self.status(run_id)).has_ended, seen
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
        path, key = address("runs", run_id, "verify"), new_key()
        status = await self.api.post(VerificationStatus, path, key=key)  # without `wait`: an answer before any restart
        while not status.has_ended:  # a server that was restarted starts the verification again
            status = await self.api.post(VerificationStatus, path, key=key, wait=_WAIT_SECONDS)
        if status.error is not None:
            raise AppError(status.error.code, status.error.message)
        return narrowed(Verification, status.verification)

    async def workers(self, order: WorkerOrder | None = None) -> WorkersState:
        """Give an order to the workers, if there is one, and return them."""
        if order is None:
            return await self.api.get(WorkersState, "/workers")
        return await self.api.post(WorkersState, "/workers", order)

    async def corpora(self) -> CorpusList:
        """List the corpora by name."""
        return await self.api.get(CorpusList, "/corpora")

    async def add_corpus(
        self,
        path: Path,
        name: str | None,
        *,
        language: str | None = None,
        is_ipa: bool | None = None,
        progress: UploadProgress | None = None,
    ) -> CorpusOverview:
        """Upload a file or a folder as a corpus; without a name, requests find it by its hash only."""
        return await upload_corpus(self.api, path, name, language=language, is_ipa=is_ipa, progress=progress)

    async def offer(self, path: Path, name: str | None = None, *, progress: UploadProgress | None = None) -> str:
        """Upload a file or a folder unless the server has it; return the name by which requests find it."""
        return (await self.add_corpus(path, name, progress=progress)).name

    async def tokenizers(self) -> TokenizerList:
        """List tokenizers, newest first."""
        return await self.api.get(TokenizerList, "/tokenizers")

    async def tokenizer(self, tokenizer_id: str, *, wait: float = 0.0) -> TokenizerStatus:
        """Return the status of a tokenizer at the end of its training, or after `wait` seconds."""
        return await self.api.get(TokenizerStatus, address("tokenizers", tokenizer_id), wait=wait)

    async def trained_tokenizer(self, tokenizer_id: str) -> TokenizerStatus:
        """Wait for the end of the training of a tokenizer and return its status."""
        while not (status := await self.tokenizer(tokenizer_id, wait=_END_SECONDS)).has_ended:
            pass
        return status

    async def train_tokenizer(self, request: TokenizerTrainRequest) -> TokenizerAccepted:
        """Train a tokenizer on corpora of the server."""
        return await self.api.post(TokenizerAccepted, "/tokenizers/train", request)

    def follow_tokenizer(self, tokenizer_id: str) -> AsyncGenerator[TokenizerStatus, None]:
        """Yield the status of a tokenizer until its training has ended."""
        return follow(lambda wait: self.tokenizer(tokenizer_id, wait=wait), _END_SECONDS)

    async def _sent(self, draft: RequestDraft, record: type[RecordT], path: str) -> RecordT:
        """Send the request of a draft; an error names the fields as the draft has them."""
        request = await self.request(draft)
        try:
            return await self.api.post(record, path, request)
        except AppError as error:
            raise draft.combined([draft.located(error)]) from None

    async def request(self, draft: RequestDraft) -> TrainRequest:
        """Return the request of a draft, with the model family of its parent run and its labelled tokenizer."""
        parent = draft.fields.get("init_from_run_id")
        family = None
        if isinstance(parent, str):
            with suppress(AppError):  # the server refuses an unknown run
                family = (await self.status(run_of(parent))).model_family
        request = draft.with_family(family).request()
        if request.tokenizer is None or draft.requested_paths is None:
            return request
        label = draft.requested_paths[0]
        for one in (await self.tokenizers()).tokenizers:
            if one.label == label and one.status != "failed" and not one.is_of_run:
                path = address("artifacts", "tokenizers", one.tokenizer_id, "download")
                manifest = await self.api.get(TokenizerManifest, path, path="manifest.json")
                return with_stored_tokenizer(request, label, manifest)
        return request


class RemoteInference:
    """Inference requests to the finished runs of a server."""

    def __init__(self, api: HttpApi) -> None:
        self._api = api

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
                response = await self._api.get(type(response), path, wait=_WAIT_SECONDS)
        except asyncio.CancelledError:
            is_kept = False
            raise
        finally:
            if not is_kept:
                with suppress(AppError):  # the result expires by itself
                    await self._api.delete(path_of(await sending))
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
                return await self._api.post(request.response_type(), path, request, key=key, wait=wait)
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
