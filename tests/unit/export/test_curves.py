"""Curves and settings of runs for other programs: the numbers of the run's files, each step once."""

import csv
import sqlite3
import sys
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import closing
from ctypes import c_float
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Protocol

import pytest
from pydantic import JsonValue

from local_discord.wire import Json, decode, mapping, number, text
from tests.support.refusals import refused
from tests.support.run_shell import contents
from tests.support.stories import BEGIN, Story, run_record
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.errors import ErrorCode
from trainer.export.curves import CurveFolderFormat, add_to_trackio, export_curve
from trainer.system.files import BrokenFile

OF_ROWS = {
    **{"epoch": "epoch", "tokens": "tokens", "elapsed_seconds": "elapsed_seconds", "train_loss_nats": "train_loss"},
    **{"epoch_train_loss_nats": "epoch_train_loss", "val_loss_nats": "val_loss", "learning_rate": "lr"},
    "gradient_norm": "grad_norm",
}
"""Columns, and the keys of `loss_curve.jsonl` that they show."""
OF_REPORTS = {"val_bits_per_char": "val_bits_per_char", "tokens_per_second": "tokens_per_second"}
"""Columns, and the keys of the events that they show."""
Values = dict[str, float]


class Scalar(Protocol):
    @property
    def step(self) -> int: ...
    @property
    def wall_time(self) -> float: ...
    @property
    def value(self) -> float: ...


class Accumulator(Protocol):
    """TensorBoard's reader of event files, which checks the checksum of every record."""

    def Reload(self) -> object: ...
    def Tags(self) -> dict[str, list[str]]: ...
    def Scalars(self, tag: str) -> list[Scalar]: ...
    def SummaryMetadata(self, tag: str) -> object: ...


class PluginDataType(Protocol):
    def FromString(self, content: bytes) -> object: ...


IN_TRACKIO = {
    "epoch": "epoch",
    "tokens": "tokens",
    "elapsed_seconds": "seconds",
    "train_loss_nats": "train/nats",
    "epoch_train_loss_nats": "epoch/nats",
    "val_loss_nats": "val/nats",
    "val_bits_per_char": "val/bits",
    "learning_rate": "rate",
    "gradient_norm": "norm",
    "tokens_per_second": "tokens/s",
    "gpu_memory_bytes": "gpu/bytes",
}


def stored(run: RunDirectory, name: str) -> list[Json]:
    return [mapping(decode(line)) for line in (run.path / name).read_bytes().splitlines()]


def measured(run: RunDirectory) -> dict[int, Values]:
    """What a run's files say of each row of the loss curve, where each report is of the step of a row."""
    events = stored(run, "events.jsonl")
    reports = {number(one["step"]): one for one in events if one["type"] == "trainer.metrics.progress.v1"}
    found: dict[int, Values] = {}
    for row in stored(run, "loss_curve.jsonl"):
        step = number(row["step"])
        shown = {name: row.get(key) for name, key in OF_ROWS.items()}
        shown |= {name: reports.get(step, {}).get(key) for name, key in OF_REPORTS.items()}
        found[step] = {name: value for name, value in shown.items() if isinstance(value, int | float)}
    return found


def table(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def curve_in(folder: Path) -> dict[int, Values]:
    """The steps of `curve.csv` with the values that are not empty."""
    rows = table(folder / "curve.csv")
    found = {
        int(row["step"]): {name: float(cell) for name, cell in row.items() if cell and name != "step"} for row in rows
    }
    assert len(found) == len(rows), "a step is there twice"
    return found


def opened(folder: Path) -> Accumulator:
    make: Callable[[str], Accumulator] = import_module(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator
    accumulator = make(str(folder))
    accumulator.Reload()
    return accumulator


def training(folder: Path, rows: Sequence[int], name: str = "lstm-told") -> Story:
    """A run that has started, and the rows of its loss curve, each step of which took a second."""
    story = Story(folder / "artifacts", run_record(name)).start()
    lines = (
        f'{{"step":{step},"epoch":1,"train_loss":{3 - step / 100},"lr":0.002,"tokens":{step},"elapsed_seconds":{step}}}'
        for step in rows
    )
    story.run.loss_curve.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return story


def test_csv__has_the_numbers_of_the_files_to_the_last_digit(run: RunDirectory, tmp_path: Path) -> None:
    record = export_curve(run, "csv", tmp_path / "out")
    assert curve_in(tmp_path / "out") == measured(run)
    assert [*table(tmp_path / "out" / "curve.csv")[0]] == [
        *("step", "epoch", "tokens", "elapsed_seconds", "train_loss_nats", "epoch_train_loss_nats", "val_loss_nats"),
        *("val_bits_per_char", "learning_rate", "gradient_norm", "tokens_per_second", "gpu_memory_bytes"),
    ]
    assert [file.path for file in record.files] == ["curve.csv", "settings.csv"]


def test_csv__has_every_setting_of_the_run_once(run: RunDirectory, tmp_path: Path) -> None:
    export_curve(run, "csv", tmp_path / "out")
    first, *settings = table(tmp_path / "out" / "settings.csv")
    found: dict[str, str] = {row["name"]: row["value"] for row in settings}
    assert first == {"name": "run_id", "value": run.run_id} and len(settings) == len(found)
    effective: dict[str, JsonValue] = run.record().effective.model_dump(mode="json")
    expected = dict(leaves(effective))
    assert {name: read_cell(found[name], value) for name, value in expected.items()} == expected
    assert found.keys() == expected.keys() and found["optimizer.betas"] == "[0.9,0.999]"


def leaves(block: Json, prefix: str = "") -> list[tuple[str, JsonValue]]:
    found: list[tuple[str, JsonValue]] = []
    for name, value in block.items():
        is_block = isinstance(value, dict)
        found += leaves(mapping(value), f"{prefix}{name}.") if is_block else [(f"{prefix}{name}", value)]
    return found


def read_cell(cell: str, like: JsonValue) -> JsonValue:
    return cell if isinstance(like, str) else decode(cell or "null")


def test_tensorboard__reads_curve_times_and_settings(run: RunDirectory, tmp_path: Path) -> None:
    export_curve(run, "tensorboard", tmp_path / "out")
    start = datetime.fromisoformat("2026-11-22T03:52:34.858072Z").timestamp() - 0.09233359900099458  # of step 17
    names = {str(path.relative_to(tmp_path / "out")) for path in contents(tmp_path / "out")}
    assert names == {"export.json", f"events.out.tfevents.{int(start)}.{run.run_id}"}
    found, expected = opened(tmp_path / "out"), measured(run)
    tags = found.Tags()["scalars"]
    assert {*tags} == {name for values in expected.values() for name in values}
    for tag in tags:
        scalars = found.Scalars(tag)
        assert [scalar.value for scalar in scalars] == [
            c_float(one[tag]).value for one in expected.values() if tag in one
        ]
        assert [scalar.step for scalar in scalars] == [step for step, values in expected.items() if tag in values]
        for scalar in scalars:
            assert abs(scalar.wall_time - start - expected[scalar.step]["elapsed_seconds"]) < 1e-5
    metadata = mapping(fields_of(found.SummaryMetadata("_hparams_/session_start_info"))["pluginData"])
    data: PluginDataType = import_module("tensorboard.plugins.hparams.plugin_data_pb2").HParamsPluginData
    session = mapping(fields_of(data.FromString(b64decode(text(metadata["content"]))))["sessionStartInfo"])
    hparams = mapping(session["hparams"])
    settings = {row["name"] for row in table_of_settings(run, tmp_path) if row["value"]}
    assert session["groupName"] == run.run_id and hparams.keys() == settings - {"run_id"}
    assert (hparams["model.architecture"], hparams["learning_rate"]) == ("lstm", 0.002)
    assert (hparams["optimizer.betas"], hparams["compute.tf32"]) == ("[0.9,0.999]", True)


def fields_of(message: object) -> Json:
    """Return the fields of a message of Protocol Buffers."""
    write: Callable[[object], str] = import_module("google.protobuf.json_format").MessageToJson
    return mapping(decode(write(message)))


def table_of_settings(run: RunDirectory, folder: Path) -> list[dict[str, str]]:
    export_curve(run, "csv", folder / "settings")
    return table(folder / "settings" / "settings.csv")


@pytest.mark.slow
@pytest.mark.process
def test_trackio__has_the_runs_of_a_folder_once_each(run: RunDirectory, tmp_path: Path) -> None:
    other = training(tmp_path / "other", [10]).run
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "another-project.db").touch()
    for one in (run, other, run):
        add_to_trackio(one, tmp_path / "out")
    with closing(sqlite3.connect(tmp_path / "out" / "model-trainer.db")) as database:
        rows: list[tuple[str, int, str, str]] = database.execute(
            "SELECT run_name, step, metrics, timestamp FROM metrics ORDER BY step"
        ).fetchall()
    assert {step: decode(metrics) for name, step, metrics, _ in rows if name == run.run_id} == {
        step: {IN_TRACKIO[name]: value for name, value in values.items()} for step, values in measured(run).items()
    }
    assert len(rows) == len(measured(run)) + 1 and [row[1] for row in rows if row[0] == "lstm-told"] == [10]
    [time] = [datetime.fromisoformat(row[3]) for row in rows if row[0] == "lstm-told"]
    assert time == BEGIN + timedelta(seconds=10)
    assert {file.name for file in (tmp_path / "out").glob("*.db")} == {"another-project.db", "model-trainer.db"}


@pytest.mark.slow
@pytest.mark.process
def test_trackio__refuses_other_folders_and_says_what_failed(run: RunDirectory, tmp_path: Path) -> None:
    with refused(ErrorCode.CONFLICT, "already exists"):
        add_to_trackio(run, run.path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model-trainer.db").write_text("no database " * 100, encoding="utf-8")
    with refused(ErrorCode.UNSUPPORTED_BACKEND, f"trackio could not write to '{tmp_path / 'out'}': "):
        add_to_trackio(run, tmp_path / "out")


@pytest.mark.parametrize("extra", ["tensorboard", "trackio"])
def test_format_without_its_extra__says_which_to_install(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, extra, None)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with refused(ErrorCode.UNSUPPORTED_BACKEND, f"`python scripts/setup.py --extra {extra}`."):
        if extra == "trackio":
            add_to_trackio(run, tmp_path / "out")
        else:
            export_curve(run, "tensorboard", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_running_run__is_exported_as_far_as_its_lines_are_complete(tmp_path: Path) -> None:
    story = training(tmp_path, [10, 20])
    with story.run.loss_curve.open("a", encoding="utf-8") as file:
        file.write('{"step":30,"epo')
    export_curve(story.run, "csv", tmp_path / "out")
    assert [*curve_in(tmp_path / "out")] == [10, 20]
    story.step(20, 2.0)
    export_curve(story.run, "tensorboard", tmp_path / "events")
    [first, second] = opened(tmp_path / "events").Scalars("train_loss_nats")
    assert (first.wall_time, second.wall_time) == (BEGIN.timestamp() - 10, BEGIN.timestamp())


def test_resumed_run__has_each_step_once_with_the_last_report_before_it(tmp_path: Path) -> None:
    """The first attempt ended after step 25, the second one began at step 12 and has come to step 20."""
    story = training(tmp_path, [10, 20])
    speeds = {8: 100.0, 15: 200.0, 25: 300.0, 13: 400.0, 19: 500.0}
    for step, speed in speeds.items():
        story.step(step, 2.0, tokens_per_second=speed, gpu_memory_bytes=(step, 2 * step))
    export_curve(story.run, "csv", tmp_path / "out")
    found = curve_in(tmp_path / "out")
    assert {step: values["tokens_per_second"] for step, values in found.items()} == {10: 100.0, 20: 500.0}
    assert {step: values["gpu_memory_bytes"] for step, values in found.items()} == {10: 16, 20: 38}


@pytest.mark.parametrize("content", [None, "", '{"step":10'])
def test_run_without_a_loss__says_that_it_has_none(tmp_path: Path, content: str | None) -> None:
    story = training(tmp_path, [])
    story.run.loss_curve.unlink()
    if content is not None:
        story.run.loss_curve.write_text(content, encoding="utf-8")
    with refused(ErrorCode.RUN_NOT_READY, "The run 'kk-ipa' (lstm-told) has no losses yet."):
        export_curve(story.run, "csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_changed_curve__is_not_exported(run: RunDirectory, tmp_path: Path) -> None:
    curve = run.loss_curve.read_text(encoding="utf-8")
    run.loss_curve.write_text(curve.replace("2.80", "2.81"), encoding="utf-8")
    with refused(ErrorCode.MODEL_LOAD_FAILED, "'loss_curve.jsonl' of the run"):
        export_curve(run, "csv", tmp_path / "out")
    story = training(tmp_path, [10])
    story.run.loss_curve.write_text("no row\n", encoding="utf-8")
    with pytest.raises(BrokenFile, match="of 'lstm-told' cannot be read"):
        export_curve(story.run, "csv", tmp_path / "out")


@pytest.mark.parametrize("form", ["csv", "tensorboard"])
def test_earlier_export__is_replaced_by_force_only(run: RunDirectory, tmp_path: Path, form: CurveFolderFormat) -> None:
    export_curve(run, form, tmp_path / "out")
    before = contents(tmp_path / "out")
    with refused(ErrorCode.CONFLICT, "`--force` replaces an earlier export only"):
        export_curve(run, form, tmp_path / "out")
    export_curve(run, form, tmp_path / "out", force=True)
    assert contents(tmp_path / "out") == before
    with refused(ErrorCode.CONFLICT):
        export_curve(run, form, run.path, force=True)
