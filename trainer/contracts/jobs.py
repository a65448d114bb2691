"""Payloads of queued jobs, requirements of jobs, and records of workers; each reader validates them."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from trainer.contracts.base import Frozen, Identifier, WaitReason
from trainer.contracts.cost import GIB
from trainer.contracts.inference import KindName

JobDevice = Literal["cpu", "any", "cuda"]
"""Device of a job; `any` is a GPU where the worker has one."""
WorkerDevices = Literal["any", "cpu", "gpu"]
"""Runs that a worker trains: all, those that can do without a GPU, or those that need or may use one."""
WorkerAction = Literal["pause", "resume", "drain", "undrain"]
WorkerState = Literal["ready", "paused", "draining", "drained", "refuses"]
Refusal = Literal["artifacts_folder_mismatch", "version_mismatch", "children_die_at_start"]
_Bytes = Annotated[int, Field(ge=0, lt=1 << 53)]
_UNKNOWN_BYTES = 1 << 52
"""Stands for the memory of a GPU that does not tell it: more than any job needs."""


class FolderJobPayload(Frozen):
    """A job that has a folder on disk, of the kind that the queue and the function say."""

    job_id: Identifier


class InferenceJobPayload(Frozen):
    kind: KindName
    run_id: Identifier
    request_id: Identifier


class JobNeeds(Frozen):
    """Requirements of a job on the worker that takes it."""

    device: JobDevice = "any"
    gpus: Annotated[int, Field(ge=0, lt=1 << 16)] = 0
    memory_bytes: _Bytes = 0
    """Memory of the device that the job computes on: of each GPU, or of the machine."""


class JobDefinition(Frozen):
    """A job as arq stores it; `a` is the payload, `et` the time of queueing in milliseconds since 1970.

    `i` is the id of the artifacts folder that has the run; `d`, `n` and `m` are the fields of its JobNeeds.
    """

    t: None
    f: str
    a: tuple[dict[str, str]]
    k: Annotated[dict[str, str], Field(max_length=0)]
    et: Annotated[int, Field(ge=0, lt=1 << 47)]
    i: str = ""
    d: JobDevice = "any"
    n: Annotated[int, Field(ge=0, lt=1 << 16)] = 0
    m: _Bytes = 0

    @property
    def needs(self) -> JobNeeds:
        return JobNeeds(device=self.d, gpus=self.n, memory_bytes=self.m)


class WorkerInfo(Frozen):
    """The record that a worker publishes of itself."""

    name: str
    """Host and process id."""
    version: str
    slots: int
    """Runs that it trains at the same time."""
    seen_at: float
    """Unix time."""
    started_at: float | None = None
    """Unix time."""
    devices: tuple[str, ...] = ("cpu",)
    """Its GPUs, such as `cuda:0 NVIDIA H100 80GB`, or else `cpu`."""
    gpu_memory_bytes: tuple[int | None, ...] = ()
    """Memory of each GPU; None if the driver does not tell it."""
    memory_bytes: int = 0
    """Memory of the machine, or the limit of its container."""
    takes: WorkerDevices = "any"
    state: WorkerState = "ready"
    refusals: tuple[Refusal, ...] = ()
    """Why it refuses all jobs."""
    reason: str | None = None
    """The refusals in words, with what to do."""

    @property
    def host(self) -> str:
        return self.name.rpartition(":")[0]

    @property
    def pid(self) -> str:
        return self.name.rpartition(":")[2]

    def room_bytes(self, device: JobDevice) -> int:
        """Return the memory that a job on this device gets here; -1 if the worker takes no such job."""
        if device == "cpu" or (device == "any" and not self.gpu_memory_bytes):
            return -1 if self.takes == "gpu" else self.memory_bytes
        known = [_UNKNOWN_BYTES if memory is None else memory for memory in self.gpu_memory_bytes]
        return min(known, default=-1)

    @property
    def is_broken(self) -> bool:
        """True if it takes no job because its children end before their first step."""
        return "children_die_at_start" in self.refusals

    def memory_text(self) -> str:
        """Return the memory of the machine, and that of its GPUs where they tell it."""
        gpus = [f"{memory / GIB:.0f}" for memory in self.gpu_memory_bytes if memory is not None]
        return f"{self.memory_bytes / GIB:.1f} GiB" + (f", GPU {' + '.join(gpus)} GiB" if gpus else "")

    def can_take(self, needs: JobNeeds) -> bool:
        """Return True if the worker has what a job needs."""
        return needs.gpus <= len(self.gpu_memory_bytes) and needs.memory_bytes <= self.room_bytes(needs.device)


job_id_adapter: TypeAdapter[str] = TypeAdapter(Identifier)

JobPayload = FolderJobPayload | InferenceJobPayload


class WorkerOrder(Frozen):
    """An order to the workers."""

    action: WorkerAction
    """pause, resume: the start of runs on all workers; drain, undrain: the jobs of one worker."""
    name: str | None = None
    """For drain and undrain: the worker, as HOST:PID, or HOST for all its workers."""


class WorkersState(Frozen):
    """The workers of all machines."""

    workers: tuple[WorkerInfo, ...]
    runs: dict[str, str]
    """The worker of each run that is being trained."""
    is_paused: bool
    """True while no worker starts a further run."""
    is_starting: bool = False
    """True if no worker runs yet, but the embedded one of this machine is starting."""
    problem: str | None = None
    """Why the embedded worker of this machine does not start."""

    def absence(self) -> WaitReason | None:
        """Return why no worker takes jobs: none is running or starting, or each one is broken."""
        if self.workers and all(worker.is_broken for worker in self.workers):
            return "broken"
        return None if self.workers or self.is_starting else "worker"

    def runs_of(self, worker: WorkerInfo) -> list[str]:
        """Return the ids of the runs that a worker trains."""
        return [run_id for run_id, holder in self.runs.items() if holder == worker.name]
