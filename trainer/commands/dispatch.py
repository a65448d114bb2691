"""Runs one command of `mt` and reports its errors."""

import asyncio
import gc
from collections.abc import Sequence

from trainer.commands.arguments import MtParser
from trainer.commands.terminal import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USER, Terminal
from trainer.config.settings import load_settings
from trainer.contracts.errors import AppError, ErrorBody, ErrorClass, ErrorCode, new_request_id
from trainer.system.files import BrokenFile, to_app_error


def run_command(words: Sequence[str]) -> int:
    """Run the command that these words begin with; return its exit code, as `trainer.commands.main.main` does."""
    terminal = Terminal(as_json="--json" in words)
    try:
        parser = MtParser(words[0])  # imports the modules of the command
        gc.enable()
        return parser.commands.run(words, terminal)
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
