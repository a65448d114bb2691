"""Trains a tokenizer in a child process, and decides what the child's death means."""

import structlog
from arq import Retry

from trainer.artifacts.tokenizers import TokenizerDirectory
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.store.store import Store
from trainer.system.child_environment import TOKENIZER_CHILD, tuned_environment
from trainer.system.hardware import default_threads
from trainer.worker.attempts import LOCKED_EXIT_CODE, RETRY_SECONDS
from trainer.worker.supervisor import run_child

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_ATTEMPTS = 3


async def supervise_tokenizer(tokenizer: TokenizerDirectory, settings: Settings, store: Store) -> None:
    """Try until the tokenizer has ended, which it has after three crashes in a row (R4).

    Raises arq's Retry where another child is at it.
    """
    threads = tokenizer.record().request.threads or default_threads()
    environment = tuned_environment(settings) | {"RAYON_NUM_THREADS": str(threads)}
    about = log.bind(tokenizer_id=tokenizer.tokenizer_id)
    for _ in range(_ATTEMPTS):
        child = await run_child(TOKENIZER_CHILD, tokenizer.tokenizer_id, environment, settings, store, about)
        if not tokenizer.is_unfinished():
            return
        if child.exit_code == LOCKED_EXIT_CODE:
            raise Retry(defer=RETRY_SECONDS)
        last_lines = "".join(child.last_lines)
        about.error("tokenizer child failed", exit_code=child.exit_code, reason=child.cause, last_lines=last_lines)
    tokenizer.fail(
        AppError(
            ErrorCode.TOKENIZER_TRAIN_FAILED,
            f"The training of the tokenizer crashed {_ATTEMPTS} times; its last lines are in the worker's log.",
        )
    )
