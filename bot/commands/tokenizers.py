"""`/mt tokenizer train`, `list` and `show`: tokenizers that several runs can share."""

import discord
from discord import app_commands

from bot.commands.jobs import add_commands, watch_job
from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import autocomplete, corpus_suggestions, last_of, names_in
from bot.session.client import Bot
from trainer.config.validation import parse
from trainer.contracts.operations import JOB_ROWS
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest
from trainer.contracts.tokenizers import TokenizerMethod
from trainer.lab import calls

tokenizer = app_commands.Group(name="tokenizer", description="Tokenizers.")


@tokenizer.command(name="train", description="Train a tokenizer that several runs can share.")
@app_commands.describe(
    corpora="Names of corpora, with commas; the vocabulary covers all of them",
    method="Tokenizer method; default: char",
    vocab_size="Largest vocabulary; default: by the text, char and word: all",
    name="Name of the tokenizer in lists",
)
@app_commands.autocomplete(corpora=autocomplete(last_of(corpus_suggestions)))
async def train_tokenizer(
    interaction: discord.Interaction[Bot],
    corpora: str,
    method: TokenizerMethod = "char",
    vocab_size: app_commands.Range[int, 16, 200_000] | None = None,
    name: app_commands.Range[str, 1, 32] | None = None,
) -> None:
    names = names_in(corpora)
    fields: dict[str, object] = {"method": method, "corpora": names, "vocab_size": vocab_size, "label": name}
    await respond(interaction, "tokenizer train", lambda context: _train(context, fields))


async def _train(context: CommandContext, fields: dict[str, object]) -> Answer:
    request = parse(TokenizerTrainRequest, fields)
    accepted = await context.lab.call(calls.TRAIN_TOKENIZER, context.caller, body=request)
    return await watch_job(context, JOB_ROWS["tokenizers"], accepted.tokenizer_id)


add_commands(
    tokenizer,
    "tokenizers",
    list="List the tokenizers, newest first.",
    show="Show a tokenizer: vocabulary, corpora and fit to held-out text.",
)
