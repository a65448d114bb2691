"""The script for R gives the same numbers, where R is installed with lme4 and mgcv."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.unit.reading.samples import simulated
from trainer.reading.mixed import Floats, Levels
from trainer.reading.r_script import r_script
from trainer.reading.regression import Kind, Sample, assign_folds, fit, held_out

with_r = pytest.mark.skipif(shutil.which("Rscript") is None, reason="needs R: apt-get install r-cran-lme4 r-cran-mgcv")


def write_table(path: Path, sample: Sample, folds: Levels) -> None:
    """Write the tidy table of a sample whose texts have 15 units, and names that are equal as numbers: 0, 00, 1, 01."""
    levels = sample.units if sample.persons is None else sample.persons
    persons: list[int] = levels.tolist()
    response: Floats = sample.response[:, np.newaxis]
    of_units: Floats = np.concatenate((sample.baseline.columns, sample.surprisal.columns), axis=1)
    columns: Floats = np.concatenate((response, of_units[sample.units]), axis=1)
    numbers: list[list[float]] = columns.tolist()
    units: list[int] = sample.units.tolist()
    of_folds: list[int] = folds.tolist()
    person = "" if sample.persons is None else ",person"
    lines = [f"text,position,word{person},time,{','.join((*sample.baseline.names, *sample.surprisal.names))},fold"]
    for unit, of_person, row, fold in zip(units, persons, numbers, of_folds, strict=True):
        text = "0" * (unit // 15 % 2) + f"{unit // 30}"
        cells = [text, f"{unit % 15}", '"NA, ""so"""', *([f"{of_person}"] if person else [])]
        lines.append(",".join([*cells, *(f"{number!r}" for number in row), f"{fold}"]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def answer(script: Path, table: Path, curves: Sequence[str] = ("surprisal", "surprisal_1")) -> dict[str, list[float]]:
    """Return the numbers that the script prints, by name; the rest is for people."""
    done = subprocess.run(["Rscript", script, table], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [name for name in ("surprisal", "surprisal_1") if f"s({name})" in done.stdout] == [*curves]
    named = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    return {name: [float(number) for number in numbers] for name, *numbers in named}


@with_r
@pytest.mark.process
@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [
        ("means", 1e-7),
        pytest.param("mixed", 1e-6, marks=pytest.mark.slow),
        pytest.param("logistic", 6e-5, marks=pytest.mark.slow),  # glmer ends near the maximum, each time elsewhere
    ],
)
def test_script__prints_the_same_numbers(tmp_path: Path, kind: Kind, tolerance: float) -> None:
    sample, script, table = simulated(kind), tmp_path / "analysis.R", tmp_path / "table.csv"
    folds = assign_folds(sample.texts, 3, "text", seed=0)
    write_table(table, sample, folds)
    script.write_text(r_script(kind, sample.baseline.names, sample.surprisal.names, "table.csv"), encoding="utf-8")
    printed = answer(script, table)
    model = fit(sample, kind, "linear")
    for estimate in model.estimates(model.clustered(sample)):
        value, error = printed.pop(estimate.name)
        assert estimate.value == pytest.approx(value, abs=tolerance * error)
        assert estimate.standard_error == pytest.approx(error, rel=tolerance)
    sds = dict(zip(("sd_person", "sd_unit"), model.fit.group_sds, strict=True)) if kind != "means" else {}
    for name, sd in (sds | {"sd_residual": model.fit.residual_sd}).items():
        assert [sd] == pytest.approx(printed.pop(name), rel=10 * tolerance, abs=1e-6)
    without = held_out(sample, folds, kind, None)
    for form in ("linear", "spline"):
        difference = float(np.sum(held_out(sample, folds, kind, form) - without)) / len(without)
        assert [difference] == pytest.approx(printed.pop(f"delta_log_likelihood_{form}"), abs=tolerance / 10)
    assert printed == {}


@with_r
@pytest.mark.process
def test_script__has_no_curve_of_surprisals_with_two_values(tmp_path: Path) -> None:
    sample, script, table = simulated("means"), tmp_path / "analysis.R", tmp_path / "table.csv"
    two: Floats = np.round(sample.surprisal.columns / 100 + 0.38)
    sample = sample._replace(surprisal=sample.surprisal._replace(columns=two))
    write_table(table, sample, assign_folds(sample.texts, 3, "text", seed=0))
    script.write_text(r_script("means", sample.baseline.names, sample.surprisal.names, "table.csv"), encoding="utf-8")
    printed = answer(script, table, curves=())
    assert {*printed} >= {"surprisal", "surprisal_1", "delta_log_likelihood_spline"}


def test_script__has_the_columns_and_the_model_of_the_analysis() -> None:
    script = r_script("mixed", ("length", "position"), ("surprisal",), "times.csv")
    assert 'baseline <- c("length", "position")\nsurprisal <- c("surprisal")\n' in script
    assert '"times.csv"' in script and "(1 | person)" in script and "lmer(" in script and "plogis" not in script
    assert "character(0)" in r_script("means", (), ("surprisal",), "t.csv") and "$$" not in script
    assert "family = binomial" in r_script("logistic", (), ("surprisal",), "t.csv")
