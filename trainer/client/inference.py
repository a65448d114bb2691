"""Inference on the runs of a server: the methods of InferenceClient, over HTTP."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from time import monotonic
from typing import TypeVar

from pydantic import BaseModel

from trainer.client.http_api import HttpApi, address, new_key
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import (
    ChatRequest,
    ChatResponse,
    EvalMetrics,
    EvalRequest,
    EvalResponse,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    PredictRequest,
    PredictResponse,
    ScoreRequest,
    ScoreResponse,
)
from trainer.contracts.inference_fields import Response

ResponseT = TypeVar("ResponseT", bound=Response)

_WAIT_SECONDS = 30.0
"""Time that the server waits for a result before it answers; a proxy may end a longer request."""
_RATE_SECONDS, _RATE_PAUSE_SECONDS = 90.0, 5.0
"""Time for which a request above the limit of requests per minute is repeated."""
_PENDING = ("queued", "running")


class RemoteInference:
    """Inference requests to the finished runs of a server."""

    def __init__(self, api: HttpApi) -> None:
        self._api = api

    async def score(self, run_id: str, request: ScoreRequest, *, is_kept: bool = True) -> ScoreResponse:
        """Score a text and wait for the result; `is_kept=False` deletes the stored result afterwards."""
        response = await self._accepted(ScoreResponse, run_id, "score", request, wait=0.0)  # its id, to withdraw it
        path = address("runs", run_id, "score", response.request_id)
        try:
            return await self._result(response, path)
        except asyncio.CancelledError:
            is_kept = False
            raise
        finally:
            if not is_kept:
                with suppress(AppError):  # the result expires by itself
                    await self._api.delete(path)

    async def generate(self, run_id: str, request: GenerateRequest) -> GenerateResponse:
        """Continue a prompt and wait for the result."""
        response = await self._accepted(GenerateResponse, run_id, "generate", request)
        return await self._result(response, address("runs", run_id, "generate", response.request_id))

    async def stream_generate(
        self, run_id: str, request: GenerateRequest
    ) -> AsyncGenerator[GenerateChunk | GenerateResponse, None]:
        """Yield the complete outputs as one chunk each, then the response."""
        response = await self.generate(run_id, request)
        for index, (text, reason) in enumerate(zip(response.outputs or (), response.stop_reason or (), strict=True)):
            yield GenerateChunk(request_id=response.request_id, index=index, start=0, text=text, stop_reason=reason)
        yield response

    async def predict(self, run_id: str, request: PredictRequest) -> PredictResponse:
        """Return the most probable next tokens of a text."""
        response = await self._accepted(PredictResponse, run_id, "predict", request)
        return await self._result(response, address("runs", run_id, "predict", response.request_id))

    async def chat(self, run_id: str, request: ChatRequest) -> ChatResponse:
        """Send a message, in a new chat if the request names none, and wait for the answer."""
        response = await self._accepted(ChatResponse, run_id, "chat", request)
        return await self._result(response, address("runs", run_id, "chat", response.session_id, response.request_id))

    async def evaluate(self, run_id: str, request: EvalRequest) -> EvalMetrics:
        """Evaluate a finished run on one of its splits, or on a corpus of the server, and wait for the metrics."""
        response = await self._accepted(EvalResponse, run_id, "evaluate", request)
        ended = await self._result(response, address("runs", run_id, "evaluate", response.request_id))
        if ended.metrics is None:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, "The server has no metrics; try again in a minute.")
        return ended.metrics

    async def _accepted(
        self, record: type[ResponseT], run_id: str, kind: str, request: BaseModel, *, wait: float = _WAIT_SECONDS
    ) -> ResponseT:
        """Send a request once; above the limit of requests per minute, wait and send it again."""
        path, key, deadline = address("runs", run_id, kind), new_key(), monotonic() + _RATE_SECONDS
        while True:
            try:
                return await self._api.post(record, path, request, key=key, wait=wait)
            except AppError as error:
                if error.code is not ErrorCode.RATE_LIMIT_EXCEEDED or monotonic() > deadline:
                    raise
            await asyncio.sleep(_RATE_PAUSE_SECONDS)

    async def _result(self, response: ResponseT, path: str) -> ResponseT:
        """Wait for the end of a request; raises the error that it ended with."""
        while response.status in _PENDING:
            response = await self._api.get(type(response), path, wait=_WAIT_SECONDS)
        if response.error is not None:
            raise AppError(response.error.code, response.error.message)
        return response
