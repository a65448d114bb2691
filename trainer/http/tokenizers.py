"""Operations on tokenizers: train, list, read."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

from aiohttp import web

from trainer.artifacts.tokenizers import resolve_tokenizer
from trainer.contracts.base import Identifier, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizer_jobs import TokenizerAccepted, TokenizerList, TokenizerStatus, TokenizerTrainRequest
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
    WaitQuery,
    operation,
    reply,
)
from trainer.http.waiting import reply_at_end
from trainer.queue.inference_client import SAME_KEY


class TokenizerPath(Query):
    tokenizer_id: Identifier


async def list_tokenizers(call: Call[NoQuery, NoQuery, NoBody]) -> web.StreamResponse:
    """List the shared tokenizers and those of runs that the client may see, newest first."""
    store, is_usable = call.api.queue.tokenizers, await call.api.tokenizers(call.client)
    statuses = await asyncio.to_thread(lambda: [_public(one.status()) for one in store.all() if is_usable(one)])
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
        return await _reply_at_end(call, accepted.tokenizer_id, location)
    return reply(accepted, 202, location)


async def get_tokenizer(call: Call[TokenizerPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Read the status and the statistics of a tokenizer; with `wait`, after its end or after this time."""
    return await _reply_at_end(call, call.path.tokenizer_id)


async def _reply_at_end(
    call: Call[PathT, WaitQuery, BodyT], tokenizer_id: str, headers: Mapping[str, str] = MappingProxyType({})
) -> web.StreamResponse:
    tokenizer = await call.api.tokenizer(call.client, tokenizer_id)

    async def status() -> TokenizerStatus:
        return _public(await asyncio.to_thread(tokenizer.status))

    return await reply_at_end(call, status, _has_ended, headers)


def _public(status: TokenizerStatus) -> TokenizerStatus:
    """Return a status with the address of the tokenizer's files in place of their folder."""
    return changed(status, artifact=f"/artifacts/tokenizers/{status.tokenizer_id}")


def _has_ended(status: TokenizerStatus) -> bool:
    return status.status in ("completed", "failed")


_ID = "$response.body#/tokenizer_id"
_LINKS = (
    Link("get_tokenizer", {"tokenizer_id": _ID}),
    Link("list_files", {"kind": "tokenizers", "item_id": _ID}),
)
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
                "Without `wait`: the tokenizer is queued, and Location has its address",
                TokenizerAccepted,
                _LINKS,
            ),
            200: Answer("With `wait`: its status at its end, or after this time", TokenizerStatus, _LINKS),
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
