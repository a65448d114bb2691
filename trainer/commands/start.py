"""`mt demo`, `mt up`, `mt worker` and `mt completion`."""

import argparse
import asyncio
import os
import re

import shtab

from trainer.commands.arguments import Argument, Commands, MtParser, Options, flag, option
from trainer.commands.connection import note_new_place, settings_for, settings_for_here
from trainer.commands.terminal import Terminal
from trainer.config.validation import safe_name
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.installation import require_extras
from trainer.system.files import check_writable, is_read_only
from trainer.system.hardware import raise_descriptor_limit
from trainer.system.python import python_command
from trainer.worker.child_process import child_server

_SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")


_DURATION = re.compile(r"([1-9][0-9]{0,5})([smh])", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}


def duration_seconds(text: str) -> float:
    """Return the seconds of a duration such as 90s, 10m or 1h."""
    found = _DURATION.fullmatch(text)
    if found is None:
        reason = f"`--until-idle` must be a duration such as 90s, 10m or 1h, you gave '{safe_name(text)}'."
        raise AppError(ErrorCode.INVALID_INPUT, reason)
    return float(found[1]) * _UNIT_SECONDS[found[2]]


class _WorkerOptions(Options):
    embedded = flag("--embedded", argparse.SUPPRESS)
    until_idle = option(
        "--until-idle DURATION", duration_seconds, "end after this time without a job, such as 10m; for batch systems"
    )


class _UpOptions(Options):
    no_discord = flag("--no-discord", "run the HTTP API and its page without Discord")
    port = option("--port PORT", str, "port of the HTTP API and its page, in place of HTTP__PORT; 0: any free one")


class _CompletionOptions(Options):
    shell = Argument[str]("", choices=_SHELLS, help="shell to complete in")


def add_to(commands: Commands) -> None:
    commands.add("demo", Options, _demo, with_json=False)
    commands.add("up", _UpOptions, _up, with_json=False)
    commands.add("worker", _WorkerOptions, _work, with_json=False)
    commands.add("completion", _CompletionOptions, _complete, with_json=False)


def _complete(options: _CompletionOptions, terminal: Terminal) -> int:
    terminal.line(shtab.complete(MtParser(), options.shell))
    return 0


def _demo(options: Options, terminal: Terminal) -> int:
    settings_for_here(terminal)
    require_extras("train", "discord")
    return _replace_process("local_discord.demo")


def _up(options: _UpOptions, terminal: Terminal) -> int:
    if options.port is not None:
        os.environ["HTTP__PORT"] = options.port
    settings = settings_for()
    workers = ["train"] if settings.queue.embedded_workers else []
    require_extras("server", *([] if options.no_discord else ["discord"]), *workers)
    note_new_place(settings, terminal)
    return _replace_process("bot", *(["--no-discord"] if options.no_discord else []))


def _replace_process(module: str, *words: str) -> int:
    program, *options = python_command("-m", module, *words)
    os.execv(program, [program, *options])


def _work(options: _WorkerOptions, terminal: Terminal) -> int:
    settings = settings_for("model-trainer-worker", level="INFO")
    require_extras("train")
    raise_descriptor_limit()
    answers_only = is_read_only(settings.app.artifacts_root)
    check_writable(settings.app.corpus_cache)
    with child_server(settings):
        pass  # it runs from now on, and loads torch while this process loads the rest
    from trainer.services.embedded import Services
    from trainer.worker.process import run_worker

    async def work() -> int:
        services = Services(changed(settings, queue=changed(settings.queue, embedded_workers=0)))
        url = await services.start()
        try:
            return await run_worker(
                settings, url, embedded=options.embedded, idle_seconds=options.until_idle, answers_only=answers_only
            )
        finally:
            await services.stop()

    return asyncio.run(work())
