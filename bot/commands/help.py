"""`/mt help` and docs/commands.md, both made from the commands as Discord has them and from the table of rights.

`python -m bot.commands.help > docs/commands.md` makes the page anew.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence

import discord
from discord import app_commands
from pydantic import BaseModel, ConfigDict

from bot.client import Bot
from bot.commands.responses import Answer, Call, respond
from bot.embeds import help_answer
from bot.permissions import BUTTONS, RULES, Who
from bot.run_index import matching
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode

_KINDS = {3: "text", 4: "whole number", 5: "True or False", 10: "number", 11: "file"}


class _Part(BaseModel):
    model_config = ConfigDict(defer_build=True)  # the first who needs help waits for it, not the start


class _Choice(_Part):
    name: str


class Option(_Part):
    """An option of a command, as Discord is told of it."""

    name: str
    description: str
    type: int
    required: bool = False
    choices: tuple[_Choice, ...] = ()
    min_value: float | None = None
    max_value: float | None = None
    max_length: int | None = None

    @property
    def takes(self) -> str:
        """Which values it takes."""
        if self.choices:
            return ", ".join(choice.name for choice in self.choices)
        kind = _KINDS[self.type]
        if self.min_value is not None and self.max_value is not None:
            kind = f"{kind}, {self.min_value:.16g} to {self.max_value:.16g}"
        return f"{kind}, at most {self.max_length} characters" if self.max_length else kind


class Command(_Part):
    """A command, as Discord is told of it."""

    name: str
    description: str
    options: tuple[Option, ...] = ()


class CommandGroup(_Part):
    options: tuple[Command, ...]

    def named(self, name: str) -> Command:
        """Find a command; raises INVALID_INPUT naming those that there are."""
        for command in self.options:
            if command.name == name.strip().removeprefix("/mt ").casefold():
                return command
        known = ", ".join(command.name for command in self.options)
        raise AppError(ErrorCode.INVALID_INPUT, f"`topic` must be one of {known}.")


async def _topics(interaction: discord.Interaction[Bot], typed: str) -> list[app_commands.Choice[str]]:
    names = [command.name for command in described(interaction.client).options]
    return [app_commands.Choice(name=name, value=name) for name in matching(typed, names, lambda name: (name,))]


@app_commands.command(name="help", description="What the commands do, and who may give them.")
@app_commands.describe(topic="A command, for its options")
@app_commands.autocomplete(topic=_topics)
async def help_command(interaction: discord.Interaction[Bot], topic: str | None = None) -> None:
    await respond(interaction, "help", lambda call: _help(call, topic))


async def _help(call: Call, topic: str | None) -> Answer:
    group = described(call.bot)
    if topic is None:
        lines = [f"**/mt {one.name}** · {one.description}" for one in group.options]
        lines.append("`/mt help topic:train` tells the options of a command, here of train.")
        return Answer(help_answer("What I can do", lines, request_id=call.request_id))
    command = group.named(topic)
    options = [
        f"**{option.name}** ({option.takes}{', required' if option.required else ''}) · {option.description}"
        for option in command.options
    ]
    lines = [command.description, *_rules(command.name), *options]
    return Answer(help_answer(f"/mt {command.name}", lines, request_id=call.request_id))


def described(bot: "Bot") -> CommandGroup:
    return CommandGroup.model_validate(bot.group_payload)


def commands_page(group: CommandGroup) -> str:
    """docs/commands.md."""
    return "\n".join(
        [
            "# Commands",
            "",
            "Made from the code by `python -m bot.commands.help > docs/commands.md`.",
            "",
            "## Who may do what",
            "",
            *_table(("command", *_PEOPLE, "the answer is seen by"), _rights(group)),
            "",
            "Admins are `DISCORD__OWNER_ID` and `DISCORD__ADMIN_IDS`; users are `DISCORD__ALLOWED_USER_IDS` and the",
            "members of `DISCORD__ALLOWED_GUILD_IDS`; others are strangers. Runs are private where",
            "`DISCORD__PRIVATE_RUNS=true`. What is said of users is of runs that others have started; a run of the",
            "command line has no starter.",
            "",
            "## Buttons",
            "",
            "A button does what a command does, for whoever presses it with the rights of that person.",
            "",
            *_table(("button", "has the rights of"), ((one.label, f"`/mt {one.command}`") for one in BUTTONS.values())),
            "",
            "## Options",
            *(line for command in group.options for line in _options(command)),
            "",
        ]
    )


_PEOPLE = ("strangers", "users", "the run's starter", "admins", "users, private runs")
_MAY = {Who.USER: (True, True, True), Who.STARTER: (False, True, True), Who.ADMIN: (False, False, True)}
"""Whether users, starters and admins may, by the rule."""


def _rights(group: CommandGroup) -> Iterator[Sequence[str]]:
    for name, rule in RULES.items():
        is_of_run = any(option.name == "run" for option in group.named(name.split()[0]).options)
        people = (False, *_MAY[rule.who], rule.who is Who.USER and not is_of_run)
        yield f"`/mt {name}`", *("yes" if may else "no" for may in people), _seen_by(rule.ephemeral)


def _options(command: Command) -> Iterator[str]:
    yield from ("", f"### /mt {command.name}", "", command.description)
    rows = [
        (f"`{option.name}`{' (required)' if option.required else ''}", option.takes, option.description)
        for option in command.options
    ]
    yield from ("", *_table(("option", "takes", "what it is"), rows))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def _rules(command: str) -> Iterator[str]:
    """Who may give a command, or a part of it, and who sees the answer."""
    for name, rule in RULES.items():
        first, *part = name.split()
        if first == command:
            with_part = f", with `{part[0]}`" if part else ""
            yield f"For {rule.who}{with_part}; the answer is seen by {_seen_by(rule.ephemeral)}."


def _seen_by(is_ephemeral: bool) -> str:
    return "the caller" if is_ephemeral else "all who are there"


def main() -> int:
    """Print docs/commands.md."""
    from bot.app import build  # imports this module

    sys.stdout.write(commands_page(described(build(Settings()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
