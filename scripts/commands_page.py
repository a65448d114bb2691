"""Writes the reference of the commands of Discord: python -m scripts.commands_page > docs/commands.md"""

import sys
from collections.abc import Iterable, Iterator, Sequence

from bot.app import BUTTONS, build
from bot.commands.help import CommandInfo, all_commands, audience, command_name, option_values
from trainer.config.settings import Settings
from trainer.contracts.operations import BY_NAME, CHAT_COMMANDS, JOB_ROWS, Role
from trainer.lab.permissions import command_of, typed_command

LABELS = {
    "status": "Refresh, and the list of `/mt runs`",
    "runs": "« Back, Next »",
    "runspage": "The number of the page in `/mt runs`",
    "watch": "Watch, Watch here",
    "unwatch": "Unwatch",
    "cancel": "Cancel, Cancel it",
    "logs": "Logs",
    "resume": "Resume",
    "unlock": "Read it",
    "retry": "Retry, Retry with batch …",
    "files": "Files",
    "file": "The list of files",
    "config": "Copy config",
    "details": "Details",
    "change": "Edit… of a run",
    "compare": "Compare…",
    "compareto": "The list of baselines",
    "generate": "Generate",
    "again": "Again",
    "edit": "Edit…",
    "hotter": "Hotter",
    "cooler": "Cooler",
    "chat": "Reply…",
    "scorethis": "Score this",
    "score": "Score…",
    "queue": "Refresh of `/mt queue`",
    "detail": "Detail",
    "csv": "CSV",
    "evalon": "Eval on…",
    "evaluate": "The list of Eval on…",
    "evaluated": "Show result",
    "differences": "The list of `/mt compare`",
    "corpora": "« Back, Next » of `/mt corpus list`",
    "corporapage": "The number of the page in `/mt corpus list`",
    "batpage": "Page",
    "batcsv": "CSV of a battery",
    "batcurves": "CSV of a development",
    "battex": "LaTeX of a battery",
    "readpage": "Page of a reading",
    "jobtable": "The list of tables of a report",
    "expcsv": "CSV",
    "exptex": "LaTeX",
    "exprerun": "Rerun missing",
    "study_start": "Start of a study",
    "jobwatch": "Watch of a job",
    "jobfiles": "ZIP of a job",
    **{
        f"{action}{row.words if action.startswith('list') else row.word}{page}": label.format(row)
        for row in JOB_ROWS.values()
        for action, page, label in (
            ("list_", "", "« Back, Next » of a list: {0.words}"),
            ("list_", "page", "The number of the page in a list: {0.words}"),
            ("get_", "", "Refresh, and the list Show…: {0.word}"),
            ("cancel_", "", "Cancel: {0.word}"),
            ("delete_", "", "Delete…, Delete it: {0.word}"),
        )
    },
}
"""Labels of buttons, by action."""
_PEOPLE = ("strangers", "users", "the run's owner", "admins", "users, private runs")
_ALLOWED = {
    **dict.fromkeys((Role.USER, Role.WEIGHTS), (True, True, True)),
    Role.OWNER: (False, True, True),
    Role.ADMIN: (False, False, True),
}
"""Permission of users, owners and admins, by role."""


def commands_page() -> str:
    """Return the text of docs/commands.md."""
    commands = all_commands(build(Settings()))
    buttons = ((label, _rule(BUTTONS[action].command)) for action, label in LABELS.items())
    return "\n".join(
        [
            "# Discord commands",
            "",
            "## Permissions",
            "",
            *_table(("command", *_PEOPLE, "answer is visible to"), _permissions(commands)),
            "",
            "Admins are `DISCORD__OWNER_ID` and `DISCORD__ADMIN_IDS`. Users are `DISCORD__ALLOWED_USER_IDS`, the",
            "members of `DISCORD__ALLOWED_GUILD_IDS` and those with `level:user` of `/mt-admin access`; `level:none`",
            "takes access away. All other people are strangers. Runs are private if `DISCORD__PRIVATE_RUNS=true`. Then",
            "only admins see experiments. The columns of users are about other people's runs. A run of the command",
            "line has no owner.",
            "",
            "## Buttons",
            "",
            "A button needs the same permission as its command; one without a command is for the people named.",
            "",
            *_table(("button", "command"), buttons),
            "",
            "## The menu of a message",
            "",
            "A right-click on a message, then *Apps*, offers **Score with last run** (as `/mt score`) and **Train on",
            "attachment** (as `/mt train`, with a form).",
            "",
            "## Options",
            *(line for command in commands for line in _options(command)),
            "",
        ]
    )


def _rule(command: str) -> str:
    """Return the command of a button; without one, whom it is for."""
    return f"`{typed_command(command)}`" if command in CHAT_COMMANDS else f"for {BY_NAME[command].role}"


def _permissions(commands: Sequence[CommandInfo]) -> Iterator[Sequence[str]]:
    of_run = {
        command_name(one)
        for one in commands
        if {"run", "a", "battery", "reading", "study"} & {option.display_name for option in one.parameters}
    }
    of_run |= {name for name in CHAT_COMMANDS if name.startswith("mt-experiment ")}  # which show many runs
    for name, operation in CHAT_COMMANDS.items():
        is_for_all = operation.role is Role.USER and command_of(name) not in of_run
        people = (False, *_ALLOWED[operation.role], is_for_all)
        yield f"`{typed_command(name)}`", *("yes" if allowed else "no" for allowed in people), audience(name)


def _options(command: CommandInfo) -> Iterator[str]:
    yield from ("", f"### {typed_command(command_name(command))}", "", command.description)
    rows = [
        (
            f"`{option.display_name}`{' (required)' if option.required else ''}",
            option_values(option),
            option.description,
        )
        for option in command.parameters
    ]
    yield from ("", *_table(("option", "values", "description"), rows))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    sys.stdout.write(commands_page())
