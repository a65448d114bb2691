"""The training loop: losses, callbacks, its end, and resuming as if it had never stopped."""

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.markers import slow_except
from tests.support.tiny_models import POEM, make_run
from tests.support.trainings import DROPOUT, TEXT, Bad, after, digest, figures, losses, observed, timeless
from trainer.contracts.errors import AppError, ErrorCode
from trainer.inference.model_files import load_model, save_model
from trainer.models.base import LanguageModel
from trainer.training.evaluation import evaluate
from trainer.training.loop import StopReason, steps_per_epoch
from trainer.training.optimizer import learning_rate


def test_train__test_loss_is_that_of_the_saved_artifact_and_its_validation_the_best(tmp_path: Path) -> None:
    run = make_run(tmp_path, TEXT, num_epochs=5, learning_rate=0.1)
    told = observed(run)
    save_model(tmp_path, told.model, run.effective.model)
    run.tokenizer.save(tmp_path / "tokenizer")
    loaded, tokenizer = load_model(tmp_path)
    test = evaluate(loaded, run.corpus.documents("test"), run.compute)
    validation = evaluate(loaded, run.corpus.documents("validation"), run.compute)
    assert told.result.test is not None
    assert math.isclose(test.loss_nats, told.result.test.loss_nats, abs_tol=1e-6)
    measured = [row.val_loss for row in told.rows if row.val_loss is not None]
    assert told.result.state.history.best_loss_nats == min(measured)
    assert min(measured) < measured[-1], "the last weights were the best: this text shows nothing"
    assert math.isclose(validation.loss_nats, min(measured), abs_tol=1e-6)
    assert tokenizer.encode("sun") == run.tokenizer.encode("sun")


def test_best_validation__has_the_interval_of_its_weights(tmp_path: Path) -> None:
    run = make_run(tmp_path, TEXT, holdout_fraction=0.3)
    told = observed(run)
    validation = evaluate(told.model, run.corpus.documents("validation"), run.compute)
    history = told.result.state.history
    assert history.best_margin_nats is not None and history.best_loss_nats is not None
    assert 0 < history.best_margin_nats < history.best_loss_nats
    assert validation.margin_nats == pytest.approx(history.best_margin_nats, abs=1e-6)
    assert told.progress[-1].best_val_margin == history.best_margin_nats


@pytest.mark.slow
@pytest.mark.process
def test_train__two_fresh_processes_give_the_same_weights(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.support.tiny_models import make_run;"
        "from tests.support.trainings import observed, digest, losses, TEXT, DROPOUT;"
        "told = observed(make_run(Path(sys.argv[1]), TEXT, model=DROPOUT, max_steps=6));"
        "print(digest(told.model), [float.hex(loss) for loss in losses(told.rows)])"
    )
    answers: list[str] = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        command = [sys.executable, "-c", code, str(tmp_path / name)]
        answers.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert answers[0] == answers[1]
    assert "0x1." in answers[0]


@pytest.mark.parametrize("stop_after", slow_except([1, 4, 7, 9, 12, 16, 21], 9))
def test_resume__goes_on_bit_for_bit(tmp_path: Path, stop_after: int) -> None:
    """Paused anywhere, also within validation, and resumed by a fresh model and optimizer with another random state."""
    values: dict[str, object] = {
        "model": DROPOUT,
        "gradient_accumulation": 2,
        "batch_size": 3,
        "optimizer": {"weight_decay": 0.3, "weight_decay_exclude": ["embedding"]},
        "lr_schedule": "cosine",
        "min_learning_rate": 0.001,
        "warmup_ratio": 0.2,
        "num_epochs": 3,
        "eval_every_steps": 5,
        "log_every_steps": 2,
        "checkpoint_every_steps": 4,
        "early_stopping": {"enabled": True, "patience": 50},
    }
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = observed(make_run(tmp_path / "whole", TEXT, **values))
    run = make_run(tmp_path / "parts", TEXT, **values)

    first = observed(run, should_stop=after(stop_after, "pause"))
    torch.manual_seed(123456)
    second = observed(run, resume=True)

    assert first.result.stopped == "pause"
    assert figures(second.result) == figures(whole.result)
    assert digest(second.model) == digest(whole.model)
    kept = first.result.state.curve.rows
    assert timeless(first.rows[:kept] + second.rows) == timeless(whole.rows)


def test_resume__after_a_crash_continues_from_the_last_checkpoint(tmp_path: Path) -> None:
    values: dict[str, object] = {"model": DROPOUT, "checkpoint_every_steps": 4, "num_epochs": 2, "log_every_steps": 1}
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = observed(make_run(tmp_path / "whole", TEXT, **values))
    run = make_run(tmp_path / "parts", TEXT, **values)

    class Crash(Exception):
        pass

    def crash() -> StopReason | None:
        if (run.folder / "checkpoints" / "step-8").exists():
            raise Crash
        return None

    with pytest.raises(Crash):
        observed(run, should_stop=crash)
    resumed = observed(run, resume=True)

    assert resumed.rows[0].step == 9
    assert digest(resumed.model) == digest(whole.model)
    assert timeless(resumed.rows) == timeless(whole.rows[8:])


def test_resume__of_a_finished_training_only_tests_again(tmp_path: Path) -> None:
    run = make_run(tmp_path, TEXT)
    told = observed(run)
    again = observed(run, resume=True)
    assert (again.rows, again.saved) == ([], [])
    assert figures(again.result) == figures(told.result)
    assert digest(again.model) == digest(told.model)


def test_resume__refuses_the_checkpoint_of_another_request(tmp_path: Path) -> None:
    observed(make_run(tmp_path, TEXT, max_steps=2))
    with pytest.raises(AppError, match="another request"):
        observed(make_run(tmp_path, TEXT, max_steps=3), resume=True)


def test_gradients__two_batches_of_four_are_one_of_eight(tmp_path: Path) -> None:
    weights: list[dict[str, Tensor]] = []
    for name, size, accumulation in (("a", 8, 1), ("b", 4, 2), ("c", 1, 8)):
        (tmp_path / name).mkdir()
        run = make_run(tmp_path / name, TEXT, batch_size=size, gradient_accumulation=accumulation, max_steps=9)
        told = observed(run)
        assert told.result.state.step == 9
        state: dict[str, Tensor] = told.model.state_dict()
        weights.append(state)
    for other in weights[1:]:
        for name, weight in weights[0].items():
            assert torch.allclose(weight, other[name], atol=2e-5), name


def test_epoch_loss__is_the_mean_over_tokens_of_what_was_predicted(tmp_path: Path) -> None:
    """With a rate of (nearly) nothing the weights stand still, so that the epoch is one evaluation of its split."""
    run = make_run(tmp_path, TEXT, learning_rate=1e-12, num_epochs=1, optimizer={"name": "sgd"})
    rows = run.corpus.rows("train", 16)
    batch = rows.batch(np.arange(len(rows)))
    with torch.inference_mode():
        logits = run.fresh_model().forward(batch.inputs)
    expected = float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()))

    told = observed(run)

    assert math.isclose(told.result.state.epochs[0].train_loss_nats, expected, abs_tol=1e-5)
    state = told.result.state
    assert state.tokens_seen == batch.tokens == run.corpus.sizes["train"].tokens
    assert (state.rows_per_step, state.max_seq_len) == (run.compute.batch_size, 16)
    assert 0 < state.tokens_per_step <= state.rows_per_step * state.max_seq_len
    ends = [0, *(row.tokens for row in told.rows)]
    spans = zip(pairwise(ends), losses(told.rows), strict=True)
    total = sum((end - start) * loss for (start, end), loss in spans)
    assert math.isclose(total / batch.tokens, expected, abs_tol=1e-5)
    of_epochs = [row.epoch_train_loss for row in told.rows if row.epoch_train_loss is not None]
    assert of_epochs == [told.result.state.epochs[0].train_loss_nats]


def test_curve__has_a_row_every_n_steps_and_at_each_evaluation(tmp_path: Path) -> None:
    run = make_run(tmp_path, TEXT, num_epochs=100, max_steps=50, log_every_steps=10, max_seq_len=4096, batch_size=1)
    steps = [row.step for row in observed(run).rows]
    epoch = steps_per_epoch(1, run.effective, run.compute)
    assert epoch == 1
    assert steps == list(range(1, 51))


def test_curve__of_one_epoch_has_exactly_its_rows(tmp_path: Path) -> None:
    told = observed(make_run(tmp_path, TEXT * 8, batch_size=1, max_steps=50, log_every_steps=10))
    assert [row.step for row in told.rows] == [10, 20, 30, 40, 50]
    assert [row.val_loss is None for row in told.rows] == [True] * 4 + [False]
    assert [row.epoch for row in told.rows] == [1] * 5
    assert [row.epoch_train_loss for row in told.rows] == [None] * 5, "50 steps are not yet an epoch"


def test_curve__area_is_that_of_the_trapezoids(tmp_path: Path) -> None:
    told = observed(make_run(tmp_path, TEXT))
    area = np.trapezoid(losses(told.rows), [row.step for row in told.rows])
    assert told.result.state.curve.area == pytest.approx(float(area), rel=1e-12)
    assert told.result.state.curve.rows == len(told.rows)


def test_curve__with_one_row_has_no_area(tmp_path: Path) -> None:
    told = observed(make_run(tmp_path, TEXT, max_steps=1))
    assert (len(told.rows), told.result.state.curve.area) == (1, None)


def test_progress__ends_at_a_hundred_percent_and_is_told_after_each_step(tmp_path: Path) -> None:
    told = observed(make_run(tmp_path, TEXT, log_every_steps=4))
    last = told.progress[-1]
    assert [p.step for p in told.progress] == list(range(1, last.total_steps + 1))
    assert (last.progress, last.eta_seconds, last.epoch) == (100, 0, 2)
    assert last.val_loss == told.rows[-1].val_loss
    assert last.best_val_loss == told.result.state.history.best_loss_nats
    assert last.train_loss == told.rows[-1].train_loss
    for p in told.progress:
        assert p.tokens_per_second > p.chars_per_second > 0
        assert p.train_perplexity == math.exp(p.train_loss)


def test_loss__falls_and_early_evaluations_fall(tmp_path: Path) -> None:
    told = observed(make_run(tmp_path, TEXT, num_epochs=4))
    measured = [row.val_loss for row in told.rows if row.val_loss is not None]
    assert len(measured) == 4
    assert measured[1] < measured[0]
    assert losses(told.rows)[-1] < losses(told.rows)[0]


def test_early_stopping__ends_after_patience_without_a_fall(tmp_path: Path) -> None:
    stopping = {"enabled": True, "patience": 2, "min_delta": 0.5}
    told = observed(make_run(tmp_path, TEXT, num_epochs=50, early_stopping=stopping))
    measured = [row.val_loss for row in told.rows if row.val_loss is not None]
    assert told.result.early_stopped
    assert len(measured) < 50
    assert min(measured[:-2]) - min(measured[-2:]) <= 0.5
    assert told.progress[-1].progress == 100


def test_stop__is_heard_within_a_step_and_saves(tmp_path: Path) -> None:
    run = make_run(tmp_path, TEXT)
    told = observed(run, should_stop=after(3, "cancel"))
    assert (told.result.stopped, told.result.test, told.result.state.step) == ("cancel", None, 3)
    assert [saved.step for saved in told.saved] == [3]


def test_stop__within_the_test_leaves_the_last_weights_to_be_resumed(tmp_path: Path) -> None:
    """Early stopping ends on weights that are not the best: the checkpoint must hold those, not what is tested."""
    values: dict[str, object] = {
        "num_epochs": 30,
        "learning_rate": 0.3,
        "checkpoint_every_steps": 1000,
        "early_stopping": {"enabled": True, "patience": 1},
    }
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = observed(make_run(tmp_path / "whole", TEXT, **values))
    run = make_run(tmp_path / "parts", TEXT, **values)
    last = run.folder / "checkpoints" / f"step-{whole.result.state.step}"

    first = observed(run, should_stop=lambda: "cancel" if last.exists() else None)
    second = observed(run, resume=True)

    assert whole.result.early_stopped
    assert whole.result.state.history.best_step != whole.result.state.step
    assert (first.result.stopped, first.result.test) == ("cancel", None)
    assert second.rows == []
    assert figures(second.result) == figures(whole.result)
    assert digest(second.model) == digest(whole.model)


def test_train__without_a_test_split_has_no_test(tmp_path: Path) -> None:
    told = observed(make_run(tmp_path, TEXT, test_fraction=0.0))
    assert told.result.test is None
    assert told.result.state.history.best_step is not None


def test_stop__before_the_first_step_saves_nothing(tmp_path: Path) -> None:
    told = observed(make_run(tmp_path, TEXT), should_stop=lambda: "pause")
    assert (told.result.stopped, told.saved) == ("pause", [])


def test_max_seconds__ends_with_a_validation_and_a_test(tmp_path: Path) -> None:
    told = observed(make_run(tmp_path, TEXT, num_epochs=1000, max_seconds=1e-9))
    assert told.result.state.step == 1
    assert told.rows[-1].val_loss is not None
    assert told.result.test is not None


def test_checkpoints__are_told_with_the_best_marked(tmp_path: Path) -> None:
    told = observed(make_run(tmp_path, TEXT, num_epochs=3, checkpoint_every_steps=5))
    measured = {row.step: row.val_loss for row in told.rows if row.val_loss is not None}
    assert {s.step for s in told.saved if s.step % 5 == 0} == {s for s in range(5, told.result.state.step + 1, 5)}
    best = math.inf
    for step, loss in measured.items():
        marked = next((s.is_best for s in told.saved if s.step == step), False)
        assert marked == (loss < best)
        best = min(best, loss)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        ("nan", ErrorCode.TRAINING_NAN_LOSS),
        ("nan in validation", ErrorCode.TRAINING_NAN_LOSS),
        ("memory", ErrorCode.OUT_OF_MEMORY),
    ],
)
def test_failure__is_told_by_its_code_and_no_checkpoint_has_it(tmp_path: Path, failure: str, code: ErrorCode) -> None:
    run = make_run(tmp_path, TEXT)
    with pytest.raises(AppError) as caught:
        run.train(Bad(failure))
    assert caught.value.code == code
    assert not (tmp_path / "checkpoints").exists()


def test_failure__that_is_a_bug_is_not_disguised(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="bug"):
        make_run(tmp_path, TEXT).train(Bad("bug"))


@pytest.mark.parametrize("clip", [0.01, 0.5])
def test_clipping__limits_the_step_to_the_norm(tmp_path: Path, clip: float) -> None:
    run = make_run(tmp_path, TEXT, optimizer={"name": "sgd"}, learning_rate=1.0, gradient_clipping=clip, max_steps=1)
    before = run.fresh_model()
    told = observed(run)
    old: dict[str, Tensor] = before.state_dict()
    new: dict[str, Tensor] = told.model.state_dict()
    moved = math.sqrt(sum(float((new[name] - old[name]).square().sum()) for name in old))
    norm = told.rows[0].grad_norm
    assert norm is not None
    assert math.isclose(moved, min(clip, norm), rel_tol=1e-3)


def torch_optimizer(name: str, model: LanguageModel) -> torch.optim.Optimizer:
    weights = list(model.parameters())
    if name == "sgd":
        return torch.optim.SGD(weights, lr=0.01)
    if name == "adam":
        return torch.optim.Adam(weights, lr=0.01)
    vectors = [weight for weight in weights if weight.dim() == 1]  # of this model, its biases
    matrices = [weight for weight in weights if weight.dim() > 1]
    groups: list[dict[str, object]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.01)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_optimizer__steps_as_torch_says(tmp_path: Path, name: str) -> None:
    """One step by hand: the gradient of the mean loss of the first batch, torch's own optimizer with its defaults."""
    run = make_run(tmp_path, TEXT, optimizer={"name": name}, max_steps=1, gradient_clipping=None)
    told = observed(run)
    model = run.fresh_model()
    optimizer = torch_optimizer(name, model)
    rows = run.corpus.rows("train", 16)
    order = np.random.Generator(np.random.PCG64([run.effective.seed, 0])).permutation(len(rows))
    batch = rows.batch(order[:4])
    loss = torch.nn.functional.cross_entropy(model.forward(batch.inputs).flatten(0, 1), batch.targets.flatten())
    torch.autograd.backward([loss])
    optimizer.step()

    new: dict[str, Tensor] = told.model.state_dict()
    expected: dict[str, Tensor] = model.state_dict()
    for key, weight in expected.items():
        assert torch.allclose(new[key], weight, atol=1e-6), key
    assert math.isclose(losses(told.rows)[0], float(loss.detach()), rel_tol=1e-6)


def test_optimizer__given_values_are_used(tmp_path: Path) -> None:
    still = make_run(tmp_path, TEXT, optimizer={"name": "adamw", "weight_decay": 0.0, "eps": 1e9}, max_steps=3)
    moved = [
        float((a.detach() - b.detach()).abs().max())
        for a, b in zip(still.fresh_model().parameters(), observed(still).model.parameters(), strict=True)
    ]
    assert 0 < max(moved) < 1e-6


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, [1.0, 1.0, 1.0, 1.0]),
        ({"lr_schedule": "linear"}, [1.0, 0.75, 0.5, 0.25]),
        ({"lr_schedule": "linear", "warmup_steps": 2}, [0.5, 1.0, 1.0, 0.5]),
        ({"lr_schedule": "cosine"}, [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]),
        ({"warmup_ratio": 0.5}, [0.5, 1.0, 1.0, 1.0]),
        ({"warmup_ratio": 0.3}, [0.5, 1.0, 1.0, 1.0]),
        ({"warmup_steps": 8}, [1 / 8, 2 / 8, 3 / 8, 4 / 8]),
        ({"lr_schedule": "linear", "warmup_steps": 4}, [0.25, 0.5, 0.75, 1.0]),
        ({"lr_schedule": "linear", "min_learning_rate": 0.004}, [1.0, 0.8, 0.6, 0.4]),
        ({"lr_schedule": "linear", "min_learning_rate": 0.02}, [1.0, 1.0, 1.0, 1.0]),
        (
            {"lr_schedule": "cosine", "min_learning_rate": 0.004, "warmup_steps": 1},
            [1.0, *(0.2 + 0.8 * (1 + math.cos(math.pi * k / 3)) / 2 for k in range(3))],
        ),
    ],
)
def test_learning_rate__follows_its_schedule(tmp_path: Path, values: dict[str, object], expected: list[float]) -> None:
    effective = make_run(tmp_path, POEM, learning_rate=0.02, **values).effective
    rates = [learning_rate(step, 4, effective) for step in range(4)]
    assert rates == pytest.approx([0.02 * share for share in expected])


def test_learning_rate__of_the_curve_is_the_one_that_was_used(tmp_path: Path) -> None:
    told = observed(make_run(tmp_path, TEXT, lr_schedule="linear", log_every_steps=1))
    total = told.progress[-1].total_steps
    assert [row.lr for row in told.rows] == pytest.approx([0.01 * (1 - k / total) for k in range(total)])
