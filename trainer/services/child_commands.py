"""Commands of `mt` in child processes, for work that imports torch."""

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from typing import NamedTuple

from trainer.config.settings import Settings
from trainer.config.validation import parse_json
from trainer.contracts.errors import AppError, ErrorBody, ErrorCode
from trainer.services.embedded import die_with_parent, end
from trainer.system.child_environment import tuned_environment
from trainer.system.python import python_command


class CommandResult(NamedTuple):
    """The result of a command that prints JSON."""

    exit_code: int | None
    output: bytes

    def error(self, failure: str) -> AppError:
        """Return the error that the command has printed; SERVICE_UNAVAILABLE with this message if it was killed."""
        try:
            body = parse_json(ErrorBody, self.output)
        except AppError:
            return AppError(ErrorCode.SERVICE_UNAVAILABLE, failure)
        return AppError(body.code, body.message, body.details)


async def run_command(words: Sequence[str], settings: Settings, seconds: float, failure: str) -> CommandResult:
    """Run a command of `mt` with `--json`; raises SERVICE_UNAVAILABLE with the message `failure` after `seconds`."""
    child = await asyncio.create_subprocess_exec(
        *(*die_with_parent(), *python_command("-m", "trainer", *words, "--json")),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=DEVNULL,
        env=tuned_environment(settings),
    )
    try:
        async with asyncio.timeout(seconds):
            output, _ = await child.communicate()
    except (asyncio.CancelledError, TimeoutError) as error:
        await end(child, 2.0)
        if isinstance(error, TimeoutError):
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, failure) from None
        raise
    return CommandResult(child.returncode, output)
