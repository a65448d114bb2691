"""Curves and settings of runs for other programs: the numbers of the run's files, each step once."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import JsonValue

from local_discord.wire import Json, decode, mapping, number
from tests.support.refusals import refused
from tests.support.run_shell import contents, finished_copy_fixture
from tests.support.stories import Story, run_record
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.errors import ErrorCode
from trainer.export.curves import export_curve
from trainer.system.files import BrokenFile

__all__ = ["finished_copy_fixture"]

OF_ROWS = {
    **{"epoch": "epoch", "tokens": "tokens", "elapsed_seconds": "elapsed_seconds", "train_loss_nats": "train_loss"},
    **{"epoch_train_loss_nats": "epoch_train_loss", "val_loss_nats": "val_loss", "learning_rate": "lr"},
    "gradient_norm": "grad_norm",
}
"""Columns, and the keys of `loss_curve.jsonl` that they show."""
OF_REPORTS = {"val_bits_per_char": "val_bits_per_char", "tokens_per_second": "tokens_per_second"}
"""Columns, and the keys of the events that they show."""
Values = dict[str, float]


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
    record = export_curve(run, tmp_path / "out")
    assert curve_in(tmp_path / "out") == measured(run)
    assert [*table(tmp_path / "out" / "curve.csv")[0]] == [
        *("step", "epoch", "tokens", "elapsed_seconds", "train_loss_nats", "epoch_train_loss_nats", "val_loss_nats"),
        *("val_bits_per_char", "learning_rate", "gradient_norm", "tokens_per_second", "gpu_memory_bytes"),
    ]
    assert [file.path for file in record.files] == ["curve.csv", "settings.csv"]


def test_csv__has_every_setting_of_the_run_once(run: RunDirectory, tmp_path: Path) -> None:
    export_curve(run, tmp_path / "out")
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


def test_running_run__is_exported_as_far_as_its_lines_are_complete(tmp_path: Path) -> None:
    story = training(tmp_path, [10, 20])
    with story.run.loss_curve.open("a", encoding="utf-8") as file:
        file.write('{"step":30,"epo')
    export_curve(story.run, tmp_path / "out")
    assert [*curve_in(tmp_path / "out")] == [10, 20]


def test_resumed_run__has_each_step_once_with_the_last_report_before_it(tmp_path: Path) -> None:
    """The first attempt ended after step 25, the second one began at step 12 and has come to step 20."""
    story = training(tmp_path, [10, 20])
    speeds = {8: 100.0, 15: 200.0, 25: 300.0, 13: 400.0, 19: 500.0}
    for step, speed in speeds.items():
        story.step(step, 2.0, tokens_per_second=speed, gpu_memory_bytes=(step, 2 * step))
    export_curve(story.run, tmp_path / "out")
    found = curve_in(tmp_path / "out")
    assert {step: values["tokens_per_second"] for step, values in found.items()} == {10: 100.0, 20: 500.0}
    assert {step: values["gpu_memory_bytes"] for step, values in found.items()} == {10: 16, 20: 38}


@pytest.mark.parametrize("content", [None, "", '{"step":10'])
def test_run_without_a_loss__says_that_it_has_none(tmp_path: Path, content: str | None) -> None:
    story = training(tmp_path, [])
    story.run.loss_curve.unlink()
    if content is not None:
        story.run.loss_curve.write_text(content, encoding="utf-8")
    with refused(ErrorCode.RUN_NOT_READY, "The run 'lstm-told' has no losses yet."):
        export_curve(story.run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_changed_curve__is_not_exported(run: RunDirectory, tmp_path: Path) -> None:
    curve = run.loss_curve.read_text(encoding="utf-8")
    run.loss_curve.write_text(curve.replace("2.80", "2.81"), encoding="utf-8")
    with refused(ErrorCode.MODEL_LOAD_FAILED, "'loss_curve.jsonl' of the run"):
        export_curve(run, tmp_path / "out")
    story = training(tmp_path, [10])
    story.run.loss_curve.write_text("no row\n", encoding="utf-8")
    with pytest.raises(BrokenFile, match="of 'lstm-told' cannot be read"):
        export_curve(story.run, tmp_path / "out")


def test_earlier_export__is_replaced_by_force_only(run: RunDirectory, tmp_path: Path) -> None:
    export_curve(run, tmp_path / "out")
    before = contents(tmp_path / "out")
    with refused(ErrorCode.CONFLICT, "`--force` replaces an earlier export only"):
        export_curve(run, tmp_path / "out")
    export_curve(run, tmp_path / "out", force=True)
    assert contents(tmp_path / "out") == before
    with refused(ErrorCode.CONFLICT):
        export_curve(run, run.path, force=True)
