"""The expected cost of a training: parameters, memory, disk and time."""

from trainer.contracts.base import Frozen
from trainer.contracts.wording import counted

GIB, MIB = 1 << 30, 1 << 20


class Cost(Frozen):
    """What a training is expected to need."""

    params: int
    memory_bytes: int
    disk_bytes: int
    steps: int
    seconds: float
    """From its start to its end."""
    compared_runs: int = 0
    """How many earlier runs of this machine the time was taken from; 0: it is a rough guess."""
    is_exact: bool = True
    """False where the vocabulary, and with it all the rest, was guessed from a part of the text."""
    bf16_pays: bool = False

    def lines(self) -> list[str]:
        """The cost for people, and where another precision would pay (DEC D46)."""
        params = f"{self.params:,}" if self.is_exact else f"about {rough(self.params)}"
        by = f"as {counted(self.compared_runs, 'earlier run')} here took" if self.compared_runs else "a rough guess"
        needs = (
            f"It needs {params} parameters, about {self.memory_bytes / GIB:.1f} GiB of memory, and about"
            f" {about_seconds(self.seconds)} for {rough(self.steps)} step{'' if self.steps == 1 else 's'} ({by})."
        )
        return [needs, _BF16_HINT] if self.bf16_pays else [needs]


_BF16_HINT = "bf16 would pay: with `precision: bf16` this model should train faster here."


def rough(number: int) -> str:
    """A count to three figures."""
    return f"{float(f'{number:.3g}'):,.0f}"


def about_seconds(seconds: float) -> str:
    """A time that is known roughly, as people say it."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(1, round(seconds))} s"
