"""Inference on the runs of a server: `ask` and `stream` of InferenceClient, over HTTP."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from time import monotonic

from trainer.client.http_api import HttpApi, address, new_key
from trainer.contracts.base import narrowed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import GenerateChunk, GenerateResponse
from trainer.contracts.inference_fields import Asks, ResponseT
from trainer.queue.inference_kinds import kind_of

_WAIT_SECONDS = 30.0
"""Time that the server waits for a result before it answers; a proxy may end a longer request."""
_RATE_SECONDS, _RATE_PAUSE_SECONDS = 90.0, 5.0
"""Time for which a request above the limit of requests per minute is repeated."""
_PENDING = ("queued", "running")


class RemoteInference:
    """Inference requests to the finished runs of a server."""

    def __init__(self, api: HttpApi) -> None:
        self._api = api

    async def ask(self, run_id: str, request: Asks[ResponseT], *, is_kept: bool = True) -> ResponseT:
        """Send a request and wait for its result; `is_kept=False` deletes the stored result afterwards.

        Withdraws the request if the caller is cancelled, and raises the error that it ended with.
        """
        kind = kind_of(request)
        # without a time limit, the id is needed at once, to withdraw the request
        response = await self._accepted(run_id, kind.name, request, wait=0.0 if kind.is_unbounded else _WAIT_SECONDS)
        path = address("runs", run_id, kind.name, *response.place)
        try:
            while response.status in _PENDING:
                response = await self._api.get(type(response), path, wait=_WAIT_SECONDS)
        except asyncio.CancelledError:
            is_kept = False
            raise
        finally:
            if not is_kept:
                with suppress(AppError):  # the result expires by itself
                    await self._api.delete(path)
        if response.error is not None:
            raise AppError(response.error.code, response.error.message)
        return response

    async def stream(self, run_id: str, request: Asks[ResponseT]) -> AsyncGenerator[GenerateChunk | ResponseT, None]:
        """Yield the complete outputs of a generation as one chunk each, then the response."""
        response = await self.ask(run_id, request)
        written = narrowed(GenerateResponse, response)
        for index, (text, reason) in enumerate(zip(written.outputs or (), written.stop_reason or (), strict=True)):
            yield GenerateChunk(request_id=written.request_id, index=index, start=0, text=text, stop_reason=reason)
        yield response

    async def _accepted(self, run_id: str, kind: str, request: Asks[ResponseT], *, wait: float) -> ResponseT:
        """Send a request once; above the limit of requests per minute, wait and send it again."""
        path, key, deadline = address("runs", run_id, kind), new_key(), monotonic() + _RATE_SECONDS
        while True:
            try:
                return await self._api.post(request.response_type(), path, request, key=key, wait=wait)
            except AppError as error:
                if error.code is not ErrorCode.RATE_LIMIT_EXCEEDED or monotonic() > deadline:
                    raise
            await asyncio.sleep(_RATE_PAUSE_SECONDS)
