"""Operations over HTTP: their inputs are read from requests, and their answers get statuses, headers and time."""

import asyncio
import posixpath
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, nullcontext
from types import NoneType
from typing import Generic, NamedTuple, TypeGuard, get_args

from aiohttp import web
from pydantic import BaseModel

from trainer.config.validation import parse
from trainer.contracts.base import Frozen, changed, narrowed
from trainer.contracts.corpora import UploadStatus
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference_fields import Response
from trainer.contracts.operations import BY_NAME, Operation
from trainer.contracts.parameters import NoBody, WaitQuery
from trainer.contracts.runs import Accepted
from trainer.http.answers import ResponseSpec, answers_of
from trainer.http.api import Api
from trainer.http.error_answers import HttpError
from trainer.http.waiting import WaitingAnswer, reply
from trainer.lab.calls import CALLS, AnyCall, BodyT, BodyT_co, PathT, PathT_co, QueryT, QueryT_co
from trainer.lab.lab import AnyAsked, Asked, work_of
from trainer.lab.requests import MAX_BODY_BYTES, ApiClient, body_of_json, path_of
from trainer.lab.waits import Status

_TOO_LARGE: type[Exception] = web.HTTPRequestEntityTooLarge
MALFORMED: type[Exception] = web.RequestPayloadError
_LOOK_SECONDS = 1.0
"""Time after which the server looks whether a client that waits has left."""


class ApiRequest(NamedTuple, Generic[PathT_co, QueryT_co, BodyT_co]):
    """A request to an operation whose answer HTTP writes by itself, with its validated inputs."""

    api: Api
    client: ApiClient
    request: web.Request
    path: PathT_co
    query: QueryT_co
    body: BodyT_co
    request_id: str | None
    """The id of the inference request that the Idempotency-Key stands for; None without a key."""


Handler = Callable[[ApiRequest[PathT, QueryT, BodyT]], Awaitable[web.StreamResponse]]
Inputs = tuple[type[PathT], type[QueryT], type[BodyT]]
"""The classes of an operation's path, query and body."""
Answer = Callable[[Api, ApiClient, web.Request, AnyAsked, ExitStack], Awaitable[web.StreamResponse]]
"""Answers a request that its client may make; the last value holds its place among the requests of a minute."""


class HttpOperation(NamedTuple):
    """An operation over HTTP."""

    row: Operation
    summary: str
    path_model: type[BaseModel]
    query_model: type[BaseModel]
    body_model: type[BaseModel] | None
    answers: Mapping[int, ResponseSpec]
    answer: Answer

    async def run(self, api: Api, client: ApiClient, request: web.Request) -> web.StreamResponse:
        """Read the inputs of a request, and answer it if its client may make it."""
        given: dict[str, str] = dict(request.match_info)
        path, query = parse(self.path_model, given), parse(self.query_model, _single_values(request))
        key = _idempotency(client, request) if self.row.method == "POST" else None
        body: BaseModel = NoBody()
        if self.body_model is not None:
            data = await read_body(request, api.timeouts.body_seconds)
            body = await asyncio.to_thread(body_of_json, self.body_model, data)
        asked = Asked(self.row, client.caller, path, query, body, key, client.origin(key, body))
        with ExitStack() as held:
            return await self.answer(api, client, request, await api.lab.allowed(asked, held), held)


def own(name: str, handler: Handler[PathT, QueryT, BodyT], content: type[object] = NoneType) -> HttpOperation:
    """Return an operation whose answer HTTP writes by itself, with the inputs that its handler is annotated with.

    `content` is the record that it writes.
    """
    path, query, body = _inputs(handler)

    async def answer(
        api: Api, client: ApiClient, request: web.Request, asked: AnyAsked, held: ExitStack
    ) -> web.StreamResponse:
        found = narrowed(path, asked.path), narrowed(query, asked.query), narrowed(body, asked.body)
        return await handler(ApiRequest(api, client, request, *found, asked.request_id))

    return _operation(BY_NAME[name], (handler.__doc__ or "").strip(), (path, query, body), content, answer)


def of_lab(call: AnyCall) -> HttpOperation:
    """Return an operation that the lab does."""
    row = call.operation

    async def answer(
        api: Api, client: ApiClient, request: web.Request, asked: AnyAsked, held: ExitStack
    ) -> web.StreamResponse:
        if isinstance(asked.query, WaitQuery):
            return await _awaited(call, api, client, request, asked, asked.query, held)
        found = await api.lab.work(call, asked)
        if found is None:
            return web.Response(status=204)
        if isinstance(found, str):
            return web.Response(text=found, content_type=row.content)
        record = narrowed(Frozen, found)
        headers = located(request, _address(CALLS[row.follows], record)) if row.follows else {}
        if not isinstance(record, UploadStatus):
            return reply(record)
        is_created = bool(row.follows) and record.corpus is None
        return reply(record, 201 if is_created else 200, headers | upload_offset(record.offset))

    work = work_of(row)
    return _operation(row, row.summary or (work.__doc__ or ""), (call.path, call.query, call.body), call.answer, answer)


async def _awaited(
    call: AnyCall,
    api: Api,
    client: ApiClient,
    request: web.Request,
    asked: AnyAsked,
    query: WaitQuery,
    held: ExitStack,
) -> web.StreamResponse:
    """Do an operation that starts something or reads its status, and answer at its end, or after the time of `wait`."""
    following, is_start = CALLS[call.operation.follows or call.operation.name], bool(call.operation.follows)
    if not is_start:  # it is asked again until the end, under the same key
        asked = asked._replace(query=changed(query, wait=0.0), key=asked.key or secrets.token_hex(16))
    record = narrowed(Frozen, await api.lab.work(call, asked))
    is_job = not isinstance(record, Response)
    headers = located(request, _address(following, record)) if is_start or not is_job else {}
    if is_job:
        held.close()  # a job counts until it is accepted, a request to a model until it is answered
    if is_job and is_start and not query.wait:
        return reply(record, 202, headers)
    if is_start:
        asked = Asked(following.operation, asked.caller, path_of(following, record), query, NoBody())
        record = await _looked(api, following, asked, 0.0) if is_job else record
    answer = WaitingAnswer(request, headers, query.wait)
    with api.stream(client) if query.wait and _is_unfinished(record) else nullcontext(), answer.errors():
        while _is_unfinished(record) and (left := await answer.seconds_left()):
            record = await _looked(api, following, asked, min(left, _LOOK_SECONDS))
    return await answer.end(record, 200 if is_job or not _is_unfinished(record) else 202)


def _operation(
    row: Operation, summary: str, inputs: Inputs[PathT, QueryT, BodyT], content: type[object], answer: Answer
) -> HttpOperation:
    path, query, body = inputs
    return HttpOperation(
        row, summary, path, query, None if issubclass(body, NoBody) else body, answers_of(row, content), answer
    )


async def _looked(api: Api, call: AnyCall, asked: AnyAsked, wait_seconds: float) -> Frozen:
    """Return the status of a job or a request, at its end or after some time."""
    return narrowed(Frozen, await api.lab.work(call, asked._replace(query=WaitQuery(wait=wait_seconds))))


def _is_unfinished(record: Frozen) -> bool:
    return isinstance(record, Status) and not record.has_ended


def _address(following: AnyCall, record: Frozen) -> str:
    if isinstance(record, Accepted) and record.group is not None:
        return f"/groups/{record.group.group_id}"
    fields: dict[str, str] = path_of(following, record).model_dump()
    return following.operation.path.format(**fields)


def _inputs(handler: Handler[PathT, QueryT, BodyT]) -> Inputs[PathT, QueryT, BodyT]:
    """Return the classes of path, query and body that the parameter of a handler is annotated with."""
    annotations: dict[str, object] = handler.__annotations__
    found: object = get_args(annotations.get("call"))
    if not _are_inputs(found, handler):
        raise TypeError(f"`call` of the handler {handler.__name__} must be an ApiRequest[path, query, body].")
    return found


def _are_inputs(found: object, handler: Handler[PathT, QueryT, BodyT]) -> TypeGuard[Inputs[PathT, QueryT, BodyT]]:
    """Return True for the parameters of an ApiRequest; mypy has checked that they are those of the handler."""
    return isinstance(found, tuple) and len(found) == 3


def upload_offset(offset: int) -> dict[str, str]:
    """Return the header with the position at which the next portion of an upload begins."""
    return {"Upload-Offset": f"{offset}"}


def located(request: web.Request, address: str) -> dict[str, str]:
    """Return the header Location for an address of this server, relative to the request's: a proxy may add a path."""
    return {"Location": posixpath.relpath(address, posixpath.dirname(request.path))}


def _single_values(request: web.Request) -> dict[str, str]:
    for name in request.query:
        if len(request.query.getall(name)) > 1:
            raise AppError(ErrorCode.INVALID_INPUT, f"Give the parameter {name[:64]!r} once.")
    return dict(request.query)


def _idempotency(client: ApiClient, request: web.Request) -> str | None:
    """Return what stands for the Idempotency-Key of a request; None without a key."""
    key = request.headers.get("Idempotency-Key")
    return None if key is None else client.idempotency(request.path, key)


def check_uncompressed(request: web.Request) -> None:
    """Raise UNSUPPORTED_MEDIA_TYPE for a compressed body, which could be far larger than it looks."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        message = "Send the body without compression: no Content-Encoding."
        raise HttpError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message, {"Accept-Encoding": "identity"})


async def read_body(request: web.Request, most_seconds: float) -> bytes:
    """Read a JSON body; raises UNSUPPORTED_MEDIA_TYPE, PAYLOAD_TOO_LARGE or INVALID_JSON."""
    check_uncompressed(request)
    if request.content_type != "application/json":
        raise AppError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Send the body as JSON: Content-Type: application/json.")
    try:
        async with asyncio.timeout(most_seconds):
            return await request.read()
    except (TimeoutError, MALFORMED):
        message = f"The body did not arrive completely within {most_seconds:g} seconds."
        raise AppError(ErrorCode.INVALID_JSON, message) from None
    except _TOO_LARGE:
        message = (
            f"The body has more than {MAX_BODY_BYTES:,} bytes. Send less at a time, or use `mt` on the machine of the"
            " server, which takes larger files."
        )
        raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, message) from None
