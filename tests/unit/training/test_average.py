"""The moving average of the weights: it is evaluated, stored and kept, and changes no step of the training."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from tests.support.resumed import run_in, saved_last
from tests.support.tiny_models import Run
from tests.support.trainings import DROPOUT, digest, digest_of, timeless
from trainer.contracts.events import Progress
from trainer.models.base import LanguageModel
from trainer.training.checkpoint import CheckpointStore
from trainer.training.evaluation import evaluate
from trainer.training.loop import TrainingCallbacks, TrainResult
from trainer.training.progress import CurveRow

DECAY, ROUNDING = 0.6, 1e-6
VALUES: dict[str, object] = {"model": DROPOUT, "learning_rate": 0.05, "num_epochs": 2, "eval_every_steps": 4}
VALUES |= {"checkpoint_schedule": [0, 1, 10], "sample_every_steps": 3, "log_every_steps": 1}


class Trained:
    """A training, and the weights of its model after each step and whenever samples are drawn."""

    def __init__(self, folder: Path, **more: object) -> None:
        self.run: Run = run_in(folder, VALUES | more)
        self.model: LanguageModel = self.run.fresh_model()
        self.raw, self.sampled = [self.weights()], dict[int, dict[str, Tensor]]()
        self.rows: list[CurveRow] = []
        callbacks = TrainingCallbacks(on_row=self.rows.append, on_step=self._look, on_sample=self._sample)
        self.result: TrainResult = self.run.train(self.model, callbacks=callbacks)

    def weights(self) -> dict[str, Tensor]:
        current: dict[str, Tensor] = self.model.state_dict()
        return {name: weight.clone() for name, weight in current.items()}

    def _look(self, _: Callable[[], Progress]) -> None:
        self.raw.append(self.weights())

    def _sample(self, step: int) -> None:
        self.sampled[step] = self.weights()


def averages_of(raw: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The averages after each step, in double precision."""
    averages = [{name: weight.double() for name, weight in raw[0].items()}]
    for step, weights in enumerate(raw[1:], 1):
        decay, last = min(DECAY, (1 + step) / (10 + step)), averages[-1]
        averages.append({name: decay * last[name] + (1 - decay) * weight for name, weight in weights.items()})
    return averages


def far(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of two models' weights."""
    assert weights.keys() == expected.keys()
    return max(float((weights[name] - expected[name]).abs().max()) for name in expected)


def test_average__replaces_the_weights_wherever_a_model_is_measured_or_stored(tmp_path: Path) -> None:
    averaged, plain = Trained(tmp_path / "averaged", ema_decay=DECAY), Trained(tmp_path / "plain")
    assert [digest_of(each) for each in averaged.raw] == [digest_of(each) for each in plain.raw]
    assert [row.train_loss for row in averaged.rows] == [row.train_loss for row in plain.rows]
    assert timeless(averaged.rows) != timeless(plain.rows)
    expected, last, store = averages_of(averaged.raw), len(averaged.raw) - 1, averaged.run.folder / "checkpoints"
    assert far(averaged.raw[last], expected[last]) > 1e-3

    assert sorted(averaged.sampled) == list(range(3, last + 1, 3))
    assert all(far(weights, expected[step]) < ROUNDING for step, weights in averaged.sampled.items())
    kept = CheckpointStore(store)
    assert kept.scheduled_steps() == [0, 1, 10, last]
    assert all(far(kept.scheduled_weights(step), expected[step]) < ROUNDING for step in kept.scheduled_steps())
    saved = saved_last(averaged.run)
    assert saved.state.step == last and far(saved.weights, expected[last]) < ROUNDING
    assert digest_of(saved.optimizer_state["raw_weights"]) == digest_of(averaged.raw[last])
    assert saved_last(plain.run).optimizer_state["raw_weights"] == {}

    history, measured = averaged.result.state.history, averaged.run.fresh_model()
    assert history.best_step is not None and far(averaged.weights(), expected[history.best_step]) < ROUNDING
    validated = [row for row in averaged.rows if row.val_loss is not None]
    assert len(validated) > 4
    for row in validated:
        measured.load_state_dict(expected[row.step])
        loss = evaluate(measured, averaged.run.corpus.documents("validation"), averaged.run.compute).loss_nats
        assert row.val_loss == pytest.approx(loss, abs=1e-5)
    measured.load_state_dict(expected[history.best_step])
    test = evaluate(measured, averaged.run.corpus.documents("test"), averaged.run.compute)
    assert averaged.result.test is not None
    assert averaged.result.test.loss_nats == pytest.approx(test.loss_nats, abs=1e-5)


def test_average__of_the_last_step_stays_in_the_model_if_it_is_the_best(tmp_path: Path) -> None:
    trained = Trained(tmp_path / "run", ema_decay=DECAY, max_steps=4, learning_rate=0.01)
    assert trained.result.state.history.best_step == 4
    assert digest(trained.model) == digest_of(saved_last(trained.run).weights)
    assert far(trained.weights(), averages_of(trained.raw)[4]) < ROUNDING < far(trained.weights(), trained.raw[4])
