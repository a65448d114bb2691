"""The grid of `benchmarks/defaults.py`: what it draws, what it trains, and what it says of losses made by hand."""

from pathlib import Path

import pytest

from benchmarks.defaults import chart, meets_goals, summaries, table
from benchmarks.defaults_runs import (
    CUT_BYTES,
    GRID,
    Cell,
    Loss,
    LossesOnTest,
    Outcome,
    Plan,
    Run,
    RunFile,
    Search,
    Texts,
)

CELL = Cell("lstm", "tiny", "char", "cut")


def run_of(nats: float | None, cell: Cell = CELL, *, test: LossesOnTest | None = None, seed: int = 42) -> Run:
    loss = None if nats is None else Loss(nats=nats, bits_per_char=2 * nats)
    return Run(
        cell=cell.name,
        request_hash="a" * 64,
        given={"learning_rate": 0.01, "num_epochs": 3},
        seed=seed,
        epochs=3,
        seconds=1.0,
        validation=loss,
        test=test,
    )


def outcome_of(default: float | None, best: float | None, cell: Cell = CELL) -> Outcome:
    losses = LossesOnTest(model=Loss(nats=2.0, bits_per_char=3.0), ngram=Loss(nats=1.8, bits_per_char=2.75))
    return Outcome(cell, [run_of(default, cell, test=losses)], [run_of(best, cell)])


def test_drawn_settings__are_requests_that_depend_on_the_cell_only() -> None:
    for plan, cells in GRID.values():
        for cell in cells:
            settings = cell.drawn_settings(plan.settings)
            assert settings == cell.drawn_settings(2 * plan.settings)[: plan.settings]
            assert len({str(fields) for fields in settings}) == plan.settings
            for fields in settings:
                assert cell.request(fields, 42).model_family == cell.family
    assert CELL.drawn_settings(1) != CELL._replace(text="demo").drawn_settings(1)


def test_texts__that_the_folder_lacks_are_named(tmp_path: Path) -> None:
    (tmp_path / "ug.txt").write_text("a\nb\n", encoding="utf-8")
    texts = Texts(tmp_path, tmp_path / "work")
    assert texts.add_all(["ug", "demo", "tr", "cut", "tr"]) == ["tr"]
    assert Texts(None, tmp_path / "other").add_all(["ug"]) == ["ug"]
    cut = (tmp_path / "work" / "data" / "corpus" / "cut.txt").read_bytes()
    assert CUT_BYTES - 500 < len(cut) <= CUT_BYTES and cut.endswith(b"\n")


@pytest.mark.slow
@pytest.mark.process
def test_search__trains_each_run_once_and_reads_the_test_split_once(tmp_path: Path) -> None:
    """Two seeds of the default; three settings for an epoch, two of them for three, and another seed of the best."""
    path, new = tmp_path / "grid" / "tiny.jsonl", list[Run]()

    def outcome() -> Outcome:
        new.clear()
        file = RunFile(path)
        with_texts = Texts(None, tmp_path / f"work{len(list(tmp_path.iterdir()))}")
        return Search(CELL, Plan(settings=3, finalists=1, epochs=3), with_texts, file, new.append).outcome()

    first = outcome()
    assert [(run.epochs, run.seed) for run in new] == [(3, 42), (3, 43), *[(1, 42)] * 3, *[(3, 42)] * 2, (3, 43)]
    assert [run.test is not None for run in new] == [True] + [False] * 7
    rates = {run.loss_nats: run.given["learning_rate"] for run in new[2:5]}
    assert [run.given["learning_rate"] for run in new[5:7]] == [rates[loss] for loss in sorted(rates)[:2]]
    assert first.best[0].loss_nats == min(run.loss_nats for run in new[5:7]) and first.default == new[:2]

    assert outcome() == first and new == []
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])  # as if the program had ended while it wrote
    assert outcome().default == first.default
    assert [(run.epochs, run.seed, run.loss_nats) for run in new] == [(3, 43, first.best[1].loss_nats)]


def test_summary__counts_the_cells_near_the_best_and_names_the_worst() -> None:
    near, far = outcome_of(2.01, 2.0), outcome_of(2.04, 2.0, CELL._replace(text="ug"))
    assert summaries([near, far]) == [
        "default within 0.02 nats of the best in 1 of 2 cells, worst +0.040",
        "on texts that the rules may be made on: default within 0.02 nats of the best in 1 of 1 cells, worst +0.010",
        "on the other texts: default within 0.02 nats of the best in 0 of 1 cells, worst +0.040",
    ]
    assert meets_goals([near] * 9 + [far]) and not meets_goals([near] * 8 + [far])
    assert not meets_goals([near] * 99 + [outcome_of(2.06, 2.0)])


def test_default_that_diverged__is_worse_than_any_other() -> None:
    outcomes = [outcome_of(None, best) for best in (2.0, None)]
    assert not meets_goals(outcomes)
    assert summaries(outcomes)[0] == "default within 0.02 nats of the best in 0 of 2 cells, worst +inf"
    assert "| diverged | 2.000 (4.000) | +inf |" in table(outcomes)[-2]
    assert len(chart(outcomes).axes) == 2
