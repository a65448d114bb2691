"""Notes in the answers to commands that start a job."""

from bot.people.watchers import Watcher
from trainer.people.language import _


def card_note(watcher: Watcher, command: str) -> str:
    """Return where the progress is shown: in a card, or by `command` if direct messages are closed."""
    if watcher.closed_place is None:
        return _("A card in your direct messages shows the progress.")
    return _(
        "This bot cannot send you direct messages. Use `/mt {command}`, or allow direct messages.", command=command
    )
