"""Answers that wait for the end of a job."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

from aiohttp import web
from pydantic import BaseModel

from trainer.contracts.errors import AppError

_BLANK_SECONDS = 3.0


def reply(record: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a record as JSON."""
    body = record.model_dump_json().encode()
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def has_left(request: web.Request) -> bool:
    """Return True if the client of a request has disconnected."""
    return request.transport is None or request.transport.is_closing()


class WaitingAnswer(web.StreamResponse):
    """An answer that begins with blanks, which JSON allows, while its record is awaited.

    Many clients give up where nothing arrives for some seconds. From the first blank on its status is 200.
    """

    def __init__(self, request: web.Request, headers: Mapping[str, str], wait_seconds: float) -> None:
        super().__init__(headers={**headers, "Content-Type": "application/json"})
        self._request = request
        self._given_headers = headers
        now = monotonic()
        self._deadline, self._blank_at = now + wait_seconds, now + _BLANK_SECONDS

    async def seconds_left(self) -> float:
        """Return the time left to wait, and send a blank if it is due; 0 when the time is up or the client has left."""
        now = monotonic()
        if now >= self._deadline or has_left(self._request):
            return 0.0
        if now >= self._blank_at:
            await self.prepare(self._request)
            await self.write(b" ")
            self._blank_at = now + _BLANK_SECONDS
        return self._deadline - now

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Close the connection in place of an error after the first blank."""
        try:
            yield
        except AppError as error:
            if not self.prepared:
                raise
            raise ConnectionResetError(error.message) from None

    async def end(self, record: BaseModel, status: int = 200) -> web.StreamResponse:
        """Send the record; an answer without a blank has this status."""
        if not self.prepared:
            return reply(record, status, self._given_headers)
        await self.write_eof(record.model_dump_json().encode())
        return self
