"""The `mt` command: train and use models from a terminal, by the same queue as the bot."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from functools import partial

import shtab

from trainer.commands import (
    benchmarks,
    comparison,
    corpora,
    doctor,
    export,
    inference,
    runs,
    scores,
    tokenizers,
    training,
    transfer,
)
from trainer.commands.arguments import Argument, Commands, Options, Parser, flag
from trainer.commands.connection import settings_for
from trainer.commands.terminal import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USER, Terminal
from trainer.config.settings import load_settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorBody, ErrorClass, ErrorCode, new_request_id
from trainer.jobs.services import Services
from trainer.system.files import BrokenFile, check_writable, to_app_error

_MODULES = (doctor, training, transfer, benchmarks, runs, comparison, scores, inference, export, corpora, tokenizers)
_DESCRIPTION = "Train small language models and use them. `mt COMMAND --help` lists the options of a command."
_SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")


class _WorkerOptions(Options):
    embedded = flag("--embedded", argparse.SUPPRESS)


class _CompletionOptions(Options):
    shell = Argument[str]("", choices=_SHELLS, help="shell to complete in")


class MtParser(Parser):
    """The parser of `mt` itself; its help lists all commands by section."""

    def __init__(self) -> None:
        super().__init__(prog="mt")
        self.commands = commands = Commands(self)
        demo, bot = partial(_replace_process, "local_discord.demo"), partial(_replace_process, "bot")
        about = "show the complete program on this machine, checked step by step"
        commands.add("demo", "Start", Options, demo, about, "mt demo", with_json=False)
        about = "start the Discord bot and its services"
        commands.add("up", "Start", Options, bot, about, "mt up", with_json=False)
        about = "start a worker, which trains queued runs and answers requests"
        commands.add("worker", "Start", _WorkerOptions, _work, about, "mt worker", with_json=False)
        for module in _MODULES:
            module.add_to(commands)
        about, example = "print the script for shell completion", 'eval "$(mt completion bash)"'
        commands.add("completion", "Start", _CompletionOptions, self._complete, about, example, with_json=False)

    def format_help(self) -> str:
        return f"usage: mt COMMAND [options]\n\n{_DESCRIPTION}\n{self.commands.overview()}\n"

    def _complete(self, options: _CompletionOptions, terminal: Terminal) -> int:
        terminal.line(shtab.complete(self, options.shell))
        return 0


def _replace_process(module: str, options: Options, terminal: Terminal) -> int:
    os.execv(sys.executable, [sys.executable, "-m", module])


def _work(options: _WorkerOptions, terminal: Terminal) -> int:
    from trainer.worker.process import run_worker

    settings = settings_for("model-trainer-worker", level="INFO")
    for folder in (settings.app.artifacts_root, settings.app.data_root / "corpus_cache"):
        check_writable(folder)

    async def work() -> int:
        services = Services(changed(settings, queue=changed(settings.queue, embedded_workers=0)))
        url = await services.start()
        try:
            return await run_worker(settings, url, embedded=options.embedded)
        finally:
            await services.stop()

    return asyncio.run(work())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    terminal = Terminal(as_json="--json" in words)
    try:
        return MtParser().commands.run(words, terminal)
    except (AppError, OSError) as error:
        known = error if isinstance(error, AppError) else to_app_error(error, load_settings().app.folders())
        terminal.error(ErrorBody.of(known, new_request_id()))
        return EXIT_USER if known.code.error_class is ErrorClass.USER_INPUT else EXIT_FAILED
    except BrokenFile as error:
        terminal.error(ErrorBody.of(AppError(ErrorCode.INTERNAL_ERROR, str(error)), new_request_id()))
        return EXIT_FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        terminal.interrupted()
        return EXIT_INTERRUPTED
