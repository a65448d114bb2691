"""Device, precision, threads and random seeds of a run, and the environment that it records."""

import errno
import os
import platform
import random
import tempfile
from importlib.metadata import version
from pathlib import Path
from subprocess import run
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch._C._verbose import mkldnn_set_verbose

from trainer.config.presets import check_bf16, check_precision, halved_batch
from trainer.contracts.earlier_forms import auto_rows
from trainer.contracts.environment import Environment
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.installation import DISTRIBUTION
from trainer.contracts.runs import EffectiveRequest
from trainer.models.threads import ThreadChoice
from trainer.system.hardware import cpu_name, default_threads
from trainer.training.bf16 import try_bf16

Precision = Literal["fp32", "fp16", "bf16"]
_LIBRARIES = (DISTRIBUTION, "torch", "numpy", "safetensors", "tokenizers", "transformers", "pydantic")
_ISA: list[str] = []
"""oneDNN's instruction set, once it is known."""


class Compute(NamedTuple):
    """Device, precision, threads and batch size of a request, resolved for this machine."""

    device: torch.device
    precision: Precision
    threads: int
    batch_size: int
    data_num_workers: int = 0
    data_pin_memory: bool = False

    @property
    def determinism(self) -> Literal["bit_exact", "best_effort"]:
        return "bit_exact" if self.device.type == "cpu" else "best_effort"


class RandomState(TypedDict):
    """States of torch's random generators. Batches depend on the seed and the epoch only."""

    cpu: Tensor
    cuda: list[Tensor]


def resolve(effective: EffectiveRequest, processes: int = 1) -> Compute:
    """Resolve `auto` values for this machine and set the number of threads of this process, one of several.

    Raises CUDA_NOT_AVAILABLE, and INVALID_INPUT for a precision that the CPU cannot train this model in.
    """
    device = resolve_device(effective.device)
    precision = resolve_precision(effective.precision, device)
    torch.set_num_threads(max(1, (effective.threads or default_threads()) // processes))
    on_cuda = device.type == "cuda"
    if precision == "bf16" and not on_cuda:
        check_bf16(try_bf16(effective.model.architecture))
    if on_cuda:  # gpu
        torch.set_float32_matmul_precision("high" if effective.compute.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = effective.compute.tf32
    rows = effective.batch_size
    if effective.has_auto_batch:
        rows = auto_rows(effective.model_family, on_cuda=on_cuda)
    workers = effective.data_num_workers
    if workers is None:
        workers = min(4, os.cpu_count() or 1) if on_cuda else 0
    return Compute(
        device,
        precision,
        torch.get_num_threads(),
        rows,
        data_num_workers=workers,
        data_pin_memory=on_cuda and effective.data_pin_memory is not False,
    )


def gpu_memory_bytes(device: torch.device) -> int:
    """Return the most memory that the tensors of this process have had on a GPU; 0 for the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0  # gpu


def resolve_device(name: str) -> torch.device:
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name != "cpu" and not available:
        raise AppError(ErrorCode.CUDA_NOT_AVAILABLE, f"`device` is '{name}', but this machine has no CUDA: use 'cpu'.")
    return torch.device(name)


def check_devices(name: str, devices: int) -> None:
    """Raise CUDA_NOT_AVAILABLE if this machine has no CUDA for a device, or fewer GPUs than devices."""
    if resolve_device(name).type == "cuda" and torch.cuda.device_count() < devices:  # gpu
        gpus = torch.cuda.device_count()
        message = f"`devices` is {devices}, but the worker's machine has fewer GPUs: use {gpus} or less."
        raise AppError(ErrorCode.CUDA_NOT_AVAILABLE, message)


def resolve_precision(precision: Literal["auto", "fp32", "fp16", "bf16"], device: torch.device) -> Precision:
    """Return the precision; `auto` is fp16 on CUDA and fp32 elsewhere."""
    on_cuda = device.type == "cuda"
    if precision == "auto":
        return "fp16" if on_cuda else "fp32"
    check_precision(precision, on_cuda=on_cuda)
    return precision


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch. Call it before the model is built, which draws its weights."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> RandomState:
    cuda: list[Tensor] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return RandomState(cpu=torch.get_rng_state(), cuda=cuda)


def restore_random_state(state: RandomState) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])  # gpu


def autocast(compute: Compute) -> torch.autocast:
    """Return the context of the forward pass: fp16 or bf16 if the run uses it, else no change."""
    lower = torch.bfloat16 if compute.precision == "bf16" else torch.float16
    return torch.autocast(compute.device.type, lower, enabled=compute.precision != "fp32")


def pinned(tensor: Tensor) -> Tensor:
    """Copy a tensor to pinned memory, for asynchronous copies to a GPU. Needs a GPU."""
    return tensor.pin_memory()  # gpu


def is_out_of_memory(error: Exception) -> bool:
    """Return True if memory ran out; torch on a CPU says so in its message only."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def memory_advice(effective: EffectiveRequest, compute: Compute) -> str:
    """Return the message for a step that needed more memory than there is, with settings that need less."""
    lack = "There is not enough memory for this model."
    if compute.batch_size == 1:
        return f"{lack} Use a smaller `max_seq_len` or a smaller model."
    batch, accumulation = halved_batch(compute.batch_size, effective.gradient_accumulation)
    return (
        f"{lack} Use `batch_size` {batch} with `gradient_accumulation` {accumulation}, which keeps the size of a step,"
        " or a smaller `max_seq_len`."
    )


def environment(
    compute: Compute, devices: int = 1, backend: str | None = None, chosen: ThreadChoice | None = None
) -> Environment:
    """Return the software and hardware that a run's numbers may depend on.

    `chosen` has the threads of the training if its worker chose them.
    """
    gpu = None
    if compute.device.type == "cuda":
        gpu = torch.cuda.get_device_name(compute.device)  # gpu
    return Environment(
        python=platform.python_version(),
        libraries={name: version(name) for name in _LIBRARIES},
        cpu=cpu_name(),
        gpu=gpu,
        threads=compute.threads if chosen is None else chosen.most or compute.threads,
        mean_threads=None if chosen is None or chosen.mean is None else round(chosen.mean, 2),
        interop_threads=torch.get_num_interop_threads(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        onednn_isa=onednn_isa(),
        device=str(compute.device),
        devices=devices,
        backend=backend,
        git_commit=git_commit(Path(__file__).parents[2]),
    )


def onednn_isa() -> str | None:
    """Return the instruction set of oneDNN's kernels, such as "Intel AVX2"; None for a torch without oneDNN."""
    if torch._C._has_mkldnn and not _ISA:
        _ISA.append(_onednn_output().partition("cpu,isa:")[2].partition("\n")[0])
    return next(iter(_ISA), "") or None


def _onednn_output() -> str:
    """Return what oneDNN prints of itself, which it does once per process, to the process's standard output."""
    stdout = os.dup(1)
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 1)
        try:
            mkldnn_set_verbose(1)
            torch.zeros(1, 1).to_mkldnn()
        finally:
            mkldnn_set_verbose(0)
            os.dup2(stdout, 1)
            os.close(stdout)
        printed.seek(0)
        return printed.read().decode()


def git_commit(checkout: Path) -> str | None:
    """Return the commit of the checkout that this code runs from; None for an installed package, or without git."""
    if not (checkout / ".git").exists():
        return None
    try:
        git = run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return git.stdout.strip() or None
