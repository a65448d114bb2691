"""The command line: what can stand on it, and how a command is added to it."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NoReturn

from trainer.commands.terminal import Terminal
from trainer.contracts.base import RunState
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import DetailLevel

_NO_ASSIGNMENTS: list[str] = []


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
    source: str
    tokenizer: str
    text: str | None
    path: Path | None
    pairs: Path | None
    detail_level: DetailLevel
    context: Literal["bos", "none"]
    pll_within_word: bool
    window_tokens: int | None
    table_format: Literal["table", "json", "jsonl", "csv", "tsv"]
    out: Path | None
    heatmap: Path | None
    prompt: str | None
    prompt_path: Path | None
    max_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int | None
    n: int | None
    split: str | None
    latest: bool
    others: list[str]
    tolerance: float
    fail_on_regression: bool
    k: int
    logprobs: bool
    stream: bool
    stop: list[str]
    ban: list[str]
    alphabet: str | None
    repetition_penalty: float | None
    past_lines: bool
    session: str | None
    status: RunState | None
    limit: int
    tail: int
    follow: bool
    size: str
    tokens: int
    families: str | None
    format: Literal["hf", "torchscript", "onnx", "archive"]
    target: Path
    archive: Path
    license: str | None


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one sentence, exit 2."""

    def error(self, message: str) -> NoReturn:
        raise AppError(ErrorCode.INVALID_INPUT, f"{message[:1].upper()}{message[1:]}; see `{self.prog} --help`.")

    def add_assignments(self, about: str = "a field of the train request") -> None:
        """Take `--set KEY=VALUE`, any number of times."""
        self.add_argument("--set", action="append", default=_NO_ASSIGNMENTS, metavar="KEY=VALUE", help=about)


class Commands:
    """The commands of a parser."""

    def __init__(self, parser: Parser) -> None:
        self._commands = parser.add_subparsers(required=True, metavar="COMMAND")
        self._named: dict[str, Parser | Commands] = {}

    def add(self, name: str, do: Callable[[Arguments, Terminal], int], about: str, *, with_json: bool = True) -> Parser:
        """Add a command; return its parser, for its arguments."""
        parser = self._commands.add_parser(name, help=about, description=about)
        parser.set_defaults(do=do)
        if with_json:
            parser.add_argument("--json", action="store_true", help="print exactly one JSON object")
        self._named[name] = parser
        return parser

    def group(self, name: str, about: str) -> "Commands":
        """Add a word that further commands stand under."""
        group = Commands(self._commands.add_parser(name, help=about, description=about))
        self._named[name] = group
        return group

    def parse(self, words: Sequence[str]) -> Arguments | None:
        """Parse a command line, options before, between or after the other words; None where it names no command."""
        named = self._named.get(words[0]) if words else None
        if isinstance(named, Commands):
            return named.parse(words[1:])
        if named is None:
            return None
        is_ended = words[1:2] == ["--"]  # such a `--` is lost by parse_intermixed_args
        parse = named.parse_args if is_ended else named.parse_intermixed_args
        return parse(words[1:], namespace=Arguments())
