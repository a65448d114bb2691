"""Answers for errors, in the form of ErrorBody or (under `/v1`) of OpenAI, with the id that the log has, too."""

import re
from collections.abc import Mapping
from typing import Literal

from aiohttp import web

from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorBody, ErrorClass, ErrorCode, http_status, new_request_id
from trainer.lab.limits import LimitReached

SERVER = {"Server": "Model-Trainer"}
"""The header that names the program, without the libraries and versions that aiohttp would name."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ID = web.RequestKey("id", str)
_HEADERS = {
    ErrorCode.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    ErrorCode.RATE_LIMIT_EXCEEDED: {"Retry-After": "10"},
}


class OpenAiError(Frozen):
    """An error as OpenAI's clients read it."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    """The first wrong field."""
    code: ErrorCode


class OpenAiErrorBody(Frozen):
    """The body of an error under `/v1`."""

    error: OpenAiError

    @classmethod
    def of(cls, error: AppError) -> "OpenAiErrorBody":
        kind: Literal["invalid_request_error", "rate_limit_error", "server_error"] = "server_error"
        if error.code is ErrorCode.RATE_LIMIT_EXCEEDED:
            kind = "rate_limit_error"
        elif error.code.error_class is ErrorClass.USER_INPUT:
            kind = "invalid_request_error"
        param = next((problem.path for problem in error.details if problem.path), None)
        return cls(error=OpenAiError(message=error.message, type=kind, param=param, code=error.code))


class HttpError(AppError):
    """An error whose answer needs headers of its own."""

    def __init__(self, code: ErrorCode, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(code, message)
        self.headers = headers


def request_id_of(request: web.BaseRequest) -> str:
    """Return the X-Request-ID of a request, or a new one if it has none that is well-formed."""
    if _ID not in request:
        given = request.headers.get("X-Request-ID", "")
        request[_ID] = given if _REQUEST_ID.fullmatch(given) else new_request_id()
    return request[_ID]


def is_openai(path: str) -> bool:
    """Return True if errors of an address have OpenAI's form."""
    return path.startswith("/v1/")


def error_answer(request: web.BaseRequest, error: AppError) -> web.Response:
    """Return the answer for an error."""
    request_id = request_id_of(request)
    headers: Mapping[str, str] = error.headers if isinstance(error, HttpError) else _HEADERS.get(error.code, {})
    if isinstance(error, LimitReached):
        headers = {"Retry-After": f"{error.retry_seconds}"}
    body = OpenAiErrorBody.of(error) if is_openai(request.path) else ErrorBody.of(error, request_id)
    return web.Response(
        body=body.model_dump_json().encode(),
        status=http_status(error),
        content_type="application/json",
        headers={"X-Request-ID": request_id, **SERVER, **headers},
    )
