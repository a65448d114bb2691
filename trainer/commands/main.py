"""The `mt` command: train and use models from a terminal, by the same queue as the bot."""

import asyncio
import sys
from collections.abc import Sequence

import shtab

from trainer.commands import (
    benchmarks,
    comparison,
    corpora,
    doctor,
    export,
    files,
    inference,
    processes,
    runs,
    scores,
    tokenizers,
    training,
    transfer,
)
from trainer.commands.arguments import Argument, Commands, Options, Parser
from trainer.commands.terminal import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USER, Terminal
from trainer.config.settings import load_settings
from trainer.contracts.errors import AppError, ErrorBody, ErrorClass, ErrorCode, new_request_id
from trainer.system.files import BrokenFile, to_app_error

_MODULES = (
    processes,
    training,
    transfer,
    benchmarks,
    doctor,
    runs,
    comparison,
    files,
    scores,
    inference,
    export,
    corpora,
    tokenizers,
)
_DESCRIPTION = "Train small language models and use them. `mt COMMAND --help` lists the options of a command."
_SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")


class _CompletionOptions(Options):
    shell = Argument[str]("", choices=_SHELLS, help="shell to complete in")


class MtParser(Parser):
    """The parser of `mt` itself; its help lists all commands by section."""

    def __init__(self) -> None:
        super().__init__(prog="mt")
        self.commands = Commands(self)
        for module in _MODULES:
            module.add_to(self.commands)
        about, example = "print the script for shell completion", 'eval "$(mt completion bash)"'
        self.commands.add(
            "completion", "Start", _CompletionOptions, self._print_completion, about, example, with_json=False
        )

    def format_help(self) -> str:
        return f"usage: mt COMMAND [options]\n\n{_DESCRIPTION}\n{self.commands.overview()}\n"

    def _print_completion(self, options: _CompletionOptions, terminal: Terminal) -> int:
        terminal.line(shtab.complete(self, options.shell))
        return 0


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
