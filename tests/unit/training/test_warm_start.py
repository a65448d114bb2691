"""Warm starts from the weights of another run, and frozen embeddings."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.markers import slow_except
from tests.support.resumed import run_in
from tests.support.tiny_models import Run, make_run
from tests.support.trainings import DROPOUT, TEXT, Bad, after, digest, figures, observed, timeless
from trainer.contracts.errors import AppError, ErrorCode
from trainer.models.base import LanguageModel
from trainer.training.checkpoint import CheckpointStore
from trainer.training.evaluation import evaluate
from trainer.training.loop import TrainingCallbacks, TrainResult
from trainer.training.progress import CurveRow


class Child:
    """A run that starts from the weights of another on the same text."""

    def __init__(self, folder: Path, parent: LanguageModel, **values: object) -> None:
        self.run = run_in(folder, {"init_from_run_id": "parent", "model": DROPOUT, **values})
        self.parent = parent
        self.rows: list[CurveRow] = []

    def train(self, *, stop_after: int = 1 << 30) -> tuple[TrainResult, LanguageModel]:
        """Train, from the checkpoint if there is one."""
        model = self.run.fresh_model()
        weights: dict[str, Tensor] = self.parent.state_dict()
        store = CheckpointStore(self.run.folder / "checkpoints")
        checkpoint = store.recover().checkpoint
        if checkpoint is None:
            model.load_state_dict(weights)
        told = TrainingCallbacks(on_row=self.rows.append, should_stop=after(stop_after, "pause"))
        return self.run.train(model, store=store, resume=checkpoint, callbacks=told), model


@pytest.fixture(name="parent", scope="module")
def parent_fixture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, LanguageModel]:
    run = run_in(tmp_path_factory.mktemp("parent") / "run", {"model": DROPOUT})
    return run, observed(run).model


def test_first_validation__is_the_parents(tmp_path: Path, parent: tuple[Run, LanguageModel]) -> None:
    run, model = parent
    child = Child(tmp_path / "child", model)
    result, _ = child.train()
    first = child.rows[0]
    expected = evaluate(model, run.corpus.documents("validation"), run.compute).loss_nats
    assert (first.step, first.epoch, first.train_loss, first.tokens) == (0, 0, None, 0)
    assert first.val_loss == expected == result.state.initial_loss_nats
    assert [row.step for row in child.rows[1:3]] == [3, 6]
    assert result.state.curve.rows == len(child.rows)


def test_best__stays_the_parents_weights_where_training_only_harms(
    tmp_path: Path, parent: tuple[Run, LanguageModel]
) -> None:
    harmful: dict[str, object] = {"learning_rate": 1.0, "optimizer": {"name": "sgd"}, "gradient_clipping": 50.0}
    result, trained = Child(tmp_path / "child", parent[1], max_steps=6, **harmful).train()
    assert (result.state.history.best_step, result.state.history.best_epoch) == (0, 0)
    assert digest(trained) == digest(parent[1])


@pytest.mark.parametrize("stop_after", slow_except([1, 3, 9], 9))
def test_warm_start__interrupted_and_resumed_is_bit_for_bit_the_same(
    tmp_path: Path, parent: tuple[Run, LanguageModel], stop_after: int
) -> None:
    """Within the first validation (nothing is saved then), and after it; a resumed one does not validate it again."""
    whole, parts = Child(tmp_path / "whole", parent[1]), Child(tmp_path / "parts", parent[1])
    expected, expected_model = whole.train()
    first, _ = parts.train(stop_after=stop_after)
    torch.manual_seed(99)
    second, second_model = parts.train()
    assert (first.stopped, second.stopped) == ("pause", None)
    assert timeless(parts.rows) == timeless(whole.rows)
    assert figures(second) == figures(expected)
    assert digest(second_model) == digest(expected_model)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_frozen_embeddings__do_not_move_by_a_bit_while_all_else_learns(
    tmp_path: Path, *, tied: bool, name: str
) -> None:
    sizes: dict[str, object] = {"embedding_size": 8, "hidden_size": 16, "num_layers": 1, "tie_word_embeddings": tied}
    decay: dict[str, object] = {"name": name, "weight_decay": 0.5}
    warm: dict[str, object] = {"init_from_run_id": "parent", "freeze_embeddings": True}
    run = make_run(tmp_path, TEXT, model=sizes, optimizer=decay, max_steps=8, **warm)
    before: dict[str, Tensor] = run.fresh_model().state_dict()
    after_training: dict[str, Tensor] = observed(run).model.state_dict()
    same = {key for key in before if before[key].equal(after_training[key])}
    assert same == {"embedding.weight"}
    assert ("head_bias" in before) == tied, "a tied head has the embedding as its weights: those stay, its bias learns"


def test_divergence__ends_the_run_and_is_measured_from_where_it_begins(tmp_path: Path) -> None:
    """A parent that is far off on the new text is no divergence, as long as it does not get much worse."""
    with pytest.raises(AppError, match=r"diverged: at step 3 the loss is .* `learning_rate`") as caught:
        make_run(tmp_path, TEXT).train(Bad("far off"))
    assert caught.value.code == ErrorCode.TRAINING_NAN_LOSS
    run = run_in(tmp_path / "warm", {"init_from_run_id": "parent", "max_steps": 4, "learning_rate": 1e-6})
    state = run.train(Bad("far off")).state
    assert state.initial_loss_nats is not None and state.initial_loss_nats > 5 * math.log(40)
    assert state.step == 4


def test_samples__are_asked_for_at_their_steps_and_change_nothing(tmp_path: Path) -> None:
    asked: list[tuple[int, bool]] = []
    models: list[LanguageModel] = []
    for name, every in (("with", 5), ("without", None)):
        run = run_in(tmp_path / name, {"model": DROPOUT, "max_steps": 16, "sample_every_steps": every})
        model = run.fresh_model()

        def sample(step: int, drawn_from: LanguageModel = model) -> None:
            asked.append((step, drawn_from.training))
            drawn_from.eval()

        run.train(model, callbacks=TrainingCallbacks(on_sample=sample))
        models.append(model)
    assert [step for step, _ in asked] == [5, 10, 15]
    assert digest(models[0]) == digest(models[1])
