"""`/mt chat`, its button and its form: the turns of a chat with a model."""

import discord
from discord import app_commands

from bot.commands.inference import RUN_HELP, default_length, infer
from bot.commands.responses import Answer, ButtonAnswer, ButtonForm, CommandContext, Reactions, respond
from bot.commands.run_options import find_run, run_for_form, suggested_runs
from bot.messages.buttons import ButtonPress, Field, button, button_row, form
from bot.messages.inference import chat_answer
from bot.session.client import Bot
from trainer.config.validation import parse
from trainer.contracts.chats import ChatRequest
from trainer.lab.language import _

_NEW = "new"
"""The session that starts a chat."""


@app_commands.command(description="Chat with a model; only you see the messages.")
@app_commands.describe(
    message="Your message; the model continues the chat",
    run=RUN_HELP,
    session="Id of a chat, or new; default: your last chat with this run",
)
@app_commands.autocomplete(run=suggested_runs("chat"))
async def chat(
    interaction: discord.Interaction[Bot],
    message: app_commands.Range[str, 1, 2000],
    run: str | None = None,
    session: app_commands.Range[str, 1, 64] | None = None,
) -> None:
    await respond(interaction, "chat", lambda context: _chat(context, run, message, session))


async def _chat_form(context: CommandContext, press: ButtonPress) -> discord.ui.Modal:
    run = await run_for_form(context, "chat", press.run_id)
    await context.lab.queue.inference.get_chat(run.run_id, press.detail or "")
    title = _("Reply to {name}", name=run.name)
    return form("chat", run.model, title, Field("message", _("Message")), detail=press.detail)


async def _chat(context: CommandContext, run_id: str | None, message: str, session_id: str | None) -> Answer:
    run = await find_run(context, "chat", run_id)
    if session_id is None:
        session_id = await context.lab.queue.inference.last_chat(run.record.run_id, context.caller.user_id)
    values: dict[str, object] = {"message": message, "session_id": None if session_id == _NEW else session_id}
    request = parse(ChatRequest, values | {"max_new_tokens": default_length(context.bot)})
    response = await infer(context, run, request)
    reply = button_row(button("chat", run.model, _("Reply…"), detail=response.session_id))
    return Answer(chat_answer(run.record, message, response), view=reply)


BUTTONS: Reactions = {"chat": ButtonForm("chat", _chat_form)}
FORMS = {
    "chat": ButtonAnswer(
        "chat", lambda context, form: _chat(context, form.run_id, form.fields["message"], form.detail)
    ),
}
