"""Work on requests to finished runs; chats and `predict_with_newest` have functions of their own."""

import asyncio

from trainer.contracts.chats import ChatHistory, ChatRecord, ChatResponse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.inference_fields import InferenceRecord, InferenceRequest, Response, ResponseT
from trainer.contracts.parameters import (
    AnyRunQuery,
    ChatPath,
    ChatTurnPath,
    ModelPath,
    NoBody,
    NoQuery,
    RequestPath,
    RunPath,
    WaitQuery,
)
from trainer.contracts.predictions import PredictRequest, PredictResponse
from trainer.contracts.wording import EXPIRED, SAME_KEY
from trainer.lab.calls import QueryT
from trainer.lab.lab import Asked, Lab
from trainer.lab.permissions import Caller
from trainer.queue.inference_kinds import KINDS, InferenceKind
from trainer.queue.run_index import RunEntry


async def submit(lab: Lab, asked: Asked[ModelPath, WaitQuery, InferenceRequest]) -> Response:
    """Submit a request to a model."""
    return await lab.submit(asked.caller, asked.path.run_id, asked.body, request_id=asked.request_id)


async def read_result(lab: Lab, asked: Asked[RequestPath, WaitQuery, NoBody]) -> Response:
    """Read the result of a request; with `wait`, after its end or after this time."""
    record = await _own_record(lab, asked)
    await lab.rights.check_tokens(asked.caller, asked.path.run_id, record.request)
    return await _followed(lab, record.response, asked.query.wait)


async def delete_result(lab: Lab, asked: Asked[RequestPath, NoQuery, NoBody]) -> None:
    """Delete the result of a request, or withdraw the request."""
    record = await _own_record(lab, asked)
    await (await lab.live()).inference.delete(type(record), asked.path.run_id, asked.path.request_id)


async def predict_with_newest(lab: Lab, asked: Asked[NoQuery, AnyRunQuery, PredictRequest]) -> PredictResponse:
    """Predict the next token of a text with the newest completed run, or with a given one."""
    model = named = asked.query.run_id
    if model is not None:
        model = named = await lab.run_name(asked.caller, model, or_checkpoint=True)
    else:
        await lab.index.refresh()
        model = next((run.run_id for run in visible_models(lab, asked.caller) if run.objective == "causal_lm"), None)
        if model is None:
            raise AppError(ErrorCode.RUN_NOT_FOUND, "There is no completed run that predicts the next token.")
    if asked.key is not None:  # by now, another run may be the newest
        model = await (await lab.live()).first_value(asked.key, model)
        if named not in (None, model):
            raise AppError(ErrorCode.CONFLICT, SAME_KEY)
    await lab.run(asked.caller, model)
    return await lab.submit(asked.caller, model, asked.body, request_id=asked.request_id)


async def get_chat_answer(lab: Lab, asked: Asked[ChatTurnPath, WaitQuery, NoBody]) -> ChatResponse:
    """Read the answer to a message of a chat."""
    path, client = asked.path, (await lab.live()).inference
    await lab.chat(asked.caller, path.run_id, path.session_id)
    response = (await client.get(ChatRecord, path.run_id, path.request_id)).response
    if response.session_id != path.session_id:
        raise AppError(ErrorCode.DATA_NOT_FOUND, EXPIRED)
    return await _followed(lab, response, asked.query.wait)


async def get_chat(lab: Lab, asked: Asked[ChatPath, NoQuery, NoBody]) -> ChatHistory:
    """Read the turns of a chat."""
    return await lab.chat(asked.caller, asked.path.run_id, asked.path.session_id)


async def delete_chat(lab: Lab, asked: Asked[ChatPath, NoQuery, NoBody]) -> None:
    """Delete a chat."""
    await lab.chat(asked.caller, asked.path.run_id, asked.path.session_id)
    await (await lab.live()).inference.delete_chat(asked.path.run_id, asked.path.session_id)


async def get_latest_evaluation(lab: Lab, asked: Asked[RunPath, NoQuery, NoBody]) -> EvalMetrics:
    """Read the latest evaluation of a run."""
    return await asyncio.to_thread(lab.stores.runs.get(asked.path.run_id).evaluation)


def visible_models(lab: Lab, caller: Caller) -> list[RunEntry]:
    """Return the completed runs that the caller may use, newest first, as of the last refresh of the index."""
    return [run for run in lab.seen_runs(caller) if run.state == "completed"]


async def _own_record(lab: Lab, asked: Asked[RequestPath, QueryT, NoBody]) -> InferenceRecord:
    """Return a request of the caller with its result; raises DATA_NOT_FOUND for another person's, as if expired."""
    client = (await lab.live()).inference
    record = await client.get(_kind(asked).record, asked.path.run_id, asked.path.request_id)
    if not asked.caller.is_requester(record):
        raise AppError(ErrorCode.DATA_NOT_FOUND, EXPIRED)
    return record


def _kind(asked: Asked[RequestPath, QueryT, NoBody]) -> InferenceKind:
    """Return the kind in the address of a result."""
    return KINDS[asked.operation.path.split("/")[3]]


async def _followed(lab: Lab, response: ResponseT, wait_seconds: float) -> ResponseT:
    """Return a response when it has ended, or after some time."""
    if response.has_ended or not wait_seconds:
        return response
    return await (await lab.live()).inference.follow(response, wait_seconds=wait_seconds)
