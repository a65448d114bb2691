"""The runs and faults of a campaign, drawn from a seed so that a campaign can be repeated."""

import random
from typing import Literal, NamedTuple, get_args

from tests.support import ROOT, tiny_request
from trainer.config.experiment_file import read_experiment, read_yaml
from trainer.config.train_request import train_request
from trainer.contracts.runs import TrainRequest

Kind = Literal["kill", "new machine", "network cut", "Valkey cut", "store cut", "freeze", "Valkey wiped"]
Start = Literal["from nothing", "from the first run", "from a stored tokenizer"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WEIGHTS: dict[Kind, int] = {"kill": 3, "network cut": 3, "Valkey wiped": 0}
"""Weights of the kinds that are drawn more than once; Valkey is wiped once."""

CORPUS = "text"
_SECONDS_A_RUN, _RUNS_A_FAULT = 3.0, 1.2
_AT_ONCE_SHARE, _LAST_SHARE = 0.5, 0.8
_STEPS, _ROWS = 120, 2500
_LONG_CURVE = 1
"""The run with a loss curve that is too long to be stored after each change."""
_STARTS: dict[int, Start] = {2: "from a stored tokenizer", 3: "from the first run"}


class Fault(NamedTuple):
    """Something that is done to a machine, or to Valkey."""

    at_seconds: float
    kind: Kind
    machine: int
    chance: float
    """From 0 to 1: how long it takes."""


class Submission(NamedTuple):
    """A run that the queueing machine asks for; its request lacks the id of what the run starts from."""

    at_seconds: float
    request: TrainRequest
    start: Start


class Plan(NamedTuple):
    seed: int
    faults: tuple[Fault, ...]
    submissions: tuple[Submission, ...]


def make_plan(seed: int, *, runs: int, machines: int) -> Plan:
    """Every kind of fault once, then as the weights say, at random moments; half of the runs are queued at once."""
    chance = random.Random(seed)
    seconds = _SECONDS_A_RUN * runs
    kinds = [*KINDS, *chance.choices(KINDS, [WEIGHTS.get(kind, 1) for kind in KINDS], k=round(runs / _RUNS_A_FAULT))]
    faults = sorted(
        Fault(chance.uniform(0.05, 1.0) * seconds, kind, chance.randrange(machines), chance.random()) for kind in kinds
    )
    at_once = round(runs * _AT_ONCE_SHARE)
    moments = [0.0] * at_once + sorted(chance.uniform(0, _LAST_SHARE * seconds) for _ in range(runs - at_once))
    return Plan(seed, tuple(faults), tuple(_submission(number, at, seed) for number, at in enumerate(moments)))


def _submission(number: int, at_seconds: float, seed: int) -> Submission:
    """A training of some seconds, of the small families in turn, with checkpoints a fraction of a second apart."""
    options: dict[str, object] = {
        **{"corpus": CORPUS, "label": f"scale-{number}", "seed": 1000 * seed + number, "threads": 1, "device": "cpu"},
        **{"num_epochs": 1000, "test_fraction": 0.1, "max_steps": _STEPS},
        **{"checkpoint_every_steps": 4 + number % 3 * 3},
    }
    if number == _LONG_CURVE:
        long: dict[str, object] = {"max_steps": _ROWS, "log_every_steps": 1, "checkpoint_every_steps": 50}
        return Submission(at_seconds, tiny_request(**options | long), "from nothing")
    files = sorted((ROOT / "configs").glob("test_*_tiny.yaml"))
    start = _STARTS.get(number, "from nothing")
    file = files[0 if start == "from the first run" else number % len(files)]
    return Submission(at_seconds, train_request(read_experiment(read_yaml(file), options).fields), start)
