"""Device, threads, seeds and what is recorded of them."""

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
from tests.support.families import effective_of
from tests.support.refusals import refused
from trainer.config.presets import batch_rows
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.runs import EffectiveRequest
from trainer.system.hardware import cpu_name, instruction_set
from trainer.training import device


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


def test_batch_size_and_threads__are_automatic_or_as_given(effective: EffectiveRequest) -> None:
    assert device.resolve(effective).batch_size == 4
    assert device.resolve(changed(effective, batch_size="auto", device="cpu")).batch_size == 8
    rows = {"char_lstm": 64, "gpt2": 32, "gru": 16}
    assert rows == {name: batch_rows(effective_of(name, batch_size="auto"), on_cuda=True) for name in rows}
    assert device.resolve(changed(effective, threads=0)).threads == torch.get_num_threads()


def test_seed__makes_all_draws_the_same() -> None:
    def draws(seed: int) -> tuple[float, float, float]:
        device.seed_everything(seed)
        return random.random(), float(np.random.random_sample()), float(torch.rand(()))

    assert draws(3) == draws(3)
    assert all(a != b for a, b in zip(draws(3), draws(4), strict=True))


def test_random_state__comes_back() -> None:
    state = device.random_state()
    first = torch.rand(5)
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


@pytest.mark.process
@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}, "DEFAULT,Intel SSE4.1,Intel SSE4.1\n"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}, "AVX2,Intel AVX2,Intel AVX2\n"),
    ],
)
def test_environment__has_the_instruction_sets_that_torch_and_onednn_use(limits: dict[str, str], said: str) -> None:
    """The libraries take the best instructions of the CPU, or the best up to the limits of these variables."""
    if "avx2" not in instruction_set()["flags"]:
        pytest.skip("this machine has no AVX2")
    code = (
        "from trainer.training.device import onednn_isa; from torch.backends.cpu import get_cpu_capability;"
        "print(get_cpu_capability(), onednn_isa(), onednn_isa(), sep=',')"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | limits, capture_output=True, check=True)
    assert done.stdout.decode() == said


def test_environment__has_no_instruction_set_of_onednn_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "_has_mkldnn", False)
    monkeypatch.setattr(device, "_ISA", [])
    assert device.onednn_isa() is None


@pytest.mark.process
def test_environment__is_told_as_far_as_it_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A Fine CPU\n")
    assert cpu_name(tmp_path / "cpuinfo") == "A Fine CPU"
    assert cpu_name(tmp_path / "none")
    assert device.git_commit(tmp_path) is None
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", "")  # there is no git
    assert device.git_commit(tmp_path) is None


def test_out_of_memory__is_told_from_other_errors() -> None:
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
