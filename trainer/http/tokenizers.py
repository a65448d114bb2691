"""Operations on tokenizers: train, list, read."""

import asyncio

from aiohttp import web

from trainer.artifacts.tokenizers import resolve_tokenizer
from trainer.contracts.base import GivenName, changed
from trainer.contracts.tokenizer_jobs import TokenizerAccepted, TokenizerList, TokenizerStatus, TokenizerTrainRequest
from trainer.http.operations import (
    ApiRequest,
    BodyT,
    Link,
    NoBody,
    NoQuery,
    Operation,
    PathT,
    Query,
    ResponseSpec,
    WaitQuery,
    job_answers,
    operation,
    reply,
)
from trainer.http.waiting import check_first, reply_accepted, reply_at_end


class TokenizerPath(Query):
    tokenizer_id: GivenName


async def list_tokenizers(call: ApiRequest[NoQuery, NoQuery, NoBody]) -> web.StreamResponse:
    """List the shared tokenizers and those of runs that the client may see, newest first."""
    store, is_usable = call.api.queue.tokenizers, await call.api.tokenizers(call.client)
    statuses = await asyncio.to_thread(lambda: [_public(one.status()) for one in store.all() if is_usable(one)])
    return reply(TokenizerList(tokenizers=tuple(statuses)))


async def train_tokenizer(call: ApiRequest[NoQuery, WaitQuery, TokenizerTrainRequest]) -> web.StreamResponse:
    """Train a tokenizer; an equal request names the same tokenizer."""
    queue = call.api.queue
    record = await resolve_tokenizer(call.body, queue.corpora)
    await check_first(call, record.tokenizer_id)
    accepted, address = await queue.accept_tokenizer(record), f"/tokenizers/{record.tokenizer_id}"
    return await reply_accepted(call, accepted, address, lambda: _status(call, record.tokenizer_id))


async def get_tokenizer(call: ApiRequest[TokenizerPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Read the status and the statistics of a tokenizer; with `wait`, after its end or after this time."""
    return await reply_at_end(call, lambda: _status(call, call.path.tokenizer_id))


async def _status(call: ApiRequest[PathT, WaitQuery, BodyT], tokenizer_id: str) -> TokenizerStatus:
    tokenizer = await call.api.tokenizer(call.client, tokenizer_id)
    return _public(await asyncio.to_thread(tokenizer.status))


def _public(status: TokenizerStatus) -> TokenizerStatus:
    """Return a status with the address of the tokenizer's files in place of their folder."""
    return changed(status, artifact=f"/artifacts/tokenizers/{status.tokenizer_id}")


_ID = "$response.body#/tokenizer_id"
_LINKS = (
    Link("get_tokenizer", {"tokenizer_id": _ID}),
    Link("list_files", {"kind": "tokenizers", "item_id": _ID}),
)
OPERATIONS: tuple[Operation, ...] = (
    operation(
        "GET /tokenizers", list_tokenizers, {200: ResponseSpec("The tokenizers", TokenizerList)}, tag="tokenizers"
    ),
    operation(
        "POST /tokenizers/train",
        train_tokenizer,
        job_answers(TokenizerAccepted, TokenizerStatus, _LINKS),
        tag="tokenizers",
        example={"method": "bpe", "corpora": ["demo"], "vocab_size": 300},
    ),
    operation(
        "GET /tokenizers/{tokenizer_id}",
        get_tokenizer,
        {200: ResponseSpec("The status of the tokenizer", TokenizerStatus)},
        tag="tokenizers",
    ),
)
