"""Work on tokenizers: train one, and show one."""

import asyncio

from trainer.artifacts.tokenizers import resolve_tokenizer
from trainer.contracts.base import changed
from trainer.contracts.parameters import NoBody, NoQuery, TokenizerPath, WaitQuery
from trainer.contracts.reports import Report
from trainer.contracts.tokenizer_jobs import TokenizerAccepted, TokenizerTrainRequest
from trainer.lab.lab import Asked, Lab
from trainer.lab.waits import check_first
from trainer.reports.tokenizer_report import tokenizer_report


async def train_tokenizer(lab: Lab, asked: Asked[NoQuery, WaitQuery, TokenizerTrainRequest]) -> TokenizerAccepted:
    """Train a tokenizer; an equal request names the same tokenizer."""
    record = await resolve_tokenizer(asked.body, lab.stores.corpora)
    await check_first(lab, asked, record.tokenizer_id)
    record = changed(record, user_id=asked.caller.discord_id, http=asked.origin)
    return await (await lab.live()).accept_tokenizer(record)


async def report_tokenizer(lab: Lab, asked: Asked[TokenizerPath, NoQuery, NoBody]) -> Report:
    """Read the status of a tokenizer as `get_tokenizer` does; return what it says to people."""
    tokenizer = lab.stores.tokenizers.get(asked.path.tokenizer_id)
    return tokenizer_report(await asyncio.to_thread(tokenizer.status))
