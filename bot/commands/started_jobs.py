"""The card of a job that a command has started, and the notes in the command's answer."""

from bot.commands.responses import Answer, CommandContext
from trainer.artifacts.job_folder import AnyJob
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.lab.language import _


async def watched(context: CommandContext, answer: Answer, job: AnyJob, command: str) -> Answer:
    """Send the caller a card of a job; add to the answer where its progress is shown, and that no worker runs.

    Without direct messages, `command` shows the progress.
    """
    bot, caller = context
    watcher = await bot.notifier.watch(job, caller.user_id, None, caller.channel_id)
    note = _("A card in your direct messages shows the progress.")
    if watcher.closed_place is not None:
        note = _(
            "This bot cannot send you direct messages. Use `/mt {command}`, or allow direct messages.", command=command
        )
    notes = [note]
    if not await bot.lab.queue.workers.exist():
        notes.append(f"⚠ {_(WAIT_MESSAGES['worker'])}")
    answer.embed.description = "\n".join([answer.embed.description or "", *notes])
    return answer
