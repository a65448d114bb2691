"""Prints docs/commands.md: python -m scripts.commands_page > docs/commands.md."""

import sys

from bot.app import build
from bot.commands.help import command_group_of, commands_page
from trainer.config.settings import Settings

if __name__ == "__main__":
    sys.stdout.write(commands_page(command_group_of(build(Settings()))))
