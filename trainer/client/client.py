"""`trainer.Client`: the runs and models of a server in a notebook, without `await`."""

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from trainer.batteries.reading import battery_request
from trainer.client.downloads import Progress, download_artifact
from trainer.client.exports import export_run, pull_run
from trainer.client.notebook import NotebookModel
from trainer.client.progress import transfer_bar, work_bar
from trainer.client.remote import Remote
from trainer.client.report_view import ReportView
from trainer.client.run_card import RunCard
from trainer.client.uploads import upload_corpus
from trainer.config.experiment_file import plan_path, read_experiment, read_plan, read_study, read_yaml, request_path
from trainer.config.settings import ClientSettings, load_settings
from trainer.config.train_request import RequestDraft
from trainer.config.validation import field_problems, parse
from trainer.contracts.base import KindName, RunState, changed
from trainer.contracts.batteries import BatteryOptions, BatteryRequest, BatteryStatus, BatterySummary
from trainer.contracts.corpora import CorpusOverview
from trainer.contracts.development import Development
from trainer.contracts.errors import AppError, ErrorCode, refusal
from trainer.contracts.events import Event
from trainer.contracts.experiments import ExperimentRequest, ExperimentResult, ExperimentStatus
from trainer.contracts.exports import ExportFormat, ExportRequest
from trainer.contracts.inference_fields import Asks, ResponseT
from trainer.contracts.job_status import JobStatus
from trainer.contracts.jobs import WorkersState
from trainer.contracts.looks import Unlocked, UnlockRequest
from trainer.contracts.models import Objective
from trainer.contracts.parameters import (
    BatteryPath,
    CompareQuery,
    CorpusPath,
    ExperimentPath,
    NoBody,
    RunPath,
    TokenizerPath,
    WaitQuery,
)
from trainer.contracts.readings import ReadingOptions, ReadingPath, ReadingRequest, ReadingResult, ReadingStatus
from trainer.contracts.runs import AnnotationChange, RunStatus, TrainRequest
from trainer.contracts.studies import StudyPath, StudyRequest, StudyResult, StudyStatus
from trainer.contracts.tokenizer_jobs import TokenizerStatus, TokenizerTrainRequest
from trainer.contracts.verification import Verification
from trainer.data.rows import read_file
from trainer.lab.calls import (
    ANNOTATE_RUN,
    BATTERIES,
    DELETE_CORPUS,
    DELETE_RUN,
    EXPERIMENTS,
    GET_RUN,
    JOB_CALLS,
    LIST_CORPORA,
    LIST_WORKERS,
    READINGS,
    REPORT_COMPARISON,
    REPORT_CORPUS,
    REPORT_TOKENIZER,
    RESUME_RUN,
    START_BATTERY,
    START_EXPERIMENT,
    START_READING,
    START_STUDY,
    STUDIES,
    TOKENIZERS,
    TRAIN,
    TRAIN_TOKENIZER,
    UNLOCK,
    AnswerT,
    BodyT,
    Call,
    PathT,
    QueryT,
)
from trainer.lab.waits import all_pages
from trainer.reading.request import check_sent, reading_request
from trainer.reading.tables import SUFFIXES
from trainer.system.logs import readable_line

T = TypeVar("T")
RecordT = TypeVar("RecordT", bound=BaseModel)
_Job = ExperimentStatus | StudyStatus | BatteryStatus | ReadingStatus | TokenizerStatus
JobT = TypeVar("JobT", bound=_Job)


class Client:
    """Runs and models of the server at `url`, by default that of MT_URL and MT_KEY.

    A run is named by its id, its label, `last` or the beginning of its id; `delete` takes its complete id only.
    Methods raise `trainer.contracts.errors.AppError`. A request that gets no answer is repeated for a minute, without
    being run twice.
    """

    def __init__(self, url: str | None = None, key: str | None = None) -> None:
        self._server = Remote(_settings(url, key))
        self._loop = BackgroundLoop()
        self.close = weakref.finalize(self, _close, self._server, self._loop)
        """Close the connections. It is called by itself when the client is no longer used; later calls are refused."""

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def runs(
        self,
        *,
        status: RunState | None = None,
        family: str | None = None,
        search: str | None = None,
    ) -> Iterator[RunStatus]:
        """Iterate over all runs, newest first; the server sends a page at a time."""
        # a generator, which keeps the client: its connections close with it
        yield from self._loop.iterate(self._server.newest(status, family=family, search=search))

    def train(
        self, request: TrainRequest | Mapping[str, object] | str | Path | None = None, /, **fields: object
    ) -> RunStatus:
        """Start a training and return its status at once.

        The request is the path of an experiment file (YAML) or the fields of a train request; `fields` replace its
        values. The corpora are on the server: `upload` brings one there.
        """
        if isinstance(request, str | Path):
            draft = read_experiment(read_yaml(request_path(Path(request))), fields)
        elif isinstance(request, TrainRequest):
            given: dict[str, object] = request.model_dump(mode="json", exclude_unset=True)
            draft = RequestDraft(given | fields)
        else:
            draft = RequestDraft({**(request or {}), **fields})
        return self.status(self._loop.call(self._server.send(TRAIN, draft)).run_id)

    def upload(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        language: str | None = None,
        is_ipa: bool | None = None,
        progress: Progress | None = None,
    ) -> CorpusOverview:
        """Upload a file, or the text files of a folder, as a corpus of the server; return it.

        Without `name` it gets that of its file. An upload that broke off, of an earlier process too, is continued.
        `progress` receives the bytes that have arrived and all bytes; the default draws a bar in a terminal or a
        notebook. Raises CONFLICT if the server has another corpus of this name.
        """
        file = Path(path)
        drawn = transfer_bar(file.name) if progress is None else progress
        adding = upload_corpus(
            self._server, file, name or file.resolve().stem, language=language, is_ipa=is_ipa, progress=drawn
        )
        return self._loop.call(adding)

    def corpora(self) -> tuple[CorpusOverview, ...]:
        """Return the corpora of the server."""
        return self._call(LIST_CORPORA).corpora

    def corpus(self, name: str) -> ReportView:
        """Return the size and the characters of a corpus, for notebooks."""
        return ReportView(self._call(REPORT_CORPUS, parse(CorpusPath, {"corpus": name})), {})

    def status(self, run_id: str) -> RunStatus:
        """Return the status of a run."""
        return self._call(GET_RUN, parse(RunPath, {"run_id": run_id}))

    def wait(self, run_id: str) -> RunStatus:
        """Wait for the end of a run and return its status."""
        return self._loop.call(self._server.ended(GET_RUN, RunPath(run_id=self._full_id(run_id))))

    def annotate(
        self,
        run_id: str,
        *,
        label: str | None = None,
        note: str | None = None,
        tags: Sequence[str] | None = None,
    ) -> RunStatus:
        """Change label, note and tags of a run, and return its status; what is None stays as it is."""
        change = parse(AnnotationChange, {"label": label, "note": note, "tags": tags})
        return self._call(ANNOTATE_RUN, parse(RunPath, {"run_id": run_id}), body=change)

    def cancel(self, run_id: str) -> RunStatus:
        """Cancel a run, which ends after its current step, and return its status."""
        return self._loop.call(self._server.cancel(run_id))

    def resume(self, run_id: str) -> RunStatus:
        """Resume a paused run, or a failed or cancelled one as a new run; return the status of the continuing run."""
        return self.status(self._call(RESUME_RUN, parse(RunPath, {"run_id": run_id})).run_id)

    def delete(self, run_id: str) -> None:
        """Delete a run that has ended, with its files; raises CONFLICT if an experiment or another run needs it."""
        self._call(DELETE_RUN, parse(RunPath, {"run_id": run_id}))

    def events(self, run_id: str) -> Iterator[Event]:
        """Iterate over the events of a run, from the first one until it has ended."""
        yield from self._loop.iterate(self._server.events(self._full_id(run_id)))

    def logs(self, run_id: str, *, tail: int = 200, follow: bool = False) -> Iterator[str]:
        """Iterate over the last lines of a run's log, and with `follow` over each new line until it has ended."""
        lines = self._server.log_lines(self._full_id(run_id), tail, follow=follow)
        yield from map(readable_line, self._loop.iterate(lines))

    def verify(self, run_id: str) -> Verification:
        """Let the server check every file of a run against its recorded hash, and return the results."""
        return self._loop.call(self._server.verification(run_id))

    def workers(self) -> WorkersState:
        """Return the workers of all machines, and the runs that they train."""
        return self._call(LIST_WORKERS)

    def download(self, run_id: str, folder: str | Path) -> Path:
        """Download the files of a completed run to a folder, which `trainer.load` takes; return the folder."""
        self._loop.call(download_artifact(self._server.api, "models", self._full_id(run_id), Path(folder)))
        return Path(folder)

    def pull(self, run_id: str) -> Path:
        """Bring a completed run with its checkpoints to this machine, where `trainer.load` finds it; return its folder.

        An interrupted download is continued. Raises CONFLICT if this machine has another run of this id.
        """
        root, run_id = load_settings().app.artifacts_root, self._full_id(run_id)
        return self._loop.call(pull_run(self._server, run_id, root, transfer_bar(run_id)))[0].path

    def export(self, name: str, format: ExportFormat, out: str | Path, *, license: str | None = None) -> Path:
        """Export a run, or a checkpoint as `RUN@1200`, to a new folder, an archive to a new file; return the path.

        Raises CONFLICT if the path exists.
        """
        request = parse(ExportRequest, {"format": format, "license": license})
        self._loop.call(export_run(self._server, name, request, Path(out), transfer_bar(name)))
        return Path(out)

    def tokenizer(self, method: str, *corpora: str, **fields: object) -> TokenizerStatus:
        """Train a tokenizer on corpora of the server to its end, with the fields of a tokenizer train request."""
        request = parse(TokenizerTrainRequest, {"method": method, "corpora": list(corpora), **fields})
        tokenizer_id = self._call(TRAIN_TOKENIZER, body=request).tokenizer_id
        status = self._loop.call(self._server.ended(TOKENIZERS.get, TokenizerPath(tokenizer_id=tokenizer_id)))
        check_completed(status)
        return status

    def experiment(self, plan: Mapping[str, object] | str | Path, /, **fields: object) -> ExperimentResult:
        """Run an experiment to its end and return its result; an equal one that has completed is not run again.

        The plan is a file (YAML), the name of a recipe or the fields of an experiment request, and `fields` replace its
        values. The corpora are on the server.
        """
        if isinstance(plan, str | Path):
            request = read_plan(plan_path(str(plan)), fields)
        else:
            request = parse(ExperimentRequest, {**plan, **fields})
        return self._loop.call(self._experiment(request, work_bar(request.name)))

    def study(self, study: Mapping[str, object] | str | Path, /, **fields: object) -> StudyResult:
        """Run a study to its end and return its result; an equal one that has completed is not run again.

        The study is a file (YAML) or the fields of a study request, and `fields` replace its values. The corpora are on
        the server.
        """
        path, given = (Path(study), fields) if isinstance(study, str | Path) else (None, {**study, **fields})
        request = read_study(path, given)
        return self._loop.call(self._study(request, work_bar(request.name)))

    def reading(
        self, runs: str | Sequence[str], file: str | Path, *, has_checkpoints: bool = False, **options: object
    ) -> ReadingResult:
        """Explain a table of reading times by the surprisals of runs on the server: what they add, and their effects.

        The table is a file of this machine, and the options are those of ReadingOptions. `has_checkpoints` also takes
        the checkpoints that the runs have kept. An equal job that has completed is not run again.
        """
        names = [runs] if isinstance(runs, str) else runs
        request = reading_request(parse(ReadingOptions, options), names, read_file(Path(file), SUFFIXES))
        check_sent(request)
        request = changed(request, has_checkpoints=has_checkpoints)
        return self._loop.call(self._reading(request, work_bar("reading")))

    def unlock(self, *names: str) -> Unlocked:
        """Read the test splits of completed runs or groups, which is one look, and return the losses there.

        The same runs again are no new look.
        """
        runs = [self._loop.call(self._server.full_run_id(name, or_group=True)) for name in names]
        return self._loop.call(self._server.ended(UNLOCK, body=parse(UnlockRequest, {"runs": runs})))

    def battery(self, runs: str | Sequence[str], *batteries: str | Path, **options: object) -> BatterySummary:
        """Score batteries by runs on the server: files and folders of this machine, or names such as `blimp`.

        The options are those of BatteryOptions. An equal job that has completed is not run again.
        """
        names = [runs] if isinstance(runs, str) else runs
        request = battery_request(parse(BatteryOptions, options), names, [str(one) for one in batteries])
        return self._loop.call(self._battery(request, work_bar("battery"), BatterySummary))

    def develop(self, run_id: str, *batteries: str | Path, **options: object) -> Development:
        """Measure the checkpoints that a run has kept: batteries, and with the options of DevelopmentOptions more."""
        chosen = parse(BatteryOptions, {"development": options})
        request = battery_request(chosen, [run_id], [str(one) for one in batteries])
        return self._loop.call(self._battery(request, work_bar(run_id), Development))

    def jobs(self, kind: KindName) -> tuple[JobStatus, ...]:
        """Return the statuses of all jobs of a kind, newest first, without their details.

        The kinds are tokenizers, experiments, studies, batteries, readings, exports, verifications and corpus_builds.
        A job is named by its id, its beginning or `last`.
        """
        calls = JOB_CALLS[kind]
        return self._loop.call(all_pages(lambda query: self._server.call(calls.list, query=query))).jobs

    def job(self, kind: KindName, job_id: str) -> JobStatus:
        """Return the status of a job of a kind."""
        return self._call(JOB_CALLS[kind].get, JOB_CALLS[kind].named(job_id))

    def wait_job(self, kind: KindName, job_id: str) -> JobStatus:
        """Wait for the end of a job and return its status."""
        path = JOB_CALLS[kind].named(self._loop.call(self._server.job_id(kind, job_id)))
        return self._loop.call(self._server.ended(JOB_CALLS[kind].get, path))

    def cancel_job(self, kind: KindName, job_id: str) -> JobStatus:
        """Cancel a job that has not ended and return its status; what it has stored stays."""
        return self._call(JOB_CALLS[kind].cancel, JOB_CALLS[kind].named(job_id))

    def delete_job(self, kind: KindName, job_id: str) -> None:
        """Delete a job that has ended, by its complete id; raises CONFLICT if something needs it."""
        self._call(JOB_CALLS[kind].delete, JOB_CALLS[kind].named(job_id))

    def export_job(self, kind: KindName, job_id: str, folder: str | Path) -> Path:
        """Download the files of a completed job to a folder; return the folder."""
        full_id = self._loop.call(self._server.job_id(kind, job_id))
        self._loop.call(self._server.download(kind, full_id, Path(folder)))
        return Path(folder)

    def report(
        self, kind: Literal["experiments", "studies", "batteries", "readings", "tokenizers"], job_id: str
    ) -> ReportView:
        """Return the report of a tokenizer, or of another completed job, for notebooks."""
        if kind != "tokenizers":
            return self._loop.call(self._server.report(kind, job_id))
        path = TokenizerPath(tokenizer_id=self._loop.call(self._server.job_id(kind, job_id)))
        return ReportView(self._call(REPORT_TOKENIZER, path), {})

    def compare(self, *names: str) -> ReportView:
        """Return the comparison of completed runs or groups, for notebooks; differences are from the first one."""
        names = tuple([self._loop.call(self._server.full_run_id(name, or_group=True)) for name in names])
        return ReportView(self._call(REPORT_COMPARISON, query=CompareQuery(runs=",".join(names))), {})

    def delete_corpus(self, name: str) -> None:
        """Delete a corpus by its complete name; raises CONFLICT if a run or another job needs it."""
        self._call(DELETE_CORPUS, parse(CorpusPath, {"corpus": name}))

    def run(self, run_id: str) -> RunCard:
        """Return a run as a card for notebooks, which follows the run until it has ended."""
        run_id = self._full_id(run_id)
        return RunCard(run_id, lambda wait: self._loop.call(self._server.snapshot(run_id, wait=wait)))

    def load(self, name: str) -> "RemoteModel":
        """Return a completed run, or a checkpoint as `RUN@1200`, as a model whose methods run on the server.

        Raises RUN_NOT_READY.
        """
        name = self._full_id(name)
        effective = self._loop.call(self._server.effective(name))
        return RemoteModel(name, effective.objective, self._server, self._loop, self)

    def _full_id(self, name: str) -> str:
        """Return the name of a run or a checkpoint with its complete id: `last` is another run later."""
        return self._loop.call(self._server.full_run_id(name, or_checkpoint=True))

    def _call(
        self,
        call: Call[PathT, QueryT, BodyT, AnswerT],
        path: PathT | None = None,
        query: QueryT | None = None,
        body: BodyT | None = None,
    ) -> AnswerT:
        return self._loop.call(self._server.call(call, path, query, body))

    async def _experiment(self, request: ExperimentRequest, report: Progress) -> ExperimentResult:
        """Run an experiment to its end and return its result; raises the error that it ended with."""
        path = ExperimentPath(experiment_id=(await self._server.call(START_EXPERIMENT, body=request)).experiment_id)
        await self._completed(EXPERIMENTS.get, path, lambda one: report(one.cells_done, one.n_cells))
        return await self._server.read("experiments", path.experiment_id, "result.json", ExperimentResult)

    async def _study(self, request: StudyRequest, report: Progress) -> StudyResult:
        """Run a study to its end and return its result; raises the error that it ended with."""
        path = StudyPath(study_id=(await self._server.call(START_STUDY, body=request)).study_id)
        await self._completed(STUDIES.get, path, lambda one: report(one.runs_done, one.n_runs))
        return await self._server.read("studies", path.study_id, "result.json", StudyResult)

    async def _battery(self, request: BatteryRequest, report: Progress, record: type[RecordT]) -> RecordT:
        """Score batteries; return the BatterySummary or the Development, or raise the error that the job ended with."""
        path = BatteryPath(battery_id=(await self._server.call(START_BATTERY, body=request)).battery_id)
        await self._completed(BATTERIES.get, path, lambda one: report(one.done, one.total))
        name = "result.json" if request.development is None else "development.json"
        return await self._server.read("batteries", path.battery_id, name, record)

    async def _reading(self, request: ReadingRequest, report: Progress) -> ReadingResult:
        """Explain reading times and return the result; raises the error that the job ended with."""
        path = ReadingPath(reading_id=(await self._server.call(START_READING, body=request)).reading_id)
        await self._completed(READINGS.get, path, lambda one: report(one.done, one.total))
        return await self._server.read("readings", path.reading_id, "result.json", ReadingResult)

    async def _completed(
        self, call: Call[PathT, WaitQuery, NoBody, JobT], path: PathT, report: Callable[[JobT], None]
    ) -> None:
        """Follow a job to its end; raises the error that it ended with."""
        async with aclosing(self._server.follow(call, path)) as statuses:
            async for status in statuses:
                report(status)
        check_completed(status)


def check_completed(status: _Job) -> None:
    """Raise the error that a job has ended with, and CANCELLED for a cancelled one."""
    if status.error is not None:
        raise AppError(status.error.code, status.error.message)
    if status.status != "completed":
        raise AppError(ErrorCode.CANCELLED, status.message)


class RemoteModel(NotebookModel):
    """A model on a server."""

    def __init__(self, name: str, objective: Objective, server: Remote, loop: "BackgroundLoop", client: Client) -> None:
        self.run_id, _, checkpoint = name.partition("@")
        self.checkpoint = int(checkpoint) if checkpoint.isdecimal() else None
        self._name = name
        self._objective = objective
        self._server = server
        self._loop = loop
        self._client = client  # its connections stay open while the model is used

    def _answer(self, request: Asks[ResponseT]) -> ResponseT:
        return self._loop.call(self._server.ask(self._name, request))


class BackgroundLoop:
    """An event loop in a thread until `stop`, for methods that a notebook calls without `await`.

    The thread does not keep the program from ending. Calls that wait at `stop`, and later ones, raise CANCELLED.
    """

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="mt-client", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[object, object, T]) -> T:
        """Run a coroutine to its end and return its result; Ctrl-C cancels it."""
        if self._is_stopped:
            work.close()
            raise _closed()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise _closed() from None
        finally:
            future.cancel()

    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """Iterate over an asynchronous generator, which is closed with the iterator."""
        try:
            while (item := self.call(_next(items))) is not None:
                yield item
        finally:
            if not self._is_stopped:  # the end of the loop ends it, too
                self.call(_end(items))

    def stop(self, last: Coroutine[object, object, None]) -> None:
        """Run a last coroutine, cancel what other threads still wait for, and end the thread.

        It does not wait, because any thread may collect garbage.
        """

        async def end() -> None:
            try:
                await last
            finally:
                self._loop.stop()

        self._is_stopped = True
        asyncio.run_coroutine_threadsafe(end(), self._loop)

    def _run(self) -> None:
        with self._runner:  # which cancels what is unfinished
            self._loop.run_forever()


def _closed() -> AppError:
    return AppError(ErrorCode.CANCELLED, "This client has been closed: make another one.")


async def _next(items: AsyncGenerator[T, None]) -> T | None:
    """Return the next item; None after the last one."""
    async for item in items:
        return item
    return None


async def _end(items: AsyncGenerator[T, None]) -> None:
    closing: Awaitable[None] = items.aclose()
    await closing


def _settings(url: str | None, key: str | None) -> ClientSettings:
    """Return the server to use: what is given, else what MT_URL and MT_KEY name."""
    stored = load_settings().client if url is None or key is None else ClientSettings()
    values: dict[str, object] = {"url": stored.url if url is None else url, "key": stored.key if key is None else key}
    try:
        return ClientSettings.model_validate(values)
    except ValidationError as error:
        raise refusal(ErrorCode.CONFIG_INVALID, *field_problems(error, ClientSettings)) from None


def _close(server: Remote, loop: BackgroundLoop) -> None:
    loop.stop(server.close())
