"""The report of a study: the winner's test loss, the finalists, and all trainings."""

from collections.abc import Iterator, Sequence

from trainer.contracts.reports import (
    Cell,
    Estimate,
    Link,
    Note,
    Part,
    Quantity,
    Report,
    Table,
    column,
    counted_note,
    note,
    section,
)
from trainer.contracts.runs import MAX_UNKNOWN_CHAR_SHARE, flat, has_unknown_text
from trainer.contracts.studies import (
    SMALLEST_DIFFERENCE,
    LossEstimate,
    StudyFinalist,
    StudyRequest,
    StudyResult,
    StudySetting,
    StudyTest,
    Trial,
    equal_settings,
)
from trainer.reports.run_notes import counted_rows, counting_notes, looks_note

_INTERVALS = note(", with 95 % intervals over lines and seeds")


def study_report(result: StudyResult, request: StudyRequest) -> Report:
    """Return the report of a study's results."""
    in_rounds = [trial for trial in result.trials if trial.phase == "round"]
    in_full = [trial for trial in result.trials if trial.phase != "round"]
    sections = [
        *section("Winner", _winner(result, request)),
        *section("Finalists", _finalists(result)),
        *section("Settings", [*_equal(result.variants), _settings(result.variants)], is_detail=True),
        *section("Rounds", _trainings("rounds", "Trainings of the rounds", in_rounds), is_detail=True),
        *section("Full trainings", _trainings("full", "Full trainings", in_full), is_detail=True),
    ]
    return Report(title=note("Study {name}", name=result.name), sections=tuple(sections))


def rule_note(n_seeds: int) -> Note:
    """Return the rule by which the winner was chosen."""
    return note(
        "Rule: the lowest mean validation loss per character over {seeds}; of equal ones, the first of the list."
        " Settings with more than {share} unknown characters come after the others",
        seeds=counted_note(n_seeds, "seed"),
        share=Quantity(value=MAX_UNKNOWN_CHAR_SHARE, form="share"),
    )


def equal_note(name: str, first: str) -> Note:
    """Return that a setting is not trained, because it is equal to another one."""
    return note("{name} is equal to {first}: trained once", name=name, first=first)


def setting_text(setting: StudySetting) -> str:
    """Return the fields of a setting with their values."""
    return ", ".join(f"{name} {value}" for name, value in flat(setting.train)) or "as given"


def _winner(result: StudyResult, request: StudyRequest) -> Iterator[Part]:
    yield note("{name}: {values}", name=result.winner.name, values=setting_text(result.winner))
    yield rule_note(request.seeds)
    yield from _verdicts(result)
    yield from _without_changes(result, request)
    yield from _unknown(result)
    if result.test is None:
        yield note("The test split was not read")
        baseline = result.finalists[0].baseline
        if baseline is not None:
            counting, *warnings = counting_notes(baseline)
            yield note("Validation: {text}", text=counting)
            yield from warnings
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
        if result.test.looks.looks > 1:
            yield note("Earlier looks may have chosen these settings, so the test loss may be too low")


def _verdicts(result: StudyResult) -> Iterator[Note]:
    """Yield than which finalists the winner is clearly better, and than which it is not."""
    others = {one.name: one.winner_difference for one in result.finalists if one.winner_difference is not None}
    clear = [name for name, difference in others.items() if difference.is_clear]
    unclear = [name for name in others if name not in clear]
    if clear:
        yield note("{winner} is clearly better than {others}", winner=result.winner.name, others=", ".join(clear))
    if unclear:
        yield note("{winner} is not clearly better than {others}", winner=result.winner.name, others=", ".join(unclear))
    if any(one.p is None for one in others.values()):
        yield note(
            "A difference is clear only with an interval, which takes two seeds or more, enough lines, and losses that"
            " vary"
        )
    if len(result.finalists) == 1:
        yield note("Only one setting was trained in full, so it is not compared with the others over lines and seeds")


def _without_changes(result: StudyResult, request: StudyRequest) -> Iterator[Note]:
    """Yield which setting has the values that a training has without the study, if one does."""
    is_usual = not request.settings and not request.space
    names = {name for name, train in request.settings.items() if not train}
    unchanged = (one for one in result.variants if (one.number == 1 if is_usual else names & {one.name, *one.equals}))
    setting = next(unchanged, None)
    if setting is None:
        return
    if setting.number in {one.variant for one in result.finalists}:
        yield note("{name} is the setting without changes", name=setting.name)
    else:
        yield note(
            "{name}, the setting without changes, was not trained in full, so the winner is not compared with it",
            name=setting.name,
        )


def _unknown(result: StudyResult) -> Iterator[Note]:
    """Yield which settings have other shares of unknown characters than the winner, and so other losses."""
    shares = _shares(result)
    of_winner = shares.get(result.winner.number, 0.0)
    if of_winner:
        yield note(
            "Every setting has unknown characters, {share} of the validation text with {name}: the lowest share comes"
            " first, and losses are compared only between settings of one share",
            share=Quantity(value=of_winner, form="share"),
            name=result.winner.name,
        )
    for share in sorted({*shares.values()} - {of_winner}):
        names = [one.name for one in result.variants if shares.get(one.number) == share]
        yield note(
            "{names}: ranked last, because {share} of the characters of the validation text are unknown, so the losses"
            " are too low to compare",
            names=", ".join(names),
            share=Quantity(value=share, form="share"),
        )


def _shares(result: StudyResult) -> dict[int, float]:
    """Return the largest share of unknown characters of each setting with completed trainings."""
    shares: dict[int, float] = {}
    for trial in result.trials:
        if trial.status == "completed":
            shares[trial.variant] = max(shares.get(trial.variant, 0.0), trial.unknown)
    return shares


def _test(result: StudyResult, test: StudyTest) -> Table:
    baseline, unknown = test.baseline, _shares(result).get(result.winner.number, 0.0)
    rows: list[tuple[Cell, ...]] = [
        (result.winner.name, _estimate(test.test_loss, unknown), _estimate(test.bits_per_char, unknown)),
    ]
    if baseline is not None:
        rows += counted_rows(baseline)
    columns = column("model"), column("{unit} per token", "loss"), column("{unit} per character", "per_char")
    title = note("Losses on the test split")
    caption = note("Losses on the test split{intervals}", intervals=_INTERVALS)
    return Table(name="test", title=title, caption=caption, columns=columns, rows=tuple(rows))


def _finalists(result: StudyResult) -> Iterator[Part]:
    is_causal, shares = result.objective == "causal_lm", _shares(result)
    columns = [
        *(column("setting"), column("trainings", "count"), column("failed", "count")),
        *(column("{unit} per token", "loss"), column("{unit} per character", "per_char")),
    ]
    rows: list[tuple[Cell, ...]] = [
        (
            *(one.name, one.n_completed, one.n_lost),
            *(_estimate(each, shares.get(one.variant, 0.0)) for each in (one.val_loss, one.val_bits_per_char)),
        )
        for one in result.finalists
    ]
    is_compared = any(one.winner_difference is not None for one in result.finalists)
    if is_compared:
        difference = (
            column("winner minus it, {unit} per character", "per_char_change")
            if is_causal
            else column("winner minus it, {unit} per token", "loss_change")
        )
        columns += [difference, column("p (Holm)", "p")]
        rows = [(*row, *_difference(one)) for row, one in zip(rows, result.finalists, strict=True)]
    caption = note("Mean validation losses over seeds, the best first{intervals}", intervals=_INTERVALS)
    yield Table(name="finalists", title=note("Finalists"), caption=caption, columns=tuple(columns), rows=tuple(rows))
    if any(one.winner_difference is not None and one.winner_difference.p is not None for one in result.finalists):
        yield note(
            "Differences: paired over lines and seeds, 95 % intervals; p is adjusted for all pairs of finalists (Holm"
            " 1979), because the winner is the best of them, and is 1 for a difference below {smallest}",
            smallest=Quantity(value=SMALLEST_DIFFERENCE, form="figures"),
        )


def _difference(one: StudyFinalist) -> tuple[Cell, Cell]:
    found = one.winner_difference
    return (None, None) if found is None else (Estimate(value=found.value, low=found.low, high=found.high), found.p)


def _equal(settings: Sequence[StudySetting]) -> Iterator[Note]:
    for name, first in equal_settings(settings):
        yield equal_note(name, first)


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
            *(trial.status, trial.val_loss, _reason(trial)),
        )
        for trial in trials
    )
    return [Table(name=name, title=note(title), columns=columns, rows=rows, n_titles=2)] if rows else []


def _reason(trial: Trial) -> Cell:
    """Return why a training failed, or why its loss is not compared with the others."""
    if trial.unknown:
        return note("unknown characters: {share}", share=Quantity(value=trial.unknown, form="share"))
    return trial.reason


def _estimate(found: LossEstimate | None, unknown: float) -> Estimate | None:
    """Return a loss, marked where unknown characters make it too low to compare."""
    if found is None:
        return None
    return Estimate(value=found.value, low=found.low, high=found.high, is_marked=has_unknown_text(unknown))
