"""Error codes with their class and HTTP status, and the forms of an error.

AppError
    exception of every foreseen failure, with a code and one sentence for people
ErrorBody
    {code, message, request_id}: an error as `--json` and HTTP show it
RunError
    {code, class, message}: an error as a failed run stores it
"""

import errno
import secrets
from enum import StrEnum
from typing import NamedTuple

from pydantic import Field

from trainer.contracts.base import Frozen


class ErrorClass(StrEnum):
    USER_INPUT = "USER_INPUT"
    """The request is wrong; a retry does not help."""
    TRANSIENT = "TRANSIENT"
    """The environment failed; a retry may help."""
    FATAL = "FATAL"
    """The run or the program failed; a retry does not help."""


class ErrorCode(StrEnum):
    INVALID_INPUT = "INVALID_INPUT"
    FORBIDDEN = "FORBIDDEN"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    INSUFFICIENT_STORAGE = "INSUFFICIENT_STORAGE"
    CONFIG_INVALID = "CONFIG_INVALID"
    DATA_NOT_FOUND = "DATA_NOT_FOUND"
    CORPUS_EMPTY = "CORPUS_EMPTY"
    CORPUS_TOO_SHORT = "CORPUS_TOO_SHORT"
    CONFLICT = "CONFLICT"
    TOKENIZER_NOT_FOUND = "TOKENIZER_NOT_FOUND"
    TOKENIZER_TRAIN_FAILED = "TOKENIZER_TRAIN_FAILED"
    TOKENIZER_LOAD_FAILED = "TOKENIZER_LOAD_FAILED"
    UNSUPPORTED_BACKEND = "UNSUPPORTED_BACKEND"
    INVALID_MODEL_SIZE = "INVALID_MODEL_SIZE"
    MODEL_INCOMPATIBLE = "MODEL_INCOMPATIBLE"
    MODEL_LOAD_FAILED = "MODEL_LOAD_FAILED"
    MODEL_TRAIN_FAILED = "MODEL_TRAIN_FAILED"
    RUN_NOT_FOUND = "RUN_NOT_FOUND"
    RUN_NOT_READY = "RUN_NOT_READY"
    RUN_FINISHED = "RUN_FINISHED"
    EVAL_NOT_FOUND = "EVAL_NOT_FOUND"
    CUDA_NOT_AVAILABLE = "CUDA_NOT_AVAILABLE"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    TRAINING_NAN_LOSS = "TRAINING_NAN_LOSS"
    CRASH_LOOP = "CRASH_LOOP"
    CANCELLED = "CANCELLED"
    CHECKPOINT_CORRUPT = "CHECKPOINT_CORRUPT"

    @property
    def error_class(self) -> ErrorClass:
        return _KINDS[self].error_class

    @property
    def http_status(self) -> int:
        return _KINDS[self].http_status


class _Kind(NamedTuple):
    error_class: ErrorClass
    http_status: int


_USER, _TRANSIENT, _FATAL = ErrorClass.USER_INPUT, ErrorClass.TRANSIENT, ErrorClass.FATAL
_KINDS = {
    ErrorCode.INVALID_INPUT: _Kind(_USER, 422),
    ErrorCode.FORBIDDEN: _Kind(_USER, 403),
    ErrorCode.PAYLOAD_TOO_LARGE: _Kind(_USER, 413),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: _Kind(_USER, 415),
    ErrorCode.RATE_LIMIT_EXCEEDED: _Kind(_TRANSIENT, 429),
    ErrorCode.INTERNAL_ERROR: _Kind(_FATAL, 500),
    ErrorCode.SERVICE_UNAVAILABLE: _Kind(_TRANSIENT, 503),
    ErrorCode.INSUFFICIENT_STORAGE: _Kind(_TRANSIENT, 507),
    ErrorCode.CONFIG_INVALID: _Kind(_USER, 422),
    ErrorCode.DATA_NOT_FOUND: _Kind(_USER, 404),
    ErrorCode.CORPUS_EMPTY: _Kind(_USER, 422),
    ErrorCode.CORPUS_TOO_SHORT: _Kind(_USER, 422),
    ErrorCode.CONFLICT: _Kind(_USER, 409),
    ErrorCode.TOKENIZER_NOT_FOUND: _Kind(_USER, 404),
    ErrorCode.TOKENIZER_TRAIN_FAILED: _Kind(_FATAL, 500),
    ErrorCode.TOKENIZER_LOAD_FAILED: _Kind(_FATAL, 500),
    ErrorCode.UNSUPPORTED_BACKEND: _Kind(_USER, 422),
    ErrorCode.INVALID_MODEL_SIZE: _Kind(_USER, 422),
    ErrorCode.MODEL_INCOMPATIBLE: _Kind(_USER, 422),
    ErrorCode.MODEL_LOAD_FAILED: _Kind(_FATAL, 500),
    ErrorCode.MODEL_TRAIN_FAILED: _Kind(_FATAL, 500),
    ErrorCode.RUN_NOT_FOUND: _Kind(_USER, 404),
    ErrorCode.RUN_NOT_READY: _Kind(_USER, 409),
    ErrorCode.RUN_FINISHED: _Kind(_USER, 409),
    ErrorCode.EVAL_NOT_FOUND: _Kind(_USER, 404),
    ErrorCode.CUDA_NOT_AVAILABLE: _Kind(_USER, 422),
    ErrorCode.OUT_OF_MEMORY: _Kind(_FATAL, 500),
    ErrorCode.TRAINING_NAN_LOSS: _Kind(_FATAL, 500),
    ErrorCode.CRASH_LOOP: _Kind(_FATAL, 500),
    ErrorCode.CANCELLED: _Kind(_USER, 409),
    ErrorCode.CHECKPOINT_CORRUPT: _Kind(_FATAL, 500),
}


class FieldProblem(Frozen):
    """A wrong field: its path, the given value, the allowed values, and a message."""

    path: str
    message: str
    value: str | None = None
    """The given value; None if absent or too long to show."""
    allowed: str | None = None


class AppError(Exception):
    """A foreseen failure with a typed code and one sentence for people."""

    def __init__(self, code: ErrorCode, message: str, details: tuple[FieldProblem, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


def transient_code(error: Exception) -> ErrorCode | None:
    """Return the code of a failure of the environment, after which a retry may help; None for others."""
    if isinstance(error, AppError):
        return error.code if error.code.error_class is ErrorClass.TRANSIENT else None
    number = error.errno if isinstance(error, OSError) else None
    if number in _DISK_FULL:
        return ErrorCode.INSUFFICIENT_STORAGE
    return ErrorCode.SERVICE_UNAVAILABLE if number in _DISK_FAILS else None


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_FAILS = (errno.EIO, errno.EROFS, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY, errno.EMFILE, errno.ENFILE)


FAILS_AGAIN = (ErrorCode.TRAINING_NAN_LOSS, ErrorCode.INVALID_INPUT, ErrorCode.CORPUS_TOO_SHORT)
"""Errors that a resumed run would meet again."""


class RunError(Frozen):
    """The error of a failed run, as stored in manifest, status and events."""

    code: ErrorCode
    error_class: ErrorClass = Field(alias="class")
    message: str

    @classmethod
    def of(cls, error: AppError) -> "RunError":
        return cls(code=error.code, error_class=error.code.error_class, message=error.message)


class ErrorBody(Frozen):
    """An error as shown by `--json`, HTTP and (as an embed) the bot."""

    code: ErrorCode
    message: str
    request_id: str
    details: tuple[FieldProblem, ...] = ()

    @classmethod
    def of(cls, error: AppError, request_id: str) -> "ErrorBody":
        return cls(code=error.code, message=error.message, request_id=request_id, details=error.details)


def new_request_id() -> str:
    """Return eight random hex digits that link a message to a line of the log."""
    return secrets.token_hex(4)
