"""Groups of runs that differ in their seeds only: the seeds of a request, and the ids of a group and its members."""

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import Discriminator, Field, Tag

from trainer.contracts.base import Frozen, Identifier, Seed, are_different, requires
from trainer.contracts.errors import ErrorCode, field_error
from trainer.contracts.wording import counted

MAX_SEEDS = 100
_N_SEEDS = 2**32
_MEMBER_ID = re.compile(r"(?P<group>[a-z0-9_]+-\d{8}-[0-9a-f]{8})-s\d{1,10}(-[0-9a-f]{4})?", re.ASCII)
"""The id of a member: that of the group, the seed and, of a resumed run, four random hex digits."""

_TYPED = re.compile(r"\s*\d{1,10}\s*(,\s*\d{1,10}\s*)*", re.ASCII)


def _tag(value: object) -> str:
    return "list" if isinstance(value, (list, tuple)) else "number"


_SeedList = Annotated[
    tuple[Seed, ...],
    Field(min_length=1, max_length=MAX_SEEDS, json_schema_extra={"uniqueItems": True}),
    requires(are_different, "each seed once", "must name"),
]
Seeds = Annotated[
    Annotated[int, Field(ge=1, le=MAX_SEEDS), Tag("number")] | Annotated[_SeedList, Tag("list")], Discriminator(_tag)
]
"""A number of seeds that follow one another, or a list of seeds."""


class RunGroup(Frozen):
    """The group of a run."""

    group_id: Identifier
    seeds: tuple[int, ...]
    """The seeds of all members."""

    @property
    def first_id(self) -> str:
        """The id of the run that is accepted first."""
        return self.member_id(self.seeds[0])

    def member_id(self, seed: int) -> str:
        """Return the id of the first run of a seed."""
        return f"{self.group_id}-s{seed}"


def listed_seeds(seeds: int | tuple[int, ...] | None, first: int) -> tuple[int, ...]:
    """Return the seeds of a request with `seed` = `first`; a number of seeds begins with it, and 0 follows 2³² - 1."""
    if isinstance(seeds, tuple):
        return seeds
    return tuple((first + place) % _N_SEEDS for place in range(seeds or 1))


def read_seeds(text: str) -> int | list[int]:
    """Read seeds as they are typed: `5` for five seeds, `1,2,3` for these; raises INVALID_INPUT."""
    if not _TYPED.fullmatch(text):
        message = f"must be a number of seeds, or seeds such as 1,2,3, you gave '{text[:40]}'"
        raise field_error(ErrorCode.INVALID_INPUT, "seeds", message)
    numbers = [int(word) for word in text.split(",")]
    return numbers[0] if len(numbers) == 1 else numbers


def group_id_of(run_id: str) -> str | None:
    """Return the group that a run's id names; None for a run of no group, and for one of an experiment."""
    found = _MEMBER_ID.fullmatch(run_id)
    return None if found is None else found["group"]


def is_group(group_id: str, run_ids: Sequence[str]) -> str:
    """Return the sentence that an id names a group, for what needs one run."""
    return f"'{group_id}' is a group of {counted(len(run_ids), 'run')}: name one of them, such as '{run_ids[0]}'."
