"""The training loop: losses, also against theory, callbacks, its end, resuming, warm starts and frozen embeddings."""

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.support.markers import slow_except
from tests.support.resumed import assert_continued, run_in, saved_last
from tests.support.tiny_models import Run, make_run
from tests.support.trainings import DROPOUT, TEXT, Bad, Told, after, digest, losses, observed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.inference.model_files import load_model, save_model
from trainer.models.base import LanguageModel
from trainer.training.evaluation import evaluate
from trainer.training.loop import TrainingCallbacks, steps_per_epoch


def validations(told: Told) -> list[float]:
    return [row.val_loss for row in told.rows if row.val_loss is not None]


@pytest.fixture(name="plain", scope="module")
def plain_fixture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Told]:
    run = run_in(tmp_path_factory.mktemp("plain") / "run", {"num_epochs": 4, "checkpoint_every_steps": 5})
    return run, observed(run)


def test_saved_artifact__has_the_test_loss_and_the_best_validation(tmp_path: Path) -> None:
    run = make_run(tmp_path, TEXT, num_epochs=12, learning_rate=0.1, holdout_fraction=0.3)
    told = observed(run)
    save_model(tmp_path, told.model, run.effective.model)
    run.tokenizer.save(tmp_path / "tokenizer")
    loaded, tokenizer = load_model(tmp_path)
    test, validation = (evaluate(loaded, run.corpus.documents(s), run.compute) for s in ("test", "validation"))
    history, measured = told.result.state.history, validations(told)
    assert told.result.test is not None
    assert math.isclose(test.loss_nats, told.result.test.loss_nats, abs_tol=1e-6)
    assert min(measured) < measured[-1], "the last weights were the best: this text shows nothing"
    assert history.best_loss_nats == min(measured) == pytest.approx(validation.loss_nats, abs=1e-6)
    assert history.best_margin_nats is not None and 0 < history.best_margin_nats < min(measured)
    assert validation.margin_nats(is_drawn=True) == pytest.approx(history.best_margin_nats, abs=1e-6)
    assert told.progress[-1].best_val_margin == history.best_margin_nats
    assert tokenizer.encode("sun") == run.tokenizer.encode("sun")


@pytest.mark.slow
@pytest.mark.process
def test_fresh_process__gives_the_same_weights(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.support.tiny_models import make_run;"
        "from tests.support.trainings import observed, digest, losses, TEXT, DROPOUT;"
        "told = observed(make_run(Path(sys.argv[1]), TEXT, model=DROPOUT, max_steps=6));"
        "print(digest(told.model), [float.hex(loss) for loss in losses(told.rows)])"
    )
    here, there = observed(make_run(tmp_path, TEXT, model=DROPOUT, max_steps=6)), tmp_path / "there"
    there.mkdir()
    done = subprocess.run([sys.executable, "-c", code, there], capture_output=True, text=True, check=True)
    assert done.stdout == f"{digest(here.model)} {[float.hex(loss) for loss in losses(here.rows)]}\n"


def test_training_stopped_within_its_test__has_saved_its_last_weights(tmp_path: Path) -> None:
    """Early stopping ends on weights that are not the best: the checkpoint must hold those, not what is tested."""
    stopping = {"enabled": True, "patience": 1}
    values: dict[str, object] = {"num_epochs": 30, "learning_rate": 0.3, "checkpoint_every_steps": 1000}
    values["early_stopping"] = stopping
    whole, run = observed(run_in(tmp_path / "whole", values)), run_in(tmp_path / "parts", values)
    last = run.folder / "checkpoints" / f"step-{whole.result.state.step}"
    first = observed(run, should_stop=lambda: "cancel" if last.exists() else None)
    assert whole.result.early_stopped
    assert whole.result.state.history.best_step != whole.result.state.step
    assert (first.result.stopped, first.result.test) == ("cancel", None)
    assert_continued(whole, first.rows, observed(run, resume=True))


def test_finished_training__only_tests_again(plain: tuple[Run, Told]) -> None:
    run, told = plain
    again = observed(run, resume=True)
    assert (again.rows, again.saved) == ([], [])
    assert_continued(told, told.rows, again)


def test_checkpoint_of_another_request__is_refused(tmp_path: Path) -> None:
    observed(make_run(tmp_path, TEXT, max_steps=2))
    with pytest.raises(AppError, match="another request"):
        observed(make_run(tmp_path, TEXT, max_steps=3), resume=True)


def test_epoch_loss__is_the_mean_over_tokens_of_what_was_predicted(tmp_path: Path) -> None:
    """With a rate of (nearly) nothing the weights stand still, so that the epoch is one evaluation of its split."""
    run = make_run(tmp_path, TEXT, learning_rate=1e-12, num_epochs=1, optimizer={"name": "sgd"})
    rows = run.corpus.rows("train", 16)
    batch = rows.batch(np.arange(len(rows)))
    with torch.inference_mode():
        expected = float(cross_entropy(run.fresh_model().forward(batch.inputs).flatten(0, 1), batch.targets.flatten()))
    told = observed(run)
    state = told.result.state
    assert math.isclose(state.epochs[0].train_loss_nats, expected, abs_tol=1e-5)
    assert state.tokens_seen == batch.tokens == run.corpus.sizes["train"].tokens
    assert (state.rows_per_step, state.max_seq_len) == (run.compute.batch_size, 16)
    assert 0 < state.tokens_per_step <= state.rows_per_step * state.max_seq_len
    spans = zip(pairwise([0, *(row.tokens for row in told.rows)]), losses(told.rows), strict=True)
    total = sum((end - start) * loss for (start, end), loss in spans)
    assert math.isclose(total / batch.tokens, expected, abs_tol=1e-5)
    of_epochs = [row.epoch_train_loss for row in told.rows if row.epoch_train_loss is not None]
    assert of_epochs == [state.epochs[0].train_loss_nats]


def test_curve__has_a_row_every_n_steps_and_at_each_evaluation(tmp_path: Path) -> None:
    often = make_run(tmp_path, TEXT, num_epochs=100, max_steps=25, log_every_steps=10, max_seq_len=4096, batch_size=1)
    assert steps_per_epoch(1, often.effective, often.compute) == 1
    assert [row.step for row in observed(often).rows] == list(range(1, 26))
    told = observed(make_run(tmp_path, TEXT * 8, batch_size=1, max_steps=50, log_every_steps=10))
    assert [row.step for row in told.rows] == [10, 20, 30, 40, 50]
    assert [row.val_loss is None for row in told.rows] == [True] * 4 + [False]
    assert [row.epoch for row in told.rows] == [1] * 5
    assert [row.epoch_train_loss for row in told.rows] == [None] * 5, "50 steps are not yet an epoch"


def test_curve__has_the_area_of_its_trapezoids(tmp_path: Path, plain: tuple[Run, Told]) -> None:
    _, told = plain
    area = np.trapezoid(losses(told.rows), [row.step for row in told.rows])
    assert told.result.state.curve.area == pytest.approx(float(area), rel=1e-12)
    assert told.result.state.curve.rows == len(told.rows)
    short = observed(make_run(tmp_path, TEXT, max_steps=1))
    assert (len(short.rows), short.result.state.curve.area) == (1, None)


def test_progress__ends_at_a_hundred_percent_after_a_report_of_each_step(plain: tuple[Run, Told]) -> None:
    _, told = plain
    last = told.progress[-1]
    assert [p.step for p in told.progress] == list(range(1, last.total_steps + 1))
    assert (last.progress, last.eta_seconds, last.epoch) == (100, 0, 4)
    assert (last.val_loss, last.train_loss) == (told.rows[-1].val_loss, told.rows[-1].train_loss)
    assert last.best_val_loss == told.result.state.history.best_loss_nats
    for p in told.progress:
        assert p.tokens_per_second > p.chars_per_second > 0
        assert p.train_perplexity == math.exp(p.train_loss)
    measured = validations(told)
    assert len(measured) == 4 and measured[1] < measured[0]
    assert losses(told.rows)[-1] < losses(told.rows)[0]


def test_checkpoints__are_reported_with_the_best_marked(plain: tuple[Run, Told]) -> None:
    _, told = plain
    assert {s.step for s in told.saved if s.step % 5 == 0} == {s for s in range(5, told.result.state.step + 1, 5)}
    best = math.inf
    for row in told.rows:
        if row.val_loss is not None:
            marked = next((saved.is_best for saved in told.saved if saved.step == row.step), False)
            assert marked == (row.val_loss < best)
            best = min(best, row.val_loss)


def test_early_stopping__ends_after_patience_without_a_fall(tmp_path: Path) -> None:
    stopping = {"enabled": True, "patience": 2, "min_delta": 0.5}
    told = observed(make_run(tmp_path, TEXT, num_epochs=50, early_stopping=stopping))
    measured = validations(told)
    assert told.result.early_stopped and len(measured) < 50
    assert min(measured[:-2]) - min(measured[-2:]) <= 0.5
    assert told.progress[-1].progress == 100


@pytest.mark.parametrize(("calls", "saved"), [(0, []), (3, [3])])
def test_stop__takes_effect_within_a_step_and_saves_a_checkpoint(tmp_path: Path, calls: int, saved: list[int]) -> None:
    told = observed(make_run(tmp_path, TEXT), should_stop=after(calls, "cancel"))
    assert (told.result.stopped, told.result.test, told.result.state.step) == ("cancel", None, calls)
    assert [one.step for one in told.saved] == saved


@pytest.mark.parametrize(
    ("values", "has_test"), [({"test_fraction": 0.0}, False), ({"num_epochs": 1000, "max_seconds": 1e-9}, True)]
)
def test_training__ends_with_a_validation_and_the_test_that_there_is(
    tmp_path: Path, values: dict[str, object], has_test: bool
) -> None:
    told = observed(make_run(tmp_path, TEXT, **values))
    assert (told.result.state.step == 1) == ("max_seconds" in values)
    assert told.rows[-1].val_loss is not None and told.result.state.history.best_step is not None
    assert (told.result.test is not None) == has_test


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        ("nan", ErrorCode.TRAINING_NAN_LOSS),
        ("nan in validation", ErrorCode.TRAINING_NAN_LOSS),
        ("memory", ErrorCode.OUT_OF_MEMORY),
        ("bug", None),
    ],
)
def test_failure__has_its_code_and_no_checkpoint(tmp_path: Path, failure: str, code: ErrorCode | None) -> None:
    """An error that is a bug is not disguised."""
    with pytest.raises(AppError if code else RuntimeError) as caught:
        make_run(tmp_path, TEXT).train(Bad(failure))
    error = caught.value
    assert error.code == code if isinstance(error, AppError) else str(error) == "bug"
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("clip", [0.01, 0.5])
def test_clipping__limits_the_step_to_the_norm(tmp_path: Path, clip: float) -> None:
    run = make_run(tmp_path, TEXT, optimizer={"name": "sgd"}, learning_rate=1.0, gradient_clipping=clip, max_steps=1)
    old: dict[str, Tensor] = run.fresh_model().state_dict()
    told = observed(run)
    new: dict[str, Tensor] = told.model.state_dict()
    moved = math.sqrt(sum(float((new[name] - old[name]).square().sum()) for name in old))
    norm = told.rows[0].grad_norm
    assert norm is not None and math.isclose(moved, min(clip, norm), rel_tol=1e-3)


LINE = 2000


def trained(folder: Path, lines: list[str], epochs: int) -> float:
    """The loss on the test split."""
    run = make_run(
        folder,
        lines,
        model={"embedding_size": 16, "hidden_size": 32, "num_layers": 1, "dropout": 0.0},
        **{"max_seq_len": 64, "batch_size": 16, "learning_rate": 0.02, "lr_schedule": "cosine", "num_epochs": epochs},
        **{"holdout_fraction": 0.1, "test_fraction": 0.3},
    )
    test = run.train(run.fresh_model()).test
    assert test is not None
    return test.loss_nats


@pytest.mark.parametrize("stay", slow_except([0.9, 0.7, 0.5], 0.7))
def test_two_state_chain__loss_is_its_entropy_rate_and_never_below(tmp_path: Path, stay: float) -> None:
    """That of a half is a text of independent symbols, with a loss of ln 2."""
    random, lines = Random(4), list[str]()
    for _ in range(20):
        symbols = ["a"]
        while len(symbols) < LINE:
            symbols.append(symbols[-1] if random.random() < stay else "ba"[symbols[-1] == "b"])
        lines.append("".join(symbols))
    entropy_rate = -stay * math.log(stay) - (1 - stay) * math.log(1 - stay)
    assert entropy_rate - 0.02 <= trained(tmp_path, lines, 3) <= entropy_rate + 0.05


@pytest.mark.parametrize("identical", slow_except([True, False], False))
def test_periodic_text__loss_goes_under_two_hundredths(tmp_path: Path, identical: bool) -> None:
    lines = ["abcde" * (LINE // 5 + (0 if identical else i)) for i in range(12)]
    assert trained(tmp_path, lines, 15) < 0.02


def child_in(folder: Path, **values: object) -> Run:
    """A run that starts from the weights of another on the same text."""
    return run_in(folder, {"init_from_run_id": "parent", "model": DROPOUT, **values})


@pytest.fixture(name="parent", scope="module")
def parent_fixture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, LanguageModel]:
    run = run_in(tmp_path_factory.mktemp("parent") / "run", {"model": DROPOUT})
    return run, observed(run).model


def test_first_validation__is_the_parents(tmp_path: Path, parent: tuple[Run, LanguageModel]) -> None:
    run, model = parent
    told = observed(child_in(tmp_path / "child"), parent=model)
    first = told.rows[0]
    expected = evaluate(model, run.corpus.documents("validation"), run.compute).loss_nats
    assert (first.step, first.epoch, first.train_loss, first.tokens) == (0, 0, None, 0)
    assert first.val_loss == expected == told.result.state.initial_loss_nats
    assert [row.step for row in told.rows[1:3]] == [3, 6]
    assert told.result.state.curve.rows == len(told.rows)


def test_best__stays_the_parents_weights_where_training_only_harms(
    tmp_path: Path, parent: tuple[Run, LanguageModel]
) -> None:
    harmful: dict[str, object] = {"learning_rate": 1.0, "optimizer": {"name": "sgd"}, "gradient_clipping": 50.0}
    told = observed(child_in(tmp_path / "child", max_steps=6, **harmful), parent=parent[1])
    assert (told.result.state.history.best_step, told.result.state.history.best_epoch) == (0, 0)
    assert digest(told.model) == digest(parent[1])


@pytest.mark.parametrize("stop_after", slow_except([1, 3, 9], 9))
def test_warm_start__interrupted_and_resumed_is_bit_for_bit_the_same(
    tmp_path: Path, parent: tuple[Run, LanguageModel], stop_after: int
) -> None:
    """Within the first validation (nothing is saved then), and after it; a resumed one does not validate it again."""
    whole, parts = observed(child_in(tmp_path / "whole"), parent=parent[1]), child_in(tmp_path / "parts")
    first = observed(parts, should_stop=after(stop_after, "pause"), parent=parent[1])
    torch.manual_seed(99)
    second = observed(parts, resume=True, parent=parent[1])
    assert (first.result.stopped, second.result.stopped) == ("pause", None)
    assert_continued(whole, first.rows, second)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("name", "ema_decay"), [("adamw", None), ("sgd", None), ("muon", 0.5)])
def test_frozen_embeddings__do_not_move_by_a_bit_while_all_else_learns(
    tmp_path: Path, *, tied: bool, name: str, ema_decay: float | None
) -> None:
    sizes: dict[str, object] = {"embedding_size": 8, "hidden_size": 16, "num_layers": 1, "tie_word_embeddings": tied}
    decay: dict[str, object] = {"name": name, "weight_decay": 0.5}
    warm: dict[str, object] = {"init_from_run_id": "parent", "freeze_embeddings": True}
    run = make_run(tmp_path, TEXT, model=sizes, optimizer=decay, ema_decay=ema_decay, max_steps=8, **warm)
    before: dict[str, Tensor] = run.fresh_model().state_dict()
    after_training: dict[str, Tensor] = observed(run).model.state_dict()
    same = {key for key in before if before[key].equal(after_training[key])}
    assert same == {"embedding.weight"}
    assert ("head_bias" in before) == tied, "a tied head has the embedding as its weights: those stay, its bias learns"


def test_divergence__ends_the_run_and_is_measured_from_where_it_begins(tmp_path: Path) -> None:
    """A parent that is far off on the new text is no divergence, as long as it does not get much worse."""
    with pytest.raises(AppError, match=r"diverged: at step 9 the loss is .* `learning_rate`") as caught:
        make_run(tmp_path, TEXT).train(Bad("far off"))  # a row every 3 steps
    assert caught.value.code == ErrorCode.TRAINING_NAN_LOSS
    run = run_in(tmp_path / "warm", {"init_from_run_id": "parent", "max_steps": 4, "learning_rate": 1e-6})
    state = run.train(Bad("far off")).state
    assert state.initial_loss_nats is not None and state.initial_loss_nats > 5 * math.log(40)
    assert state.step == 4


def test_loss__that_is_far_off_in_two_rows_is_no_divergence(tmp_path: Path) -> None:
    run = make_run(tmp_path, TEXT, log_every_steps=1, gradient_accumulation=1, max_steps=6)
    state = run.train(Bad("far off", batches=2)).state
    assert (state.step, state.curve.diverged_rows) == (6, 0)


def test_divergence__is_noticed_in_the_same_row_after_a_pause(tmp_path: Path) -> None:
    run, steps = make_run(tmp_path, TEXT, log_every_steps=1), list[int]()
    pause = TrainingCallbacks(lambda row: steps.append(row.step), should_stop=lambda: "pause" if 2 in steps else None)
    assert run.train(Bad("far off"), callbacks=pause).stopped == "pause"
    with pytest.raises(AppError, match="diverged: at step 3 "):
        run.train(Bad("far off"), resume=saved_last(run))


def test_samples__are_requested_at_their_steps_and_change_nothing(tmp_path: Path) -> None:
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
