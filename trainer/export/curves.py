"""The curves and the settings of a run for spreadsheets and experiment trackers; the run may still train."""

import os
import subprocess
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from importlib import import_module
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Literal, NamedTuple, Protocol

from pydantic import ValidationError
from pydantic_core import to_json

from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import FileRecord, Frozen, Identifier
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import MetricsProgress
from trainer.contracts.installation import require_extra_of
from trainer.contracts.runs import flat
from trainer.reports.score_table import csv_lines
from trainer.system.destination import RECORD_FILE, appearing_at, check_free
from trainer.system.files import DISK, changed_files, damaged, file_records, open_regular, storage_errors
from trainer.system.python import python_command
from trainer.training.progress import CurveRow

CurveFolderFormat = Literal["csv", "tensorboard"]
TRACKIO_PROJECT = "model-trainer"
_TRACKIO_COLUMNS = (
    *("step", "epoch", "tokens", "seconds", "train/nats", "epoch/nats", "val/nats", "val/bits", "rate", "norm"),
    *("tokens/s", "gpu/bytes", "timestamp"),
)
"""The fields of a point, and its time; trackio shortens the names of columns to ten letters and slashes."""
_TRACKIO_PROGRAM = """
import sys, trackio
file, name, project = sys.argv[1:]
trackio.delete_project(name, force=True)
trackio.import_csv(file, project=name, name=name)
api = trackio.Api()
try:
    for run in api.runs(project):
        if run.name == name:
            run.delete()
except ValueError:  # there is no project yet
    pass
for run in api.runs(name):
    run.move(project)
trackio.delete_project(name, force=True)
"""
"""Imports into a project of the run's own, as trackio does not import into another, and moves the run from there.

Runs in a process of its own, because trackio reads the name of its folder once, at its import.
"""


class Point(NamedTuple):
    """A row of the loss curve, under the names that all formats have; None is what the row does not have."""

    step: int
    epoch: int
    tokens: int
    """Predicted tokens since the training started."""
    elapsed_seconds: float
    train_loss_nats: float | None
    """Mean per predicted token since the row before."""
    epoch_train_loss_nats: float | None
    val_loss_nats: float | None
    val_bits_per_char: float | None
    learning_rate: float
    gradient_norm: float | None
    tokens_per_second: float | None
    """As last reported since the row before."""
    gpu_memory_bytes: int | None
    """Highest use so far, of the GPU with the highest."""


class Curve(NamedTuple):
    """The curve of a run as far as it is trained, and its settings."""

    run_id: str
    start: datetime
    """When step 0 would have been without a pause."""
    points: Sequence[Point]
    settings: Mapping[str, object]
    """The values of the resolved request by their names, with dots where they are in blocks."""

    def time_of(self, point: Point) -> datetime:
        return self.start + timedelta(seconds=point.elapsed_seconds)


class CurveExport(Frozen):
    """`export.json`: the files of the folder, and the run that it was exported from."""

    schema_version: Literal[1] = 1
    format: CurveFolderFormat
    run_id: Identifier
    files: tuple[FileRecord, ...]


def export_curve(run: RunDirectory, to: CurveFolderFormat, folder: Path, *, force: bool = False) -> CurveExport:
    """Write the curve of a run to a new folder, atomically; with `force` it replaces an earlier export.

    Raises CONFLICT if the folder exists, UNSUPPORTED_BACKEND without the extra `tensorboard`, and the errors of
    `read_curve`.
    """
    if to == "tensorboard":
        require_extra_of(to)
    curve = read_curve(run)
    check_free(folder, is_earlier=force and (folder / RECORD_FILE).is_file())
    with appearing_at(folder) as temporary:
        DISK.make_folder(temporary)
        _WRITERS[to](temporary, curve)
        record = CurveExport(format=to, run_id=run.run_id, files=file_records(temporary, [*temporary.iterdir()]))
        DISK.write(temporary / RECORD_FILE, record.model_dump_json(indent=2).encode())
        DISK.sync(temporary)
    return record


def read_curve(run: RunDirectory) -> Curve:
    """Read what a run has stored of its curve so far.

    Raises RUN_NOT_READY if that is nothing, MODEL_LOAD_FAILED if the curve of an ended run has changed.
    """
    with run.in_use():
        manifest = run.manifest()
        files = () if manifest is None else manifest.files
        if changed_files(run.path, [file for file in files if file.path == run.loss_curve.name]):
            message = f"'{run.loss_curve.name}' of the run {run.quoted} was changed or deleted after its training."
            raise AppError(ErrorCode.MODEL_LOAD_FAILED, message)
        record, rows = run.record(), _rows(run)
        reports = [event for event in run.reader().read_new() if isinstance(event, MetricsProgress)]
    if not rows:
        message = f"The run {run.quoted} has no losses yet. Try again when it trains."
        raise AppError(ErrorCode.RUN_NOT_READY, message)
    elapsed = {row.step: timedelta(seconds=row.elapsed_seconds) for row in rows}
    starts = (report.ts - elapsed[report.step] for report in reports if report.step in elapsed)
    settings: dict[str, object] = record.effective.model_dump(mode="json")
    return Curve(run.run_id, next(starts, record.created_at), [*_points(rows, reports)], dict(flat(settings)))


def write_csv(folder: Path, curve: Curve) -> None:
    """Write `curve.csv`, a row per point, and `settings.csv`, a row per setting; lists are JSON."""
    settings = (("run_id", curve.run_id), *((name, _text(value)) for name, value in curve.settings.items()))
    for name, rows in (("curve.csv", (Point._fields, *curve.points)), ("settings.csv", (("name", "value"), *settings))):
        DISK.write(folder / name, f"{csv_lines(rows, ',')}\n".encode())


def write_tensorboard(folder: Path, curve: Curve) -> None:
    """Write an event file: scalars in float32, the only ones that TensorBoard shows, and the settings as its hparams.

    The name of the file lacks the name of this machine, which TensorBoard's own writers add.
    """
    event: _NewMessage = import_module("tensorboard.compat.proto.event_pb2").Event
    summary: _NewMessage = import_module("tensorboard.compat.proto.summary_pb2").Summary
    hparams: _NewHparams = import_module("tensorboard.plugins.hparams.summary_v2").hparams_pb
    records: Callable[[BinaryIO], _Writer] = import_module("tensorboard.summary.writer.record_writer").RecordWriter
    file, start = BytesIO(), curve.start.timestamp()
    writer = records(file)
    given = ((name, value) for name, value in curve.settings.items() if value is not None)
    settings = {name: value if isinstance(value, int | float) else _text(value) for name, value in given}
    writer.write(event(wall_time=start, file_version="brain.Event:2").SerializeToString())
    described = hparams(settings, trial_id=curve.run_id, start_time_secs=start)
    writer.write(event(wall_time=start, summary=described).SerializeToString())
    for point in curve.points:
        values = [{"tag": name, "simple_value": value} for name, value in _measured(point).items()]
        at = curve.time_of(point).timestamp()
        writer.write(event(wall_time=at, step=point.step, summary=summary(value=values)).SerializeToString())
    DISK.write(folder / f"events.out.tfevents.{int(start)}.{curve.run_id}", file.getvalue())


def add_to_trackio(run: RunDirectory, folder: Path) -> None:
    """Add the curve of a run to a folder of trackio, where it replaces that run; nothing is sent anywhere.

    Raises CONFLICT if the folder is another one, UNSUPPORTED_BACKEND without the extra `trackio` or if trackio fails,
    and the errors of `read_curve`.
    """
    require_extra_of("trackio")
    curve = read_curve(run)
    check_free(folder, is_earlier=any(folder.glob("*.db")))
    with storage_errors(f"`{folder.name}` could not be written"):
        DISK.make_folder(folder)
    rows = ((*point, curve.time_of(point).isoformat()) for point in curve.points)
    with TemporaryDirectory() as temporary:
        file = Path(temporary) / "curve.csv"
        DISK.write(file, csv_lines([_TRACKIO_COLUMNS, *rows], ",").encode())
        done = subprocess.run(
            python_command("-c", _TRACKIO_PROGRAM, str(file), curve.run_id, TRACKIO_PROJECT),
            env=os.environ | {"TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            check=False,
        )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise AppError(ErrorCode.UNSUPPORTED_BACKEND, f"trackio could not write to '{folder}': {reason}.")


_WRITERS: Mapping[CurveFolderFormat, Callable[[Path, Curve], None]] = {
    "csv": write_csv,
    "tensorboard": write_tensorboard,
}


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...


class _NewMessage(Protocol):
    def __call__(self, **fields: object) -> _Message: ...


class _NewHparams(Protocol):
    def __call__(self, settings: Mapping[str, object], *, trial_id: str, start_time_secs: float) -> _Message: ...


class _Writer(Protocol):
    def write(self, record: bytes) -> None: ...


def _rows(run: RunDirectory) -> list[CurveRow]:
    """Return the rows of the loss curve; a last line that is still being written is left out."""
    try:
        with open_regular(run.loss_curve) as file:
            data = file.readall()
        return [CurveRow.model_validate_json(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
    except FileNotFoundError:
        return []
    except ValidationError:
        raise damaged(run.loss_curve) from None


def _points(rows: Sequence[CurveRow], reports: Sequence[MetricsProgress]) -> Iterator[Point]:
    """Yield the rows, each with the last report after the row before it."""
    by_step = {report.step: report for report in reports}
    steps = sorted(by_step)
    earlier = 0
    for row in rows:
        until = bisect_right(steps, row.step)
        report = by_step[steps[until - 1]] if until > earlier else None
        earlier = until
        yield Point(
            step=row.step,
            epoch=row.epoch,
            tokens=row.tokens,
            elapsed_seconds=row.elapsed_seconds,
            train_loss_nats=row.train_loss,
            epoch_train_loss_nats=row.epoch_train_loss,
            val_loss_nats=row.val_loss,
            val_bits_per_char=None if report is None else report.val_bits_per_char,
            learning_rate=row.lr,
            gradient_norm=row.grad_norm,
            tokens_per_second=None if report is None else report.tokens_per_second,
            gpu_memory_bytes=None if report is None else max(report.gpu_memory_bytes or (), default=None),
        )


def _measured(point: Point) -> dict[str, float]:
    """Return the values of a point that it has, without its step."""
    values: dict[str, float | None] = point._asdict()
    return {name: value for name, value in values.items() if value is not None and name != "step"}


def _text(value: object) -> str | None:
    """Return a value as text, lists and numbers as JSON."""
    return value if value is None or isinstance(value, str) else to_json(value).decode()
