"""Work on tokenizers: train, list, read."""

import asyncio

from trainer.artifacts.tokenizers import resolve_tokenizer
from trainer.contracts.base import changed
from trainer.contracts.parameters import NoBody, NoQuery, TokenizerPath, WaitQuery
from trainer.contracts.tokenizer_jobs import TokenizerAccepted, TokenizerList, TokenizerStatus, TokenizerTrainRequest
from trainer.lab.lab import Asked, Lab
from trainer.lab.waits import at_end, check_first


async def list_tokenizers(lab: Lab, asked: Asked[NoQuery, NoQuery, NoBody]) -> TokenizerList:
    """List the shared tokenizers and those of runs that the client may see, newest first."""
    store, is_usable = lab.stores.tokenizers, await lab.usable_tokenizers(asked.caller)
    statuses = await asyncio.to_thread(lambda: [_public(one.status()) for one in store.all() if is_usable(one)])
    return TokenizerList(tokenizers=tuple(statuses))


async def train_tokenizer(lab: Lab, asked: Asked[NoQuery, WaitQuery, TokenizerTrainRequest]) -> TokenizerAccepted:
    """Train a tokenizer; an equal request names the same tokenizer."""
    record = await resolve_tokenizer(asked.body, lab.stores.corpora)
    await check_first(lab, asked, record.tokenizer_id)
    return await (await lab.live()).accept_tokenizer(record)


async def get_tokenizer(lab: Lab, asked: Asked[TokenizerPath, WaitQuery, NoBody]) -> TokenizerStatus:
    """Read the status and the statistics of a tokenizer; with `wait`, after its end or after this time."""
    tokenizer = lab.stores.tokenizers.get(asked.path.tokenizer_id)
    return _public(await at_end(lambda: asyncio.to_thread(tokenizer.status), asked.query.wait))


def _public(status: TokenizerStatus) -> TokenizerStatus:
    """Return a status with the address of the tokenizer's files in place of their folder."""
    return changed(status, artifact=f"/artifacts/tokenizers/{status.tokenizer_id}")
