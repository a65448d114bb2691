"""The choice of size, batch and epochs for a training that has `minutes`, by made-up speeds."""

import math
from collections.abc import Sequence

import pytest

from trainer.config.defaults import Candidate, TrainingText, best_pace
from trainer.config.presets import resolve_with_reasons
from trainer.config.train_request import train_request
from trainer.contracts.base import changed
from trainer.contracts.models import RnnConfig
from trainer.contracts.runs import CorpusRef, EffectiveRequest
from trainer.contracts.training_options import ChosenValue, Pace

SPEEDS: Sequence[Candidate] = (
    Candidate("tiny", weights=30_000, step_tokens=512, tokens_per_second=200_000),
    Candidate("small", weights=900_000, step_tokens=512, tokens_per_second=20_000),
    Candidate("base", weights=3_500_000, step_tokens=512, tokens_per_second=5_000),
)


def chosen(text: TrainingText, pace: Pace | None, **fields: object) -> tuple[EffectiveRequest, dict[str, ChosenValue]]:
    request = train_request({"model_family": "char_lstm", "corpus": "kk", "minutes": 2.0, **fields})
    corpus = CorpusRef(name="kk", sha256="a" * 64, bytes=text.tokens)
    found = resolve_with_reasons(request, text, {"corpus": corpus}, pace=pace)
    return found.effective, {choice.field: choice for choice in found.chosen}


@pytest.mark.parametrize(
    ("tokens", "minutes", "size"),
    [
        (100_000, 0.1, "tiny"),
        (100_000, 2, "small"),
        (100_000, 10, "base"),
        (1_000_000, 10, "small"),
        (1_000_000, 60, "base"),
        (100_000_000, 10, "small"),
        (100_000_000, 3000, "base"),
        (10_000, 60, "small"),
        (200, 60, "tiny"),
    ],
)
def test_size__grows_with_the_time_and_not_beyond_the_text(tokens: int, minutes: float, size: str) -> None:
    assert best_pace(SPEEDS, TrainingText(tokens, 60), minutes).size == size


def test_given_size__is_the_only_candidate() -> None:
    assert best_pace(SPEEDS[2:], TrainingText(100, 60), 0.1).size == "base"


def test_values__have_the_measured_time_of_a_step_in_their_reasons() -> None:
    """120 seconds without 12 for the measurement, 85 % of them in steps of 512 / 20,000 seconds."""
    text = TrainingText(100_000, 60)
    pace = best_pace(SPEEDS, text, 2.0)
    assert (pace.size, pace.step_seconds) == ("small", 0.0256)
    assert pace.tokens == pytest.approx(108 * 0.85 * 20_000)
    effective, reasons = chosen(text, pace)
    said = "2 minutes at 26 ms a step: 18 epochs"
    assert (reasons["model_size"].value, reasons["model_size"].reason) == ("small", said)
    assert (effective.num_epochs, reasons["num_epochs"].reason) == (30, f"at most; {said}")
    unmeasured, others = chosen(text, None)
    assert others["num_epochs"].reason == "at most; until the worker has measured its speed"
    assert isinstance(effective.model, RnnConfig) and isinstance(unmeasured.model, RnnConfig)
    quick = chosen(text, best_pace(SPEEDS[1:2], text, 0.5))[0].model
    assert isinstance(quick, RnnConfig)
    less = unmeasured.model.dropout - quick.dropout
    assert less == pytest.approx(0.06 * math.log2(30 / 4.59), abs=0.011), "27 seconds are enough for 4.59 epochs"
    assert changed(unmeasured, model=effective.model) == effective, "which the run corrects by its own clock"


def test_batch__leaves_a_thousand_steps_in_the_time() -> None:
    text = TrainingText(100_000_000, 60)
    short, long = (chosen(text, best_pace(SPEEDS[1:2], text, minutes))[0] for minutes in (2.0, 2000.0))
    assert short.batch_size * short.max_seq_len == pytest.approx(108 * 0.85 * 20_000 / 1000, rel=0.05)
    assert long.batch_size * long.max_seq_len == 16_384
