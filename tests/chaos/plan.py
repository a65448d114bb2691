"""The actions of a campaign and their times, drawn from a seed so that a campaign can be repeated."""

import random
from typing import Literal, NamedTuple, get_args

Kind = Literal[
    "child SIGKILL",
    "worker SIGKILL",
    "bot SIGKILL",
    "Valkey SIGKILL",
    "Valkey wiped",
    "Valkey SIGSTOP",
    "worker SIGSTOP",
    "worker SIGTERM",
    "bot SIGTERM",
    "all SIGKILL",
    "cancel",
    "Discord 429",
    "Discord 500",
    "Discord 503",
    "Discord reset",
    "Discord reply lost",
    "gateway abort",
    "gateway reconnect",
    "gateway invalidate",
    "stream trimmed",
    "group destroyed",
    "stale marks planted",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
WEIGHTS: dict[Kind, int] = {"child SIGKILL": 14, "worker SIGKILL": 9, "bot SIGKILL": 4, "Valkey SIGKILL": 2}
"""Weights of the kinds that are drawn more than once."""

USERS = 4
REQUESTS = 4
SECONDS_A_RUN, SECONDS_A_FAULT = 11.0, 2.1
_SUBMITTING_SHARE = 0.75
"""In the last part of the time nothing new is submitted, so that faults meet runs that are about to end."""


class Fault(NamedTuple):
    """Something that is done to the system."""

    at_seconds: float
    kind: Kind
    chance: float
    """From 0 to 1: who or what is hit, among those that can be."""


class Submission(NamedTuple):
    """A run that somebody asks for: in the chat, or (without a user) as `mt train` does."""

    at_seconds: float
    request: int
    user: int | None


class Plan(NamedTuple):
    seed: int
    seconds: float
    faults: tuple[Fault, ...]
    submissions: tuple[Submission, ...]


def make_plan(seed: int, seconds: float, *, requests: int = REQUESTS) -> Plan:
    """Every kind of fault as far as there is time, then as the weights say, at random moments.

    Valkey is wiped in the first half only: what is rebuilt from the disk then would hide what had been lost before.
    """
    chance = random.Random(seed)
    number = max(round(seconds / SECONDS_A_FAULT), min(round(seconds), len(KINDS)))
    kinds = chance.sample(KINDS, min(number, len(KINDS)))
    kinds += chance.choices(KINDS, [WEIGHTS.get(kind, 1) for kind in KINDS], k=number - len(kinds))
    chance.shuffle(kinds)
    moments = sorted(chance.uniform(0.05 * seconds, seconds) for _ in kinds)
    faults = [
        Fault(moment / 2 if kind == "Valkey wiped" else moment, kind, chance.random())
        for moment, kind in zip(moments, kinds, strict=True)
    ]
    runs = max(4, round(seconds / SECONDS_A_RUN))
    between = _SUBMITTING_SHARE * seconds / runs
    submissions = [
        Submission(
            at_seconds=(place + chance.random() / 2) * between,
            request=chance.randrange(requests),
            user=None if chance.random() < 0.2 else chance.randrange(USERS),
        )
        for place in range(runs)
    ]
    return Plan(seed, seconds, tuple(faults), tuple(submissions))
