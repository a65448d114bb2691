"""Writes the reference of the `mt` command from its parsers."""

import argparse
from collections.abc import Iterator, Mapping

from trainer.commands.arguments import MtParser, Parser
from trainer.commands.terminal import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USER
from trainer.contracts.operations import COMMANDS, SECTIONS, TerminalCommand

_EXIT_CODES = {0: "success", EXIT_FAILED: "failure", EXIT_USER: "mistake in the input", EXIT_INTERRUPTED: "interrupted"}


def mt_page() -> str:
    """Return the text of the page."""
    found = dict(parsers(MtParser()))
    lines = [
        "# `mt` commands",
        "",
        "`mt COMMAND --help` shows the same. A command starts the worker that it needs if none is running.",
        "",
        "| exit code | meaning |",
        "| --- | --- |",
        *(f"| {code} | {meaning} |" for code, meaning in _EXIT_CODES.items()),
    ]
    for section, names in SECTIONS.items():
        lines += ["", f"## {section}"]
        for name in names:
            lines += _command(name, COMMANDS[name], found[name])
    return "\n".join([*lines, ""])


def parsers(parser: Parser, before: str = "") -> Iterator[tuple[str, Parser]]:
    """Yield the name and the parser of each command."""
    for action in parser._actions:
        below: object = action.choices
        if isinstance(below, Mapping):
            for name, inner in below.items():
                if isinstance(inner, Parser):
                    yield from parsers(inner, f"{before}{name} ")
            return
    yield before.strip(), parser


def _command(name: str, info: TerminalCommand, parser: Parser) -> Iterator[str]:
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS and action.dest != "help"]
    arguments = [action for action in shown if not action.option_strings]
    options = [action for action in shown if action.option_strings]
    usage = " ".join(["mt", name, *map(_usage, arguments), "[options]"])
    yield from ("", f"### mt {name}", "", f"{info.about[:1].upper()}{info.about[1:]}.", "", "```text", usage, "```")
    if shown:
        yield from ("", "| argument | description |", "| --- | --- |")
    for action in (*arguments, *options):
        yield f"| `{_form(action)}` | {(action.help or '').replace('|', '&#124;')} |"
    yield from ("", "```sh", info.example, "```")
    if parser.describe_fields is not None:
        yield from ("", "```text", parser.describe_fields().strip(), "```")


def _usage(argument: argparse.Action) -> str:
    """Return a positional argument as a usage shows it."""
    form = _form(argument)
    return {"?": f"[{form}]", "+": f"{form}…"}.get(str(argument.nargs), form)


def _form(action: argparse.Action) -> str:
    """Return the names and the value of an argument."""
    choices: object = action.choices
    value = str(action.metavar or "")
    if not value and isinstance(choices, tuple):
        value = "|".join(map(str, choices))
    return " ".join(filter(None, [", ".join(action.option_strings), value]))
