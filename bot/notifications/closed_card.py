"""The message to a user whose direct messages are closed."""

from bot.messages.buttons import button_row
from bot.messages.text import AMBER, make_embed
from bot.notifications.subjects import Message, no_files
from trainer.people.language import _


def closed_message(subject_id: str) -> Message:
    """Return the one message in the channel of the command; it tells others nothing but the id."""
    lines = [
        _("The bot cannot send you direct messages, so it sends none about this. `/mt status` shows your runs."),
        _("Allow direct messages from this server's members, then use `/mt watch`."),
    ]
    return Message(
        make_embed(AMBER, f"📪 {_('Direct messages are closed')}", lines, f"{subject_id} · closed"),
        no_files,
        button_row(),
    )
