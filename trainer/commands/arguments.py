"""The parser of the `mt` command: sections, typed options for each command, and shell completion."""

import argparse
import asyncio
import gc
import re
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import ClassVar, Generic, Literal, NoReturn, TypedDict, TypeVar, Unpack, overload

import shtab
from pydantic import BaseModel

from trainer.commands.connection import full_model_name, full_run_id
from trainer.commands.terminal import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USER, Terminal
from trainer.config.schema import schema_of
from trainer.config.settings import load_settings
from trainer.config.validation import did_you_mean, safe_name, set_path, takes_any_text
from trainer.config.yaml import parse_yaml
from trainer.contracts.errors import AppError, ErrorBody, ErrorClass, ErrorCode, new_request_id
from trainer.contracts.installation import default_folder, extras_needed
from trainer.contracts.operations import COMMANDS, TerminalCommand
from trainer.contracts.units import UNIT_NOTE, UNITS, Unit
from trainer.system.files import BrokenFile, to_app_error

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
OptionsT = TypeVar("OptionsT", bound="Options")
_OPTION = re.compile(r"--[A-Za-z][\w.-]*")
_PLAIN = "\0"
"""Before a word that follows `--`, so that argparse takes it for a positional argument; no word can contain it."""
_OWN_PACKAGES = {"bot", "local_discord", "trainer"}
_Run = Callable[[Sequence[str], Terminal], int]


RUN_IDS: Mapping[str, object] = shtab.cmd(
    f'ls "${{APP__ARTIFACTS_ROOT:-{default_folder("artifacts")}}}/models" 2>/dev/null'
)
"""The completion of a run id by the shell."""
RUN_HELP = "name of a run, `last` for the newest one, its id or the beginning of its id"
QUOTING = "of tables: quotation marks are around cells (csv) or plain characters (none); default: as fits"
UNIT_HELP = f"unit of losses and surprisals for people, not of files and `--json`; default: APP__UNIT. {UNIT_NOTE}"
MODEL_HELP = f"{RUN_HELP}; RUN@1200, RUN@best, RUN@words:1M or RUN@epoch:2 for a checkpoint"


class _Keywords(TypedDict, total=False):
    """Keywords of `ArgumentParser.add_argument`."""

    action: Literal["append", "store_true", "store_false", "store_const"]
    choices: Sequence[str]
    const: object
    default: object
    help: str
    metavar: str
    nargs: Literal["?", "+", "*"]
    required: bool
    type: Callable[[str], object]


class Argument(Generic[T_co]):
    """An argument of a command, as an attribute of its Options; argparse stores the value in their instance.

    `form` is that of the help: TEXT for a positional argument, `--seed N` or `--json` for an option.
    """

    def __init__(
        self, form: str, *, completion: Mapping[str, object] | None = None, **keywords: Unpack[_Keywords]
    ) -> None:
        self.flag, _, metavar = form.partition(" ") if form.startswith("--") else ("", "", form)
        if metavar:
            keywords["metavar"] = metavar
        self._keywords = keywords
        self._completion = shtab.FILE if keywords.get("type") is Path else completion

    def __set_name__(self, owner: type["Options"], name: str) -> None:
        owner.arguments = {**owner.arguments, name: self}

    def __get__(self, options: "Options", owner: type["Options"]) -> T_co:
        raise AttributeError("not parsed yet")

    def add_to(self, parser: argparse.ArgumentParser, name: str) -> None:
        """Add the argument to a parser that stores its value under this name."""
        if self.flag:
            action = parser.add_argument(self.flag, dest=name, **self._keywords)
        else:
            convert = self._keywords.get("type", str)
            keywords: _Keywords = {**self._keywords, "type": lambda text: convert(text.removeprefix(_PLAIN))}
            action = parser.add_argument(name, **keywords)
        if self._completion is not None:
            setattr(action, "complete", self._completion)  # noqa: B010  the attribute that shtab reads


@overload
def option(form: str, convert: Callable[[str], T], about: str) -> Argument[T | None]: ...
@overload
def option(form: str, convert: Callable[[str], T], about: str, default: T) -> Argument[T]: ...
def option(form: str, convert: Callable[[str], T], about: str, default: T | None = None) -> Argument[T | None]:
    """Return an option with a value, converted by `convert`; without the option it is the default."""
    return Argument(form, type=convert, help=about, default=default)


def flag(form: str, about: str) -> Argument[bool]:
    """Return an option without a value."""
    return Argument(form, action="store_true", help=about)


def repeatable(form: str, about: str) -> Argument[list[str]]:
    """Return an option that can be given any number of times."""
    return Argument(form, action="append", default=[], help=f"{about}; repeatable")


Arguments = Mapping[str, Argument[object]]
"""Arguments by the names of their values."""


class Options(argparse.Namespace):
    """Options of a command, of which each has a subclass with its own arguments."""

    arguments: ClassVar[Arguments] = {}
    record: ClassVar[type[BaseModel] | None] = None
    """The record of which `--set` sets fields."""
    json: bool = False
    unit: Unit | None = None
    """Unit of `--unit`; None: that of the settings."""

    def __init__(self) -> None:
        super().__init__()

    def given(self, record: type[BaseModel]) -> dict[str, object]:
        """Return the fields of a record that have arguments of the same names, if they were given."""
        values: dict[str, object] = vars(self)
        return {name: values[name] for name in record.model_fields if values.get(name) is not None}


class RunOptions(Options):
    """Options of a command that needs a run."""

    run = Argument[str]("RUN", type=full_run_id, completion=RUN_IDS, help=RUN_HELP)


class ModelOptions(Options):
    """Options of a command that needs a model: that of a run, or of one of its checkpoints."""

    run = Argument[str]("RUN", type=full_model_name, completion=RUN_IDS, help=MODEL_HELP)


class RunOrGroupOptions(Options):
    """Options of a command that needs a run or a group of runs."""

    run = Argument[str](
        "RUN",
        type=partial(full_run_id, or_group=True),
        completion=RUN_IDS,
        help=RUN_HELP.replace("a run", "a run or a group"),
    )


class SamplingOptions(ModelOptions):
    """The fields of contracts.inference.SamplingOptions that both `mt generate` and `mt chat` take."""

    max_new_tokens = option("--max-new-tokens N", int, "generate at most N tokens; default: 64")
    temperature = option("--temperature T", float, "0 is greedy; default: 1")
    top_k = option("--top-k N", int, "sample from the N likeliest tokens; default: all")
    top_p = option("--top-p P", float, "sample from the likeliest P of the probability")
    seed = option("--seed N", int, "seed of the sampling; default: random")


def assign(record: type[BaseModel], fields: dict[str, object], assignments: Sequence[str]) -> None:
    """Put each KEY=VALUE into the fields of a record; dots in KEY lead into blocks, VALUE is YAML or a plain text."""
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not key or not equals:
            raise AppError(ErrorCode.INVALID_INPUT, f"`--set {safe_name(assignment)}` must have the form KEY=VALUE.")
        is_plain = takes_any_text(record, key) and text not in ("null", "~") and text[:1] not in ("'", '"')
        set_path(fields, key, text if is_plain else parse_yaml(text, f"--set {safe_name(key)}"))


def given_columns(given: Sequence[str], example: str) -> dict[str, str]:
    """Return the columns of `--column KNOWN=NAME` by their known names; raises INVALID_INPUT."""
    columns: dict[str, str] = {}
    for one in given:
        known, equals, name = one.partition("=")
        if not equals:
            message = f"`--column {safe_name(one)}` must have the form KNOWN=NAME, such as {example}."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        columns[known] = name
    return columns


class Parser(argparse.ArgumentParser):
    """argparse with one-sentence errors and exit code 2."""

    describe_fields: Callable[[], str] | None = None
    """Makes the last part of the help; called for `--help` only."""

    def __init__(self, *, prog: str, description: str | None = None, epilog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        message, link = message.replace(_PLAIN, ""), " See" if message.endswith("?") else "; see"
        raise AppError(ErrorCode.INVALID_INPUT, f"{message[:1].upper()}{message[1:]}{link} `{self.prog} --help`.")

    def format_help(self) -> str:
        return super().format_help() + ("" if self.describe_fields is None else f"\n{self.describe_fields()}\n")


class Commands:
    """The commands of a parser, with words that further commands stand under."""

    def __init__(self, parser: Parser, infos: Mapping[str, TerminalCommand] = COMMANDS, before: str = "") -> None:
        self._parser, self._infos, self._before = parser, infos, before
        self._subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
        self._named: dict[str, _Run] = {}

    def add(
        self,
        name: str,
        options: type[OptionsT],
        run: Callable[[OptionsT, Terminal], int],
        *,
        with_json: bool = True,
        with_unit: bool = False,
        fixed: Mapping[str, object] = {},
    ) -> Parser:
        """Add a command with the arguments of its options; return its parser.

        `with_unit`: the command shows losses or surprisals, in the unit of the terminal. `fixed` has the values of
        options that are no arguments of this command.
        """
        info = self._infos[f"{self._before}{name}"]
        parser = self._subparsers.add_parser(
            name,
            help=info.about,
            description=f"{info.about[:1].upper()}{info.about[1:]}.",
            epilog=f"Example: {info.example}",
        )
        if with_json:
            flag("--json", "print exactly one JSON object").add_to(parser, "json")
        if with_unit:
            Argument[Unit](f"--unit {'|'.join(UNITS)}", choices=UNITS, help=UNIT_HELP).add_to(parser, "unit")
        for attribute, argument in options.arguments.items():
            if attribute not in fixed:
                argument.add_to(parser, attribute)
        parser.set_defaults(**fixed)
        shared = [*(["--json"] if with_json else []), *(["--unit"] if with_unit else [])]
        flags = {"--help", *shared, *(one.flag for one in options.arguments.values())}

        def run_words(words: Sequence[str], terminal: Terminal) -> int:
            if unknown := _unknown_option(words, flags, options.record):
                parser.error(unknown)
            end = _end_of_options(words)
            plain = [f"{_PLAIN}{word}" for word in words[end + 1 :]]
            given = parser.parse_intermixed_args([*words[:end], *plain], options())
            if with_unit and not given.json:  # the sentences of a JSON object are in the default unit
                terminal.unit = given.unit or load_settings().app.unit
            return run(given, terminal)

        self._named[name] = run_words
        return parser

    def group(self, name: str, about: str) -> "Commands":
        """Add a word that further commands stand under."""
        parser = self._subparsers.add_parser(name, help=about, description=f"{about[:1].upper()}{about[1:]}.")
        group = Commands(parser, self._infos, f"{self._before}{name} ")
        self._named[name] = group.run
        return group

    def run(self, words: Sequence[str], terminal: Terminal) -> int:
        """Run the command that these words begin with; without one show the help, and refuse an unknown one."""
        if not words or words[0] in ("-h", "--help"):
            self._parser.print_help()
            return 0
        named = self._named.get(words[0])
        if named is None:
            known = {
                name.removeprefix(self._before).split()[0] for name in self._infos if name.startswith(self._before)
            }
            near = did_you_mean(words[0], sorted(known))
            self._parser.error(f"unknown command '{safe_name(words[0])}'{near}")
        return named(words[1:], terminal)


def _unknown_option(words: Sequence[str], flags: Set[str], record: type[BaseModel] | None) -> str | None:
    """Return the mistake of the first word that is an option of no name among `flags`, with what to give instead."""
    for word, following in zip(words, [*words[1:], "--"], strict=False):
        if word == "--":
            break
        flag, equals, value = word.partition("=")
        if flag in flags or not _OPTION.fullmatch(flag):
            continue
        name = flag[2:].replace("-", "_")
        fields = [] if record is None else [path for path, _ in schema_of(record).fields()]
        for path in (field for field in fields if field == name or field.endswith(f".{name}")):
            value = value if equals else "VALUE" if following.startswith("--") else following
            return f"unknown option `{flag}`; set this field with `--set {path}={safe_name(value)}`"
        near = did_you_mean(flag[2:], sorted(known[2:] for known in flags if known), "--")
        return f"unknown option `{flag}`{near}"
    return None


class MtParser(Parser):
    """The parser of `mt` with the commands that begin with a word, or with all commands."""

    def __init__(self, first_word: str | None = None) -> None:
        super().__init__(prog="mt")
        self.commands = Commands(self)
        for module in sorted({info.module for name, info in COMMANDS.items() if first_word in (None, name.split()[0])}):
            add_to: Callable[[Commands], None] = resolve_name(f"trainer.commands.{module}:add_to")
            add_to(self.commands)


def run_command(words: Sequence[str]) -> int:
    """Run the command that these words begin with; return its exit code, as `trainer.commands.main.main` does."""
    terminal = Terminal(as_json="--json" in words[: _end_of_options(words)])
    try:
        parser = MtParser(words[0])  # imports the modules of the command
        gc.freeze()  # a collection of the modules would take a tenth of a second
        gc.enable()
        return parser.commands.run(words, terminal)
    except (AppError, OSError, BrokenFile) as error:
        known = error if isinstance(error, AppError) else to_app_error(error, load_settings().app.folders())
        terminal.error(ErrorBody.of(known, new_request_id()))
        return EXIT_USER if known.code.error_class is ErrorClass.USER_INPUT else EXIT_FAILED
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _OWN_PACKAGES:
            raise
        terminal.error(ErrorBody.of(extras_needed("train"), new_request_id()))
        return EXIT_USER
    except (KeyboardInterrupt, asyncio.CancelledError):
        terminal.interrupted()
        return EXIT_INTERRUPTED


def _end_of_options(words: Sequence[str]) -> int:
    return words.index("--") if "--" in words else len(words)
