"""`mt export` and `mt import`: runs for other programs and other machines."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from trainer.artifacts.checkpoints import model_of
from trainer.artifacts.replication import complete_run
from trainer.commands.arguments import Argument, Commands, ModelOptions, Options, flag, option
from trainer.commands.connection import command_here, noting_wait, settings_for_any, with_server
from trainer.commands.terminal import Terminal
from trainer.config.settings import Settings
from trainer.contracts.base import model_name
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.exports import CHECKPOINT_FORMATS, CURVE_FORMATS, FORMAT_WORDS, ExportFormat, ExportRequest
from trainer.contracts.wording import counted
from trainer.system.files import is_about

if TYPE_CHECKING:
    from trainer.client.remote import Remote

_NEXT = {
    "torchscript": "PyTorch has deprecated TorchScript: prefer `--format hf` or `--format pt2`.",
    "tensorboard": "See it with: tensorboard --logdir {out}",
    "trackio": "See it with: TRACKIO_DIR={out} trackio show",
}
_LICENSE = re.compile(r"[A-Za-z0-9.+-]{1,64}")


class _ExportOptions(ModelOptions):
    format = Argument[ExportFormat](
        "--format",
        choices=tuple(FORMAT_WORDS),
        required=True,
        help="hf: for transformers; arpa: n-grams, for KenLM; archive: for `mt import`; onnx; pt2: for"
        " torch; torchscript: deprecated; csv, tensorboard: curve and settings; trackio: curve",
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
    if options.license is not None and options.format in CURVE_FORMATS:
        raise AppError(ErrorCode.INVALID_INPUT, "`--license` is for the card of a model, which a curve does not have.")
    terminal.options = {"format": "--format"}
    settings = settings_for_any()
    with _path_errors(options.out):
        if settings.client.url is None:
            name = _write(options, settings)
        else:
            name = with_server(settings, lambda server: _download(options, server, terminal))
    sizes = [path.stat().st_size for path in (options.out, *options.out.rglob("*")) if path.is_file()]
    count, size = len(sizes), sum(sizes)
    run_id, _, step = name.partition("@")
    answer: dict[str, object] = {"run_id": run_id, "format": options.format, "path": str(options.out)}
    answer |= {"checkpoint": int(step)} if step.isdecimal() else {}
    result = Text(f"{name} is in {options.out} ({counted(count, 'file')}, {counted(size, 'byte')}).")
    out = shlex.quote(str(options.out))
    notes = [Text(note.format(out=out)) for form, note in _NEXT.items() if form == options.format]
    terminal.show(answer | {"files": count, "bytes": size}, result, *notes)
    return 0


def _write(options: _ExportOptions, settings: Settings) -> str:
    """Export a run of this machine; return its name, or that of the checkpoint."""
    is_model = options.format not in CURVE_FORMATS
    run_id, at, checkpoint = options.run.partition("@")
    run = complete_run(settings, run_id, with_weights=is_model)
    step = model_of(run, checkpoint if at else None).step if at or is_model else None
    if step is not None and options.format not in CHECKPOINT_FORMATS:
        message = f"`--format {options.format}` has the whole run: name the run itself, `{run.run_id}`."
        raise AppError(ErrorCode.INVALID_INPUT, message)
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
    return model_name(run.run_id, step)


async def _download(options: _ExportOptions, server: "Remote", terminal: Terminal) -> str:
    """Export a run of the server to this machine; return the name of the run or the checkpoint."""
    from trainer.client.exports import export_run

    request = ExportRequest(format=options.format, license=options.license)
    with terminal.transferring(f"export {options.run}") as progress:
        async with noting_wait(server, terminal):
            return await export_run(server, options.run, request, options.out, progress, force=options.force)


def _import(options: _ImportOptions, terminal: Terminal) -> int:
    from trainer.export.archive import import_archive  # torch

    settings = settings_for_any()
    with _path_errors(options.archive):
        run = import_archive(options.archive, settings.app.artifacts_root)
    check = command_here(settings, f"verify {run.run_id}")
    terminal.show({"run_id": run.run_id}, Text(f"{run.run_id} is restored on this machine. Check it with: {check}"))
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
