"""`mt export`, `mt import`: runs for other programs and other machines."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rich.text import Text

from trainer.artifacts.runs import RunStore
from trainer.commands.arguments import Arguments, Commands
from trainer.commands.connection import settings_for
from trainer.commands.terminal import Terminal
from trainer.contracts.base import Frozen, Identifier
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.wording import counted
from trainer.system.files import is_about

_FORMATS = ("hf", "torchscript", "onnx", "archive")
_LICENCE = re.compile(r"[A-Za-z0-9.+-]{1,64}")


class Exported(Frozen):
    """The answer of `mt export --json`."""

    run_id: Identifier
    format: Literal["hf", "torchscript", "onnx", "archive"]
    path: str
    files: int
    bytes: int
    """Of the model's files together."""


class Imported(Frozen):
    """The answer of `mt import --json`."""

    run_id: Identifier


def add_to(commands: Commands) -> None:
    export = commands.add("export", _export, "write a run for other programs, or as one file for another machine")
    export.add_argument("run", metavar="RUN")
    export.add_argument(
        "--format",
        choices=_FORMATS,
        required=True,
        help="hf: for the Hugging Face library; archive: for `mt import`; torchscript: a legacy one",
    )
    export.add_argument(
        "--out",
        dest="target",
        type=Path,
        required=True,
        metavar="DIR",
        help="the folder to make; of an archive the file",
    )
    export.add_argument("--license", metavar="ID", help="for the model card, as in cc0-1.0")
    restore = commands.add("import", _import, "restore a run from an archive")
    restore.add_argument("archive", type=Path, metavar="FILE")


def _export(arguments: Arguments, terminal: Terminal) -> int:
    if arguments.license is not None and not _LICENCE.fullmatch(arguments.license):
        raise AppError(ErrorCode.INVALID_INPUT, "`--license` must be an identifier such as cc0-1.0 or mit.")
    run = RunStore(settings_for().app.artifacts_root).get(arguments.run)
    out = arguments.target
    with _told(out):
        if arguments.format == "archive":
            from trainer.export.archive import export_archive  # torch

            files = export_archive(run, out).files
        else:
            from trainer.export.folders import export_folder

            files = export_folder(run, arguments.format, out, arguments.license).files
    size = sum(file.bytes for file in files)
    exported = Exported(run_id=run.run_id, format=arguments.format, path=str(out), files=len(files), bytes=size)
    told = Text(f"{run.run_id} is in {out} ({counted(exported.files, 'file')}, {counted(size, 'byte')}).")
    legacy = [Text("TorchScript is a legacy format that PyTorch has deprecated: prefer `--format hf`.")]
    terminal.show(exported, told, *(legacy if arguments.format == "torchscript" else []))
    return 0


def _import(arguments: Arguments, terminal: Terminal) -> int:
    from trainer.export.archive import import_archive  # torch

    settings = settings_for()
    with _told(arguments.archive):
        run = import_archive(arguments.archive, settings.app.artifacts_root)
    terminal.show(Imported(run_id=run.run_id), Text(f"{run.run_id} is restored: `mt verify {run.run_id}` checks it."))
    return 0


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say of a path that cannot be used why that is so."""
    try:
        yield
    except OSError as error:
        if not is_about(error, path):
            raise
        raise AppError(ErrorCode.INVALID_INPUT, f"'{path}' cannot be used: {error.strerror}.") from error
