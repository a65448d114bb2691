"""Requests to an HTTP API: its errors as AppError, and repetition of requests that got no answer."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from time import monotonic
from typing import Protocol, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx2
from pydantic import BaseModel, TypeAdapter, ValidationError

from trainer.config.settings import ClientSettings
from trainer.contracts.errors import AppError, ErrorBody, ErrorCode, causes

RecordT = TypeVar("RecordT", bound=BaseModel)
T = TypeVar("T")

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 60.0
"""Besides the time that a request waits for its result; a stream has a comment every 15 seconds."""
_PATIENCE_SECONDS = 60.0
"""Time for which a request without an answer is repeated, enough for a restart of the server."""
_FIRST_PATIENCE_SECONDS = 5.0
"""The same time before the server has answered at all, when the address may be wrong or the server not started."""
_MAX_PAUSE_SECONDS = 2.0
_GATEWAY = frozenset({502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 527, 530})
"""Statuses of a proxy whose server does not answer; those from 520 on are Cloudflare's."""
_LOGIN = frozenset({401, 403, 407, 511})
"""Statuses of a proxy that wants a login."""


class Body(Protocol):
    """A record to send."""

    def model_dump_json(self, *, exclude_unset: bool = False) -> str: ...


class StreamLost(Exception):
    """A stream that broke off."""


class HttpApi:
    """The HTTP API of one server: its key goes to the origin of its address only, whatever links the answers name."""

    def __init__(self, settings: ClientSettings) -> None:
        if settings.url is None:
            message = "No server is named: set MT_URL to the address of its HTTP API, such as http://lab:8000."
            raise AppError(ErrorCode.CONFIG_INVALID, message)
        self._url = httpx2.URL(str(settings.url))
        self._address = _shown(self._url)
        self._key = {} if settings.key is None else {"X-Api-Key": settings.key.get_secret_value()}
        self._clients = {self._url.scheme: _client(self._url)}
        """One connection pool per scheme, as a link of an answer may have another scheme than the server."""
        self._has_answered = False

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def get(self, record: type[RecordT], path: str, /, **query: object) -> RecordT:
        """Read a record; `wait` in the query is the time that the server waits for a result."""
        return self.parsed(TypeAdapter(record), await self.send("GET", path, query))

    async def patch(self, record: type[RecordT], path: str, content: bytes, /, **query: object) -> RecordT:
        """Send bytes; they are sent again, as they are, if there is no answer."""
        headers = {"Content-Type": "application/octet-stream"}
        return self.parsed(TypeAdapter(record), await self._answer("PATCH", path, query, headers, content))

    async def send(
        self, method: str, path: str, query: Mapping[str, object], body: Body | None = None, *, key: str | None = None
    ) -> bytes:
        """Send a request with a record as its body, and return the body of the answer.

        A repeated POST has the same Idempotency-Key, by default a new one of this call.
        """
        if method != "POST":
            return await self._answer(method, path, query)
        headers = {"Idempotency-Key": key or new_key(), "Content-Type": "application/json"}
        content = b"{}" if body is None else body.model_dump_json(exclude_unset=True).encode()
        return await self._answer(method, path, query, headers, content)

    async def server_events(
        self, path: str, last_id: str = "", **query: object
    ) -> AsyncGenerator[httpx2.ServerSentEvent, None]:
        """Yield the server-sent events after one, until the server ends the stream; raises StreamLost if it breaks."""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        async with self.stream(path, headers, **query) as response:
            events = httpx2.EventSource(response, max_event_size=None)
            try:
                async for event in events:
                    if event.data or not event.id:  # an id alone is no event
                        yield event
            except httpx2.RequestError as error:
                raise StreamLost from error

    async def chunks(self, response: httpx2.Response) -> AsyncGenerator[bytes, None]:
        """Yield the body of a streamed response; raises StreamLost if it breaks off."""
        try:
            async for chunk in response.aiter_raw():
                yield chunk
        except httpx2.RequestError as error:
            raise StreamLost from error

    @asynccontextmanager
    async def stream(
        self, path: str, headers: Mapping[str, str], /, **query: object
    ) -> AsyncGenerator[httpx2.Response, None]:
        """Open a response whose body is read by the caller; raises AppError for an error, except for a wrong range."""
        response = await self._respond("GET", path, query, headers, is_streamed=True)
        try:
            if response.is_error and response.status_code != ErrorCode.RANGE_NOT_SATISFIABLE.http_status:
                await response.aread()
                raise self._error(response)
            yield response
        finally:
            await response.aclose()

    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> bytes:
        response = await self._respond(method, path, query, headers or {}, content)
        if not response.is_success:
            raise self._error(response)
        return response.content

    async def _respond(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        headers: Mapping[str, str],
        content: bytes | None = None,
        *,
        is_streamed: bool = False,
    ) -> httpx2.Response:
        """Send a request until it gets an answer; raises SERVICE_UNAVAILABLE if it gets none.

        If nothing answers at the address from the start, the first try is the last one.
        """
        wait = query.get("wait")
        seconds = _READ_SECONDS + (wait if isinstance(wait, int | float) else 0.0)
        timeout = httpx2.Timeout(seconds, connect=_CONNECT_SECONDS)
        params = {name: _written(value) for name, value in query.items()}
        patience_seconds = _PATIENCE_SECONDS if self._has_answered else _FIRST_PATIENCE_SECONDS
        deadline, pause = monotonic() + patience_seconds, 0.1
        while True:
            request = self._clients[self._url.scheme].build_request(
                method, path, params=params, headers=headers, content=content, timeout=timeout
            )
            if self._is_own(request.url):
                request.headers.update(self._key)
            if request.url.scheme not in self._clients:
                self._clients[request.url.scheme] = _client(request.url)
            try:
                response = await self._clients[request.url.scheme].send(request, stream=is_streamed)
                if response.status_code in _GATEWAY or _is_web_page(response):
                    await response.aread()
                if _is_web_page(response):
                    raise self._error(response)
                if response.status_code not in _GATEWAY or _body_of(response) is not None:
                    self._has_answered = True
                    return response
                failure = self._error(response)
            except httpx2.RequestError as error:
                failure = self._unreachable(error, request.url)
                if not self._has_answered and isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
                    raise failure from error
            if monotonic() > deadline:
                raise failure
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)

    def _is_own(self, url: httpx2.URL) -> bool:
        """Return True for an address of the server's origin, to which alone the key is sent."""
        return (url.scheme, url.host, url.port) == (self._url.scheme, self._url.host, self._url.port)

    def _address_at(self, url: httpx2.URL) -> str:
        return self._address if self._is_own(url) else _shown(url.copy_with(path="/"))

    def _error(self, response: httpx2.Response) -> AppError:
        body = _body_of(response)
        if body is not None:
            return AppError(body.code, body.message, body.details)
        status, address = response.status_code, self._address_at(response.url)
        proxy = f"A proxy before {address} answered {status} ({response.reason_phrase or 'no reason'})"
        if status == ErrorCode.PAYLOAD_TOO_LARGE.http_status:
            limit = f"it takes no body of {len(response.request.content):,} bytes"
            message = f"{proxy}: {limit}. Raise its limit (nginx: client_max_body_size 16m)."
            return AppError(ErrorCode.PAYLOAD_TOO_LARGE, message)
        if status in _GATEWAY:
            message = f"{proxy}: the server behind it does not answer. Check that it is running."
        elif status == ErrorCode.RATE_LIMIT_EXCEEDED.http_status:
            message = f"{proxy}: it takes no more requests for now. Wait, or raise its limit."
        elif status in _LOGIN:
            message = f"{proxy}: it wants a login. Set MT_URL to an address that takes the key of Model Trainer."
        elif response.has_redirect_location:
            target = _shown(response.url.join(response.headers["Location"]))
            message = (
                f"{address} redirects to {target}. Set MT_URL to the address of Model Trainer itself, not of a login."
            )
        elif response.is_success:
            what = "with a web page, such as that of a login or a captive portal"
            message = f"{address} answers {what}, not as Model Trainer. Check MT_URL and the network."
        else:
            message = f"{address} answers with HTTP {status}, which is no answer of Model Trainer. Check MT_URL."
        return AppError(ErrorCode.SERVICE_UNAVAILABLE, message)

    def _unreachable(self, error: httpx2.RequestError, url: httpx2.URL) -> AppError:
        address = self._address_at(url)
        reason = next((one.reason for one in causes(error) if isinstance(one, ssl.SSLError)), None)
        if reason is not None:
            message = f"No server answers at {address}: TLS failed ({reason})."
        elif not self._is_own(url):
            message = f"No server answers at {address}, which the server names in a link: check its HTTP__PUBLIC_URL."
        else:
            message = f"No server answers at {address}. Check MT_URL, and that the server is running."
        return AppError(ErrorCode.SERVICE_UNAVAILABLE, message)

    def parsed(self, answer: TypeAdapter[T], content: bytes) -> T:
        """Parse an answer; raises SERVICE_UNAVAILABLE for one of another version."""
        try:
            return answer.validate_json(content)
        except ValidationError:
            message = (
                f"The answer of {self._address} cannot be read. Install the server's version of Model Trainer here."
            )
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message) from None


def new_key() -> str:
    """Return a new Idempotency-Key."""
    return uuid4().hex


def address(*parts: str) -> str:
    """Return the path of a resource, with each part quoted."""
    return "".join(f"/{quoted(part)}" for part in parts)


def quoted(part: str) -> str:
    """Return a part of a path as it is written in an address."""
    return quote(part, safe="")


def _client(url: httpx2.URL) -> httpx2.AsyncClient:
    # of all trusted certificates, which take 23 ms to read, http needs none
    verify = True if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx2.AsyncClient(base_url=url, verify=verify)


def _written(value: object) -> str:
    """Return a value of a query as it is written in an address."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(url: httpx2.URL) -> str:
    """Return an address without what may be secret in it: user, password and query."""
    port = "" if url.port is None else f":{url.port}"
    return f"{url.scheme}://{url.host}{port}{url.path.rstrip('/')}"


def _is_web_page(response: httpx2.Response) -> bool:
    """Return True for a success of another program; all answers of Model Trainer have an id."""
    is_html = response.headers.get("Content-Type", "").startswith("text/html")
    return response.is_success and is_html and "X-Request-ID" not in response.headers


def _body_of(response: httpx2.Response) -> ErrorBody | None:
    try:
        return ErrorBody.model_validate_json(response.content)
    except ValidationError:
        return None
