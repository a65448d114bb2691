"""The answer to the form of `/mt settings`."""

import discord

from bot.messages.text import GREEN, make_embed, plain
from bot.people.user_settings import Notify, UserSettings
from trainer.people.language import LANGUAGE_NAMES, _
from trainer.reports.score_table import Unit

NOTIFY_LABELS: dict[Notify, str] = {
    "dm": "Direct messages",
    "here": "The channel of the command",
    "off": "No messages",
}
UNIT_LABELS: dict[Unit, str] = {"bits": "Bits", "nats": "Nats"}


def settings_answer(settings: UserSettings, run_name: str | None) -> discord.Embed:
    """Return the stored settings; `run_name` is the name of the default run."""
    language = _("That of your Discord") if settings.language is None else LANGUAGE_NAMES[settings.language]
    run = _("The newest completed run") if run_name is None else plain(run_name)
    rows = [
        (_("Language of answers"), language),
        (_("Messages about new runs"), _(NOTIFY_LABELS[settings.notify])),
        (_("Default run"), run),
        (_("Unit of scores"), _(UNIT_LABELS[settings.unit])),
    ]
    return make_embed(GREEN, f"⚙ {_('Settings saved')}", [f"{label}: **{value}**" for label, value in rows])
