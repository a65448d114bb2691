"""HTTP requests: authentication, faults, rate limits, validation, and files."""

import asyncio
import math
import re
import socket
import struct
import time
from collections.abc import Mapping
from typing import Literal, NamedTuple

from aiohttp import web
from pydantic import JsonValue

from local_discord import limits
from local_discord.routes import Request, Routes
from local_discord.state import Refusal, Upload, World, invalid_form
from local_discord.validation import DISCORD, Operation, Problem, form_errors
from local_discord.wire import Json, decode, encode, mapping, number, rows


class Limit(NamedTuple):
    """A number of `requests` in `window_seconds`."""

    requests: int
    window_seconds: float


# Discord's headers for one channel's messages; and the documented 50 per second for all requests.
MESSAGES = Limit(5, 5.0)
OVERALL = Limit(50, 1.0)
_LIMITED = ("create_message", "update_message")
_LOOK_SECONDS = 0.1


class _Window:
    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._ends_seconds = 0.0
        self._left = 0

    def take(self, now_seconds: float) -> tuple[int, float]:
        """Return the number of requests left (negative: refused) and the seconds until the window ends."""
        if now_seconds >= self._ends_seconds:
            self._ends_seconds = now_seconds + self._limit.window_seconds
            self._left = self._limit.requests
        self._left -= 1
        return self._left, self._ends_seconds - now_seconds


class RateLimiter:
    """Counts requests; each message operation has the limit `messages` per channel, all requests that of `overall`."""

    def __init__(self, messages: Limit, overall: Limit) -> None:
        self._messages = messages
        self._windows: dict[str, _Window] = {}
        self._overall = _Window(overall)

    def take(self, operation_id: str, channel: str, *, counts_overall: bool) -> tuple[dict[str, str], float | None]:
        """Return the headers to send, and for a refused request the seconds to wait."""
        now = time.monotonic()
        if counts_overall:
            left, ends = self._overall.take(now)
            if left < 0:
                headers = {"X-RateLimit-Global": "true", "X-RateLimit-Scope": "global"}
                return {**headers, "Retry-After": str(math.ceil(ends))}, ends
        if operation_id not in _LIMITED:
            return {}, None
        left, ends = self._windows.setdefault(f"{operation_id}:{channel}", _Window(self._messages)).take(now)
        headers = {
            "X-RateLimit-Limit": str(self._messages.requests),
            "X-RateLimit-Remaining": str(max(left, 0)),
            "X-RateLimit-Reset": f"{time.time() + ends:.3f}",
            "X-RateLimit-Reset-After": f"{ends:.3f}",
            "X-RateLimit-Bucket": operation_id,
        }
        if left >= 0:
            return headers, None
        return {**headers, "Retry-After": str(math.ceil(ends)), "X-RateLimit-Scope": "user"}, ends


FaultAction = Literal[429, 500, 502, 503, "blocked", "reset", "reply_lost", "late_500", "silent"] | Refusal

_AFTER_WORK = ("reply_lost", "late_500")

FILES = "/attachments"
"""Route of the files, for `Fault`."""


class Fault(NamedTuple):
    """A fault of the next request that matches: an error status, a refusal, a reset before or after the work.

    "blocked" is the HTML page that a proxy in front of Discord sends after too many requests; "silent" is no answer.
    "late_500" is an error after the work.
    """

    method: str
    template: str
    action: FaultAction
    retry_after_seconds: float = 0.1


class RequestRecord(NamedTuple):
    """An answered request; status 0 means that the connection was reset."""

    method: str
    path: str
    operation_id: str
    status: int
    at_seconds: float


class SentBody(NamedTuple):
    """The body of a valid request."""

    operation_id: str
    body: Json


class Rest:
    """Validates requests, routes them, and checks the answers."""

    def __init__(self, world: World, routes: Routes, rates: RateLimiter) -> None:
        self._world, self._routes, self._rates = world, routes, rates
        self.faults: list[Fault] = []
        self.requests: list[RequestRecord] = []
        self.bodies: list[SentBody] = []

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a request under /api/v10 and record it; a fault can reset the connection instead."""
        path = request.path.removeprefix("/api/v10")
        found = DISCORD.match(request.method, path)
        answer: web.Response | None
        if found is None:
            self._world.violate("request", f"{request.method} {path}", "The description has no such route.")
            answer = _error(404, 0, "404: Not Found")
        else:
            answer = await self._handle(request, *found)
        status, operation_id = answer.status if answer else 0, found[0].id if found else ""
        self.requests.append(RequestRecord(request.method, request.path, operation_id, status, time.monotonic()))
        self._world.changes.notify()
        return answer or _reset(request)

    async def file(self, request: web.Request) -> web.Response:
        """Serve a stored attachment, as the CDN does; its faults are those of GET `FILES`."""
        fault = self._next_fault("GET", FILES)
        if fault is not None:
            self.faults.remove(fault)
            return _faulty(fault) or _reset(request)
        upload = self._world.files.get(number(request.match_info["file_id"]))
        if upload is None or upload.filename != request.match_info["name"]:
            return web.Response(status=404, text="This content is no longer available.")
        return web.Response(body=upload.data, headers={"Content-Type": upload.content_type})

    async def _handle(self, request: web.Request, operation: Operation, ids: dict[str, str]) -> web.Response | None:
        """Return the answer, from fault injection to the checked one; None resets the connection."""
        fault = self._next_fault(operation.method, operation.template)
        if fault is not None and fault.action not in _AFTER_WORK:
            self.faults.remove(fault)
            while fault.action == "silent" and request.transport is not None:
                await asyncio.sleep(_LOOK_SECONDS)
            return _faulty(fault)
        channel_id = ids.get("channel_id", "")
        headers, wait_seconds = self._rates.take(operation.id, channel_id, counts_overall=not operation.has_token)
        if wait_seconds is not None:
            return _limited(wait_seconds, headers)
        status, body = await self._answer(request, operation, ids)
        for problem in DISCORD.answer_problems(operation, status, body):
            self._world.violate("answer", operation.name, f"{status} {problem.path}: {problem.message}")
        fault = self._next_fault(operation.method, operation.template)
        if fault is not None and fault.action in _AFTER_WORK:  # used up here: only work that was done has a reply
            self.faults.remove(fault)
            return _faulty(fault)
        return _answer_of(status, body, headers)

    async def _answer(self, request: web.Request, operation: Operation, ids: dict[str, str]) -> tuple[int, JsonValue]:
        try:
            if not operation.has_token and request.headers.get("Authorization") != f"Bot {self._world.token}":
                raise Refusal(401, 0, "401: Unauthorized")
            read = await self._read(request, operation, ids)
            self.bodies.append(SentBody(operation.id, read.body))
            body = self._routes.answer(operation.id, read)
            return 204 if body is None else 200, body
        except Refusal as refusal:
            if refusal.violation is not None:
                details = [f"{'.'.join(map(str, p.path))}: {p.message}" for p in refusal.problems]
                for detail in details or [f"{refusal.code} {refusal.message}"]:
                    self._world.violate(refusal.violation, operation.name, detail)
            error: Json = {"message": refusal.message, "code": refusal.code}
            if refusal.retry_after_seconds is not None:
                error |= {"retry_after": refusal.retry_after_seconds, "global": False}
            if refusal.problems:
                error["errors"] = form_errors(refusal.problems)
            return refusal.status, error

    async def _read(self, request: web.Request, operation: Operation, ids: dict[str, str]) -> Request:
        """Parse and validate query, body and files; raises Refusal for an error answer."""
        query, problems = DISCORD.read_query(operation, request.query)
        body: JsonValue = None
        uploads: dict[int, Upload] = {}
        if request.content_type == "multipart/form-data":
            for name, part in (await request.post()).items():
                index = re.fullmatch(r"files\[(\d)\]", name)
                if isinstance(part, web.FileField) and index is not None:
                    uploads[number(index.group(1))] = Upload(part.filename, part.file.read())
                elif isinstance(part, str) and name == "payload_json":
                    body = decode(part)
                else:
                    problems.append(Problem((name,), "UNKNOWN_PART", "Not payload_json or files[0..9]."))
        elif request.can_read_body:
            body = decode(await request.read())
        if any(len(upload.data) > limits.ATTACHMENT_BYTES for upload in uploads.values()):
            raise Refusal(413, 40005, "Request entity too large", violation="request")
        problems += DISCORD.body_problems(operation, body)
        is_callback = operation.id == "create_interaction_response"
        message = mapping(mapping(body).get("data") if is_callback else body)
        if not problems and ("messages" in operation.template or operation.has_token):
            prefix = ("data",) if is_callback else ()
            problems += [p._replace(path=(*prefix, *p.path)) for p in limits.message_problems(message)]
        if problems:
            raise invalid_form(problems)
        return Request(ids, query, mapping(body), rows(body), uploads)

    def _next_fault(self, method: str, template: str) -> Fault | None:
        return next((one for one in self.faults if (one.method, one.template) == (method, template)), None)


def _faulty(fault: Fault) -> web.Response | None:
    match fault.action:
        case 429:
            return _limited(fault.retry_after_seconds, {"Retry-After": "1", "X-RateLimit-Scope": "shared"})
        case "blocked":
            wait = {"Retry-After": f"{fault.retry_after_seconds:.0f}"} if fault.retry_after_seconds >= 1 else {}
            page = "<html>error code: 1015</html>"
            return web.Response(status=429, text=page, content_type="text/html", headers=wait)
        case Refusal(status=status, code=code, message=message):
            return _error(status, code, message)
        case "late_500":
            return _error(500, 0, "500: Server Error")
        case int(status):
            return _error(status, 0, f"{status}: Server Error")
        case "reset" | "reply_lost" | "silent":
            return None


def _limited(retry_after_seconds: float, headers: Mapping[str, str]) -> web.Response:
    body: Json = {"message": "You are being rate limited.", "retry_after": retry_after_seconds, "code": 0}
    body["global"] = "X-RateLimit-Global" in headers
    return _answer_of(429, body, headers)


def _error(status: int, code: int, message: str) -> web.Response:
    return _answer_of(status, {"message": message, "code": code}, {})


def _answer_of(status: int, body: JsonValue, headers: Mapping[str, str]) -> web.Response:
    if body is None:
        return web.Response(status=status, headers=headers)
    # discord.py reads JSON only under exactly this content type, so no charset here.
    kept = {"Content-Type": "application/json", "Via": "1.1 local", **headers}
    return web.Response(status=status, body=encode(body), headers=kept)


def _reset(request: web.Request) -> web.Response:
    """Break the connection."""
    if request.transport is not None:
        connection: socket.socket = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response(status=500)
