"""Operations on finished runs: scores, generations, predictions, chats and evaluations."""

import asyncio
from contextlib import nullcontext
from typing import NamedTuple

from aiohttp import web

from trainer.contracts.base import Identifier
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import (
    ChatHistory,
    ChatRequest,
    ChatResponse,
    EvalMetrics,
    EvalRequest,
    EvalResponse,
    GenerateRequest,
    GenerateResponse,
    PredictRequest,
    PredictResponse,
    ScoreRequest,
    ScoreResponse,
)
from trainer.contracts.inference_fields import Response
from trainer.http.operations import (
    Answer,
    BodyT,
    Call,
    Link,
    NoBody,
    NoQuery,
    Operation,
    PathT,
    Query,
    QueryT,
    RunPath,
    Wait,
    WaitQuery,
    operation,
    reply,
)
from trainer.http.waiting import WaitingAnswer
from trainer.queue.inference_client import SAME_KEY, RecordT
from trainer.queue.run_index import RunEntry

_PREDICT_SECONDS = 30.0
_LOOK_SECONDS = 1.0


class RequestPath(RunPath):
    request_id: Identifier


class ChatPath(RunPath):
    session_id: Identifier


class ChatTurnPath(ChatPath):
    request_id: Identifier


class PredictQuery(Query):
    wait: Wait = _PREDICT_SECONDS
    """Seconds to wait for the result; 0: answer at once."""


class AnyRunQuery(PredictQuery):
    run_id: Identifier | None = None
    """The run; default: the newest completed run that predicts the next token."""


class _Requester(NamedTuple):
    """The client of a request, and the id of the request if it may be a repeated one."""

    user_id: int | None
    request_id: str | None


async def score(call: Call[RunPath, WaitQuery, ScoreRequest]) -> web.StreamResponse:
    """Score a text, or a corpus by its name."""
    user_id, request_id = await _requester(call, call.path.run_id, "score")
    client, run_id = call.api.queue.inference, call.path.run_id
    if call.body.has_surprisals:
        await call.api.check_surprisals(call.client, run_id)
    with call.api.limits.request(call.client.caller):
        record = await client.enqueue_score(run_id, call.body, user_id=user_id, request_id=request_id)
        return await _answer(call, record, call.query.wait)


async def get_score(call: Call[RequestPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Read a score."""
    await call.api.run(call.client, call.path.run_id)
    record = await call.api.queue.inference.get_score(call.path.run_id, call.path.request_id)
    if record.request.has_surprisals:
        await call.api.check_surprisals(call.client, call.path.run_id)
    return await _answer(call, record, call.query.wait)


async def delete_score(call: Call[RequestPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Delete a score, or withdraw the request for it."""
    await call.api.run(call.client, call.path.run_id)
    await call.api.queue.inference.delete_score(call.path.run_id, call.path.request_id)
    return web.Response(status=204)


async def generate(call: Call[RunPath, WaitQuery, GenerateRequest]) -> web.StreamResponse:
    """Continue a prompt."""
    user_id, request_id = await _requester(call, call.path.run_id, "generate")
    client, run_id = call.api.queue.inference, call.path.run_id
    with call.api.limits.request(call.client.caller):
        record = await client.enqueue_generate(run_id, call.body, user_id=user_id, request_id=request_id)
        return await _answer(call, record, call.query.wait)


async def get_generation(call: Call[RequestPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Read a generation."""
    await call.api.run(call.client, call.path.run_id)
    record = await call.api.queue.inference.get_generate(call.path.run_id, call.path.request_id)
    return await _answer(call, record, call.query.wait)


async def predict(call: Call[RunPath, PredictQuery, PredictRequest]) -> web.StreamResponse:
    """Predict the next token of a text."""
    return await _predict(call, call.path.run_id, call.query.wait, call.body)


async def predict_with_newest(call: Call[NoQuery, AnyRunQuery, PredictRequest]) -> web.StreamResponse:
    """Predict the next token of a text with the newest completed run, or with a given one."""
    run_id = call.query.run_id
    if run_id is None:
        await call.api.index.refresh()
        run_id = next((run.run_id for run in visible_models(call) if run.objective == "causal_lm"), None)
        if run_id is None:
            raise AppError(ErrorCode.RUN_NOT_FOUND, "There is no completed run that predicts the next token.")
    if call.idempotency is not None:  # by now, another run may be the newest
        run_id = await call.api.queue.first_value(call.idempotency, run_id)
        if call.query.run_id not in (None, run_id):
            raise AppError(ErrorCode.CONFLICT, SAME_KEY)
    return await _predict(call, run_id, call.query.wait, call.body)


async def get_prediction(call: Call[RequestPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Read a prediction."""
    await call.api.run(call.client, call.path.run_id)
    record = await call.api.queue.inference.get_predict(call.path.run_id, call.path.request_id)
    return await _answer(call, record, call.query.wait)


async def chat(call: Call[RunPath, WaitQuery, ChatRequest]) -> web.StreamResponse:
    """Send a message of a chat; without a session id it starts a new one."""
    user_id, request_id = await _requester(call, call.path.run_id, "chat")
    client, run_id = call.api.queue.inference, call.path.run_id
    with call.api.limits.request(call.client.caller):
        record = await client.enqueue_chat(run_id, call.body, user_id=user_id, request_id=request_id)
        return await _answer(call, record, call.query.wait, under=f"chat/{record.response.session_id}")


async def get_chat_answer(call: Call[ChatTurnPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Read the answer to a message of a chat."""
    await call.api.run(call.client, call.path.run_id)
    path = call.path
    await call.api.queue.inference.get_chat(path.run_id, path.session_id)
    record = await call.api.queue.inference.get_chat_answer(path.run_id, path.session_id, path.request_id)
    return await _answer(call, record, call.query.wait, under=f"chat/{path.session_id}")


async def get_chat(call: Call[ChatPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Read the turns of a chat."""
    await call.api.run(call.client, call.path.run_id)
    return reply(await call.api.queue.inference.get_chat(call.path.run_id, call.path.session_id))


async def delete_chat(call: Call[ChatPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Delete a chat."""
    await call.api.run(call.client, call.path.run_id)
    await call.api.queue.inference.delete_chat(call.path.run_id, call.path.session_id)
    return web.Response(status=204)


async def evaluate(call: Call[RunPath, WaitQuery, EvalRequest]) -> web.StreamResponse:
    """Evaluate a run on one of its splits, or on a corpus by its name."""
    user_id, request_id = await _requester(call, call.path.run_id, "score")
    client, run_id = call.api.queue.inference, call.path.run_id
    with call.api.limits.request(call.client.caller):
        record = await client.enqueue_evaluate(run_id, call.body, user_id=user_id, request_id=request_id)
        return await _answer(call, record, call.query.wait)


async def get_evaluation(call: Call[RequestPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Read an evaluation."""
    await call.api.run(call.client, call.path.run_id)
    record = await call.api.queue.inference.get_evaluation(call.path.run_id, call.path.request_id)
    return await _answer(call, record, call.query.wait)


async def get_latest_evaluation(call: Call[RunPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Read the latest evaluation of a run."""
    run = await call.api.run(call.client, call.path.run_id)
    return reply(await asyncio.to_thread(run.evaluation))


def visible_models(call: Call[PathT, QueryT, BodyT]) -> list[RunEntry]:
    """Return the completed runs that the client may use, newest first, as of the last refresh of the index."""
    api, caller = call.api, call.client.caller
    return [run for run in api.index.runs if run.state == "completed" and api.permissions.may_see(caller, run)]


async def _predict(
    call: Call[PathT, QueryT, PredictRequest], run_id: str, wait_seconds: float, request: PredictRequest
) -> web.StreamResponse:
    user_id, request_id = await _requester(call, run_id, "generate")
    client = call.api.queue.inference
    with call.api.limits.request(call.client.caller):
        record = await client.enqueue_predict(run_id, request, user_id=user_id, request_id=request_id)
        return await _answer(call, record, wait_seconds)


async def _requester(call: Call[PathT, QueryT, BodyT], run_id: str, command: str) -> _Requester:
    """Check that the client may run the bot's command on a run."""
    await call.api.run(call.client, run_id, command)
    return _Requester(call.client.user_id, call.request_id)


async def _answer(
    call: Call[PathT, QueryT, BodyT], record: RecordT, wait_seconds: float, *, under: str | None = None
) -> web.StreamResponse:
    """Answer with the response of a request and its address, and 202 while it has no result."""
    response, client = record.response, call.api.queue.inference
    location = f"/runs/{response.run_id}/{under or record.kind}/{response.request_id}"
    answer = WaitingAnswer(call.request, {"Location": location}, wait_seconds)
    with call.api.stream(call.client) if wait_seconds and _is_pending(record) else nullcontext(), answer.errors():
        while _is_pending(record) and (left := await answer.seconds_left()):
            record = await client.follow(record, wait_seconds=min(left, _LOOK_SECONDS))
    return await answer.end(record.response, 202 if _is_pending(record) else 200)


def _is_pending(record: RecordT) -> bool:
    return record.response.status in ("queued", "running")


def _answers(record: type[Response], *links: Link) -> dict[int, Answer]:
    queued = "The request is queued or running; the header Location has the address of its result"
    return {
        202: Answer(queued, record, links),
        200: Answer("The request has ended: completed, or failed with an error; or `wait` is over", record, links),
    }


def _result(operation_name: str) -> Link:
    """Return the link from a request to its result."""
    ids = {name: f"$response.body#/{name}" for name in ("run_id", "request_id")}
    return Link(operation_name, ids)


_SESSION = {name: f"$response.body#/{name}" for name in ("run_id", "session_id")}
_OF_CHAT = (
    Link("get_chat_answer", {**_SESSION, "request_id": "$response.body#/request_id"}),
    Link("get_chat", _SESSION),
    Link("delete_chat", _SESSION),
)


OPERATIONS: tuple[Operation, ...] = (
    operation(
        "POST /runs/{run_id}/score",
        score,
        (RunPath, WaitQuery, ScoreRequest),
        _answers(ScoreResponse, _result("get_score")),
        tag="inference",
        example={"text": "the sun was shining on the sea", "detail_level": "per_char"},
    ),
    operation(
        "GET /runs/{run_id}/score/{request_id}",
        get_score,
        (RequestPath, WaitQuery, NoBody),
        _answers(ScoreResponse),
        tag="inference",
    ),
    operation(
        "DELETE /runs/{run_id}/score/{request_id}",
        delete_score,
        (RequestPath, NoQuery, NoBody),
        {204: Answer("The score is deleted")},
        tag="inference",
    ),
    operation(
        "POST /runs/{run_id}/generate",
        generate,
        (RunPath, WaitQuery, GenerateRequest),
        _answers(GenerateResponse, _result("get_generation")),
        tag="inference",
        example={"prompt_text": "the sun", "max_new_tokens": 20, "seed": 1},
    ),
    operation(
        "GET /runs/{run_id}/generate/{request_id}",
        get_generation,
        (RequestPath, WaitQuery, NoBody),
        _answers(GenerateResponse),
        tag="inference",
    ),
    operation(
        "POST /runs/{run_id}/predict",
        predict,
        (RunPath, PredictQuery, PredictRequest),
        _answers(PredictResponse, _result("get_prediction")),
        tag="inference",
        example={"text": "the sun", "k": 5},
    ),
    operation(
        "POST /predict",
        predict_with_newest,
        (NoQuery, AnyRunQuery, PredictRequest),
        _answers(PredictResponse, _result("get_prediction")),
        tag="inference",
        example={"text": "the sun", "k": 5},
    ),
    operation(
        "GET /runs/{run_id}/predict/{request_id}",
        get_prediction,
        (RequestPath, WaitQuery, NoBody),
        _answers(PredictResponse),
        tag="inference",
    ),
    operation(
        "POST /runs/{run_id}/chat",
        chat,
        (RunPath, WaitQuery, ChatRequest),
        _answers(ChatResponse, *_OF_CHAT),
        tag="inference",
        example={"message": "the sun was", "max_new_tokens": 20},
    ),
    operation(
        "GET /runs/{run_id}/chat/{session_id}/{request_id}",
        get_chat_answer,
        (ChatTurnPath, WaitQuery, NoBody),
        _answers(ChatResponse),
        tag="inference",
    ),
    operation(
        "GET /runs/{run_id}/chat/{session_id}",
        get_chat,
        (ChatPath, NoQuery, NoBody),
        {200: Answer("The turns, the oldest first", ChatHistory)},
        tag="inference",
    ),
    operation(
        "DELETE /runs/{run_id}/chat/{session_id}",
        delete_chat,
        (ChatPath, NoQuery, NoBody),
        {204: Answer("The chat is deleted")},
        tag="inference",
    ),
    operation(
        "POST /runs/{run_id}/evaluate",
        evaluate,
        (RunPath, WaitQuery, EvalRequest),
        _answers(EvalResponse, _result("get_evaluation")),
        tag="inference",
        example={"split": "validation"},
    ),
    operation(
        "GET /runs/{run_id}/evaluate/{request_id}",
        get_evaluation,
        (RequestPath, WaitQuery, NoBody),
        _answers(EvalResponse),
        tag="inference",
    ),
    operation(
        "GET /runs/{run_id}/eval",
        get_latest_evaluation,
        (RunPath, NoQuery, NoBody),
        {200: Answer("The metrics", EvalMetrics)},
        tag="inference",
    ),
)
