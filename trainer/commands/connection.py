"""Surroundings of a command: settings, the installation that it works on, the queue and the services behind it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from pydantic import BaseModel

from trainer.commands.terminal import Queued, Terminal
from trainer.config.settings import ClientSettings, Settings, load_settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.system.logs import setup_logging

if TYPE_CHECKING:  # a command waits only for the imports that it needs: redis, or the HTTP client
    from pathlib import Path

    from trainer.artifacts.run_files import RunFiles
    from trainer.client.server import Server
    from trainer.client.uploads import UploadProgress
    from trainer.contracts.base import FileRecord, RunState
    from trainer.contracts.batteries import BatteryList, BatteryStatus
    from trainer.contracts.corpora import CorpusList, CorpusOverview
    from trainer.contracts.evaluations import EvalMetrics
    from trainer.contracts.experiments import ExperimentList, ExperimentStatus
    from trainer.contracts.generations import GenerateChunk
    from trainer.contracts.groups import GroupStatus
    from trainer.contracts.http_answers import JobKindName
    from trainer.contracts.inference_fields import Asks, AsksForStream, ResponseT
    from trainer.contracts.jobs import WorkerOrder, WorkersState
    from trainer.contracts.runs import EffectiveRequest, RunManifest, RunStatus
    from trainer.contracts.tokenizer_jobs import TokenizerList, TokenizerStatus
    from trainer.contracts.verification import Verification
    from trainer.queue.queue import JobQueue
    from trainer.services.embedded import Services

_SILENT_SECONDS = 1.0
"""After so long without an answer a person reads what a command waits for."""
T = TypeVar("T")
RecordT = TypeVar("RecordT", bound=BaseModel)


class Jobs(Protocol):
    """Experiments and batteries; raises DATA_NOT_FOUND for an unknown id, and CONFLICT for files before the end."""

    async def experiments(self) -> ExperimentList:
        """List experiments, newest first, without their cells and files."""

    async def experiment(self, experiment_id: str) -> ExperimentStatus:
        """Return the status of an experiment with its cells."""

    def follow_experiment(self, experiment_id: str) -> AsyncGenerator[ExperimentStatus, None]:
        """Yield the status of an experiment until it has ended."""

    async def cancel_experiment(self, experiment_id: str) -> ExperimentStatus:
        """Cancel an experiment; raises CONFLICT for one that has ended."""

    async def batteries(self) -> BatteryList:
        """List batteries, newest first, without their files."""

    async def battery(self, battery_id: str) -> BatteryStatus:
        """Return the status of a battery."""

    def follow_battery(self, battery_id: str) -> AsyncGenerator[BatteryStatus, None]:
        """Yield the status of a battery until it has ended."""

    async def cancel_battery(self, battery_id: str) -> BatteryStatus:
        """Cancel a battery; raises CONFLICT for one that has ended."""

    async def read(self, kind: JobKindName, job_id: str, name: str, record: type[RecordT]) -> RecordT:
        """Read a record from a file of a completed job."""

    async def export(self, kind: JobKindName, job_id: str, folder: Path) -> Sequence[FileRecord]:
        """Copy the files of a completed job to a folder, and return their records."""

    def page(self, kind: JobKindName, job_id: str) -> Path | None:
        """Return the path of a job's page; None if it is on a server."""


class Installation(Protocol):
    """The runs and tokenizers that a command works on: those of `ThisMachine`, or of the `Server` of MT_URL."""

    @property
    def jobs(self) -> Jobs:
        """The experiments and batteries."""

    async def runs(self, status: RunState | None, limit: int, *, by_group: bool = False) -> Sequence[RunStatus]:
        """List runs, newest first; with `by_group`, the runs of a group count as one."""

    async def group(self, group_id: str) -> GroupStatus:
        """Return the status of a group of runs; raises RUN_NOT_FOUND."""

    async def run_finder(self) -> Callable[[str], Awaitable[str]]:
        """Return a function that returns the id of the run or group that a name is meant for, as `one_run_id` does."""

    async def unfinished(self) -> Sequence[RunStatus]:
        """List the runs that have not ended, with their places in the queue."""

    async def status(self, run_id: str) -> RunStatus:
        """Return the status of a run; raises RUN_NOT_FOUND, as all methods do."""

    def follow(self, run_id: str) -> AsyncGenerator[RunStatus, None]:
        """Yield the status of a run until it has ended."""

    async def saved_step(self, status: RunStatus) -> int | None:
        """Return the step that a failed or cancelled run would resume from."""

    async def cancel(self, run_id: str) -> RunStatus:
        """Request the end of a run and return its status; raises RUN_FINISHED for a run that has ended."""

    async def delete(self, run_id: str) -> None:
        """Delete a run that has ended, with its files; raises CONFLICT if an experiment or another run needs it."""

    async def completed_manifest(self, run_id: str) -> RunManifest:
        """Return the manifest of a completed run; raises RUN_NOT_READY."""

    async def check_model(self, name: str) -> None:
        """Raise an error if a run has no model of this name: that of its end, or of a checkpoint."""

    async def effective(self, name: str) -> EffectiveRequest:
        """Return the resolved request that a model was trained with; raises as `check_model` does."""

    async def experiment_file(self, run_id: str) -> str:
        """Return the request of a run as an experiment file."""

    async def files(self, name: str) -> RunFiles:
        """List the files of a run, or of one of its checkpoints."""

    async def evaluation(self, run_id: str) -> EvalMetrics:
        """Return the latest evaluation of a run; raises EVAL_NOT_FOUND."""

    def log_lines(self, run_id: str, tail: int, *, follow: bool) -> AsyncGenerator[str, None]:
        """Yield the last lines of a run's log as stored, and with `follow` each new line until the run has ended."""

    async def last_lines(self, run_id: str) -> Sequence[str]:
        """Return the last lines of the error output of a run whose process ended without an error of its own."""

    async def verification(self, run_id: str) -> Verification:
        """Check every file of a run against its recorded hash."""

    async def workers(self, order: WorkerOrder | None = None) -> WorkersState:
        """Give an order to the workers, if there is one, and return them; raises SERVICE_UNAVAILABLE."""

    async def corpora(self) -> CorpusList:
        """List the corpora by name."""

    async def add_corpus(
        self,
        path: Path,
        name: str,
        *,
        language: str | None = None,
        is_ipa: bool | None = None,
        progress: UploadProgress | None = None,
    ) -> CorpusOverview:
        """Store a file or a folder as a corpus; raises CONFLICT for the name of another corpus."""

    async def job_id(self, kind: JobKindName | Literal["tokenizers"], given: str) -> str:
        """Return the id of the experiment, battery or tokenizer that a name is meant for, as `one_job_id` does."""

    async def tokenizers(self) -> TokenizerList:
        """List tokenizers, newest first."""

    async def tokenizer(self, tokenizer_id: str) -> TokenizerStatus:
        """Return the status of a tokenizer; raises TOKENIZER_NOT_FOUND."""

    def follow_tokenizer(self, tokenizer_id: str) -> AsyncGenerator[TokenizerStatus, None]:
        """Yield the status of a tokenizer until its training has ended."""


class Inference(Protocol):
    """Inference on models by their names, which needs a worker."""

    async def ask(self, model: str, request: Asks[ResponseT], *, is_kept: bool = True) -> ResponseT:
        """Submit a request and wait for its result; `is_kept=False` deletes the stored result afterwards."""

    def stream(self, model: str, request: AsksForStream[ResponseT]) -> AsyncGenerator[GenerateChunk | ResponseT, None]:
        """Yield chunks of the continuations, then the complete response."""


def settings_for(service: str = "model-trainer", *, level: Literal["INFO", "CRITICAL"] = "CRITICAL") -> Settings:
    """Load the settings of a command that manages one machine; raises CONFIG_INVALID if MT_URL is set."""
    settings = settings_for_any(service, level=level)
    if settings.client.url is not None:
        raise AppError(
            ErrorCode.CONFIG_INVALID,
            "This command does not work on the server of MT_URL: run it there, or unset MT_URL to run it here.",
        )
    return settings


def settings_for_here(terminal: Terminal, service: str = "model-trainer") -> Settings:
    """Load the settings of a command that works on this machine also if MT_URL is set, and say so then."""
    settings = settings_for_any(service)
    if settings.client.url is not None:
        terminal.note("mt: This command works on this machine, not on the server of MT_URL.")
    return changed(settings, client=ClientSettings())


def settings_for_any(service: str = "model-trainer", *, level: Literal["INFO", "CRITICAL"] = "CRITICAL") -> Settings:
    """Load the settings and send logs to standard error, at this level unless LOGGING__LEVEL sets another.

    A command reports by itself, so its log and that of a worker that it starts are shown only on request.
    """
    settings = load_settings()
    if settings.logging.level is None:
        settings = changed(settings, logging=changed(settings.logging, level=level))
    setup_logging(settings, service, sys.stderr)
    return settings


def command_here(settings: Settings, words: str) -> str:
    """Return a command as people type it to work on this machine."""
    return f"mt {words}" if settings.client.url is None else f"MT_URL= mt {words}"


def note_new_place(settings: Settings, terminal: Terminal) -> None:
    """Say, before the first job of a user, where data is kept."""
    if (place := settings.app.new_place()) is not None:
        terminal.note(f"mt: {place}")


def full_run_id(given: str, *, or_group: bool = False, or_checkpoint: bool = False) -> str:
    """Return the id that a name is meant for, as `one_run_id` does, on the server of MT_URL or on this machine."""
    settings = settings_for_any()
    if settings.client.url is not None:
        return with_server(
            settings, lambda server: server.full_run_id(given, or_group=or_group, or_checkpoint=or_checkpoint)
        )
    from trainer.artifacts import replication

    return replication.full_run_id(settings, given, or_group=or_group, or_checkpoint=or_checkpoint)


def full_model_name(given: str) -> str:
    """Return the name of a run or a checkpoint, as `RUN@1200`, with the complete id of its run."""
    return full_run_id(given, or_checkpoint=True)


def run_or_group_id(given: str) -> str:
    """Return the id of the run or the group of runs that a name is meant for."""
    return full_run_id(given, or_group=True)


def compared_name(given: str) -> str:
    """Return the name of a run, a group of runs or a checkpoint, with its complete id."""
    return full_run_id(given, or_group=True, or_checkpoint=True)


def full_job_id(kind: JobKindName | Literal["tokenizers"]) -> Callable[[str], str]:
    """Return a function that returns the id of the job of a kind that a name is meant for."""

    def full_id(given: str) -> str:
        return with_installation(settings_for_any(), lambda installation: installation.job_id(kind, given))

    return full_id


def local_run_id(given: str) -> str:
    """Return the id of the run of this machine that a name is meant for; raises CONFIG_INVALID if MT_URL is set."""
    settings = settings_for()
    from trainer.artifacts import replication

    return replication.full_run_id(settings, given)


def with_queue(settings: Settings, terminal: Terminal, command: Callable[[JobQueue], Awaitable[int]]) -> int:
    """Run a command with a connected queue, and meanwhile the services that do not run yet."""
    from trainer.commands.this_machine import ThisMachine, connected
    from trainer.services.embedded import Services

    note_new_place(settings, terminal)

    async def connected_command() -> int:
        services = Services(settings)
        url = await services.start()
        try:
            async with connected(settings, url) as queue, _publishing_version(queue):
                try:
                    return await command(queue)
                except asyncio.CancelledError:
                    if terminal.queued is not None:
                        await _interrupt(terminal.queued, ThisMachine(settings, queue), queue, services, terminal)
                    raise
        finally:
            await services.stop()

    return _run(connected_command())


async def _interrupt(
    queued: Queued, installation: Installation, queue: JobQueue, services: Services, terminal: Terminal
) -> None:
    """Pause the runs of an interrupted command whose worker ends with it; leave other jobs to the next worker."""
    name = queued.name
    resume = f"mt resume {await hint_name(name, queued.label, installation)}"
    follow = "Follow it with the same command." if queued.is_job else f"Follow it with: {resume}"
    if not services.has_own_worker and await queue.workers.exist():
        terminal.interruption = f"{name} continues without this terminal. {follow}"
        return
    terminal.interruption = f"{name} stays in the queue for the next worker. {follow}"
    if not services.has_own_worker or queued.is_job or not terminal.pauses:
        return
    await _pause(queued, queue)  # before their worker ends, so that no other one starts them
    terminal.interruption = f"{name} is paused. Continue with: {resume}"
    await services.stop_worker()
    await _pause(queued, queue)  # if a process was killed before it had written the pause


async def _pause(queued: Queued, queue: JobQueue) -> None:
    for run_id in queued.run_ids:
        await queue.states.pause(run_id)


async def hint_name(name: str, label: str | None, installation: Installation) -> str:
    """Return the shortest name of a run, a group or a checkpoint for a command that a person types next."""
    from trainer.artifacts.run_ids import short_name

    async def find(given: str) -> str:
        return await (await installation.run_finder())(given)

    return await short_name(name, label, find)


async def run_or_group(installation: Installation, name: str) -> RunStatus | GroupStatus:
    """Return the status of a run, or of a group of runs; raises RUN_NOT_FOUND."""
    try:
        return await installation.status(name)
    except AppError as error:
        if error.code is not ErrorCode.RUN_NOT_FOUND:
            raise
    return await installation.group(name)


def with_server(settings: Settings, command: Callable[[Server], Awaitable[T]]) -> T:
    """Run a command on the server of MT_URL."""
    from trainer.client.server import Server

    async def connected_command() -> T:
        server = Server(settings.client)
        try:
            return await command(server)
        finally:
            await server.close()

    return _run(connected_command())


async def accepted_by_server(
    accepting: Coroutine[object, object, T], terminal: Terminal, interruption: Callable[[T], str]
) -> T:
    """Wait until a server has accepted a job; an interruption waits, too, and then says how to follow the job."""
    task = asyncio.ensure_future(accepting)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        terminal.interruption = interruption(await task)
        raise


def job_continues(word: str, job_id: str) -> str:
    """Say how to follow an experiment or a battery that a server has accepted."""
    return f"{job_id} continues on the server. Follow it with the same command, or: mt {word} show {job_id}"


def with_installation(settings: Settings, command: Callable[[Installation], Awaitable[T]]) -> T:
    """Run a command on the server of MT_URL, else on this machine's installation, starting nothing."""
    if settings.client.url is not None:
        return with_server(settings, command)
    from trainer.commands.this_machine import ThisMachine

    async def run() -> T:
        return await command(ThisMachine(settings))

    return asyncio.run(run())


def with_inference(settings: Settings, terminal: Terminal, command: Callable[[Inference], Awaitable[int]]) -> int:
    """Run a command that sends requests to models, on the server of MT_URL or with this machine's services.

    A person who waits for longer than a second reads why.
    """

    async def noting(inference: Inference, installation: Installation) -> int:
        async with noting_wait(installation, terminal, "Loading the model …"):
            return await command(inference)

    if settings.client.url is not None:
        return with_server(settings, lambda server: noting(server.inference, server))
    from trainer.commands.this_machine import ThisMachine

    return with_queue(settings, terminal, lambda queue: noting(queue.inference, ThisMachine(settings, queue)))


@contextlib.asynccontextmanager
async def noting_wait(installation: Installation, terminal: Terminal, waits_for: str = "") -> AsyncIterator[None]:
    """Say, after a second in the block, that no worker is running, or else what a person waits for."""

    async def note() -> None:
        await asyncio.sleep(_SILENT_SECONDS)
        with contextlib.suppress(AppError):  # the block waits for the same server, and raises its error
            state = await installation.workers()
            if not (state.workers or state.is_starting):
                terminal.note_once(f"mt: {WAIT_MESSAGES['worker']}")
                return
        if waits_for:
            terminal.note_if_silent(waits_for)

    noting = asyncio.create_task(note())
    try:
        yield
    finally:
        noting.cancel()
        await asyncio.wait([noting])


def with_model(
    name: str, settings: Settings, terminal: Terminal, command: Callable[[Inference], Awaitable[int]]
) -> int:
    """Run a command that uses a model; raises AppError, having started nothing, where a run has no such model."""
    with_installation(settings, lambda installation: installation.check_model(name))
    return with_inference(settings, terminal, command)


@contextlib.asynccontextmanager
async def _publishing_version(queue: JobQueue) -> AsyncIterator[None]:
    """Publish the version of a command that queues jobs, unless a bot of another version runs."""
    publishing = asyncio.create_task(queue.workers.publish_version(replaces=False))
    try:
        yield
    finally:
        publishing.cancel()
        await asyncio.wait([publishing])


def _run(command: Coroutine[object, object, T]) -> T:
    """Run a coroutine, which SIGTERM cancels as Ctrl-C does."""

    async def run() -> T:
        task = asyncio.create_task(command)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: task.cancel())
        return await task

    return asyncio.run(run())
