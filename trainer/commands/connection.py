"""Surroundings of a command: settings, the installation that it works on, and the services behind it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from trainer.commands.terminal import Queued, Terminal
from trainer.config.settings import ClientSettings, Settings, load_settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import Accepted
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.system.logs import setup_logging
from trainer.system.signals import WARNINGS

if TYPE_CHECKING:  # a command waits only for the imports that it needs: redis, or the HTTP client
    from trainer.client.remote import Remote
    from trainer.contracts.groups import GroupStatus
    from trainer.contracts.runs import RunManifest, RunStatus
    from trainer.lab.here import Here
    from trainer.queue.queue import JobQueue

Installation: TypeAlias = "Here | Remote"
"""The installation that a command works on: this machine's, or that of the server of MT_URL."""

_SILENT_SECONDS = 1.0
"""After so long without an answer a person reads what a command waits for."""
T = TypeVar("T")
InstallationT = TypeVar("InstallationT", bound="Here | Remote")


def settings_for(service: str = "model-trainer", *, level: Literal["INFO", "CRITICAL"] = "CRITICAL") -> Settings:
    """Load the settings of a command that manages one machine; raises CONFIG_INVALID if MT_URL is set."""
    settings = settings_for_any(service, level=level)
    if settings.client.url is not None:
        raise AppError(
            ErrorCode.CONFIG_INVALID,
            "This command does not work on the server of MT_URL: run it there, or unset MT_URL to run it here.",
        )
    return settings


def settings_for_here(terminal: Terminal) -> Settings:
    """Load the settings of a command that works on this machine also if MT_URL is set, and say so then."""
    settings = settings_for_any()
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
    return with_installation(
        settings_for_any(),
        lambda installation: installation.full_run_id(given, or_group=or_group, or_checkpoint=or_checkpoint),
    )


full_model_name = partial(full_run_id, or_checkpoint=True)
"""Returns the name of a run or a checkpoint, as `RUN@1200`, with the complete id of its run."""


def with_installation(settings: Settings, command: Callable[[Installation], Awaitable[T]]) -> T:
    """Run a command on the server of MT_URL, else on this machine's installation, starting nothing."""
    if settings.client.url is not None:
        return with_server(settings, command)
    from trainer.lab.here import Here

    return asyncio.run(_on(Here(settings), command))  # in any thread, without a handler of signals


def with_services(settings: Settings, terminal: Terminal, command: Callable[[Installation], Awaitable[T]]) -> T:
    """Run a command that starts a job or asks a model, on the server of MT_URL or here."""
    if settings.client.url is not None:
        return with_server(settings, command, terminal)
    return with_own_services(settings, terminal, command)


def with_server(settings: Settings, command: Callable[[Remote], Awaitable[T]], terminal: Terminal | None = None) -> T:
    """Run a command on the server of MT_URL."""
    from trainer.client.remote import Remote

    return _run(_on(Remote(settings.client), command, terminal))


def with_own_services(settings: Settings, terminal: Terminal, command: Callable[[Here], Awaitable[T]]) -> T:
    """Run a command on this machine's installation; services that do not run yet start when it needs them."""
    from trainer.lab.here import Here
    from trainer.services.embedded import Services

    note_new_place(settings, terminal)
    services = Services(settings, lambda problem: terminal.note_once(f"mt: {problem}"))
    return _run(_on(Here(settings, services), command, terminal))


def with_inference(settings: Settings, terminal: Terminal, command: Callable[[Installation], Awaitable[int]]) -> int:
    """Run a command that sends requests to models; a person who waits for longer than a second reads why."""

    async def noting(installation: Installation) -> int:
        async with noting_wait(installation, terminal, "Loading the model …"):
            return await command(installation)

    return with_services(settings, terminal, noting)


def with_model(
    name: str, settings: Settings, terminal: Terminal, command: Callable[[Installation], Awaitable[int]]
) -> int:
    """Run a command that uses a model; raises AppError, having started nothing, where a run has no such model."""
    with_installation(settings, lambda installation: installation.check_model(name))
    return with_inference(settings, terminal, command)


async def _on(
    installation: InstallationT,
    command: Callable[[InstallationT], Awaitable[T]],
    terminal: Terminal | None = None,
) -> T:
    try:
        return await command(installation)
    except asyncio.CancelledError:
        if terminal is not None and terminal.queued is not None:
            await _interrupt(terminal.queued, installation, terminal)
        raise
    finally:
        await installation.close()


def _run(command: Coroutine[object, object, T]) -> T:
    """Run a coroutine, which SIGTERM and the warnings of batch systems cancel as Ctrl-C does."""

    async def run() -> T:
        task = asyncio.create_task(command)
        for number in (signal.SIGTERM, *WARNINGS):
            asyncio.get_running_loop().add_signal_handler(number, lambda: task.cancel())
        return await task

    return asyncio.run(run())


async def accept(accepting: Coroutine[object, object, T], queued: Callable[[T], Queued], terminal: Terminal) -> T:
    """Wait until a job is accepted; an interruption waits, too, and then does with the job what it has to."""
    task = asyncio.ensure_future(accepting)
    try:
        await asyncio.shield(task)
    finally:
        accepted = await task
        terminal.queued = queued(accepted)
    return accepted


def queued_run(accepted: Accepted, label: str | None = None) -> Queued:
    """Return a run or a group that was accepted."""
    return Queued(accepted.name, label, accepted.run_ids)


async def _interrupt(queued: Queued, installation: Installation, terminal: Terminal) -> None:
    """Pause the runs of an interrupted command whose worker ends with it; leave other jobs to the next worker."""
    from trainer.lab.here import Here

    name = queued.name
    if not isinstance(installation, Here):
        resume = f": mt resume {await hint_name(name, queued.label, installation)}"
        again = f" the same command, or: mt {queued.word} show {name}" if queued.word else resume
        terminal.interruption = f"{name} continues on the server. Follow it with{again}"
        return
    queue = await installation.lab.live()
    resume = f"mt resume {await hint_name(name, queued.label, installation)}"
    follow = "Follow it with the same command." if queued.word else f"Follow it with: {resume}"
    services = installation.with_worker
    if services is None and await queue.workers.exist():
        terminal.interruption = f"{name} continues without this terminal. {follow}"
        return
    terminal.interruption = f"{name} stays in the queue for the next worker. {follow}"
    if services is None or queued.word or not terminal.pauses:
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
    from trainer.contracts.parameters import GroupPath, RunPath
    from trainer.lab.calls import GET_GROUP, GET_RUN

    try:
        return await installation.call(GET_RUN, RunPath(run_id=name))
    except AppError as error:
        if error.code is not ErrorCode.RUN_NOT_FOUND:
            raise
    return await installation.call(GET_GROUP, GroupPath(group_id=name))


async def completed_manifest(installation: Installation, run_id: str) -> RunManifest:
    """Return the manifest of a completed run; raises RUN_NOT_READY."""
    from trainer.contracts.parameters import RunPath
    from trainer.contracts.runs import check_completed
    from trainer.lab.calls import GET_MANIFEST

    manifest = await installation.call(GET_MANIFEST, RunPath(run_id=run_id))
    check_completed(manifest)
    return manifest


@contextlib.asynccontextmanager
async def noting_wait(installation: Installation, terminal: Terminal, waits_for: str = "") -> AsyncIterator[None]:
    """Say, after a second in the block, that no worker is running, or else what a person waits for."""
    from trainer.lab.calls import LIST_WORKERS

    async def note() -> None:
        await asyncio.sleep(_SILENT_SECONDS)
        with contextlib.suppress(AppError):  # the block waits for the same server, and raises its error
            state = await installation.call(LIST_WORKERS)
            absence = state.absence()
            if absence is not None:
                terminal.note_once(f"mt: {WAIT_MESSAGES[absence]}")
                return
        if waits_for:
            terminal.note_if_silent(waits_for)

    noting = asyncio.create_task(note())
    try:
        yield
    finally:
        noting.cancel()
        await asyncio.wait([noting])
