"""Lower precision: what it stands for, that every family learns in it, and that nothing is measured in it."""

import math
from pathlib import Path

import pytest
import torch

from tests.support import add_corpus, settings_in, some_text, tiny_request
from tests.support.families import FAMILIES, request_of
from tests.support.resumed import hexes, saved_last
from tests.support.tiny_models import Run, make_run
from tests.support.trainings import TEXT, after, digest, figures, losses, observed
from trainer.artifacts.checkpoint_files import TrainingState
from trainer.config.compatibility import architecture
from trainer.config.presets import request_hash
from trainer.contracts.errors import AppError, ErrorCode
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


@pytest.mark.parametrize("device", ["cpu", "auto"])
async def test_fp16_on_the_cpu__is_refused_before_anything_is_queued(tmp_path: Path, device: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    add_corpus(tmp_path, some_text())
    settings = settings_in(tmp_path)
    with pytest.raises(AppError) as caught:
        await resolve_request(tiny_request(precision="fp16", device=device), CorpusStore(settings), settings)
    assert (caught.value.code, caught.value.message.split(":")[0]) == (
        ErrorCode.INVALID_INPUT,
        "`precision` 'fp16' needs CUDA",
    )


async def test_tf32__is_the_default_and_counts_as_absent(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    settings = settings_in(tmp_path)

    async def hash_of(**fields: object) -> str:
        return request_hash(await resolve_request(tiny_request(**fields), CorpusStore(settings), settings))

    assert await hash_of() == await hash_of(compute={"tf32": True})
    assert await hash_of() != await hash_of(compute={"tf32": False})


def run_in(folder: Path, name: str, precision: str, **values: object) -> Run:
    folder.mkdir()
    tiny: dict[str, object] = {"max_seq_len": 24, "max_steps": 2, "tokenizer": {"method": "char"}}
    return make_run(folder, TEXT, **{**tiny, **FAMILIES[name], "precision": precision, **values})


def trains_in_bf16(name: str) -> bool:
    return try_bf16(architecture(request_of(name).model_family)).trains


def test_trial__draws_nothing_from_torchs_generator() -> None:
    before = torch.get_rng_state()
    trial = try_bf16("gru")
    assert (trial.trains, trial.gru_trains) == (True, True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", FAMILIES)
def test_bf16__takes_nearly_the_same_steps_in_every_family_that_the_cpu_can_train_in_it(
    tmp_path: Path, name: str
) -> None:
    """bf16 has 8 bits: each product is off by 0.4 % at most, the mean of many by far less."""
    if not trains_in_bf16(name):
        with pytest.raises(AppError, match="this machine's CPU cannot train LSTM models in bf16"):
            run_in(tmp_path / "bf16", name, "bf16")
        return
    told = [observed(run_in(tmp_path / precision, name, precision)) for precision in ("fp32", "bf16")]
    [exact], [near] = (losses(one.rows) for one in told)
    assert math.isclose(exact, near, rel_tol=0.004)
    assert digest(told[0].model) != digest(told[1].model), "the steps were not taken in bf16"
    assert {weight.dtype for weight in told[1].model.parameters()} == {torch.float32}


def test_measuring__is_in_fp32_whatever_the_training_computes_in(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run", "gpt2", "bf16")
    model = run.fresh_model().eval()
    test = run.corpus.documents("test")
    assert run.compute.precision == "bf16"
    assert evaluate(model, test, run.compute) == evaluate(model, test, run.compute._replace(precision="fp32"))


LONGER: dict[str, object] = {"max_steps": 12, "log_every_steps": 2, "checkpoint_every_steps": 3, "num_epochs": 3}


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

    def run_of(folder: str) -> Run:
        run = run_in(tmp_path / folder, name, "auto", **LONGER)
        return run._replace(compute=run.compute._replace(precision=precision))

    whole, parts = observed(run_of("whole")), run_of("parts")
    told = observed(parts, should_stop=after(3, "pause"))
    rows = told.rows
    for calls in (6, 1000):
        rows = rows[: saved_last(parts).state.curve.rows]
        told = observed(parts, should_stop=after(calls, "pause"), resume=True)
        rows = rows + told.rows

    assert len(rows) > 4 and hexes(rows) == hexes(whole.rows)
    assert digest(told.model) == digest(whole.model)
    assert figures(told.result) == figures(whole.result)


def in_fp16(folder: Path) -> Run:
    """On the CPU, where nobody may ask for it, but where it works as with CUDA, only slowly."""
    run = run_in(folder, "gpt2", "auto", log_every_steps=1, max_steps=1)
    return run._replace(compute=run.compute._replace(precision="fp16"))


def test_fp16__keeps_the_scale_of_its_losses_in_the_checkpoint(tmp_path: Path) -> None:
    run = in_fp16(tmp_path / "run")
    observed(run)
    scaler = saved_last(run).optimizer_state["scaler"]
    assert (scaler["_growth_tracker"], scaler["scale"]) == (1, 65536.0)


def test_gradients_that_are_not_finite__are_left_out_with_fp16_and_told_nowhere(tmp_path: Path) -> None:
    run = in_fp16(tmp_path / "run")
    observed(run)
    saved = saved_last(run)
    first: dict[str, torch.Tensor] = run.fresh_model().state_dict()
    scaler: dict[str, object] = {**saved.optimizer_state["scaler"], "scale": 2.0**126}
    begin = Checkpoint(
        TrainingState(request_hash=saved.state.request_hash), first, {**saved.optimizer_state, "scaler": scaler}
    )
    rows: list[float | None] = []
    model = run.fresh_model()
    store = CheckpointStore(tmp_path / "again")

    run.train(
        model, store=store, resume=begin, callbacks=TrainingCallbacks(on_row=lambda row: rows.append(row.grad_norm))
    )

    assert rows == [0.0]
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
