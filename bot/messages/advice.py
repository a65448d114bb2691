"""Advice after a failed run: what to try next, in commands of the chat."""

from bot.messages.text import count
from trainer.contracts.errors import FAILS_AGAIN, ErrorCode
from trainer.contracts.runs import RunStatus
from trainer.lab.language import _, numeral

_RETRYABLE = (ErrorCode.CRASH_LOOP, ErrorCode.MODEL_TRAIN_FAILED, ErrorCode.CHECKPOINT_CORRUPT)
_DISK = (ErrorCode.INSUFFICIENT_STORAGE, ErrorCode.SERVICE_UNAVAILABLE)
CHANGES = {
    ErrorCode.CORPUS_EMPTY: "another text",
    ErrorCode.INVALID_INPUT: "other settings",
    ErrorCode.CUDA_NOT_AVAILABLE: "`device: cpu` in the `config` file",
}
"""Changes of a request that failed by its own fault."""


def advice(status: RunStatus) -> str:
    """Return what a failed run's owner can try."""
    code = None if status.error is None else status.error.code
    if code in CHANGES:
        return _("Try: `/mt train` with {change}.", change=_(CHANGES[code]))
    if code is ErrorCode.TRAINING_NAN_LOSS:
        if status.learning_rate is None:
            return _("Try: `/mt train` with a smaller `learning_rate`.")
        rate = numeral(status.learning_rate, ".2g")
        return _("Try: `/mt train` with a smaller `learning_rate` than {rate}.", rate=rate)
    if code is ErrorCode.OUT_OF_MEMORY:
        batch = retry_batch(status)
        if batch is None:
            return _("Try: `/mt train` with `size:tiny`.")
        before = count(status.batch_size or 0)
        return _(
            "Try: `/mt train` with `batch_size:{batch}` instead of {before}, or `size:tiny`.",
            batch=batch,
            before=before,
        )
    if not can_resume(status):
        return _("Try: `/mt logs run:{run_id}`, then `/mt train`.", run_id=status.run_id)
    if code in _DISK:
        return _(
            "Try: `/mt resume run:{run_id}` when the disk works again; it continues from the last checkpoint.",
            run_id=status.run_id,
        )
    return _("Try: `/mt resume run:{run_id}`; it continues from the last checkpoint.", run_id=status.run_id)


def can_resume(status: RunStatus) -> bool:
    """Return whether an ended run has a checkpoint from which it would not fail in the same way again."""
    fails_again = status.error is not None and status.error.code in FAILS_AGAIN
    return status.last_checkpoint_step is not None and not fails_again


def can_retry(status: RunStatus) -> bool:
    """Return whether the same request, or after OUT_OF_MEMORY one with half the batch, could succeed."""
    code = None if status.error is None else status.error.code
    return code is None or code in (*_RETRYABLE, *_DISK) or retry_batch(status) is not None


def retry_batch(status: RunStatus) -> int | None:
    """Return half the batch size of a run that ran out of memory; None for another run, or one with batch size 1."""
    is_too_large = status.error is not None and status.error.code is ErrorCode.OUT_OF_MEMORY
    return status.batch_size // 2 if is_too_large and status.batch_size and status.batch_size > 1 else None
