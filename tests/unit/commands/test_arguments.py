"""The parser of `mt`: order of words, sections, examples, help for every option, shell completion."""

import argparse
import ast
import gc
import importlib.metadata
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest

import trainer.export
from scripts.mt_page import parsers
from tests.support import ROOT
from tests.support.batteries import battery_record
from tests.support.cross_language import experiment_record
from tests.support.runs import record
from trainer.artifacts.batteries import BatteryStore
from trainer.artifacts.experiments import ExperimentStore
from trainer.artifacts.runs import RunStore
from trainer.commands.arguments import Argument, Commands, MtParser, Options, Parser, option, repeatable
from trainer.commands.main import main
from trainer.commands.terminal import Terminal
from trainer.commands.training import describe_request
from trainer.config.schema import schema_of
from trainer.contracts.errors import AppError
from trainer.contracts.operations import COMMANDS, TerminalCommand
from trainer.contracts.runs import TrainRequest


class ScoreOptions(Options):
    run = Argument[str]("RUN")
    text = Argument[str | None]("TEXT", nargs="?")
    top_k = option("--top-k K", int, "K")
    set = repeatable("--set KEY=VALUE", "set")


def parsed(line: str) -> ScoreOptions:
    """Parse a line as a command with a run, an optional text and options."""
    found: list[ScoreOptions] = []

    def keep(options: ScoreOptions, terminal: Terminal) -> int:
        found.append(options)
        return 0

    commands = Commands(Parser(prog="mt"), {"models score": TerminalCommand("models score", "scores", "score", "mt x")})
    commands.group("models", "use models").add("score", ScoreOptions, keep)
    assert commands.run(["models", "score", *line.split()], Terminal(as_json=False)) == 0
    return found[0]


ORDERS = ["RUN TEXT --top-k 3", "RUN --top-k 3 TEXT", "--top-k 3 RUN TEXT", "--top-k 3 -- RUN TEXT"]


@pytest.mark.parametrize(
    ("line", "text", "top_k"),
    [
        *((line, "TEXT", 3) for line in ORDERS),
        *((line, "-a", None) for line in ("RUN -- -a", "-- RUN -a", "RUN --json -- -a")),
        *((line, "--a", 3) for line in ("--top-k 3 -- RUN --a", "RUN --top-k 3 -- --a")),
    ],
)
def test_text__may_stand_beside_an_option_and_begin_with_a_dash(line: str, text: str, top_k: int | None) -> None:
    options = parsed(line)
    assert (options.run, options.text, options.top_k, options.set) == ("RUN", text, top_k, [])
    assert parsed("RUN --set a=1 TEXT --set b=2 --json").set == ["a=1", "b=2"]


def test_word__too_many_is_named_with_the_help_of_its_command() -> None:
    for line in ("a --json b c", "a -- b c"):
        with pytest.raises(AppError, match="Unrecognized arguments: c; see `mt models score --help`"):
            parsed(line)


OPTIONS = [
    ("train --device cuda", "device=cuda"),
    ("train --num-epochs", "num_epochs=VALUE"),
    ("validate --hidden-size=9 x.yaml", "model.hidden_size=9"),
    ("tokenizer train --vocab-size 9", "vocab_size=9"),
    ("experiment run --seeds --force", "seeds=VALUE"),
]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("trian", ("Unknown command 'trian'", "`train`", "`mt --help`")),
        ("corpus \x1b", ("Unknown command '?'", "`mt corpus --help`")),
        ("-- runs", ("Unknown command '--'", "`mt --help`")),
        ("train --corpu x", ("Unknown option `--corpu`", "`--corpus`", "`mt train --help`")),
        ("runs --device cuda", ("Unknown option `--device`", "`mt runs --help`")),
        ("logs RUN --tail x", ("Argument --tail: invalid int value: 'x'", "`mt logs --help`")),
        *(
            (line, ("Unknown option", f"`--set {assigned}`", f"`mt {line.split(' --')[0]} --help`"))
            for line, assigned in OPTIONS
        ),
    ],
)
def test_mistake__is_one_sentence(line: str, parts: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split(" ")) == 2
    said = capsys.readouterr().err
    assert said.startswith("mt: ") and said.count("\n") == 1
    assert [part for part in parts if part not in said] == []
    assert "--set" in "".join(parts) or "--set" not in said


def test_version__comes_from_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    name, version = capsys.readouterr().out.split()
    assert name == "mt"
    assert version == importlib.metadata.version("model-trainer")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_overview__has_every_command_in_its_section_with_an_example(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    shown = capsys.readouterr().out
    sections = (
        *("Start", "Train", "Runs", "Use a model", "Batteries", "Reading times", "Experiments", "Studies"),
        *("Data and tokenizers", "Check"),
    )
    assert all(f"\n{section}\n" in shown for section in sections)
    assert shown.count("Example: mt ") == len(sections)
    assert {path.removeprefix("mt ") for path, _ in commands_of(MtParser())} == COMMANDS.keys()
    assert all(f"\n  {name} " in shown for name in COMMANDS)
    assert main(["corpus", *words]) == 0
    shown = capsys.readouterr().out
    assert "usage: mt corpus" in shown and "download" in shown, "those of a group"


def commands_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every command with its full name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            choices: dict[str, argparse.ArgumentParser] = action.choices
            for child in choices.values():
                yield from commands_of(child)
            return
    yield parser.prog, parser


def test_every_option__has_a_help_line_and_every_command_an_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP__ARTIFACTS_ROOT", str(tmp_path))
    runs = {"RUN": "lstm-1", "OTHER": "gru-1"}
    for run_id in runs.values():
        RunStore(tmp_path).create(record(run_id))
    experiment = experiment_record()
    ExperimentStore(tmp_path).create(experiment)
    BatteryStore(tmp_path).create(*battery_record("pairs-1"))
    shutil.copytree(ROOT / "tests" / "fixtures" / "tokenizers", tmp_path / "tokenizers")
    ids = {"experiment": experiment.experiment_id, "battery": "pairs-1", "tokenizer": "char-222eba1359b17193"}
    for path, command in commands_of(MtParser()):
        assert str(command.epilog).startswith((f"Example: {path}", "Example: eval")), path
        assert all(action.help for action in command._actions), path
        words = shlex.split(str(command.epilog).removeprefix("Example: "), comments=True)
        if path != "mt completion":
            given = [word for word in words[len(path.split()) :] if word not in (">", "again.yaml")]
            names = {**runs, "ID": ids.get(path.split()[1], "")}
            command.parse_args([names.get(word, word) for word in given])


def test_help_of_train__lists_every_field_of_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    listed = capsys.readouterr().out.split("Fields of an experiment file")[1]
    rows = [line.strip() for line in listed.splitlines() if line.startswith("  ") and not line.startswith("   ")]
    paths = {row.split(":")[0].split(",")[0] for row in rows}
    known = [path for path, _ in schema_of(TrainRequest).fields()]
    blocks = {path.rpartition(".")[0] for path in known}
    assert paths >= set(known) - blocks
    assert listed.rstrip().endswith(describe_request().splitlines()[-1])
    assert "\n  log_every_steps: integer > 0 and ≤ 1000000000; default 10\n      Steps between rows of the" in listed
    assert "\n  corpus, --corpus: text of 1 to 512 characters; required\n" in listed


@pytest.mark.process
def test_completion__is_a_script_that_bash_accepts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "--early-stopping" in script and "artifacts" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_hints__name_only_commands_and_options_that_exist() -> None:
    found = dict(parsers(MtParser()))
    options = {name: {one for action in found[name]._actions for one in action.option_strings} for name in found}
    of_module: dict[str, set[str]] = {}
    for name, info in COMMANDS.items():
        of_module.setdefault(info.module, set()).update(options[name])
    wrong: list[str] = []
    for path in sorted([*(ROOT / "trainer").rglob("*.py"), *(ROOT / "bot").rglob("*.py")]):
        own = of_module.get(path.stem) if path.parent == ROOT / "trainer" / "commands" else None
        for text in texts_of(path):
            wrong += [
                f"{path.name}: {hint}" for hint in matches(r"`mt ([a-z][^`\n]*)`", text) if not is_right(hint, options)
            ]
            alone = {*matches(r"`(--[a-z][a-z-]*)", text)}
            if own is not None and not alone <= own:
                wrong.append(f"{path.name}: {alone - own}")
    assert wrong == []


def is_right(hint: str, options: dict[str, set[str]]) -> bool:
    """True if a command exists, or is a group of commands, and has the options that follow it."""
    words = hint.split()
    name = next((one for one in (" ".join(words[:2]), words[0]) if one in options), None)
    if name is None:
        return any(one.startswith(f"{words[0]} ") for one in options)
    return options[name].issuperset(matches(r"(?<!\S)(--[a-z][a-z-]*)", hint))


def matches(pattern: str, text: str) -> list[str]:
    """The texts of the only group of a pattern."""
    return [str(found[1]) for found in re.finditer(pattern, text)]


def texts_of(path: Path) -> Iterator[str]:
    """The texts of a module, with an X for each value in them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


class Interrupting(MetaPathFinder):
    """Where a person presses Ctrl-C: as a module is imported."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "trainer.commands.arguments":
            raise KeyboardInterrupt


def test_interrupt__during_the_imports_is_one_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "trainer.commands.arguments")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    code = main(["runs"])
    gc.enable()
    assert code == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_library__that_is_missing_is_said_to_be_and_a_module_of_the_program_is_a_bug(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["pull", "somebody/model"]
    monkeypatch.setitem(sys.modules, "trainer.export.revisions", None)
    with pytest.raises(ModuleNotFoundError):
        main(words)
    monkeypatch.delattr(trainer.export, "hub", raising=False)
    monkeypatch.delitem(sys.modules, "trainer.export.hub", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(words) == 2
    assert "--extra train" in capsys.readouterr().err
