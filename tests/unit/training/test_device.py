"""Device, threads, seeds and what is recorded of them; lower precision, in which families learn."""

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import ROOT
from tests.support.families import FAMILIES, effective_of, request_of, slow_unless_quick
from tests.support.refusals import refused
from tests.support.resumed import assert_continued, kept_rows, saved_last
from tests.support.tiny_models import Run, make_run
from tests.support.trainings import TEXT, after, digest, losses, observed
from trainer.artifacts.checkpoint_files import TrainingState
from trainer.config.presets import architecture, request_hash
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import EffectiveRequest
from trainer.system.hardware import cpu_name, instruction_set
from trainer.training import device
from trainer.training.bf16 import try_bf16
from trainer.training.checkpoint import Checkpoint, CheckpointStore
from trainer.training.device import Precision, autocast, resolve, resolve_precision
from trainer.training.evaluation import evaluate
from trainer.training.progress import CurveRow


@pytest.fixture(name="effective")
def _effective() -> EffectiveRequest:
    return effective_of("char_lstm", threads=1, batch_size=4)


def test_cpu__is_what_auto_means_without_cuda(effective: EffectiveRequest) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    compute = device.resolve(effective)
    assert (str(compute.device), compute.precision, compute.threads) == ("cpu", "fp32", 1)
    assert compute.determinism == "bit_exact"
    for name in ("cuda", "cuda:1"):
        with refused(ErrorCode.CUDA_NOT_AVAILABLE, name):
            device.resolve_device(name)


def test_batch_size_and_threads__are_as_given_or_those_of_torch(effective: EffectiveRequest) -> None:
    assert device.resolve(effective).batch_size == 4
    assert device.resolve(changed(effective, threads=0)).threads == torch.get_num_threads()


def test_seed_and_random_state__bring_draws_back() -> None:
    def draws(seed: int) -> tuple[float, float, float]:
        device.seed_everything(seed)
        return random.random(), float(np.random.random_sample()), float(torch.rand(()))

    assert draws(3) == draws(3)
    assert all(a != b for a, b in zip(draws(3), draws(4), strict=True))
    state, first = device.random_state(), torch.rand(5)
    device.restore_random_state(state)
    assert torch.equal(first, torch.rand(5))


@pytest.mark.process
def test_environment__says_where_the_run_was(effective: EffectiveRequest) -> None:
    found = device.environment(device.resolve(effective))
    assert found.libraries["torch"] in (torch.__version__, torch.__version__.split("+")[0])
    assert (found.device, found.threads, found.gpu) == ("cpu", 1, None)
    assert found.cpu
    assert found.interop_threads == torch.get_num_interop_threads()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.git_commit == (head.stdout.strip() or None)


@pytest.mark.slow
@pytest.mark.process
def test_environment__has_the_instruction_sets_that_torch_and_onednn_use() -> None:
    """The libraries take the best instructions of the CPU, or the best up to the limits of these variables."""
    if "avx2" not in instruction_set()["flags"]:
        pytest.skip("this machine has no AVX2")
    code = (
        "from trainer.training.device import onednn_isa; from torch.backends.cpu import get_cpu_capability;"
        "print(get_cpu_capability(), onednn_isa(), onednn_isa(), sep=',')"
    )
    limits = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | limits, capture_output=True, check=True)
    assert done.stdout == b"AVX2,Intel SSE4.1,Intel SSE4.1\n"


def test_environment__has_no_instruction_set_of_onednn_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "_has_mkldnn", False)
    monkeypatch.setattr(device, "_ISA", [])
    assert device.onednn_isa() is None


@pytest.mark.process
def test_environment__has_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A Fine CPU\n")
    assert cpu_name(tmp_path / "cpuinfo") == "A Fine CPU"
    assert cpu_name(tmp_path / "none")
    assert device.git_commit(tmp_path) is None
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", "")  # there is no git
    assert device.git_commit(tmp_path) is None


def test_out_of_memory__is_distinguished_from_other_errors() -> None:
    """As Python, the system (where a file cannot be mapped) and torch on the CPU say it."""
    torch_says = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
    assert all(device.is_out_of_memory(error) for error in (MemoryError(), OSError(errno.ENOMEM, "x"), torch_says))
    assert not any(device.is_out_of_memory(error) for error in (OSError(errno.EIO, "x"), RuntimeError("a bug")))


@pytest.mark.parametrize(
    ("rows", "accumulation", "said"),
    [
        (32, 1, "Use `batch_size` 16 with `gradient_accumulation` 2, which"),
        (5, 3, "Use `batch_size` 2 with `gradient_accumulation` 8, which"),
        (1, 4, "Use a smaller `max_seq_len` or a smaller model."),
    ],
)
def test_out_of_memory__names_half_the_batch_in_steps_of_the_same_size(
    effective: EffectiveRequest, rows: int, accumulation: int, said: str
) -> None:
    sized = changed(effective, gradient_accumulation=accumulation)
    assert said in device.memory_advice(sized, device.Compute(torch.device("cpu"), "fp32", 1, rows))


CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_precision__is_what_the_device_has() -> None:
    assert [resolve_precision("auto", device) for device in (CPU, CUDA)] == ["fp32", "fp16"]
    assert [resolve_precision("fp32", device) for device in (CPU, CUDA)] == ["fp32", "fp32"]
    assert [resolve_precision("bf16", device) for device in (CPU, CUDA)] == ["bf16", "bf16"]
    assert resolve_precision("fp16", CUDA) == "fp16"
    with pytest.raises(AppError, match=r"`precision` 'fp16' needs CUDA: on the CPU take 'fp32' or 'auto'\."):
        resolve_precision("fp16", CPU)


def test_tf32__is_the_default_and_counts_as_absent() -> None:
    plain, with_it, without = [
        request_hash(effective_of("lstm", compute=compute)) for compute in ({}, {"tf32": True}, {"tf32": False})
    ]
    assert plain == with_it != without


def run_with(folder: Path, name: str, precision: Precision = "fp32", **values: object) -> Run:
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


@pytest.mark.parametrize("name", slow_unless_quick(FAMILIES))
def test_bf16__takes_nearly_the_same_steps_in_every_family_that_can(tmp_path: Path, name: str) -> None:
    """bf16 has 8 bits: each product is off by 0.4 % at most, the mean of many by far less."""
    if not trains_in_bf16(name):
        with pytest.raises(AppError, match="this machine's CPU cannot train LSTM models in bf16"):
            run_with(tmp_path / "bf16", name, "bf16")
        return
    exact, near = observed(run_with(tmp_path / "fp32", name)), observed(run_with(tmp_path / "bf16", name, "bf16"))
    assert losses(near.rows) == pytest.approx(losses(exact.rows), rel=0.004)
    assert len(losses(near.rows)) == 1
    assert digest(near.model) != digest(exact.model), "the steps were not taken in bf16"
    assert {weight.dtype for weight in near.model.parameters()} == {torch.float32}


def test_measuring__is_in_fp32_whatever_the_training_computes_in(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", "gpt2", "bf16")
    model, test = run.fresh_model().eval(), run.corpus.documents("test")
    assert run.compute.precision == "bf16"
    assert evaluate(model, test, run.compute) == evaluate(model, test, run.compute._replace(precision="fp32"))


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *(pytest.param(name, "bf16", marks=pytest.mark.slow) for name in ("char_lstm", "gru")),
        ("gpt2", "bf16"),
        pytest.param("gpt2", "fp16", marks=pytest.mark.slow),
    ],
)
def test_resume__in_lower_precision_continues_bit_for_bit(tmp_path: Path, name: str, precision: Precision) -> None:
    """With fp16 the scale of the losses is part of the state."""
    if precision == "bf16" and not trains_in_bf16(name):
        pytest.skip("this CPU cannot train the architecture in bf16")
    longer: dict[str, object] = {"max_steps": 12, "log_every_steps": 2, "checkpoint_every_steps": 3, "num_epochs": 3}
    complete = observed(run_with(tmp_path / "complete", name, precision, **longer))
    parts = run_with(tmp_path / "parts", name, precision, **longer)
    part, kept = observed(parts, should_stop=after(3, "pause")), list[CurveRow]()
    for calls in (6, 1000):
        kept = kept_rows(parts, [*kept, *part.rows])
        part = observed(parts, should_stop=after(calls, "pause"), resume=True)
    assert len(kept) > 1 and len(complete.rows) > 4
    assert_continued(complete, kept, part)


ONE_STEP: dict[str, object] = {"log_every_steps": 1, "max_steps": 1}


def test_fp16__keeps_its_scale_and_skips_gradients_that_are_not_finite(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", "gpt2", "fp16", **ONE_STEP)
    [row], [exact] = (observed(one).rows for one in (run, run_with(tmp_path / "fp32", "gpt2", "fp32", **ONE_STEP)))
    assert row.grad_norm == pytest.approx(exact.grad_norm, rel=0.01), "of the loss without its scale"
    saved = saved_last(run)
    scaler = saved.optimizer_state["scaler"]
    assert (scaler["_growth_tracker"], scaler["scale"]) == (1, 65536.0)
    first: dict[str, torch.Tensor] = run.fresh_model().state_dict()
    large: dict[str, object] = {**scaler, "scale": 2.0**126}
    state = TrainingState(request_hash=saved.state.request_hash)
    begin = Checkpoint(state, first, {**saved.optimizer_state, "scaler": large})
    store = CheckpointStore(tmp_path / "again")
    told = observed(run, resume=begin, store=store)
    assert [row.grad_norm for row in told.rows] == [0.0]
    weights: dict[str, torch.Tensor] = told.model.state_dict()
    assert all(torch.equal(weight, first[name]) for name, weight in weights.items())
    after_it = store.recover().checkpoint
    assert after_it is not None and after_it.optimizer_state["scaler"]["scale"] == 2.0**125


def test_autocast__is_off_in_fp32_alone(tmp_path: Path) -> None:
    compute = resolve(make_run(tmp_path).effective)
    expected_of: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for precision, expected in expected_of.items():
        with autocast(compute._replace(precision=precision)):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected
