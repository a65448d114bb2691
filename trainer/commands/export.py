"""`mt export` and `mt import`: runs for other programs and other machines."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from rich.text import Text

from trainer.artifacts.checkpoints import model_of
from trainer.artifacts.replication import complete_run
from trainer.commands.arguments import Argument, Commands, LocalModelOptions, Options, flag, option
from trainer.commands.connection import settings_for
from trainer.commands.terminal import Terminal
from trainer.contracts.base import model_name
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.wording import counted
from trainer.system.files import is_about

CurveFormat = Literal["csv", "tensorboard", "trackio"]
Format = Literal["hf", "torchscript", "onnx", "archive", "ro-crate", CurveFormat]
_FORMATS: tuple[str, ...] = get_args(Format)
_CURVES: tuple[CurveFormat, ...] = get_args(CurveFormat)
_OF_RUN: tuple[Format, ...] = ("archive", "ro-crate", *_CURVES)
"""Formats that are about all of a run, not about one of its checkpoints."""
_NEXT = {
    "torchscript": "PyTorch has deprecated TorchScript: prefer `--format hf`.",
    "tensorboard": "See it with: tensorboard --logdir {out}",
    "trackio": "See it with: TRACKIO_DIR={out} trackio show",
}
_LICENSE = re.compile(r"[A-Za-z0-9.+-]{1,64}")


class _ExportOptions(LocalModelOptions):
    format = Argument[Format](
        "--format",
        choices=_FORMATS,
        required=True,
        help="hf: for transformers; archive: for `mt import`; onnx; ro-crate; torchscript: deprecated;"
        " csv, tensorboard, trackio: curve and settings",
    )
    out = Argument[Path]("--out DIR", type=Path, required=True, help="folder to create; for an archive, the file")
    force = flag("--force", "replace an earlier export")
    license = option("--license ID", str, "license for the model card, such as cc0-1.0")


class _ImportOptions(Options):
    archive = Argument[Path]("FILE", type=Path, help="archive that `mt export` has written")


def add_to(commands: Commands) -> None:
    commands.add("export", _ExportOptions, _export)
    commands.add("import", _ImportOptions, _import)


def _export(options: _ExportOptions, terminal: Terminal) -> int:
    check_license("--license", options.license)
    is_model = options.format not in _CURVES
    if options.license is not None and not is_model:
        raise AppError(ErrorCode.INVALID_INPUT, "`--license` is for the card of a model, which a curve does not have.")
    terminal.options = {"format": "--format"}
    run_id, at, checkpoint = options.run.partition("@")
    run = complete_run(settings_for(), run_id, with_weights=is_model)
    step = model_of(run, checkpoint if at else None).step if at or is_model else None
    if step is not None and options.format in _OF_RUN:
        message = f"`--format {options.format}` has the whole run: name the run itself, `{run.run_id}`."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    with _path_errors(options.out):
        match options.format:
            case "archive":
                from trainer.export.archive import export_archive  # torch

                export_archive(run, options.out, options.license, force=options.force)
            case "csv" | "tensorboard" as form:
                from trainer.export.curves import export_curve

                export_curve(run, form, options.out, force=options.force)
            case "trackio":
                from trainer.export.curves import add_to_trackio

                add_to_trackio(run, options.out)
            case form:
                from trainer.export.folders import export_folder

                export_folder(run, form, options.out, options.license, force=options.force, step=step)
    sizes = [path.stat().st_size for path in (options.out, *options.out.rglob("*")) if path.is_file()]
    count, size = len(sizes), sum(sizes)
    answer: dict[str, object] = {"run_id": run.run_id, "format": options.format, "path": str(options.out)}
    answer |= {} if step is None else {"checkpoint": step}
    name = model_name(run.run_id, step)
    result = Text(f"{name} is in {options.out} ({counted(count, 'file')}, {counted(size, 'byte')}).")
    out = shlex.quote(str(options.out))
    notes = [Text(note.format(out=out)) for form, note in _NEXT.items() if form == options.format]
    terminal.show(answer | {"files": count, "bytes": size}, result, *notes)
    return 0


def _import(options: _ImportOptions, terminal: Terminal) -> int:
    from trainer.export.archive import import_archive  # torch

    settings = settings_for()
    with _path_errors(options.archive):
        run = import_archive(options.archive, settings.app.artifacts_root)
    terminal.show({"run_id": run.run_id}, Text(f"{run.run_id} is restored. Check it with: mt verify {run.run_id}"))
    return 0


def check_license(flag: str, licence: str | None) -> None:
    """Raise INVALID_INPUT unless a licence is an identifier."""
    if licence is not None and not _LICENSE.fullmatch(licence):
        raise AppError(ErrorCode.INVALID_INPUT, f"`{flag}` must be an identifier such as cc0-1.0 or mit.")


@contextmanager
def _path_errors(path: Path) -> Iterator[None]:
    """Raise INVALID_INPUT with the reason where the path cannot be used."""
    try:
        yield
    except OSError as error:
        if not is_about(error, path):
            raise
        raise AppError(ErrorCode.INVALID_INPUT, f"'{path}' cannot be used: {error.strerror}.") from error
