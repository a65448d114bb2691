"""The parser of the `mt` command: sections, typed options for each command, and shell completion."""

import argparse
from collections.abc import Callable, Sequence
from typing import Literal, NoReturn, TypeVar, get_args

import shtab

from trainer.commands.terminal import Terminal
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.validation import did_you_mean, shown_name

Section = Literal["Start", "Train", "Runs", "Use a model", "Data and tokenizers", "Check"]
"""The sections of `mt --help`, in their order."""


class Options(argparse.Namespace):
    """Options of a command; each command has a subclass with its own."""

    json: bool = False

    def __init__(self) -> None:
        super().__init__()


OptionsT = TypeVar("OptionsT", bound=Options)
_Run = Callable[[Sequence[str], Terminal], int]


class _StoreRun(argparse.Action):
    """Store a run id, which the shell completes."""

    complete = shtab.cmd('ls "${APP__ARTIFACTS_ROOT:-artifacts}/models" 2>/dev/null')

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, values)


class StoreFile(_StoreRun):
    """Store a path, which the shell completes."""

    complete = shtab.FILE


class Parser(argparse.ArgumentParser):
    """argparse with one-sentence errors and exit code 2."""

    describe_fields: Callable[[], str] | None = None
    """Makes the last part of the help; called for `--help` only."""

    def __init__(self, *, prog: str, description: str | None = None, epilog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog)

    def error(self, message: str) -> NoReturn:
        raise AppError(ErrorCode.INVALID_INPUT, f"{message[:1].upper()}{message[1:]}; see `{self.prog} --help`.")

    def format_help(self) -> str:
        return super().format_help() + ("" if self.describe_fields is None else f"\n{self.describe_fields()}\n")

    def add_run(self, about: str = "run id, as `mt runs` lists it") -> None:
        """Take the id of a run."""
        self.add_argument("run", metavar="RUN", action=_StoreRun, help=about)

    def add_sampling(self) -> None:
        """Take the options of SamplingOptions."""
        self.add_argument("--max-new-tokens", type=int, metavar="N", help="generate at most N tokens; default: 64")
        self.add_argument("--temperature", type=float, metavar="T", help="0 is greedy; default: 1")
        self.add_argument("--top-k", type=int, metavar="N", help="sample from the N likeliest tokens; default: all")
        self.add_argument("--top-p", type=float, metavar="P", help="sample from the likeliest P of the probability")
        self.add_argument("--seed", type=int, metavar="N", help="seed of the sampling; default: random")

    def add_assignments(self, about: str = "set a field of the train request, as `mt train --help` lists them") -> None:
        """Take `--set KEY=VALUE`, any number of times."""
        self.add_repeatable("--set", "KEY=VALUE", about)

    def add_repeatable(self, name: str, metavar: str, about: str) -> None:
        """Take an option any number of times, as a list."""
        values: list[str] = []
        self.add_argument(name, action="append", default=values, metavar=metavar, help=f"{about}; repeatable")


class Sampling(Options):
    """Options that `add_sampling` takes."""

    max_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int | None


class RunOptions(Options):
    """Options of a command that needs a run and nothing else."""

    run: str


class Commands:
    """The commands of a parser, with words that further commands stand under."""

    def __init__(self, parser: Parser, before: str = "") -> None:
        self._parser, self._before = parser, before
        self._subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
        self._named: dict[str, _Run | Commands] = {}
        sections: tuple[Section, ...] = get_args(Section)
        self._listed: dict[Section, list[tuple[str, str, str]]] = {section: [] for section in sections}

    def add(
        self,
        name: str,
        section: Section,
        options: type[OptionsT],
        run: Callable[[OptionsT, Terminal], int],
        about: str,
        example: str,
        *,
        with_json: bool = True,
    ) -> Parser:
        """Add a command; return its parser, for its arguments."""
        parser = self._subparsers.add_parser(
            name, help=about, description=f"{about[:1].upper()}{about[1:]}.", epilog=f"Example: {example}"
        )
        if with_json:
            parser.add_argument("--json", action="store_true", help="print exactly one JSON object")

        def run_words(words: Sequence[str], terminal: Terminal) -> int:
            # parse_intermixed_args takes options between positionals, but loses a leading `--`
            parse = parser.parse_args if words[:1] == ["--"] else parser.parse_intermixed_args
            return run(parse(words, options()), terminal)

        self._named[name] = run_words
        self._listed[section].append((f"{self._before}{name}", about, example))
        return parser

    def group(self, name: str, about: str) -> "Commands":
        """Add a word that further commands stand under; they are listed with this parser's commands."""
        group = Commands(
            self._subparsers.add_parser(name, help=about, description=f"{about[:1].upper()}{about[1:]}."), f"{name} "
        )
        group._listed = self._listed
        self._named[name] = group
        return group

    def run(self, words: Sequence[str], terminal: Terminal) -> int:
        """Run the command that these words begin with; without one show the help, and refuse an unknown one."""
        if not words or words[0] in ("-h", "--help"):
            self._parser.print_help()
            return 0
        named = self._named.get(words[0])
        if named is None:
            near = did_you_mean(words[0], list(self._named))
            self._parser.error(f"unknown command '{shown_name(words[0])}'{near.removesuffix('?')}")
        return named.run(words[1:], terminal) if isinstance(named, Commands) else named(words[1:], terminal)

    def overview(self) -> str:
        """List all commands by section, with an example of each section's first one."""
        width = max(len(name) for commands in self._listed.values() for name, _, _ in commands)
        lines: list[str] = []
        for section, commands in self._listed.items():
            lines += ["", section]
            lines += [f"  {name:<{width}}  {about}" for name, about, _ in commands]
            lines.append(f"  {'':<{width}}  Example: {commands[0][2]}")
        return "\n".join(lines)

    def examples(self) -> list[str]:
        """Return the example of every command."""
        return [example for commands in self._listed.values() for _, _, example in commands]
