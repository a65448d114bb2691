"""Operations on finished runs, made from the table of inference kinds; chats and `POST /predict` have their own."""

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TypeVar

from aiohttp import web

from trainer.contracts.base import GivenName, Identifier
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import (
    ChatHistory,
    ChatRecord,
    ChatResponse,
    EvalMetrics,
    PredictRequest,
    PredictResponse,
)
from trainer.contracts.inference_fields import InferenceRequest, Response, ResponseT
from trainer.http.operations import (
    ApiRequest,
    BodyT,
    Link,
    ModelPath,
    NoBody,
    NoQuery,
    Operation,
    PathT,
    QueryT,
    ResponseSpec,
    RunPath,
    Wait,
    WaitQuery,
    located,
    operation,
    reply,
)
from trainer.http.waiting import WaitingAnswer
from trainer.queue.inference_client import EXPIRED, SAME_KEY
from trainer.queue.inference_kinds import KINDS, HttpRoute, InferenceKind, kind_of
from trainer.queue.run_index import RunEntry

_LOOK_SECONDS = 1.0
WaitT = TypeVar("WaitT", bound=WaitQuery)
RequestT = TypeVar("RequestT", bound=InferenceRequest)


class RequestPath(RunPath):
    request_id: Identifier


class ChatPath(RunPath):
    session_id: Identifier


class ChatTurnPath(ChatPath):
    request_id: Identifier


class PredictQuery(WaitQuery):
    wait: Wait = 30.0
    """Seconds to wait for the result; 0: answer at once."""


class AnyRunQuery(PredictQuery):
    run_id: GivenName | None = None
    """The run, or a checkpoint of it; default: the newest completed run that predicts the next token."""


async def predict_with_newest(call: ApiRequest[NoQuery, AnyRunQuery, PredictRequest]) -> web.StreamResponse:
    """Predict the next token of a text with the newest completed run, or with a given one."""
    model = named = call.query.run_id
    if model is not None:
        model = named = await call.api.run_name(call.client, model, or_checkpoint=True)
    else:
        await call.api.index.refresh()
        model = next((run.run_id for run in visible_models(call) if run.objective == "causal_lm"), None)
        if model is None:
            raise AppError(ErrorCode.RUN_NOT_FOUND, "There is no completed run that predicts the next token.")
    if call.idempotency is not None:  # by now, another run may be the newest
        model = await call.api.queue.first_value(call.idempotency, model)
        if named not in (None, model):
            raise AppError(ErrorCode.CONFLICT, SAME_KEY)
    return await _submit(call, model)


async def get_chat_answer(call: ApiRequest[ChatTurnPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Read the answer to a message of a chat."""
    path, client = call.path, call.api.queue.inference
    await call.api.run(call.client, path.run_id)
    await client.get_chat(path.run_id, path.session_id)
    response = (await client.get(ChatRecord, path.run_id, path.request_id)).response
    if response.session_id != path.session_id:
        raise AppError(ErrorCode.DATA_NOT_FOUND, EXPIRED)
    return await _answer(call, response)


async def get_chat(call: ApiRequest[ChatPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Read the turns of a chat."""
    await call.api.run(call.client, call.path.run_id)
    return reply(await call.api.queue.inference.get_chat(call.path.run_id, call.path.session_id))


async def delete_chat(call: ApiRequest[ChatPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Delete a chat."""
    await call.api.run(call.client, call.path.run_id)
    await call.api.queue.inference.delete_chat(call.path.run_id, call.path.session_id)
    return web.Response(status=204)


async def get_latest_evaluation(call: ApiRequest[RunPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Read the latest evaluation of a run."""
    run = await call.api.run(call.client, call.path.run_id)
    return reply(await asyncio.to_thread(run.evaluation))


def visible_models(call: ApiRequest[PathT, QueryT, BodyT]) -> list[RunEntry]:
    """Return the completed runs that the client may use, newest first, as of the last refresh of the index."""
    api, caller = call.api, call.client.caller
    return [run for run in api.index.runs if run.state == "completed" and api.permissions.may_see(caller, run)]


def _operations(kind: InferenceKind, route: HttpRoute) -> Iterator[Operation]:
    """Yield the operations of a kind: submit a request, read its result, and delete it."""
    address, noun = f"/runs/{{run_id}}/{kind.name}", route.noun.partition(" ")[2]
    name = noun.replace(" ", "_")
    answers, links = kind.request.response_type(), _LINKS.get(kind.name, (_result_link(f"get_{name}"),))

    async def submit(call: ApiRequest[ModelPath, WaitQuery, InferenceRequest]) -> web.StreamResponse:
        return await _submit(call, call.path.run_id)

    async def read(call: ApiRequest[RequestPath, WaitQuery, NoBody]) -> web.StreamResponse:
        await call.api.run(call.client, call.path.run_id)
        record = await call.api.queue.inference.get(kind.record, call.path.run_id, call.path.request_id)
        if record.request.has_surprisals:
            await call.api.check_surprisals(call.client, call.path.run_id)
        return await _answer(call, record.response)

    async def delete(call: ApiRequest[RequestPath, NoQuery, NoBody]) -> web.StreamResponse:
        await call.api.run(call.client, call.path.run_id)
        await call.api.queue.inference.delete(kind.record, call.path.run_id, call.path.request_id)
        return web.Response(status=204)

    yield operation(
        f"POST {address}",
        submit,
        _answers(answers, *links),
        inputs=(ModelPath, PredictQuery if route.waits else WaitQuery, kind.request),
        tag="inference",
        name=kind.name,
        summary=route.summary,
        example=route.example,
    )
    if kind.record is ChatRecord:  # its answers are below their chat
        return
    yield operation(
        f"GET {address}/{{request_id}}",
        read,
        _answers(answers),
        tag="inference",
        name=f"get_{name}",
        summary=f"Read {route.noun}.",
    )
    yield operation(
        f"DELETE {address}/{{request_id}}",
        delete,
        {204: ResponseSpec(f"The {noun} is deleted")},
        tag="inference",
        name=f"delete_{name}",
        summary=f"Delete {route.noun}, or withdraw the request for it.",
    )


async def _submit(call: ApiRequest[PathT, WaitT, RequestT], model: str) -> web.StreamResponse:
    """Submit a request to a model, if the client may run the bot's command on its run."""
    route = kind_of(call.body).route
    await call.api.run(call.client, model, route.command if route else "status")
    if call.body.has_surprisals:
        await call.api.check_surprisals(call.client, model)
    client, user_id = call.api.queue.inference, call.client.user_id
    with call.api.limits.request(call.client.caller):
        return await _answer(call, await client.submit(model, call.body, user_id=user_id, request_id=call.request_id))


async def _answer(call: ApiRequest[PathT, WaitT, BodyT], response: ResponseT) -> web.StreamResponse:
    """Answer with a response and its address, and 202 while it has no result."""
    location = "/".join(("/runs", response.run_id, kind_of(response).name, *response.place))
    wait_seconds = call.query.wait
    answer = WaitingAnswer(call.request, located(call.request, location), wait_seconds)
    with call.api.stream(call.client) if wait_seconds and _is_pending(response) else nullcontext(), answer.errors():
        while _is_pending(response) and (left := await answer.seconds_left()):
            response = await call.api.queue.inference.follow(response, wait_seconds=min(left, _LOOK_SECONDS))
    return await answer.end(response, 202 if _is_pending(response) else 200)


def _is_pending(response: Response) -> bool:
    return response.status in ("queued", "running")


def _answers(record: type[Response], *links: Link) -> dict[int, ResponseSpec]:
    queued = "The request is queued or running; the header Location has the address of its result"
    return {
        202: ResponseSpec(queued, record, links),
        200: ResponseSpec(
            "The request has ended: completed, or failed with an error; or `wait` is over", record, links
        ),
    }


def _result_link(operation_name: str) -> Link:
    """Return the link from a request to its result."""
    ids = {name: f"$response.body#/{name}" for name in ("run_id", "request_id")}
    return Link(operation_name, ids)


_SESSION = {name: f"$response.body#/{name}" for name in ("run_id", "session_id")}
_LINKS = {
    "chat": (
        Link("get_chat_answer", {**_SESSION, "request_id": "$response.body#/request_id"}),
        Link("get_chat", _SESSION),
        Link("delete_chat", _SESSION),
    )
}
OPERATIONS: tuple[Operation, ...] = (
    *(one for kind in KINDS.values() if kind.route is not None for one in _operations(kind, kind.route)),
    operation(
        "POST /predict",
        predict_with_newest,
        _answers(PredictResponse, _result_link("get_prediction")),
        tag="inference",
        example={"text": "the sun", "k": 5},
    ),
    operation(
        "GET /runs/{run_id}/chat/{session_id}/{request_id}", get_chat_answer, _answers(ChatResponse), tag="inference"
    ),
    operation(
        "GET /runs/{run_id}/chat/{session_id}",
        get_chat,
        {200: ResponseSpec("The turns, the oldest first", ChatHistory)},
        tag="inference",
    ),
    operation(
        "DELETE /runs/{run_id}/chat/{session_id}",
        delete_chat,
        {204: ResponseSpec("The chat is deleted")},
        tag="inference",
    ),
    operation(
        "GET /runs/{run_id}/eval",
        get_latest_evaluation,
        {200: ResponseSpec("The metrics", EvalMetrics)},
        tag="inference",
    ),
)
