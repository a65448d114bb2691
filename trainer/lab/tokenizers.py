"""Work on tokenizers: train one."""

from trainer.artifacts.tokenizers import resolve_tokenizer
from trainer.contracts.base import changed
from trainer.contracts.parameters import NoQuery, WaitQuery
from trainer.contracts.tokenizer_jobs import TokenizerAccepted, TokenizerTrainRequest
from trainer.lab.lab import Asked, Lab
from trainer.lab.waits import check_first


async def train_tokenizer(lab: Lab, asked: Asked[NoQuery, WaitQuery, TokenizerTrainRequest]) -> TokenizerAccepted:
    """Train a tokenizer; an equal request names the same tokenizer."""
    record = await resolve_tokenizer(asked.body, lab.stores.corpora)
    await check_first(lab, asked, record.tokenizer_id)
    record = changed(record, user_id=asked.caller.discord_id, http=asked.origin)
    return await (await lab.live()).accept_tokenizer(record)
