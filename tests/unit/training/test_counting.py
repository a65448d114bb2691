"""A training that counts: its losses by hand, its result as that of one step, and its stops."""

import math
from collections import Counter
from pathlib import Path

import pytest

from tests.support.tiny_models import POEM, Run, make_run
from tests.support.trainings import digest
from trainer.config.presets import request_hash
from trainer.contracts.events import Progress
from trainer.models.ngram import NgramModel
from trainer.training.counting import count, evaluate_counted
from trainer.training.evaluation import evaluate
from trainer.training.loop import StopReason, TrainingCallbacks, TrainResult
from trainer.training.progress import CurveRow

LINES = [f"{line} {number}" for number in range(6) for line in POEM]


def run_of(folder: Path, **values: object) -> Run:
    no_steps: dict[str, object] = {"max_seq_len": 512, "batch_size": "auto", "num_epochs": 1, "learning_rate": 5e-4}
    fields: dict[str, object] = {"model_family": "ngram", "model": {"max_order": 3}, "tokenizer": {"method": "char"}}
    return make_run(folder, LINES, **no_steps, **fields | values)


def counted(run: Run) -> tuple[NgramModel, float]:
    empty = run.fresh_model()
    assert isinstance(empty, NgramModel)
    return count(empty, run.corpus)


def evaluated(run: Run, model: NgramModel, callbacks: TrainingCallbacks) -> TrainResult:
    return evaluate_counted(model, 2.0, run.corpus, run.effective, run.compute, callbacks)


def test_losses__of_unigrams_are_those_by_hand(tmp_path: Path) -> None:
    """p = (c - D(c) + sum of all D / V) / N, of V characters, the unknown one and the end of a line, in N tokens."""
    run = run_of(tmp_path, model={"max_order": 1}, holdout_fraction=0.2, test_fraction=0.3)
    model, seconds = counted(run)
    rows: list[CurveRow] = []
    progress: list[Progress] = []
    told = TrainingCallbacks(on_row=rows.append, on_step=lambda read: progress.append(read()))
    result = evaluated(run, model, told)

    def tokens(lines: list[str]) -> list[str]:
        return [sign for line in lines for sign in f"{line}\n"]

    counts = Counter(tokens(run.lines("train")))
    [of_kinds] = model.config.discounts
    discounts = {sign: of_kinds[min(times, 3) - 1] for sign, times in counts.items()}
    kinds, size = len(counts) + 1, counts.total()

    def loss(lines: list[str]) -> float:
        lower = sum(discounts.values()) / kinds
        nats = [-math.log((counts[sign] - discounts.get(sign, 0) + lower) / size) for sign in tokens(lines)]
        return sum(nats) / len(nats)

    state = result.state
    expected = {"train": loss(run.lines("train")), "validation": loss(run.lines("validation"))}
    assert result.test is not None
    assert result.test.loss_nats == pytest.approx(loss(run.lines("test")), abs=1e-5)
    assert state.epochs[0].train_loss_nats == pytest.approx(expected["train"], abs=1e-9)
    assert state.validation_loss_nats == state.history.best_loss_nats == pytest.approx(expected["validation"], abs=1e-5)
    validation = evaluate(model, run.corpus.documents("validation"), run.compute)
    assert state.history.best_margin_nats == pytest.approx(validation.margin_nats(is_drawn=True), rel=1e-5)
    assert (state.step, state.epoch, state.is_last_step, result.stopped, result.early_stopped) == (
        *(1, 1, True),
        *(None, False),
    )
    assert (state.request_hash, state.tokens_seen) == (request_hash(run.effective), counts.total())
    assert (state.train_seconds, seconds > 0) == (2.0, True)
    [row], [shown] = rows, progress
    assert (row.step, row.lr, row.grad_norm, row.train_loss) == (1, 0.0, None, shown.train_loss)
    assert (row.val_loss, shown.val_loss) == (state.validation_loss_nats,) * 2
    assert (shown.step, shown.total_steps, shown.progress, shown.learning_rate) == (1, 1, 100.0, 0.0)
    assert shown.tokens_per_second == counts.total() / 2.0
    assert shown.words == sum(len(line.split()) for line in run.lines("train"))


def test_counting__gives_equal_models_of_equal_texts(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    (model, _), (again, _) = counted(run), counted(run)
    assert digest(model) == digest(again)
    assert model.config == again.config == model.built_from
    assert model.config.order in (2, 3)
    assert model.parameter_count() == model.config.parameter_count(model.vocab_size) == sum(model.config.ngrams)


@pytest.mark.parametrize("reason", ["cancel", "pause"])
@pytest.mark.parametrize("calls", range(4))
def test_stop__ends_it_before_the_test(tmp_path: Path, reason: StopReason, calls: int) -> None:
    """Asked after the counting, then after each chunk of the training split, the validation and the test split."""
    run = run_of(tmp_path)
    model, _ = counted(run)
    reasons: list[StopReason | None] = [None] * calls
    result = evaluated(run, model, TrainingCallbacks(should_stop=lambda: reasons.pop() if reasons else reason))
    assert (result.stopped, result.test) == (reason, None)


def test_test_split__may_be_absent(tmp_path: Path) -> None:
    run = run_of(tmp_path, test_fraction=0.0)
    model, _ = counted(run)
    assert evaluated(run, model, TrainingCallbacks()).test is None


def test_losses__of_a_stream_are_of_all_its_tokens(tmp_path: Path) -> None:
    run = run_of(tmp_path, documents="stream")
    model, _ = counted(run)
    found = evaluated(run, model, TrainingCallbacks()).state.validation_loss_nats
    expected = evaluate(model, run.corpus.documents("validation"), run.compute).loss_nats
    assert found == pytest.approx(expected, abs=1e-5)
