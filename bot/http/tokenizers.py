"""Operations on tokenizers: train, list, read."""

import asyncio
from time import monotonic

from aiohttp import web

from bot.http.event_streams import has_left
from bot.http.operations import Answer, Call, NoBody, NoQuery, Operation, Query, WaitQuery, operation, reply
from trainer.artifacts.tokenizers import resolve_tokenizer
from trainer.contracts.base import Identifier, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizer_jobs import TokenizerAccepted, TokenizerList, TokenizerStatus, TokenizerTrainRequest
from trainer.jobs.inference_client import SAME_KEY

_LOOK_SECONDS = 0.25


class TokenizerPath(Query):
    tokenizer_id: Identifier


async def list_tokenizers(call: Call[NoQuery, NoQuery, NoBody]) -> web.StreamResponse:
    """List all tokenizers, newest first."""
    store = call.api.queue.tokenizers
    statuses = await asyncio.to_thread(lambda: [_public(tokenizer.status()) for tokenizer in store.all()])
    return reply(TokenizerList(tokenizers=tuple(statuses)))


async def train_tokenizer(call: Call[NoQuery, WaitQuery, TokenizerTrainRequest]) -> web.StreamResponse:
    """Train a tokenizer; an equal request names the same tokenizer."""
    queue, key = call.api.queue, call.idempotency
    record = await resolve_tokenizer(call.body, queue.corpora)
    if key is not None and await queue.first_value(key, record.tokenizer_id) != record.tokenizer_id:
        raise AppError(ErrorCode.CONFLICT, SAME_KEY)
    accepted = await queue.accept_tokenizer(record)
    location = {"Location": f"/tokenizers/{accepted.tokenizer_id}"}
    if call.query.wait:
        status = await _ended_status(call, accepted.tokenizer_id, call.query.wait)
        if _has_ended(status):
            return reply(status, headers=location)
    return reply(accepted, 202, location)


async def get_tokenizer(call: Call[TokenizerPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Read the status and the statistics of a tokenizer; with `wait`, after its end or after this time."""
    return reply(await _ended_status(call, call.path.tokenizer_id, call.query.wait))


async def _ended_status(
    call: Call[NoQuery, WaitQuery, TokenizerTrainRequest] | Call[TokenizerPath, WaitQuery, NoBody],
    tokenizer_id: str,
    wait_seconds: float,
) -> TokenizerStatus:
    tokenizer = call.api.queue.tokenizers.get(tokenizer_id)
    status = _public(await asyncio.to_thread(tokenizer.status))
    if _has_ended(status) or not wait_seconds:
        return status
    deadline = monotonic() + wait_seconds
    with call.api.stream(call.client):
        while not _has_ended(status) and (left := deadline - monotonic()) > 0 and not has_left(call.request):
            await asyncio.sleep(min(_LOOK_SECONDS, left))
            status = _public(await asyncio.to_thread(tokenizer.status))
    return status


def _public(status: TokenizerStatus) -> TokenizerStatus:
    """Return a status with the address of the tokenizer's files in place of their folder."""
    return changed(status, artifact=f"/artifacts/tokenizers/{status.tokenizer_id}")


def _has_ended(status: TokenizerStatus) -> bool:
    return status.status in ("completed", "failed")


OPERATIONS: tuple[Operation, ...] = (
    operation(
        "GET /tokenizers",
        list_tokenizers,
        (NoQuery, NoQuery, NoBody),
        {200: Answer("The tokenizers", TokenizerList)},
        tag="tokenizers",
    ),
    operation(
        "POST /tokenizers/train",
        train_tokenizer,
        (NoQuery, WaitQuery, TokenizerTrainRequest),
        {
            202: Answer(
                "The tokenizer is queued; the header Location has the address of its status", TokenizerAccepted
            ),
            200: Answer("With `wait`: the training has ended", TokenizerStatus),
        },
        tag="tokenizers",
        example={"method": "bpe", "corpora": ["demo"], "vocab_size": 300},
    ),
    operation(
        "GET /tokenizers/{tokenizer_id}",
        get_tokenizer,
        (TokenizerPath, WaitQuery, NoBody),
        {200: Answer("The status of the tokenizer", TokenizerStatus)},
        tag="tokenizers",
    ),
)
