"""Lower precision: what it stands for, that every family learns in it, and that nothing is measured in it."""

from pathlib import Path

import pytest
import torch

from tests.support import add_corpus, settings_in, some_text, tiny_request
from tests.support.families import FAMILIES, request_of
from tests.support.refusals import refused
from tests.support.resumed import hexes, saved_last
from tests.support.tiny_models import Run, make_run
from tests.support.trainings import TEXT, after, digest, figures, losses, observed
from trainer.artifacts.checkpoint_files import TrainingState
from trainer.config.presets import architecture, request_hash
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import EffectiveRequest
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import resolve_request
from trainer.training.bf16 import try_bf16
from trainer.training.checkpoint import Checkpoint, CheckpointStore
from trainer.training.device import Precision, autocast, resolve, resolve_precision
from trainer.training.evaluation import evaluate
from trainer.training.loop import TrainingCallbacks

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_precision__is_what_the_device_has() -> None:
    assert [resolve_precision("auto", device) for device in (CPU, CUDA)] == ["fp32", "fp16"]
    assert [resolve_precision("fp32", device) for device in (CPU, CUDA)] == ["fp32", "fp32"]
    assert [resolve_precision("bf16", device) for device in (CPU, CUDA)] == ["bf16", "bf16"]
    assert resolve_precision("fp16", CUDA) == "fp16"
    with pytest.raises(AppError, match=r"`precision` 'fp16' needs CUDA: on the CPU take 'fp32' or 'auto'\."):
        resolve_precision("fp16", CPU)


async def resolved(folder: Path, **fields: object) -> EffectiveRequest:
    add_corpus(folder, some_text())
    settings = settings_in(folder)
    return await resolve_request(tiny_request(**fields), CorpusStore(settings), settings)


@pytest.mark.parametrize("device", ["cpu", "auto"])
async def test_fp16_on_the_cpu__is_refused_before_anything_is_queued(tmp_path: Path, device: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with refused(ErrorCode.INVALID_INPUT, "`precision` 'fp16' needs CUDA:"):
        await resolved(tmp_path, precision="fp16", device=device)


async def test_tf32__is_the_default_and_counts_as_absent(tmp_path: Path) -> None:
    plain, with_it, without = [
        request_hash(await resolved(tmp_path, compute=compute)) for compute in ({}, {"tf32": True}, {"tf32": False})
    ]
    assert plain == with_it != without


def run_in(folder: Path, name: str, precision: Precision = "fp32", **values: object) -> Run:
    """A run that computes in a precision: fp16 is for CUDA only, but works on the CPU too, only slowly."""
    folder.mkdir()
    tiny: dict[str, object] = {"max_seq_len": 24, "max_steps": 2, "tokenizer": {"method": "char"}}
    options = {**tiny, **FAMILIES[name], "precision": "auto" if precision == "fp16" else precision, **values}
    run = make_run(folder, TEXT, **options)
    return run._replace(compute=run.compute._replace(precision=precision))


def trains_in_bf16(name: str) -> bool:
    return try_bf16(architecture(request_of(name).model_family)).trains


def test_trial__draws_nothing_from_torchs_generator() -> None:
    before = torch.get_rng_state()
    trial = try_bf16("gru")
    assert (trial.trains, trial.gru_trains) == (True, True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", FAMILIES)
def test_bf16__takes_nearly_the_same_steps_in_every_family_that_can(tmp_path: Path, name: str) -> None:
    """bf16 has 8 bits: each product is off by 0.4 % at most, the mean of many by far less."""
    if not trains_in_bf16(name):
        with pytest.raises(AppError, match="this machine's CPU cannot train LSTM models in bf16"):
            run_in(tmp_path / "bf16", name, "bf16")
        return
    exact, near = observed(run_in(tmp_path / "fp32", name)), observed(run_in(tmp_path / "bf16", name, "bf16"))
    assert losses(near.rows) == pytest.approx(losses(exact.rows), rel=0.004)
    assert len(losses(near.rows)) == 1
    assert digest(near.model) != digest(exact.model), "the steps were not taken in bf16"
    assert {weight.dtype for weight in near.model.parameters()} == {torch.float32}


def test_measuring__is_in_fp32_whatever_the_training_computes_in(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run", "gpt2", "bf16")
    model, test = run.fresh_model().eval(), run.corpus.documents("test")
    assert run.compute.precision == "bf16"
    assert evaluate(model, test, run.compute) == evaluate(model, test, run.compute._replace(precision="fp32"))


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *(pytest.param(name, "bf16", marks=pytest.mark.slow) for name in ("char_lstm", "gru")),
        ("gpt2", "bf16"),
        ("gpt2", "fp16"),
    ],
)
def test_resume__in_lower_precision_goes_on_bit_for_bit(tmp_path: Path, name: str, precision: Precision) -> None:
    """With fp16 the scale of the losses is part of the state."""
    if precision == "bf16" and not trains_in_bf16(name):
        pytest.skip("this CPU cannot train the architecture in bf16")
    longer: dict[str, object] = {"max_steps": 12, "log_every_steps": 2, "checkpoint_every_steps": 3, "num_epochs": 3}
    complete = observed(run_in(tmp_path / "complete", name, precision, **longer))
    parts = run_in(tmp_path / "parts", name, precision, **longer)
    part = observed(parts, should_stop=after(3, "pause"))
    rows = part.rows
    for calls in (6, 1000):
        rows = rows[: saved_last(parts).state.curve.rows]
        part = observed(parts, should_stop=after(calls, "pause"), resume=True)
        rows = rows + part.rows
    assert len(rows) > 4 and hexes(rows) == hexes(complete.rows)
    assert digest(part.model) == digest(complete.model)
    assert figures(part.result) == figures(complete.result)


def test_fp16__keeps_its_scale_and_skips_gradients_that_are_not_finite(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run", "gpt2", "fp16", log_every_steps=1, max_steps=1)
    observed(run)
    saved = saved_last(run)
    scaler = saved.optimizer_state["scaler"]
    assert (scaler["_growth_tracker"], scaler["scale"]) == (1, 65536.0)
    first: dict[str, torch.Tensor] = run.fresh_model().state_dict()
    large: dict[str, object] = {**scaler, "scale": 2.0**126}
    state = TrainingState(request_hash=saved.state.request_hash)
    begin = Checkpoint(state, first, {**saved.optimizer_state, "scaler": large})
    model, store, norms = run.fresh_model(), CheckpointStore(tmp_path / "again"), list[float | None]()
    callbacks = TrainingCallbacks(on_row=lambda row: norms.append(row.grad_norm))
    run.train(model, store=store, resume=begin, callbacks=callbacks)
    assert norms == [0.0]
    weights: dict[str, torch.Tensor] = model.state_dict()
    assert all(torch.equal(weight, first[name]) for name, weight in weights.items())
    after_it = store.recover().checkpoint
    assert after_it is not None and after_it.optimizer_state["scaler"]["scale"] == 2.0**125


def test_autocast__is_off_in_fp32_alone(tmp_path: Path) -> None:
    compute = resolve(make_run(tmp_path).effective)
    expected_of: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for precision, expected in expected_of.items():
        with autocast(compute._replace(precision=precision)):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected
