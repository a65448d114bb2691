"""A long campaign of schemathesis against the HTTP API: `make fuzz SEED=1 CASES=5000`.

Exits 1 for a finding, for fewer cases, and for an operation that has not reached its success answer.
"""

import argparse
import os
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from tests.fuzz.campaign import Fuzzed, counts, fuzz, fuzz_unreached, short_runs, unreached
from tests.fuzz.prepared import prepare
from tests.support import add_corpus, some_text
from tests.support.api_process import ApiProcess, api_process
from tests.support.lab import running_worker

_EXAMPLES = 60
"""Cases of each operation in one round, besides those that do not depend on the seed."""


class Arguments(argparse.Namespace):
    seed: int
    cases: int


def main() -> int:
    parser = argparse.ArgumentParser(description="A long campaign of schemathesis against the HTTP API.")
    parser.add_argument("--seed", type=int, default=os.environ.get("SEED") or random.randrange(10**6))
    parser.add_argument("--cases", type=int, default=os.environ.get("CASES") or 2000)
    arguments = parser.parse_args(namespace=Arguments())
    console = Console(width=160)
    console.print(f"seed {arguments.seed}, at least {arguments.cases:,} cases")
    with tempfile.TemporaryDirectory(prefix="mt-fuzz-") as name, ExitStack() as started:
        folder = Path(name)
        add_corpus(folder, some_text())
        started.enter_context(running_worker(folder))
        api = started.enter_context(api_process(folder, QUEUE__EMBEDDED_WORKERS="0"))
        rounds = campaign(api, folder, arguments)
        show(api, console)
        missing = [one.name for one in unreached(api)]
    findings = [one.printed for one in rounds if not one.is_clean]
    cases = sum(one.cases for one in rounds)
    for found in findings:
        console.print(found, markup=False, highlight=False)
    console.print(f"seed {arguments.seed}: {cases:,} cases, {'findings above' if findings else 'no finding'}")
    if missing:
        console.print(f"without a success: {', '.join(missing)}")
    return int(bool(findings or missing) or cases < arguments.cases)


def campaign(api: ApiProcess, folder: Path, arguments: Arguments) -> list[Fuzzed]:
    """Run schemathesis with one seed after the other until there are enough cases, then on what was not reached."""
    prepared = prepare(api)
    rounds: list[Fuzzed] = []
    with short_runs(prepared):
        while sum(one.cases for one in rounds) < arguments.cases:
            seed = str(arguments.seed + len(rounds) * 1_000_003)
            rounds.append(fuzz(api, folder, "--max-examples", str(_EXAMPLES), "--seed", seed))
        rounds.extend(fuzz_unreached(prepared, folder, "--max-examples", "5", "--seed", str(arguments.seed)))
    return rounds


def show(api: ApiProcess, console: Console) -> None:
    """Print the number of answers by operation and status."""
    for route, answers in counts(api).items():
        by_status = "  ".join(f"{status}: {number}" for status, number in sorted(answers.items()))
        console.print(f"{route:52} {by_status}", markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
