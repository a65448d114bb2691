"""The machine of a training and its libraries."""

from trainer.contracts.base import Frozen


class Environment(Frozen):
    """Machine and libraries of a training."""

    python: str
    libraries: dict[str, str]
    cpu: str
    gpu: str | None
    threads: int
    """CPU threads of each process; the most of them, if the worker chose between numbers."""
    mean_threads: float | None = None
    """Mean of the threads over the time of the last attempt, if the worker chose them."""
    interop_threads: int | None = None
    """CPU threads of each process for independent operations, without effect on numbers; None in runs of older
    versions."""
    cpu_capability: str | None = None
    """Instruction set of torch's own kernels, such as AVX2; None in runs of older versions."""
    onednn_isa: str | None = None
    """Instruction set of oneDNN's kernels, in oneDNN's words; None without oneDNN, and in runs of older versions."""
    device: str
    devices: int = 1
    """Number of processes."""
    backend: str | None = None
    """Backend of torch.distributed; None for one process."""
    git_commit: str | None

    @property
    def arithmetic(self) -> tuple[object, ...]:
        """Return what decides the order of a sum, and so its last bit: instruction sets, threads and devices.

        One thread and two add in the same order.
        """
        return self.cpu_capability, self.onednn_isa, max(self.threads, 2), self.gpu, self.device, self.devices
