"""Analyses of tables: planted effects, equal rows for all models, and comparisons of models."""

import math
from collections.abc import Mapping, Sequence
from random import Random

import pytest

from tests.support.refusals import refused
from trainer.config.validation import parse
from trainer.contracts.errors import ErrorCode
from trainer.contracts.readings import Measure, Predictor, ReadingOptions, ScoringModel
from trainer.data.rows import TextFile
from trainer.reading.analysis import MeasureAnalysis, comparisons, differing, with_common_units
from trainer.reading.tables import Times, read_times

TEXTS, UNITS, PERSONS = 12, 25, 8
EFFECTS = {"surprisal": 3.0, "surprisal_1": 1.5, "length": 8.0}
MODEL = ScoringModel(model="lstm-1", family="lstm", params=1, step=1, series="0" * 64)
Scores = Mapping[Predictor, Sequence[float | None]]


def scores_of(seed: int = 1) -> dict[Predictor, list[float | None]]:
    random = Random(seed)
    numbers = [random.expovariate(0.2) for _ in range(TEXTS * UNITS)]
    return {"surprisal": [*numbers], "log_frequency": [random.gauss(-8, 2) for _ in numbers]}


def table(measure: Measure, *, has_persons: bool = True, n_texts: int = TEXTS) -> Times:
    """A table whose times have EFFECTS, or whose units are skipped the less the more surprising they are."""
    random = Random(2)
    surprisal = [bits or 0.0 for bits in scores_of()["surprisal"]]
    slower = [random.gauss(0, 40) for _ in range(PERSONS)]
    lines = [f"text,position,word{',person' * has_persons},{measure}"]
    for number in range(n_texts * UNITS):
        text, position = divmod(number, UNITS)
        word = "abcdefgh"[: 1 + random.randrange(8)]
        before = surprisal[number - 1] if position else 0.0
        expected = 250 + 3.0 * surprisal[number] + 1.5 * before + 8.0 * len(word) + random.gauss(0, 10)
        for person in range(PERSONS) if has_persons else [0]:
            time = expected + random.gauss(0, 30) + (slower[person] if has_persons else 0.0)
            is_skipped = random.random() < 1 / (1 + math.exp(0.3 * (surprisal[number] - 4)))
            cells = [f"{text}", f"{position}", word, *([f"p{person}"] if has_persons else [])]
            lines.append(",".join([*cells, f"{int(is_skipped)}" if measure == "skipping" else f"{time:.1f}"]))
    return read_times(TextFile("times.csv", "\n".join(lines).encode()), ReadingOptions())


def analysis(measure: Measure = "gaze", *, has_persons: bool = True, **options: object) -> MeasureAnalysis:
    chosen = parse(ReadingOptions, {"spillover": 1, "n_folds": 4, **options})
    return MeasureAnalysis(table(measure, has_persons=has_persons), measure, chosen)


def test_perplexity__of_a_paragraph_may_be_too_large_for_a_number() -> None:
    scores = scores_of()
    known = [bits or 0.0 for bits in scores["surprisal"]]
    found = analysis(has_persons=False).explained_by(MODEL, scores).fit.perplexity
    assert found == pytest.approx(2 ** (math.fsum(known) / len(known)))
    scores["surprisal"] = [bits + 1100 for bits in known]
    assert analysis(has_persons=False).explained_by(MODEL, scores).fit.perplexity is None


@pytest.mark.parametrize(
    ("has_persons", "how", "options"),
    [(True, "mixed", {}), (True, "means", {"analysis": "means"}), (False, "means", {})],
)
def test_fit__finds_the_planted_effects_and_a_gain(has_persons: bool, how: str, options: dict[str, object]) -> None:
    found = analysis("gaze", has_persons=has_persons, **options).explained_by(MODEL, scores_of())
    effects = {one.predictor: one for one in found.fit.coefficients}
    for name, planted in EFFECTS.items():
        width = effects[name].high - effects[name].low
        assert effects[name].estimate == pytest.approx(planted, abs=width)
    assert [effects[name].unit for name in EFFECTS] == ["ms per bit", "ms per bit", "ms per character"]
    gain = found.fit.delta_log_likelihood
    assert gain.low is not None and 0 < gain.low < gain.estimate
    assert found.fit.is_of_persons == (how == "mixed"), "eight persons"
    assert found.fit.analysis == how and (found.fit.person_sd is None) == (how == "means")
    n_kept = TEXTS * (UNITS - 2) * (PERSONS if how == "mixed" else 1)
    assert found.fit.n_observations == n_kept and len(found.text_nats) == TEXTS
    assert sum(found.text_nats) == pytest.approx(gain.estimate * n_kept)
    assert found.line.values[0] < found.line.values[-1] and len(found.residuals.places) == 20
    slope = (found.line.values[-1] - found.line.values[0]) / (found.line.places[-1] - found.line.places[0])
    assert slope == pytest.approx(effects["surprisal"].estimate)


def test_skipping__is_explained_in_logits_by_a_logistic_model() -> None:
    found = analysis("skipping").explained_by(MODEL, scores_of()).fit
    [surprisal] = [one for one in found.coefficients if one.predictor == "surprisal"]
    assert surprisal.unit == "logit per bit"
    assert surprisal.estimate == pytest.approx(-0.3, abs=surprisal.high - surprisal.low)


def test_log_times__have_effects_on_their_logarithms() -> None:
    found = analysis(scale="log").explained_by(MODEL, scores_of()).fit
    [surprisal] = [one for one in found.coefficients if one.predictor == "surprisal"]
    assert surprisal.unit == "log ms per bit" and surprisal.estimate == pytest.approx(3.0 / 310, rel=0.2)


def test_folds_by_row__have_no_interval() -> None:
    gain = analysis(fold_by="row").explained_by(MODEL, scores_of()).fit.delta_log_likelihood
    assert gain.estimate > 0 and gain.low is gain.high is None


def test_models__explain_the_units_that_all_of_them_have_scored() -> None:
    one, other = scores_of(), scores_of(3)
    one["surprisal"][30] = other["surprisal"][60] = None
    common = with_common_units([one, other])
    assert [[place for place, bits in enumerate(of["surprisal"]) if bits is None] for of in common] == [[30, 60]] * 2
    explained = [analysis().explained_by(MODEL, of).fit for of in common]
    assert explained[0].n_observations == explained[1].n_observations
    assert explained[0].excluded == explained[1].excluded


def test_counted_predictors_of_the_baseline__differ_where_their_numbers_do() -> None:
    one, other = scores_of(), scores_of(3)
    assert differing(("length", "log_frequency"), [one, one, other]) == ("log_frequency",)
    assert differing(("log_frequency",), [one, {**other, "log_frequency": one["log_frequency"]}]) == ()
    assert differing(("length", "position"), [one, other]) == ()


def test_comparisons__are_from_the_first_model_and_corrected_for_their_number() -> None:
    measure = analysis()
    names = ("lstm-1", "lstm-2", "lstm-3")
    models = [ScoringModel(model=name, family="lstm", params=1, step=1, series="0" * 64) for name in names]
    fitted = [measure.explained_by(model, scores_of(seed)) for model, seed in zip(models, (1, 1, 5), strict=True)]
    same, noise = comparisons(fitted, seed=0)
    assert (same.first, same.second, same.difference, same.p_value) == ("lstm-1", "lstm-2", 0.0, 1.0)
    assert same.p_smallest == noise.p_smallest == 2 * 2.0 ** (1 - TEXTS)
    assert noise.difference < 0 and noise.p_holm == pytest.approx(2 * noise.p_value) and noise.p_value < 0.01
    difference = sum(fitted[2].text_nats) - sum(fitted[0].text_nats)
    assert noise.difference == pytest.approx(difference / fitted[0].fit.n_observations)


def test_tables__are_read_by_the_script_for_r_under_their_names() -> None:
    tables = {name: "".join(parts) for name, parts in analysis().tables(scores_of()).items()}
    assert list(tables) == ["predictors-gaze.csv", "reading-gaze.R"]
    first, *rows = tables["predictors-gaze.csv"].splitlines()
    assert {"text", "position", "word", "person", "fold", "time", "surprisal", "surprisal_1"} <= {*first.split(",")}
    assert len(rows) == TEXTS * (UNITS - 2) * PERSONS
    assert '"predictors-gaze.csv"' in tables["reading-gaze.R"]
    means = "".join(analysis(analysis="means").tables(scores_of())["predictors-gaze.csv"]).splitlines()
    assert "person" not in means[0].split(",") and len(means) == 1 + TEXTS * (UNITS - 2)


def test_few_texts__are_refused() -> None:
    few = MeasureAnalysis(table("gaze", n_texts=4), "gaze", ReadingOptions())
    with refused(
        ErrorCode.INVALID_INPUT, "Held-out likelihoods need 5 or more texts, and the table has 4 of different items"
    ):
        few.explained_by(MODEL, {name: values[: 4 * UNITS] for name, values in scores_of().items()})
