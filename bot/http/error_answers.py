"""Answers for errors, all in the form of ErrorBody, and the id that links an answer to the log."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from aiohttp import web

from bot.limits import LimitReached
from trainer.contracts.errors import AppError, ErrorBody, ErrorCode, FieldProblem, http_status, new_request_id

SERVER = {"Server": "Model-Trainer"}
"""The header that names the program, without the libraries and versions that aiohttp would name."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ID = web.RequestKey("id", str)
_HEADERS = {
    ErrorCode.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    ErrorCode.RATE_LIMIT_EXCEEDED: {"Retry-After": "10"},
}


class HttpError(AppError):
    """An error whose answer has headers of its own, and always the status of its code."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        headers: Mapping[str, str] = MappingProxyType({}),
        details: tuple[FieldProblem, ...] = (),
    ) -> None:
        super().__init__(code, message, details)
        self.headers = headers


def request_id_of(request: web.BaseRequest) -> str:
    """Return the X-Request-ID of a request, or a new one if it has none that is well-formed."""
    if _ID not in request:
        given = request.headers.get("X-Request-ID", "")
        request[_ID] = given if _REQUEST_ID.fullmatch(given) else new_request_id()
    return request[_ID]


def error_answer(request: web.BaseRequest, error: AppError, status: int | None = None) -> web.Response:
    """Return the answer for an error; `status` replaces the one of its code."""
    request_id = request_id_of(request)
    headers: Mapping[str, str] = error.headers if isinstance(error, HttpError) else _HEADERS.get(error.code, {})
    if isinstance(error, LimitReached):
        headers = {"Retry-After": f"{error.retry_seconds}"}
    return web.Response(
        body=ErrorBody.of(error, request_id).model_dump_json().encode(),
        status=http_status(error) if status is None else status,
        content_type="application/json",
        headers={"X-Request-ID": request_id, **SERVER, **headers},
    )
