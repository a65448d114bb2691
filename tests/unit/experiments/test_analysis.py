"""The analysis of a small experiment: every number again in plain Python, and every field of the result."""

from collections.abc import Sequence
from itertools import product
from math import isnan
from pathlib import Path
from random import Random

import numpy as np
import pytest

from benchmarks import experiment_numbers
from tests.support.cross_language import experiment_record
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.experiments import (
    AsymmetryRow,
    CurveRow,
    Encoding,
    ExperimentRecord,
    ExperimentRequest,
    ExperimentResult,
    ExperimentText,
    LanguageOptions,
    ListenersRow,
    MatrixRow,
    ModelOptions,
    PerplexityRow,
    Rating,
    SectionsFile,
    SeedRow,
    TextKind,
    TextOptions,
    TransferOptions,
)
from trainer.experiments.analysis import Listener, analyse
from trainer.experiments.quantities import recompute
from trainer.experiments.sections import TextLosses
from trainer.experiments.segments import Assimilator
from trainer.experiments.trigram import Trigram
from trainer.reports.experiment_tables import csv_text

ALPHABETS = {"kk": "abkqi ", "tr": "atkfo ", "fi": "ahklʋ ", "ky": "abkqe "}
BRANCHES = {"kk": "kipchak", "ky": "kipchak", "tr": "oghuz"}
KINDS: tuple[TextKind, ...] = ("shuffled", "held_out", "passages")
REQUEST = ExperimentRequest(
    name="small",
    languages={code: LanguageOptions(branch=BRANCHES.get(code), is_control=code == "fi") for code in ALPHABETS},
    models={"lstm": ModelOptions(train={}), "gpt": ModelOptions(train={})},
    seeds=(1, 5),
    modes=("skip", "assimilate"),
)
RATINGS = [Rating(listener=a, language=b, mean_rating=float(ord(a[0]))) for a in ALPHABETS for b in ("kk", "tr")]
HELD_OUT = ("lstm", "held_out", "skip")
Texts = list[tuple[ExperimentText, list[str]]]


def lines_of(language: str, count: int, seed: int) -> list[str]:
    """Random lines; languages of a branch share most characters, and draw them with the same weights."""
    rng = Random(f"{language}:{seed}")
    weights = [5, 4, 3, 2, 1, 3]
    return ["".join(rng.choices(ALPHABETS[language], weights, k=rng.randrange(3, 25))) for _ in range(count)]


TRAINING = {language: lines_of(language, 40, 0) for language in ALPHABETS}


def curve(model: str, language: str, seed: int) -> CurveRow:
    names = "initial_val_loss best_val_loss test_loss test_perplexity bits_per_char auc"
    run: dict[str, object] = {"model": model, "language": language, "seed": seed, "run_id": f"{model}-1"}
    unknown: dict[str, object] = dict.fromkeys(names.split(), None)
    return parse(CurveRow, {**run, "phase": "single", "steps": 10, "epochs": 1, "early_stopped": False, **unknown})


def record_of(request: ExperimentRequest) -> ExperimentRecord:
    return changed(experiment_record(), experiment_id=f"{request.name}-12345678", request=request)


def texts_of(kinds: Sequence[TextKind]) -> Texts:
    """A text per kind and language; their numbers of sections differ."""
    texts: Texts = []
    for number, kind in enumerate(kinds, start=1):
        for language in ALPHABETS:
            sections = lines_of(language, 3 + number + len(texts) % 3, number)
            about: dict[str, object] = {"text_id": f"{kind.replace('_', '-')}-{language}", "sha256": "0" * 64}
            about |= {"kind": kind, "language": language, "sections": len(sections)}
            text = parse(ExperimentText, {**about, "characters": sum(map(len, sections))})
            texts.append((text, sections))
    return texts


def listener_of(model: str, language: str, seed: int, texts: Texts, *, is_char: bool = True) -> Listener:
    """A listener with the losses of a trigram model, and some more for each seed."""
    trigram = Trigram(TRAINING[language])
    assimilator = Assimilator(trigram.characters)
    losses: dict[tuple[str, Encoding], TextLosses] = {}
    for text, sections in texts:
        assimilated = [assimilator.replace(section) for section in sections]
        both: list[tuple[Encoding, list[str]]] = [("raw", sections), ("assimilated", assimilated)]
        for encoding, lines in both:
            own = trigram.losses(lines)
            more: list[float] = [(number % 7) * seed / 50 for number in range(len(own.loss_nats))]
            losses[text.text_id, encoding] = own._replace(loss_nats=own.loss_nats + np.array(more, dtype=np.float64))
    replacements = assimilator.replacements(["q"], model=model, language=language, seed=seed)
    return Listener(model, language, seed, curve(model, language, seed), losses, replacements, is_char)


@pytest.fixture(scope="module", name="analysed")
def analysed_fixture() -> tuple[ExperimentResult, SectionsFile]:
    texts = texts_of(KINDS)
    runs = product(REQUEST.models, sorted(ALPHABETS), REQUEST.seeds)  # not in the order of the tables
    listeners = [listener_of(*run, texts) for run in runs]
    return analyse(record_of(REQUEST), texts, listeners, TRAINING.__getitem__, RATINGS)


def write_files(folder: Path, result: ExperimentResult, sections: SectionsFile) -> None:
    """Write the files of the report that `experiment_numbers` reads."""
    headline = result.models[0].tables
    texts = {
        "matrix.csv": csv_text(MatrixRow, headline.matrix),
        "listeners.csv": csv_text(ListenersRow, headline.listeners),
        "asymmetry.csv": csv_text(AsymmetryRow, headline.asymmetry),
        "seeds.csv": csv_text(SeedRow, result.seed_rows),
        "perplexity.csv": csv_text(PerplexityRow, result.perplexities),
        "validity.json": result.validity.model_dump_json(),
        "sections.json": sections.model_dump_json(),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def test_experiment__numbers_are_those_of_plain_python_but_for_wrong_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], analysed: tuple[ExperimentResult, SectionsFile]
) -> None:
    result, sections = analysed
    tables, row = result.models[0].tables, result.models[0].tables.matrix[1]
    wrong = changed(row, interval_high=row.interval_high + 1e-6)
    write_files(tmp_path, result, sections)
    matrix = csv_text(MatrixRow, (tables.matrix[0], wrong, *tables.matrix[2:]))
    (tmp_path / "matrix.csv").write_text(matrix, encoding="utf-8")
    (tmp_path / "seeds.csv").write_text(csv_text(SeedRow, result.seed_rows[:-1]), encoding="utf-8")
    first, *others = result.validity.checks
    opposite = changed(first, joins_branches_first=not first.joins_branches_first)
    validity = changed(result.validity, checks=(opposite, *others)).model_dump_json()
    (tmp_path / "validity.json").write_text(validity, encoding="utf-8")
    assert experiment_numbers.main(tmp_path) == 1
    found = capsys.readouterr().out.splitlines()
    assert {"matrix.csv: 32 rows", "listeners.csv: 24 rows", "asymmetry.csv: 12 rows"} <= set(found)
    assert {"perplexity.csv: 288 rows", "validity.json: 4 checks", "3 numbers differ"} <= set(found)
    of_matrix, of_seeds, of_validity = (line for line in found if "not" in line)
    assert of_matrix.startswith(f"matrix.csv, line 3: interval_high is {wrong.interval_high:.6f}, not ")
    assert of_seeds == "seeds.csv has 191 rows, not 192"
    assert of_validity == f"validity.json: joins_branches_first of passages is not {first.joins_branches_first}"


def test_result__has_the_tables_of_every_model_and_kind(analysed: tuple[ExperimentResult, SectionsFile]) -> None:
    result, sections = analysed
    assert result.headline == ("lstm", "passages")
    kinds = product(("lstm", "gpt", "trigram"), ("passages", "held_out", "shuffled"))
    assert [(each.model, each.kind) for each in result.models] == [*kinds]
    for tables in result.models:
        n_seeds = 1 if tables.model == "trigram" else 2
        of_rows = (tables.tables.matrix, tables.tables.listeners, tables.tables.asymmetry)
        assert all(row.n_seeds == n_seeds for rows in of_rows for row in rows)
        assert [row.scoring_mode for row in tables.tables.matrix] == ["skip"] * 16 + ["assimilate"] * 16
        assert [row.scoring_mode for row in tables.tables.asymmetry] == ["skip"] * 6 + ["assimilate"] * 6
        assert len(tables.tree) == 3
        assert tables.gap is not None
    assert (result.experiment_id, result.name) == ("small-12345678", "small")
    assert result.languages == ("kk", "tr", "fi", "ky")
    assert (result.branches, result.controls, result.seeds) == (BRANCHES, ("fi",), (1, 5))
    assert result.modes == ("skip", "assimilate")
    of_runs = [*product(("lstm", "gpt"), ("fi", "kk", "ky", "tr"), (1, 5))]
    assert [(row.model, row.language, row.seed) for row in result.curves] == of_runs
    assert [check.name for check in result.validity.checks] == ["passages", "held_out", "shuffled", "control"]
    assert (sections.scoring_mode, sections.branches, sections.controls) == ("skip", BRANCHES, ("fi",))
    assert sections.ratings == tuple(RATINGS)
    runs = {("lstm", 1), ("lstm", 5), ("gpt", 1), ("gpt", 5), ("trigram", None)}
    assert {(each.model, each.seed) for each in sections.tables} == runs
    assert result.common_characters == (" ", "a", "k"), "those that all models know"


def test_replacements__are_of_the_runs_and_of_the_baseline(analysed: tuple[ExperimentResult, SectionsFile]) -> None:
    replacements = analysed[0].replacements
    characters = "".join(section for _, sections in texts_of(KINDS) for section in sections)
    of_runs = [row for row in replacements if row.model == "gpt" and row.seed == 5]
    found = [(row.listener_language, row.character, row.replacement) for row in of_runs]
    assert found == [("fi", "q", "k"), ("tr", "q", "k")]
    by_hand = {"f": ("b", 8), "h": ("q", 8), "i": ("e", 4), "l": ("b", 13), "o": ("e", 5), "t": ("b", 4), "ʋ": ("b", 9)}
    of_baseline = [row for row in replacements if row.model == "trigram" and row.listener_language == "ky"]
    assert {row.character: (row.replacement, row.distance) for row in of_baseline} == by_hand
    assert [row.character for row in of_baseline] == list(by_hand)
    assert all((row.seed, row.count) == (None, characters.count(row.character)) for row in of_baseline)


def test_correlations__are_of_every_table(analysed: tuple[ExperimentResult, SectionsFile]) -> None:
    correlations = analysed[0].correlations
    # models x kinds x modes x statistics x pairs; tr and kk are rated by the other three each
    assert len(correlations) == 3 * 3 * 2 * 2 * 2
    sizes = {(row.pairs, row.n_pairs, row.n_permutations) for row in correlations}
    assert sizes == {("all", 6, 24), ("across_branches", 5, 4)}
    assert all(row.r is not None and -1 <= row.r <= 1 for row in correlations)
    [primary] = [row for row in correlations if row.is_primary]
    assert (primary.model, primary.kind, primary.mode) == ("lstm", "passages", "skip")
    assert (primary.statistic, primary.pairs) == ("spearman", "all")


def test_language_without_a_model__has_perplexities_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = {**REQUEST.languages, "fi": LanguageOptions(is_control=True, is_trained=False)}
    two_phases = ModelOptions(train={}, transfer=TransferOptions(first="kk"))
    request = changed(REQUEST, languages=others, models={**REQUEST.models, "lstm": two_phases})
    texts, trained = texts_of(KINDS), ("kk", "tr", "ky")
    listeners = [listener_of(*run, texts) for run in product(request.models, trained, request.seeds)]
    result, sections = analyse(record_of(request), texts, listeners, TRAINING.__getitem__, [])
    write_files(tmp_path, result, sections)
    assert (result.languages, result.text_languages) == (trained, ("kk", "tr", "fi", "ky"))
    assert result.controls == ()
    rows = [each for each in result.perplexities if (each.model, each.kind, each.scoring_mode) == HELD_OUT]
    assert [(row.listener_language, row.text_language) for row in rows] == [*product(trained, REQUEST.languages)]
    assert {row.text_language for row in result.models[0].tables.matrix} == {*trained}
    assert {row.listener_language for row in result.perplexities if row.model == "trigram"} == {*trained}
    assert {each.model for each in sections.tables if each.are_seeds_linked} == {"lstm"}
    own = [row.interval_low for row in result.models[0].tables.matrix if row.scoring_mode == "skip"]
    assert [row.interval_low for row in recompute(sections).matrix] == pytest.approx(own, abs=0.6e-6)
    assert experiment_numbers.main(tmp_path) == 0
    # 3 models, 3 kinds of text, 2 modes, 3 listeners, 4 texts
    assert "perplexity.csv: 216 rows\n" in capsys.readouterr().out


def test_analysis__of_larger_tokens_and_one_seed() -> None:
    plain = {code: LanguageOptions() for code in ALPHABETS}
    one_seed = changed(REQUEST, languages=plain, models={"bpe": ModelOptions(train={})}, seeds=(1,), min_occurrences=30)
    options = TextOptions(held_out=False)
    request = changed(one_seed, modes=("unk", "skip"), has_trigram_baseline=False, texts=options)
    texts = texts_of(["shuffled"])
    listeners = [listener_of("bpe", language, 1, texts, is_char=False) for language in ALPHABETS]
    result, sections = analyse(record_of(request), texts, listeners, TRAINING.__getitem__, [])
    assert (result.headline, result.common_characters, result.correlations) == (("bpe", "shuffled"), None, ())
    assert (result.validity.passed, result.models[0].gap) == (None, None)
    assert {(row.n_seeds, row.cross_entropy_sd, row.excess_sd) for row in result.seed_rows} == {(1, None, None)}
    frequent = {c for c in "ak " if all("".join(lines).count(c) >= 30 for lines in TRAINING.values())}
    for row in result.models[0].tables.matrix:
        [text] = [lines for text, lines in texts if text.language == row.text_language]
        scored = [c for line in text for c in line[1:] if c in frequent or row.scoring_mode == "unk"]
        assert row.n_scored == len(scored)
        assert row.fraction_scored == pytest.approx(len(scored) / sum(len(line) - 1 for line in text))
    assert sections.scoring_mode == "unk"


def test_baseline__is_scored_as_a_model() -> None:
    request = changed(REQUEST, seeds=(1,), models={"lstm": ModelOptions(train={})}, modes=("unk",))
    texts = texts_of(["held_out"])
    listeners = [listener_of("lstm", language, 1, texts) for language in ALPHABETS]
    result, _ = analyse(record_of(request), texts, listeners, TRAINING.__getitem__, [])
    [_, baseline] = result.models
    assert (baseline.model, baseline.kind) == ("trigram", "held_out")
    for row in baseline.tables.matrix:
        [lines] = [lines for text, lines in texts if text.language == row.text_language]
        nats: list[float] = Trigram(TRAINING[row.listener_language]).losses(lines).loss_nats.tolist()
        scored = [loss for loss in nats if not isnan(loss)]
        assert row.cross_entropy == pytest.approx(sum(scored) / len(scored))
    assert {row.model for row in result.seed_rows} == {row.model for row in result.replacements} == {"lstm"}
