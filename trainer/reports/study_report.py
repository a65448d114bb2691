"""The report of a study: the winner's test loss, the finalists, and all trainings."""

from collections.abc import Iterator, Sequence

from trainer.contracts.reports import (
    Cell,
    Estimate,
    Link,
    Note,
    Part,
    Report,
    Table,
    column,
    counted_note,
    note,
    section,
)
from trainer.contracts.runs import flat
from trainer.contracts.studies import LossEstimate, StudyRequest, StudyResult, StudySetting, StudyTest, Trial
from trainer.reports.run_notes import counting_notes, looks_note, ngram_note

_INTERVALS = note(", with 95 % intervals over lines and seeds")


def study_report(result: StudyResult, request: StudyRequest) -> Report:
    """Return the report of a study's results."""
    in_rounds = [trial for trial in result.trials if trial.phase == "round"]
    in_full = [trial for trial in result.trials if trial.phase != "round"]
    sections = [
        *section("Winner", _winner(result, request)),
        *section("Finalists", [_finalists(result)]),
        *section("Settings", [_settings(result.variants)], is_detail=True),
        *section("Rounds", _trainings("rounds", "Trainings of the rounds", in_rounds), is_detail=True),
        *section("Full trainings", _trainings("full", "Full trainings", in_full), is_detail=True),
    ]
    return Report(title=note("Study {name}", name=result.name), sections=tuple(sections))


def rule_note(n_seeds: int) -> Note:
    """Return the rule by which the winner was chosen."""
    return note(
        "Rule: the lowest mean validation loss per character over {seeds}; of equal ones, the first of the list",
        seeds=counted_note(n_seeds, "seed"),
    )


def setting_text(setting: StudySetting) -> str:
    """Return the fields of a setting with their values."""
    return ", ".join(f"{name} {value}" for name, value in flat(setting.train)) or "as given"


def _winner(result: StudyResult, request: StudyRequest) -> Iterator[Part]:
    yield note("{name}: {values}", name=result.winner.name, values=setting_text(result.winner))
    yield rule_note(request.seeds)
    if result.test is None:
        yield note("The test split was not read")
        return
    yield _test(result, result.test)
    yield note(
        "{trainings} of the winner with seeds that chose nothing; intervals over lines of the text and over seeds",
        trainings=counted_note(len(result.test.run_ids), "training"),
    )
    if result.test.baseline is not None:
        yield from counting_notes(result.test.baseline)
    if result.test.looks is not None:
        yield looks_note(result.test.looks)


def _test(result: StudyResult, test: StudyTest) -> Table:
    baseline = test.baseline
    rows: list[tuple[Cell, ...]] = [
        (result.winner.name, _estimate(test.test_loss), _estimate(test.bits_per_char)),
    ]
    if baseline is not None:
        rows.append((ngram_note(baseline), baseline.ngram_loss, baseline.ngram_bits_per_char))
    columns = column("model"), column("{unit} per token", "loss"), column("{unit} per character", "per_char")
    title = note("Losses on the test split")
    caption = note("Losses on the test split{intervals}", intervals=_INTERVALS)
    return Table(name="test", title=title, caption=caption, columns=columns, rows=tuple(rows))


def _finalists(result: StudyResult) -> Table:
    columns = (
        *(column("setting"), column("trainings", "count"), column("failed", "count")),
        *(column("{unit} per token", "loss"), column("{unit} per character", "per_char")),
    )
    rows = tuple(
        (one.name, one.n_completed, one.n_lost, _estimate(one.val_loss), _estimate(one.val_bits_per_char))
        for one in result.finalists
    )
    caption = note("Mean validation losses over seeds, the best first{intervals}", intervals=_INTERVALS)
    return Table(name="finalists", title=note("Finalists"), caption=caption, columns=columns, rows=rows)


def _settings(settings: Sequence[StudySetting]) -> Table:
    rows = tuple((setting.name, setting_text(setting)) for setting in settings)
    return Table(name="settings", title=note("Settings"), columns=(column("setting"), column("values")), rows=rows)


def _trainings(name: str, title: str, trials: Sequence[Trial]) -> list[Part]:
    columns = (
        *(column("round"), column("setting"), column("seed"), column("run"), column("status")),
        *(column("validation, {unit} per token", "loss"), column("reason")),
    )
    rows = tuple(
        (
            f"{trial.round}" if trial.phase == "round" else note(trial.phase),
            *(trial.name, f"{trial.seed}", Link(text=trial.run_id, address=f"runs/{trial.run_id}")),
            *(trial.status, trial.val_loss, trial.reason),
        )
        for trial in trials
    )
    return [Table(name=name, title=note(title), columns=columns, rows=rows, n_titles=2)] if rows else []


def _estimate(found: LossEstimate | None) -> Estimate | None:
    return None if found is None else Estimate(value=found.value, low=found.low, high=found.high)
