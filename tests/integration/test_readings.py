"""Analyses of reading times through a real worker: their numbers, what is stored in between, and refusals."""

import asyncio
import csv
from collections.abc import Mapping, Sequence
from itertools import chain
from math import exp, fsum, log, pi
from pathlib import Path
from random import Random
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tests.support import add_corpus, kill, processes, running, settings_in, some_text
from tests.support.finished_runs import finished_run
from tests.support.http import lab_site
from tests.support.hub_runs import add_steps
from tests.support.lab import Lab
from tests.support.readings import LINES, reading_record, times_table
from tests.support.refusals import refused
from tests.support.run_shell import Shell
from tests.support.started_jobs import started_reading
from tests.support.tiny_models import lines_in
from tests.support.waiting import PATIENCE_SECONDS
from trainer.api import Model
from trainer.artifacts.job_folder import REPORT_FILE
from trainer.artifacts.readings import ReadingDirectory, ReadingStore
from trainer.artifacts.runs import RunStore
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.readings import ReadingFit, ReadingOptions, ReadingRequest, ReadingResult, UnitScores
from trainer.contracts.reports import Figure, Report
from trainer.contracts.runs import RunStatus
from trainer.data.corpora import CorpusStore
from trainer.data.rows import TextFile
from trainer.data.run_corpora import split_corpus
from trainer.reading.tables import read_times, written_times
from trainer.reports.report_text import ENGLISH
from trainer.system.files import read_record
from trainer.worker.children.reading_child import run_reading_child

Floats: TypeAlias = "NDArray[np.float64]"
Flags: TypeAlias = "NDArray[np.bool_]"
TEXTS = LINES * 3
MS_PER_BIT, MS_PER_BIT_BEFORE, MS_PER_CHARACTER = 9.0, 4.0, 6.0
NOISE_MS = 8.0


def request_of(runs: Sequence[str], content: str, **options: object) -> ReadingRequest:
    file: dict[str, object] = {"name": "times.csv", "content": content}
    return parse(ReadingRequest, {"runs": runs, "file": file, **options})


async def completed(reading: ReadingDirectory) -> ReadingResult:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (status := reading.status()).has_ended:
            await asyncio.sleep(0.05)
    assert status.status == "completed", status.message
    return read_record(reading.result, ReadingResult)


def bits_of_words(model: Model, line: str) -> list[float]:
    """The surprisal of each word of a line, with that of the space before it."""
    shown = model.score(line, detail_level="per_char")
    assert shown.surprisal is not None
    of_words = [0.0]
    for sign, nats in zip(line, shown.surprisal, strict=True):
        if sign == " ":
            of_words.append(0.0)
        of_words[-1] += (nats or 0.0) / log(2)
    return of_words


def least_squares(x: Floats, y: Floats) -> tuple[Floats, Floats, float]:
    """The coefficients, their standard errors, and the variance of the residuals, by the normal equations."""
    inverse: Floats = np.linalg.matrix_power(x.T @ x, -1)
    coefficients: Floats = inverse @ x.T @ y
    errors: Floats = y - x @ coefficients
    variance = float(np.sum(errors**2)) / (len(y) - len(coefficients))
    standard_errors: Floats = np.sqrt(np.diag(inverse) * variance)
    return coefficients, standard_errors, variance


def log_densities(x: Floats, y: Floats, is_outside: Flags) -> Floats:
    coefficients, _, variance = least_squares(x[~is_outside], y[~is_outside])
    errors: Floats = y[is_outside] - x[is_outside] @ coefficients
    return -log(2 * pi * variance) / 2 - errors**2 / (2 * variance)


def rows_of(file: Path) -> list[Mapping[str, str]]:
    with file.open(encoding="utf-8") as lines:
        return [*csv.DictReader(lines)]


def of_model(result: ReadingResult) -> ReadingFit:
    return next(fit for fit in result.fits if fit.counts is None)


async def test_result__is_that_of_a_direct_computation_and_has_the_effect_that_was_put_in(lab: Lab) -> None:
    async with lab.queue() as queue:
        run = await lab.finished_run(queue)
        model, rng = Model.load(run.path), np.random.default_rng(28)
        bits = [bits_of_words(model, line) for line in TEXTS]
        cells, design, y = ["text,position,word,rt"], list[list[float]](), list[float]()
        for text, (line, of_line) in enumerate(zip(TEXTS, bits, strict=True)):
            words = line.split()
            for place, word in enumerate(words):
                before, length_before = (of_line[place - 1], len(words[place - 1])) if place else (0.0, 0)
                time = 400 + MS_PER_CHARACTER * len(word) + MS_PER_BIT * of_line[place] + MS_PER_BIT_BEFORE * before
                time = round(time + NOISE_MS * float(rng.standard_normal()), 3)
                cells.append(f"{text},{place + 1},{word},{time}")
                if 0 < place < len(words) - 1:
                    design.append([1.0, len(word), length_before, of_line[place], before])
                    y.append(time)
        options: dict[str, object] = {"baseline": ["length"], "spillover": 1, "n_folds": 6}
        request = request_of([run.run_id], "\n".join(cells), **options)
        reading = await started_reading(queue, request)
        result = await completed(reading)

    x: Floats = np.array(design)
    times: Floats = np.array(y)
    coefficients, errors, _ = least_squares(x, times)
    expected: list[float] = coefficients.tolist()
    fit = of_model(result)
    names = ("intercept", "length", "length_1", "surprisal", "surprisal_1")
    assert [one.predictor for one in fit.coefficients] == [*names]
    assert [one.estimate for one in fit.coefficients] == pytest.approx(expected, rel=1e-4)
    standard_errors: list[float] = errors.tolist()
    assert [one.standard_error for one in fit.coefficients] == pytest.approx(standard_errors, rel=1e-4)
    squares: Floats = np.zeros(len(names))
    items: NDArray[np.int64] = np.arange(len(times)) // 7 % len(LINES)  # texts of equal words are one item
    for item in range(len(LINES)):
        rest: Flags = items != item
        squares += (least_squares(x[rest], times[rest])[0] - coefficients) ** 2
    half: Floats = float(stats.t.ppf(0.975, len(LINES) - 1)) * np.sqrt(squares * (1 - 1 / len(LINES)))
    halves: list[float] = half.tolist()
    assert [(one.high - one.low) / 2 for one in fit.coefficients] == pytest.approx(halves, rel=1e-3)
    effects = {one.predictor: one.estimate for one in fit.coefficients}
    assert effects["surprisal"] == pytest.approx(MS_PER_BIT, abs=1.5)
    assert effects["surprisal_1"] == pytest.approx(MS_PER_BIT_BEFORE, abs=1.5)
    assert {one.unit for one in fit.coefficients} == {"ms", "ms per character", "ms per bit"}
    assert fit.perplexity == pytest.approx(exp(log(2) * fsum(chain(*bits)) / len([*chain(*bits)])), rel=1e-4)
    assert {one.reason: one.n_rows for one in fit.excluded if one.n_rows} == {"first": len(TEXTS), "last": len(TEXTS)}

    rows = rows_of(reading.path / "predictors-self_paced.csv")
    numbers: list[int] = [int(row["fold"]) for row in rows]
    folds: NDArray[np.int64] = np.array(numbers)
    assert len({row["text"]: row["fold"] for row in rows}) == len({(row["text"], row["fold"]) for row in rows})
    assert {row["fold"] for row in rows} == {*map(str, range(6))}
    gains: Floats = np.zeros(len(times))
    for fold in range(6):
        outside: Flags = folds == fold
        gains[outside] = log_densities(x, times, outside) - log_densities(x[:, :3], times, outside)
    found = fit.delta_log_likelihood
    assert found.estimate == pytest.approx(float(np.sum(gains)) / len(gains), rel=1e-3)
    assert found.low is not None and found.high is not None and 0 < found.low < found.estimate < found.high

    assert [(one.name, one.measure) for one in result.fits] == [
        (name, "self_paced") for name in (run.run_id, f"unigram of {run.run_id}", f"ngram of {run.run_id}")
    ]
    assert [one.second for one in result.comparisons] == [one.name for one in result.fits[1:]]
    assert all(one.difference < 0 for one in result.comparisons), "counts explain less than the model of the times"
    files = {file.path for file in reading.result_files()}
    tables = {"times.csv", "gains.csv", "effects.csv", "predictors-self_paced.csv", "reading-self_paced.R"}
    assert tables | {"request.json", "result.json", "report.json", "report.html"} <= files

    before = reading.result.stat().st_mtime_ns
    async with lab_site(lab) as here:
        body: dict[str, object] = request.model_dump(mode="json")
        again = await here.post("/readings", body)
    assert again.fields["reading_id"] == reading.reading_id and again.fields["status"] == "completed"
    assert reading.result.stat().st_mtime_ns == before


@pytest.mark.slow
async def test_masked_model__explains_times_too(lab: Lab) -> None:
    async with lab.queue() as queue:
        run = finished_run(lab.folder, "bert", corpus=CorpusStore(lab.settings).find("text"))
        reading = await started_reading(
            queue, request_of([run.run_id], times_table(), baseline=["length"], spillover=0)
        )
        fit = of_model(await completed(reading))
    assert (fit.model, fit.n_observations, fit.is_masked) == (run.run_id, 7 * len(LINES), True)
    assert f"Warning: {run.run_id} is a masked model" in (reading.path / "report.html").read_text(encoding="utf-8")


async def test_counts__of_the_baseline_are_no_models_and_unknown_characters_are_told(lab: Lab) -> None:
    async with lab.queue() as queue:
        run_id = (await lab.finished_run(queue)).run_id
        content = times_table(lines=[line.replace("a", "\u0436") for line in LINES])
        baseline = ["length", "ngram"]
        reading = await started_reading(queue, request_of([run_id], content, baseline=baseline, spillover=0))
        result = await completed(reading)
    assert [one.counts for one in result.fits] == [None, "unigram"]
    n_unknown = "".join(LINES).count("a")
    assert {one.n_unknown for one in result.fits} == {n_unknown} and n_unknown > 1
    report = (reading.path / "report.html").read_text(encoding="utf-8")
    assert f"{run_id}: {n_unknown} tokens unknown to its tokenizer, whose surprisal is not that of the words" in report


async def test_texts_of_training_lines__are_told_for_each_model(lab: Lab) -> None:
    async with lab.queue() as queue:
        run = await lab.finished_run(queue)
        blocks = split_corpus(CorpusStore(lab.settings), run.record().effective).lines("train")
        lines = [line for line in lines_in(blocks) if len(line.replace(" ", "")) >= 20]
        texts = [f"{lines[number]} {lines[-number - 1]} {other}" for number, other in enumerate(LINES)]
        request = request_of([run.run_id], times_table(lines=texts), baseline=["length"], spillover=0)
        reading = await started_reading(queue, request)
        result = await completed(reading)
        new = await completed(
            await started_reading(queue, request_of([run.run_id], times_table(), baseline=["length"], spillover=0))
        )
    of_model, *counts = result.fits
    assert of_model.leak is not None and of_model.leak.covered is not None and of_model.leak.lines == 0.0
    n_known = sum(len(lines[number].split()) + len(lines[-number - 1].split()) for number in range(len(LINES)))
    assert of_model.leak.covered == pytest.approx(n_known / sum(len(text.split()) for text in texts))
    assert {one.leak for one in counts} == {None}
    told = f"of the text of the table stand in the training text of `{run.run_id}`: surprisals are lower"
    assert told in (reading.path / "report.html").read_text(encoding="utf-8")
    [leak] = [one.leak for one in new.fits if one.counts is None]
    assert leak is not None and not leak.is_large


async def test_predictor__without_differences_ends_the_job_with_its_name_and_that_of_the_model(lab: Lab) -> None:
    async with lab.queue() as queue:
        run_id = (await lab.finished_run(queue)).run_id
        letters = [" ".join(line.replace(" ", "")) for line in LINES]
        reading = await started_reading(queue, request_of([run_id], times_table(lines=letters)))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (status := reading.status()).has_ended:
                await asyncio.sleep(0.05)
    assert status.status == "failed"
    said = f"self_paced ({run_id}): `length` is constant or a combination of other predictors."
    assert said in status.message


async def test_marginal_surprisals__of_characters_are_exact_and_have_a_bound_for_counts_too(lab: Lab) -> None:
    async with lab.queue() as queue:
        run_id = (await lab.finished_run(queue)).run_id
        found: list[tuple[ReadingFit, ...]] = []
        for how in ("canonical", "marginal"):
            reading = await started_reading(queue, request_of([run_id], times_table(), spillover=0, tokenizations=how))
            found.append((await completed(reading)).fits)
    for canonical, marginal in zip(found[0], found[1], strict=True):
        assert (canonical.bound_bits, marginal.bound_bits) == (None, 0.0)
        for one, other in zip(canonical.coefficients, marginal.coefficients, strict=True):
            assert other.estimate == pytest.approx(one.estimate, rel=1e-3, abs=1e-3)


async def test_counts__without_differences_are_left_out_with_a_note(lab: Lab) -> None:
    """All words have the same letters, so the unigrams of characters find all of them equally likely."""
    words, random = ["abc", "bca", "cab", "acb"], Random(3)
    lines = [" ".join(random.choices(words, k=9)) for _ in range(8)]
    async with lab.queue() as queue:
        run_id = (await lab.finished_run(queue)).run_id
        asked = request_of([run_id], times_table(lines=lines), baseline=["position"], spillover=0)
        result = await completed(await started_reading(queue, asked))
    assert [one.counts for one in result.fits] == [None, "ngram"]
    assert [one.second for one in result.comparisons] == [f"ngram of {run_id}"]
    said = f"Left out: self_paced (unigram of {run_id}): `surprisal` is constant or a combination of other predictors."
    assert ENGLISH.note(result.data.notes[-1]).startswith(said)


def test_failed_reading__says_why_in_the_terminal(lab_shell: Shell) -> None:
    run, table = lab_shell.train("--corpus", "text"), lab_shell.folder / "letters.csv"
    letters = [" ".join(line.replace(" ", "")) for line in LINES]
    table.write_text(times_table(lines=letters), encoding="utf-8")
    said = lab_shell.type("reading", run.run_id, "--data", f"{table}", code=2)
    assert ": failed\n" in said and "`length` is constant or a combination of other predictors." in said


def test_child__takes_fits_that_are_stored_and_says_that_a_text_is_gone(tmp_path: Path) -> None:
    settings, run_id = settings_in(tmp_path), finished_run(tmp_path, "lstm").run_id
    store = ReadingStore(settings.app.artifacts_root)
    readings = dict[str, ReadingDirectory]()
    for name, baseline in (("reading-1", ("length",)), ("reading-2", ("log_frequency",))):
        record, times = reading_record(name, run_id)
        options = parse(ReadingOptions, {"baseline": baseline, "spillover": 0})
        readings[name] = store.create(changed(record, options=options), times)
        nats = tuple([float(number % 7) for number in range(record.data.n_units)])
        readings[name].add_scores(run_id, UnitScores(surprisal_nats=nats, entropy_nats=nats, n_cut=0, n_unknown=0))
        assert run_reading_child(settings, name) == 0
    first, [fit] = readings["reading-1"], [*(readings["reading-1"].path / "fits").iterdir()]
    once, written = read_record(first.result, ReadingResult), fit.stat().st_mtime_ns
    first.result.unlink()
    assert run_reading_child(settings, "reading-1") == 0
    assert (read_record(first.result, ReadingResult), fit.stat().st_mtime_ns) == (once, written)
    said = f"The baseline has `log_frequency`, counted in the training text of '{run_id}', which is deleted"
    assert said in readings["reading-2"].status().message


class Counted:
    """Two runs whose training texts have other counts, and a table with a dash as the fifth unit of each text."""

    def __init__(self, folder: Path) -> None:
        self.settings = settings_in(folder)
        self._store = ReadingStore(self.settings.app.artifacts_root)
        for name, words in (("one", ["abc", "ca b", "bb a"]), ("two", ["ab", "c abc", "bb", "a a"])):
            add_corpus(folder, "\n".join(words * 20), name)
            text = folder / "data" / "corpus" / f"{name}.txt"
            finished_run(folder, "lstm", corpus=text, run_id=name)
        lines = [" ".join([*line.split()[:4], "\N{EN DASH}", *line.split()[5:]]) for line in LINES]
        self._times = read_times(TextFile("times.csv", times_table(lines=lines).encode()), ReadingOptions())

    def analysed(self, name: str, *run_ids: str, **options: object) -> ReadingDirectory:
        """A completed analysis by surprisals that were written by hand."""
        record, _ = reading_record(name, *run_ids)
        chosen = parse(ReadingOptions, {"baseline": ["log_frequency"], **options})
        accepted = changed(record, options=chosen, data=self._times.data)
        reading = self._store.create(accepted, written_times(self._times))
        for place, run_id in enumerate(run_ids):
            nats = tuple([float((7 + place) * number % 11) for number in range(record.data.n_units)])
            reading.add_scores(run_id, UnitScores(surprisal_nats=nats, entropy_nats=nats, n_cut=0, n_unknown=0))
        assert run_reading_child(self.settings, name) == 0
        return reading


def frequencies_of(reading: ReadingDirectory) -> list[tuple[str, float]]:
    """The words of the tidy table with their log frequencies."""
    return [(row["word"], float(row["log_frequency"])) for row in rows_of(reading.path / "predictors-self_paced.csv")]


def test_units_without_words__keep_their_rows_and_those_behind_them_as_words_of_no_frequency(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    reading = counted.analysed("reading-1", "one")
    result = read_record(reading.result, ReadingResult)
    reasons = {one.reason: one.n_rows for one in result.fits[0].excluded if one.n_rows}
    assert reasons == {"first": 8, "last": 8, "beginning": 8}
    assert result.fits[0].n_observations == len(LINES) * (9 - 2 - 1)
    frequencies = frequencies_of(reading)
    assert [number for word, number in frequencies if word == "\N{EN DASH}"] == [0.0] * 8
    assert all(number < 0 for word, number in frequencies if word != "\N{EN DASH}")
    said = "8 units without words, such as punctuation: their log frequency is 0, the sum of none."
    assert said in (reading.path / "report.html").read_text(encoding="utf-8")


def test_frequencies__of_one_run_are_those_of_all_models_and_others_are_told(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    apart = counted.analysed("reading-1", "one", "two")
    assert read_record(apart.result, ReadingResult).differing == ("log_frequency",)
    assert "are counted in different texts" in (apart.path / "report.html").read_text(encoding="utf-8")
    together = counted.analysed("reading-2", "one", "two", frequencies="two")
    result = read_record(together.result, ReadingResult)
    assert result.differing == ()
    assert "are counted in different texts" not in (together.path / "report.html").read_text(encoding="utf-8")
    alone = {name: frequencies_of(counted.analysed(f"of-{name}", name)) for name in ("one", "two")}
    assert frequencies_of(apart) == alone["one"] != alone["two"] == frequencies_of(together)
    counts = {f"{kind} of {name}" for kind in ("unigram", "ngram") for name in ("one", "two")}
    assert {fit.name for fit in result.fits} == {"one", "two", *counts}, "models of counts are those of each text"


def test_frequencies__of_another_run_need_no_text_of_the_models(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    store = RunStore(counted.settings.app.artifacts_root)
    (counted.settings.app.data_root / "corpus" / "one.txt").unlink()
    result = read_record(counted.analysed("reading-1", "one", frequencies="two").result, ReadingResult)
    assert [fit.name for fit in result.fits] == ["one"] and store.find("one") is not None
    gone = "Without counts of the training text of one, which is deleted or has changed."
    assert gone in [ENGLISH.note(one) for one in result.data.notes]


def test_frequencies__are_counted_where_the_counts_of_the_models_are_not_for_the_client(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    reading = counted.analysed("reading-1", "one", frequencies="two", has_counts=False)
    alone = frequencies_of(counted.analysed("reading-2", "two"))
    assert frequencies_of(reading) == alone
    assert [fit.name for fit in read_record(reading.result, ReadingResult).fits] == ["one"]


def test_ngram_run__has_no_copy_of_it_beside_it(lab_shell: Shell) -> None:
    run = lab_shell.read(RunStatus, "train", "--corpus", "text", "--model", "ngram", "--seed", "1")
    copy = lab_shell.read(RunStatus, "train", "--corpus", "text", "--model", "ngram", "--seed", "2")
    table = lab_shell.folder / "times.csv"
    table.write_text(times_table(), encoding="utf-8")
    options = ("--set", "spillover=0", "--set", f"frequencies={run.run_id}")
    said = lab_shell.type("reading", run.run_id, copy.run_id, "--data", f"{table}", *options)
    assert (
        "unigram of " in said.partition("To know")[0]
        and "ngram of " not in said.replace("unigram", "").partition("To know")[0]
    )
    assert "Without ngram of " in said
    assert said.count(" is the same n-gram.") == 2, "its counts, and the run with another seed"


async def test_run__without_its_training_text_needs_a_baseline_without_counts(lab: Lab) -> None:
    async with lab.queue() as queue:
        run_id = finished_run(lab.folder, "lstm").run_id
        here = (await lab.finished_run(queue)).run_id
        for baseline, counted, right in (
            ("length log_frequency position", "`log_frequency`", "length, position"),
            ("unigram ngram", "`unigram` and `ngram`", ""),
        ):
            said = (
                f"The baseline has {counted}, counted in the training text of '{run_id}', which is deleted or has"
                f" changed. Bring the text back, or set `baseline` to [{right}]."
            )
            with refused(ErrorCode.DATA_NOT_FOUND, said):
                await started_reading(queue, request_of([here, run_id], times_table(), baseline=baseline.split()))
        reading = await started_reading(
            queue, request_of([run_id, here], times_table(), baseline=["length"], spillover=0)
        )
        result = await completed(reading)
    assert [one.name for one in result.fits] == [run_id, here, f"unigram of {here}", f"ngram of {here}"]
    gone = f"Without counts of the training text of {run_id}, which is deleted or has changed."
    assert [ENGLISH.note(one) for one in result.data.notes][-1] == gone
    assert gone in (reading.path / "report.html").read_text(encoding="utf-8")


async def test_baseline__of_counts_and_entropies_is_that_of_each_model(lab: Lab) -> None:
    async with lab.queue() as queue:
        run_id = (await lab.finished_run(queue)).run_id
        options: dict[str, object] = {"baseline": ["entropy", "unigram"], "spillover": 0}
        result = await completed(
            await started_reading(queue, request_of([run_id], times_table(lines=TEXTS), **options))
        )
    assert [one.name for one in result.fits] == [run_id, f"ngram of {run_id}"], "unigrams are in the baseline"
    own, ngram = ({one.predictor: one.estimate for one in fit.coefficients} for fit in result.fits)
    assert own.keys() == {"intercept", "entropy", "unigram", "surprisal"} == ngram.keys()
    assert own["entropy"] != ngram["entropy"]


async def test_table__that_cannot_be_analysed_is_refused_before_the_queue(lab: Lab) -> None:
    async with lab.queue() as queue:
        run_id = (await lab.finished_run(queue)).run_id
        refusals: list[tuple[str, dict[str, object], str]] = [
            (
                times_table(lines=LINES[:4]),
                {},
                "need 5 or more texts, and the table has 4 of different items and words.",
            ),
            (
                times_table(lines=LINES[:4] * 2),
                {},
                "need 5 or more texts, and the table has 4 of different items and words.",
            ),
            (times_table(), {"columns": {"gaze": "FFD"}}, "FFD"),
            (times_table(), {"min_ms": 5000}, "8 first, 8 last, 56 too_short. Change `exclude`, `min_ms`."),
            (times_table(), {"baseline": ["length", "surprisal"]}, "`baseline` must be without `surprisal`"),
            (times_table(), {"baseline": ["length"] * 2}, "`baseline` must be different from each other"),
            (times_table(), {"measures": ["self_paced"] * 2}, "`measures` must be different from each other"),
            (times_table(), {"measures": ["gaze"]}, "has no times of gaze, but of self_paced."),
            (times_table(), {"analysis": "mixed"}, "`analysis` must be 'means': the table has no column of persons."),
            ("text,position\n1,1\n", {}, "word"),
        ]
        for content, options, said in refusals:
            before = queue.stores.readings.ids()
            with refused(ErrorCode.INVALID_INPUT, said):
                await started_reading(queue, request_of([run_id], content, **options))
            assert queue.stores.readings.ids() == before


async def test_checkpoints__come_after_their_run_and_are_compared_with_it(lab: Lab) -> None:
    async with lab.queue() as queue:
        corpus = CorpusStore(lab.settings).find("text")
        run, other = (finished_run(lab.folder, family, corpus=corpus) for family in ("lstm", "gru"))
        run.write_manifest(changed(run.completed_manifest(), steps=3))
        add_steps(run, 0, 1, 2)
        names = [run.run_id, *(f"{run.run_id}@{step}" for step in range(3)), other.run_id]
        runs = [run.run_id, other.run_id]
        request = request_of(runs, times_table(), baseline=["length"], spillover=0, has_checkpoints=True)
        body: dict[str, object] = request.model_dump(mode="json")
        async with lab_site(lab) as here:
            accepted = await here.post("/readings", body)
        reading = queue.stores.readings.get(f"{accepted.fields['reading_id']}")
        result = await completed(reading)
    assert [one.model for one in result.fits if one.counts is None] == names
    assert {one.first for one in result.comparisons} == {run.run_id}
    report = read_record(reading.path / REPORT_FILE, Report)
    figures = [part for section in report.sections for part in section.parts if isinstance(part, Figure)]
    [training] = [one for one in figures if one.name == "training-self_paced"]
    assert len(training.series) == 1, "the other run has no checkpoints"
    assert training.axes[0].places == (0, 1, 2, 3)


async def test_table__that_is_too_long_for_a_server_is_refused_over_http(lab: Lab) -> None:
    rows = "1,1,The,300\n" * 900_000
    async with lab.queue() as queue, lab_site(lab) as here:
        run_id = (await lab.finished_run(queue)).run_id
        file = {"name": "times.csv", "content": f"text,position,word,rt\n{rows}"}
        answer = await here.post("/readings", {"runs": [run_id], "file": file})
    assert answer.outcome == (413, "PAYLOAD_TOO_LARGE") and "a server takes 10,000,000" in answer.error.message


@pytest.mark.slow
async def test_killed_worker__continues_with_the_scores_and_fits_that_are_stored(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    settings = settings_in(tmp_path)
    corpus = CorpusStore(settings).find("text")
    runs = [finished_run(tmp_path, family, corpus=corpus).run_id for family in ("lstm", "gpt2")]
    measures = ("self_paced", "maze", "first_fixation", "gaze", "go_past", "total")
    content = times_table(measures, [line.replace("a", letter) for letter in "abc" for line in LINES * 4])
    async with running(settings) as queue:
        reading = await started_reading(queue, request_of(runs, content, baseline=["length"]))
        kept = dict[Path, tuple[int, int]]()
        for pattern, enough in (("scores/*.json", 1), ("fits/*.json", 1)):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len([*reading.path.glob(pattern)]) < enough:
                    await asyncio.sleep(0.005)
            [worker] = processes(tmp_path, "trainer worker --embedded")
            kill(worker.pid)
            assert not reading.has_completed(), "killed before the end"
            files = [path for folder in ("scores", "fits") for path in reading.path.glob(f"{folder}/*.json")]
            kept |= {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}
        result = await completed(reading)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept} == kept
    assert len(kept) >= 3
    assert [one.measure for one in result.fits] == [measure for measure in measures for _ in range(4)]
