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
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from pydantic import Field

from trainer.contracts.base import Frozen, changed


class ErrorClass(StrEnum):
    USER_INPUT = "USER_INPUT"
    """The request is wrong; a retry does not help."""
    TRANSIENT = "TRANSIENT"
    """The environment failed; a retry may help."""
    FATAL = "FATAL"
    """The run or the program failed; a retry does not help."""


_USER, _TRANSIENT, _FATAL = ErrorClass


class ErrorCode(StrEnum):
    """A code with its class and its HTTP status."""

    error_class: ErrorClass
    http_status: int

    BAD_REQUEST = "BAD_REQUEST", _USER, 400
    INVALID_JSON = "INVALID_JSON", _USER, 400
    INVALID_INPUT = "INVALID_INPUT", _USER, 422
    UNAUTHORIZED = "UNAUTHORIZED", _USER, 401
    FORBIDDEN = "FORBIDDEN", _USER, 403
    NOT_FOUND = "NOT_FOUND", _USER, 404
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED", _USER, 405
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE", _USER, 413
    URI_TOO_LONG = "URI_TOO_LONG", _USER, 414
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE", _USER, 415
    RANGE_NOT_SATISFIABLE = "RANGE_NOT_SATISFIABLE", _USER, 416
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED", _TRANSIENT, 429
    INTERNAL_ERROR = "INTERNAL_ERROR", _FATAL, 500
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE", _TRANSIENT, 503
    INSUFFICIENT_STORAGE = "INSUFFICIENT_STORAGE", _TRANSIENT, 507
    CONFIG_INVALID = "CONFIG_INVALID", _USER, 422
    DATA_NOT_FOUND = "DATA_NOT_FOUND", _USER, 404
    CORPUS_EMPTY = "CORPUS_EMPTY", _USER, 422
    SAME_CORPUS = "SAME_CORPUS", _USER, 409
    CONFLICT = "CONFLICT", _USER, 409
    TOKENIZER_NOT_FOUND = "TOKENIZER_NOT_FOUND", _USER, 404
    TOKENIZER_TRAIN_FAILED = "TOKENIZER_TRAIN_FAILED", _FATAL, 500
    TOKENIZER_LOAD_FAILED = "TOKENIZER_LOAD_FAILED", _FATAL, 500
    UNSUPPORTED_BACKEND = "UNSUPPORTED_BACKEND", _USER, 400
    INVALID_MODEL_SIZE = "INVALID_MODEL_SIZE", _USER, 400
    MODEL_INCOMPATIBLE = "MODEL_INCOMPATIBLE", _USER, 422
    MODEL_LOAD_FAILED = "MODEL_LOAD_FAILED", _FATAL, 500
    MODEL_TRAIN_FAILED = "MODEL_TRAIN_FAILED", _FATAL, 500
    RUN_NOT_FOUND = "RUN_NOT_FOUND", _USER, 404
    RUN_NOT_READY = "RUN_NOT_READY", _USER, 409
    RUN_FINISHED = "RUN_FINISHED", _USER, 409
    EVAL_NOT_FOUND = "EVAL_NOT_FOUND", _USER, 404
    TEST_LOCKED = "TEST_LOCKED", _USER, 403
    CUDA_NOT_AVAILABLE = "CUDA_NOT_AVAILABLE", _USER, 422
    OUT_OF_MEMORY = "OUT_OF_MEMORY", _FATAL, 500
    TRAINING_NAN_LOSS = "TRAINING_NAN_LOSS", _FATAL, 500
    CRASH_LOOP = "CRASH_LOOP", _FATAL, 500
    CANCELLED = "CANCELLED", _USER, 409
    CHECKPOINT_CORRUPT = "CHECKPOINT_CORRUPT", _FATAL, 500
    RECORD_UNREADABLE = "RECORD_UNREADABLE", _FATAL, 409

    def __new__(cls, code: str, error_class: ErrorClass, http_status: int) -> "ErrorCode":
        member = str.__new__(cls, code)
        member._value_, member.error_class, member.http_status = code, error_class, http_status
        return member


class FieldProblem(Frozen):
    """A wrong field: its path, the given value, the allowed values, and a message."""

    path: str
    message: str
    around_name: tuple[str, str] | None = None
    """The message before and after the name of the field; None if it does not name it."""
    value: str | None = None
    """The given value; None if absent or too long to show."""
    allowed: str | None = None

    @classmethod
    def of(
        cls, path: str, after: str, before: str = "", *, value: str | None = None, allowed: str | None = None
    ) -> "FieldProblem":
        """Return a problem whose message is the field's name with these words around it."""
        return cls(path=path, message="", around_name=(before, after), value=value, allowed=allowed).named(path)

    def named(self, name: str) -> "FieldProblem":
        """Return the problem of a field that has another name where the message is shown."""
        if self.around_name is None:
            return changed(self, path=name)
        before, after = self.around_name
        return changed(self, path=name, message=f"{before}`{name}`{after}")


class AppError(Exception):
    """A foreseen failure with a typed code and one sentence for people."""

    def __init__(self, code: ErrorCode, message: str, details: tuple[FieldProblem, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


def sentence(*problems: FieldProblem) -> str:
    """Return the messages of problems as one sentence."""
    text = "; ".join(problem.message.rstrip(".") for problem in problems)
    return text if text.endswith("?") else f"{text}."


def refusal(code: ErrorCode, *problems: FieldProblem) -> AppError:
    """Return one error with all problems."""
    return AppError(code, sentence(*problems), problems)


def field_error(code: ErrorCode, path: str, message: str) -> AppError:
    """Return the error of one field, whose name stands before the message."""
    return refusal(code, FieldProblem.of(path, f" {message.removesuffix('.')}"))


@contextmanager
def at_field(path: str) -> Iterator[None]:
    """Give an error of the block the path of a field, unless it has one."""
    try:
        yield
    except AppError as error:
        if error.details:
            raise
        problem = FieldProblem(path=path, message=error.message.removesuffix("."))
        raise AppError(error.code, error.message, (problem,)) from error


class PathError(AppError):
    """A field whose path leads out of the corpus folder: INVALID_INPUT, which HTTP answers with 400."""

    def __init__(self, field: str) -> None:
        problem = FieldProblem.of(field, " must be a name inside the corpus folder: no absolute path and no `..`")
        super().__init__(ErrorCode.INVALID_INPUT, sentence(problem), (problem,))


def http_status(error: AppError) -> int:
    """Return the HTTP status of an error."""
    return 400 if isinstance(error, PathError) else error.code.http_status


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


FAILS_AGAIN = (ErrorCode.TRAINING_NAN_LOSS, ErrorCode.INVALID_INPUT)
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


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
