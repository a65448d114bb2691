"""`mt doctor` and `mt selftest`: what this installation can do, and whether a training learns."""

import asyncio
from pathlib import Path

from rich.text import Text

from trainer.commands.arguments import Arguments, Commands
from trainer.commands.connection import settings_for
from trainer.commands.doctor import diagnose
from trainer.commands.terminal import Terminal, columns
from trainer.commands.training import EXIT_USER, add_fields_to, read_or_tell

EXIT_FAILED = 1


def add_to(commands: Commands) -> None:
    commands.add("doctor", _doctor, "look at this installation: what works, what does not, and what to do")
    selftest = commands.add("selftest", _selftest, "see whether a training learns one small batch by heart")
    selftest.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a YAML experiment file")
    add_fields_to(selftest)


def _doctor(arguments: Arguments, terminal: Terminal) -> int:
    found = asyncio.run(diagnose())
    rows = [(check.state, check.name, check.message) for check in found.checks]
    terminal.show(found, columns(rows))
    return 0 if found.ok else EXIT_FAILED


def _selftest(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    if arguments.file is None and arguments.corpus is None:
        arguments.corpus = "demo"
    training = read_or_tell(arguments, settings, terminal)
    if training is None:
        return EXIT_USER
    from trainer.training.selftest import overfit_one_batch  # torch

    found = overfit_one_batch(training.effective, training.corpora.find(training.effective.corpus.name))
    rows = [("step", "loss"), *((str(point.step), f"{point.loss:.4f}") for point in found.curve)]
    terminal.show(found, columns(rows), Text(found.message))
    return 0 if found.ok else EXIT_FAILED
