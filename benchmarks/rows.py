"""Rows of the table that `make bench` prints, and the facts of the machine that they hold for."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table

from benchmarks.turns import Turns
from trainer.contracts.base import Frozen, Timestamp
from trainer.system.hardware import cpu_name, instruction_set

_LIBRARIES = ("torch", "numpy", "transformers", "tokenizers", "sentencepiece", "minicons", "accelerate", "arq", "redis")

_MAX_SHARE_OF_LIMIT = 1.05
"""Measurements vary by some per cent."""


class Row(Frozen):
    """A measured figure and its goal."""

    case: str
    value: float
    unit: str
    """`x` for a ratio: ours divided by the rival's in the same run."""
    goal: float | None = None
    """None for a figure that is only reported."""
    better: Literal["more", "less"] = "more"
    details: dict[str, float] = Field(default_factory=dict)
    """Medians of the contestants, shares of limits, differences."""
    foreign_share: float = 0.0
    limit: float | None = None
    """Value of a program that is as fast as `limited_by` alone, measured in the same run."""
    limited_by: str = ""

    @property
    def exceeds_limit(self) -> bool:
        """True if the limit is wrong: nothing is faster than its limit."""
        return self.share_of_limit > _MAX_SHARE_OF_LIMIT

    @property
    def verdict(self) -> Literal["", "ok", "LIMIT", "MISSED"]:
        """LIMIT: the goal is beyond the limit of this machine. A wrong limit excuses no miss."""
        if self.goal is None:
            return ""
        if self._reaches(self.value, self.goal):
            return "ok"
        is_excused = self.limit is not None and not self._reaches(self.limit, self.goal) and not self.exceeds_limit
        return "LIMIT" if is_excused else "MISSED"

    @property
    def share_of_limit(self) -> float:
        """Our speed divided by that of the limit; 0 without a limit."""
        if not self.limit:
            return 0.0
        return self.value / self.limit if self.better == "more" else self.limit / self.value

    def _reaches(self, value: float, goal: float) -> bool:
        return value >= goal if self.better == "more" else value <= goal


def compared(
    case: str,
    turns: Turns,
    ours: str,
    rival: str,
    goal: float | None,
    *,
    limit: float | None = None,
    limited_by: str = "",
) -> Row:
    """Return the row that compares two contestants; the limit is in the units of their figures."""
    return Row(
        case=f"{case}: {ours} / {rival}",
        value=turns.ratio(ours, rival),
        unit="x",
        goal=goal,
        details={f"{who}, per second": turns.median(who) for who in (ours, rival)},
        foreign_share=turns.foreign_share,
        limit=None if limit is None else limit / turns.median(rival),
        limited_by=limited_by,
    )


class Machine(Frozen):
    """Facts of the machine that a figure may depend on."""

    cpu: str
    instructions: dict[str, str]
    threads: int
    python: str
    system: str
    libraries: dict[str, str]
    gpu: str | None


class Results(Frozen):
    """A file of `benchmarks/results`."""

    measured_at: Timestamp
    is_quick: bool
    machine: Machine
    rows: tuple[Row, ...]


def machine() -> Machine:
    return Machine(
        cpu=cpu_name() or "unknown",
        instructions=instruction_set(),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        libraries={name: version(name) for name in _LIBRARIES},
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )


def save(rows: Sequence[Row], folder: Path, measured_at: Timestamp, *, is_quick: bool) -> Path:
    """Write the rows and the machine's facts into a file named by the time."""
    results = Results(measured_at=measured_at, is_quick=is_quick, machine=machine(), rows=tuple(rows))
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{results.measured_at:%Y-%m-%d-%H%M%S}{'-quick' if is_quick else ''}.json"
    file.write_text(results.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return file


def print_rows(rows: Sequence[Row], console: Console) -> None:
    table = Table("case", "measured", "goal", "", "details", box=None, pad_edge=False)
    for row in rows:
        sign = ">=" if row.better == "more" else "<="
        goal = "" if row.goal is None else f"{sign} {_number(row.goal)} {row.unit}"
        details = [f"{name} {_number(value)}" for name, value in row.details.items()]
        details += [f"others used {row.foreign_share:.0%}"] if row.foreign_share > 0.05 else []
        details += [f"{row.share_of_limit:.0%} of the speed of {row.limited_by}"] if row.limit else []
        details += ["the limit is wrong"] if row.exceeds_limit else []
        table.add_row(row.case, f"{_number(row.value)} {row.unit}", goal, row.verdict, ", ".join(details))
    console.print(table)


def summary(rows: Sequence[Row]) -> str:
    """Return the last line: how many goals hold, and which do not."""
    with_goal = [row for row in rows if row.goal is not None]
    held = sum(row.verdict == "ok" for row in with_goal)
    parts = [f"{held} of {len(with_goal)} goals hold"]
    for title, verdict in (("beyond this machine's limit", "LIMIT"), ("missed", "MISSED")):
        cases = [row.case for row in with_goal if row.verdict == verdict]
        parts += [f"{title}: {', '.join(cases)}"] if cases else []
    return "; ".join(parts)


def _number(value: float) -> str:
    if value and abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
