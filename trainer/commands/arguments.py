"""The command line: what can stand on it, and how a command is added to it."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NoReturn

from trainer.contracts.base import RunState
from trainer.contracts.errors import AppError, ErrorCode
from trainer.terminal import Terminal


class Arguments(argparse.Namespace):
    """What can stand on the command line, over all commands."""

    do: Callable[["Arguments", Terminal], int]
    """Does the command; returns the exit code."""
    json: bool
    embedded: bool
    file: Path | None
    corpus: str | None
    corpora: list[str]
    set: list[str]
    run: str
    method: str | None
    tokenizer: str
    text: str | None
    path: Path | None
    detail_level: Literal["summary", "per_char"]
    window_tokens: int | None
    prompt: str | None
    prompt_path: Path | None
    max_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int | None
    n: int | None
    split: str
    status: RunState | None
    limit: int
    tail: int
    follow: bool


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one sentence, exit 2."""

    def error(self, message: str) -> NoReturn:
        raise AppError(ErrorCode.INVALID_INPUT, f"{message[:1].upper()}{message[1:]}; see `{self.prog} --help`.")


class Commands:
    """The commands of a parser."""

    def __init__(self, parser: Parser) -> None:
        self._commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(self, name: str, do: Callable[[Arguments, Terminal], int], about: str, *, with_json: bool = True) -> Parser:
        """Add a command; return its parser, for its arguments."""
        parser = self._commands.add_parser(name, help=about, description=about)
        parser.set_defaults(do=do)
        if with_json:
            parser.add_argument("--json", action="store_true", help="print exactly one JSON object")
        return parser

    def group(self, name: str, about: str) -> "Commands":
        """Add a word that further commands stand under."""
        return Commands(self._commands.add_parser(name, help=about, description=about))
