"""One record per operation of the API: its route, its inputs, its answers and its work."""

import asyncio
import json
import posixpath
import re
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Generic, Literal, NamedTuple, TypeGuard, TypeVar, get_args

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import from_json

from trainer.config.validation import parse, safe_name
from trainer.contracts.base import Frozen, GivenName, describe_fields
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.runs import HttpOrigin
from trainer.http.api import ApiClient
from trainer.http.error_answers import HttpError

if TYPE_CHECKING:
    from trainer.http.api import Api

Access = Literal["open", "user"]
PathT = TypeVar("PathT", bound=BaseModel)
QueryT = TypeVar("QueryT", bound=BaseModel)
BodyT = TypeVar("BodyT", bound=BaseModel)

IDEMPOTENCY_KEY = "^[!-~]{1,255}$"
RUN = "RUN"
"""The id of a run in examples."""
OTHER_RUN = "OTHER_RUN"
MAX_BODY_BYTES = 16 << 20
_TOO_LARGE: type[Exception] = web.HTTPRequestEntityTooLarge
MALFORMED: type[Exception] = web.RequestPayloadError
_MAX_EXACT = 2**53
_INTEGER = r"-?[0-9]{1,18}"
_NUMBER = r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?"


def matches(pattern: str, name: str) -> BeforeValidator:
    """Return a validator of text in a query, which must be `name`."""
    compiled = re.compile(pattern)

    def check(value: object) -> object:
        if isinstance(value, str) and not compiled.fullmatch(value):
            raise ValueError(f"must be {name}")
        return value

    return BeforeValidator(check)


WHOLE = matches(_INTEGER, "an integer")
"""Validator of an integer in a query: only digits."""
NUMBER = matches(_NUMBER, "a number")
FLAG = matches("true|false", "true or false")


class Query(BaseModel):
    """Parameters of a path or a query: text that is converted to the types of the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, json_schema_extra=describe_fields)


class NoQuery(Query):
    """No parameters."""


class NoBody(Frozen):
    """No body."""


class RunPath(Query):
    run_id: GivenName


class ModelPath(Query):
    run_id: GivenName


MAX_WAIT_SECONDS = 60
Wait = Annotated[float, Field(ge=0, le=MAX_WAIT_SECONDS), NUMBER]


class WaitQuery(Query):
    wait: Wait = 0.0
    """Seconds to wait for the result; 0: answer at once."""


class ApiRequest(NamedTuple, Generic[PathT, QueryT, BodyT]):
    """A request to an operation, with its validated inputs."""

    api: "Api"
    client: ApiClient
    request: web.Request
    path: PathT
    query: QueryT
    body: BodyT
    idempotency: str | None
    """Stands for the Idempotency-Key of this client and path; None without a key."""

    @property
    def request_id(self) -> str | None:
        """The id of the inference request that the Idempotency-Key stands for; None without a key."""
        return None if self.idempotency is None else self.idempotency[:32]

    @property
    def origin(self) -> HttpOrigin:
        """The origin of a run that this request starts."""
        fields = None if self.idempotency is None else self.body.model_dump_json(exclude_unset=True).encode()
        body = None if fields is None else sha256(fields).hexdigest()
        return HttpOrigin(api_key=self.client.name, idempotency=self.idempotency, body=body)


Handler = Callable[[ApiRequest[PathT, QueryT, BodyT]], Awaitable[web.StreamResponse]]


Inputs = tuple[type[PathT], type[QueryT], type[BodyT]]
"""The classes of an operation's path, query and body."""


class Link(NamedTuple):
    """A next operation, with its parameters as runtime expressions of OpenAPI."""

    operation: str
    parameters: Mapping[str, str]
    body: Mapping[str, str] | None = None


class ResponseSpec(NamedTuple):
    """A successful answer: its description, its records or (for other content than JSON) media types, and links."""

    description: str
    content: type[BaseModel] | str | None = None
    links: tuple[Link, ...] = ()
    streams: bool = False
    """The answer may be server-sent events instead."""


def job_answers(
    accepted: type[BaseModel], status: type[BaseModel], links: tuple[Link, ...], *links_at_end: Link
) -> dict[int, ResponseSpec]:
    """Return the answers of an operation that starts a job: when it is queued and, with `wait`, when it has ended."""
    queued = "Without `wait`: the job is queued, and the header Location has its address"
    ended = "With `wait`: its status at its end, or after this time"
    return {202: ResponseSpec(queued, accepted, links), 200: ResponseSpec(ended, status, (*links, *links_at_end))}


class Operation(NamedTuple):
    """An operation of the API."""

    name: str
    """Its operationId."""
    method: str
    path: str
    summary: str
    tag: str
    access: Access
    path_model: type[BaseModel]
    query_model: type[BaseModel]
    body_model: type[BaseModel] | None
    body_type: str | None
    """Media type of a body of bytes, which the handler reads itself."""
    answers: Mapping[int, ResponseSpec]
    example: Mapping[str, object] | None
    """A body."""
    query_example: Mapping[str, str]
    run: Callable[["Api", ApiClient, web.Request], Awaitable[web.StreamResponse]]


def operation(
    route: str,
    handler: Handler[PathT, QueryT, BodyT],
    answers: Mapping[int, ResponseSpec],
    *,
    tag: str,
    name: str | None = None,
    summary: str | None = None,
    access: Access = "user",
    inputs: Inputs[PathT, QueryT, BodyT] | None = None,
    read: Callable[[dict[str, object]], BodyT] | None = None,
    body_type: str | None = None,
    example: Mapping[str, object] | None = None,
    query_example: Mapping[str, str] = MappingProxyType({}),
) -> Operation:
    """Return the operation of a handler for a route such as `GET /runs`.

    By default it has the handler's name, its docstring as summary, and the inputs that its parameter is annotated with.
    `read` validates the fields of a body in place of its record.
    """
    method, _, path = route.partition(" ")
    path_model, query_model, body_model = inputs or _inputs(handler)
    has_body = body_model is not NoBody

    async def run(api: "Api", client: ApiClient, request: web.Request) -> web.StreamResponse:
        given: dict[str, str] = dict(request.match_info)
        named, or_checkpoint = parse(path_model, given), issubclass(path_model, ModelPath)
        query = parse(query_model, _single_values(request))
        key = _idempotency(client, request) if method == "POST" else None
        data = await _read_body(request, api.timeouts.body_seconds) if has_body else b"{}"
        body = await asyncio.to_thread(_parse_body, body_model, data, read)
        found = await api.with_ids(client, named, request.method, or_checkpoint=or_checkpoint)
        return await handler(ApiRequest(api, client, request, found, query, body, key))

    return Operation(
        name=name or handler.__name__,
        method=method,
        path=path,
        summary=summary or (handler.__doc__ or "").strip(),
        tag=tag,
        access=access,
        path_model=path_model,
        query_model=query_model,
        body_model=body_model if has_body else None,
        body_type=body_type,
        answers=answers,
        example=example,
        query_example=query_example,
        run=run,
    )


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


def reply(record: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a record as JSON."""
    body = record.model_dump_json().encode()
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


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
    if key is None:
        return None
    if not re.fullmatch(IDEMPOTENCY_KEY, key):
        message = "The header Idempotency-Key must have 1 to 255 ASCII characters without spaces."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    return client.idempotency(request.path, key)


def check_uncompressed(request: web.Request) -> None:
    """Raise UNSUPPORTED_MEDIA_TYPE for a compressed body, which could be far larger than it looks."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        message = "Send the body without compression: no Content-Encoding."
        raise HttpError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message, {"Accept-Encoding": "identity"})


async def _read_body(request: web.Request, most_seconds: float) -> bytes:
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
        message = f"The body has more than {MAX_BODY_BYTES:,} bytes. Send less at a time."
        raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, message) from None


def _parse_body(model: type[BodyT], data: bytes, read: Callable[[dict[str, object]], BodyT] | None) -> BodyT:
    """Validate a JSON body, in a thread because it may be long; raises INVALID_INPUT if a field is given twice."""
    try:
        value: object = from_json(data, allow_inf_nan=False)
        _: object = json.loads(data, parse_int=float, object_pairs_hook=_unique)
    except ValueError:
        raise AppError(ErrorCode.INVALID_JSON, "The body is not valid JSON.") from None
    numbers = _whole_numbers(value)
    if read is not None and isinstance(numbers, dict):
        fields: dict[str, object] = numbers
        return read(fields)
    return parse(model, numbers)


def _unique(pairs: list[tuple[str, object]]) -> None:
    """Raise INVALID_INPUT if an object, at any depth, has two fields of the same name."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise field_error(ErrorCode.INVALID_INPUT, safe_name(name), "is given twice in one block: give it once.")
        seen.add(name)


def _whole_numbers(value: object) -> object:
    """Turn 65.0 into 65, which is an integer for JSON Schema."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _MAX_EXACT else value
    if isinstance(value, list):
        items: list[object] = value
        return [_whole_numbers(item) for item in items]
    if isinstance(value, dict):
        fields: dict[str, object] = value
        return {name: _whole_numbers(item) for name, item in fields.items()}
    return value
