"""The expected cost of a training: parameters, memory, disk and time."""

from trainer.contracts.base import Frozen
from trainer.contracts.wording import counted

GIB, MIB = 1 << 30, 1 << 20
_BF16_HINT = "bf16 would pay: with `precision: bf16` this model should train faster here."


class Cost(Frozen):
    """The estimated cost of a training."""

    params: int
    memory_bytes: int
    disk_bytes: int
    kept_checkpoints: int = 0
    """Checkpoints that `checkpoint_schedule` keeps, with the last step."""
    kept_bytes: int = 0
    """Size of their weights, which `disk_bytes` has too."""
    steps: int
    seconds: float | None = None
    """Time of all steps, by a finished run of this machine or a measurement; None if there is neither."""
    is_measured: bool = False
    """True if a step of this training was measured for `seconds`."""
    is_given_time: bool = False
    """True if `seconds` are the `minutes` of the request."""
    is_exact: bool = True
    """False if the vocabulary, and with it everything else, was estimated from a sample of the corpus."""
    bf16_pays: bool = False

    def lines(self, n_runs: int = 1) -> list[str]:
        """Return the cost of equal runs as sentences, with a hint where another precision would train faster."""
        params = f"{self.params:,}" if self.is_exact else f"about {rough_count(self.params)}"
        steps = "1 step" if self.steps == 1 else f"{rough_count(self.steps)} steps"
        time = f"How long {steps} take is known some seconds after the start: no comparable run has finished here yet."
        if self.seconds is not None:
            judge = "a measurement of two seconds" if self.is_measured else "an earlier run here"
            time = f"Training for {steps} takes about {rough_duration(self.seconds)}, judged by {judge}."
        if self.is_given_time and self.seconds is not None:
            time = (
                f"It takes the given {rough_duration(self.seconds)}, or less if more steps teach nothing: the worker"
                " measures its speed first, and may choose another size, other batches and fewer steps."
            )
        memory, disk = f"{self.memory_bytes / GIB:.1f}", f"{self.disk_bytes / MIB:,.1f}"
        needs = f"It has {params} parameters and needs about {memory} GiB of memory and {disk} MiB of disk."
        if n_runs > 1:
            needs = (
                f"Each of the {n_runs} runs has {params} parameters and needs about {memory} GiB of memory and"
                f" {disk} MiB of disk ({n_runs * self.disk_bytes / MIB:,.1f} MiB in all)."
            )
        if self.kept_checkpoints:
            needs += f" It keeps {counted(self.kept_checkpoints, 'checkpoint')}: {self.kept_bytes / MIB:,.1f} MiB."
        return [f"{needs} {time}", *([_BF16_HINT] if self.bf16_pays else [])]


def rough_count(number: int) -> str:
    """Return a count to three figures."""
    return f"{float(f'{number:.3g}'):,.0f}"


def rough_duration(seconds: float) -> str:
    """Return a duration in its largest fitting unit, without decimals."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(1, round(seconds))} s"
