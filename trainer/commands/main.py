"""The `mt` command: train, ask and serve from a terminal, by the same queue that the bot uses."""

import asyncio
import sys
from collections.abc import Sequence

from trainer.commands import (
    benchmarks,
    comparison,
    corpora,
    diagnosis,
    export,
    files,
    inference,
    processes,
    regimen,
    runs,
    scores,
    tokenizers,
    training,
)
from trainer.commands.arguments import Arguments, Commands, Parser
from trainer.commands.terminal import Terminal
from trainer.config.settings import load_settings
from trainer.contracts.errors import AppError, ErrorBody, ErrorClass, ErrorCode, new_request_id
from trainer.system.files import BrokenFile, told_error

EXIT_FAILED, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 130
_COMMANDS = (
    processes,
    training,
    regimen,
    files,
    corpora,
    tokenizers,
    runs,
    scores,
    inference,
    comparison,
    export,
    benchmarks,
    diagnosis,
)
"""In the order of `mt --help`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    terminal = Terminal(as_json="--json" in words)
    try:
        parser, commands = _parser()
        arguments = commands.parse(words) or parser.parse_args(words, namespace=Arguments())
        return arguments.do(arguments, terminal)
    except (AppError, OSError) as error:
        told = error if isinstance(error, AppError) else told_error(error, load_settings().app.folders())
        terminal.error(ErrorBody.of(told, new_request_id()))
        return EXIT_USER if told.code.error_class is ErrorClass.USER_INPUT else EXIT_FAILED
    except BrokenFile as error:
        terminal.error(ErrorBody.of(AppError(ErrorCode.INTERNAL_ERROR, str(error)), new_request_id()))
        return EXIT_FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        terminal.note("Interrupted. What was under way is kept: it goes on as soon as a worker runs.")
        return EXIT_INTERRUPTED


def _parser() -> tuple[Parser, Commands]:
    parser = Parser(prog="mt", description="Train small language models and ask them.")
    commands = Commands(parser)
    for module in _COMMANDS:
        module.add_to(commands)
    return parser, commands
