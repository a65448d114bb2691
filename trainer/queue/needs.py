"""Requirements of training jobs, and the reasons why no running worker takes one."""

from collections.abc import Sequence

from trainer.contracts.base import WaitReason
from trainer.contracts.cost import GIB, Cost
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.jobs import JobDevice, JobNeeds, WorkerInfo
from trainer.contracts.runs import EffectiveRequest
from trainer.contracts.wording import WAIT_MESSAGES, counted
from trainer.queue.cost import SAFETY_FACTOR
from trainer.system.hardware import may_have_cuda

UNMET: tuple[WaitReason | None, ...] = ("worker", "gpu", "cpu", "memory")
"""The reasons why no running worker takes a queued run."""


def needs_of(effective: EffectiveRequest, cost: Cost | None) -> JobNeeds:
    """Return the needs of a training; one with an estimated cost needs two thirds of its memory.

    `cuda:N` names a GPU of the worker, which needs more than N of them. Precision fp16 needs a GPU, too.
    """
    memory_bytes = 0 if cost is None else int(cost.memory_bytes / SAFETY_FACTOR)
    name, _, number = effective.device.partition(":")
    if name == "cuda" or effective.precision == "fp16":
        gpus = max(effective.devices, int(number or 0) + 1)
        return JobNeeds(device="cuda", gpus=gpus, memory_bytes=memory_bytes)
    device: JobDevice = "cpu" if name == "cpu" else "any"
    return JobNeeds(device=device, memory_bytes=memory_bytes)


def unmet(needs: JobNeeds, workers: Sequence[WorkerInfo]) -> WaitReason | None:
    """Return what none of the workers that take jobs has for this one; None if one can, or if none takes any."""
    ready = [worker for worker in workers if worker.state == "ready"]
    if not ready or any(worker.can_take(needs) for worker in ready):
        return None
    if needs.gpus > max(len(worker.gpu_memory_bytes) for worker in ready):
        return "gpu"
    if max(worker.room_bytes(needs.device) for worker in ready) < 0:
        return "cpu"
    return "memory"


def check_workers(needs: JobNeeds, workers: Sequence[WorkerInfo]) -> None:
    """Refuse a training that none of the workers that take jobs can hold; without such a worker, refuse nothing.

    Raises CUDA_NOT_AVAILABLE, unless a worker of this machine may have a GPU, or MODEL_INCOMPATIBLE.
    """
    ready = [worker for worker in workers if worker.state == "ready"]
    missing = unmet(needs, ready)
    if missing == "gpu" and not may_have_cuda():
        raise AppError(
            ErrorCode.CUDA_NOT_AVAILABLE,
            f"This training needs {counted(needs.gpus, 'GPU')}, and no running worker has as many: use `device` 'cpu',"
            " or start a worker on a machine with CUDA.",
        )
    if missing == "memory":
        most = max(worker.room_bytes(needs.device) for worker in ready)
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            f"This training needs at least {needs.memory_bytes / GIB:.1f} GiB of memory, and the largest running worker"
            f" has {most / GIB:.1f}: make `batch_size`, `max_seq_len` or the model smaller.",
        )


def waiting_for(training: Sequence[str], ahead: int) -> str:
    """Return what a queued run waits for: runs that train now, of `ahead` runs before it."""
    if not training:
        return WAIT_MESSAGES["turn"]
    others = f"; {counted(ahead - len(training), 'other run')} before it" if ahead > len(training) else ""
    return f"Waiting for {' and '.join(training)}, which {'trains' if len(training) == 1 else 'train'} now{others}."
