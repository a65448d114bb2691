"""Requests that schemathesis makes from the description of the HTTP API: `make fuzz SEED=1 CASES=2000`.

An admin and two users make them in turn. One user owns a text and a run on it, of which the other is told nothing.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import cycle
from pathlib import Path
from re import fullmatch, search
from threading import Event, Thread
from typing import NamedTuple

import httpx2
from rich.console import Console

from scripts.api_page import example_values
from tests.faults import driver
from tests.faults.prepared import SPARED, Prepared, prepare
from tests.support import add_corpus, some_text
from tests.support.api_process import KEY, ApiProcess, api_process
from tests.support.lab import running_worker
from tests.support.waiting import PATIENCE_SECONDS
from trainer.contracts.batteries import BatteryList
from trainer.contracts.corpora import UploadStatus
from trainer.contracts.experiments import ExperimentList
from trainer.contracts.http_answers import RunPage
from trainer.contracts.jobs import WorkersState
from trainer.http.operations import HttpOperation
from trainer.http.routes import OPERATIONS

_LOOK_SECONDS = 0.5
_EXAMPLES = 60
"""Cases of each operation in one round, besides those that do not depend on the seed."""
_PATIENCE = "300"
"""Seconds without a byte of an answer, because the machine may be busy."""
_TOO_LONG = '"413", "414"'
"""No schema states the length of a body or an address with all of its parameters."""
_ACCEPTED = f"""
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", {_TOO_LONG}, "422", "429", "5xx"]

[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", {_TOO_LONG}, "415", "422", "428", "429", "5xx"]
"""
OWNER_KEY, OTHER_KEY = "key-of-the-owner-0123456789", "key-of-another-user-0123456789"
"""The keys of two users: the owner of a text, and another one."""
CLIENTS = f"tests:admin:{KEY},owner:user:{OWNER_KEY},other:user:{OTHER_KEY}"
OWN_WORD = "Kowalczyk"
"""A word of the text that only its owner has sent."""
_CHECKS = f"""
import schemathesis

@schemathesis.check
def tells_nothing_of_the_text_of_others(ctx, response, case):
    word = {OWN_WORD[::-1]!r}[::-1]  # hypothesis draws the strings that stand in this file, and refusals quote them
    assert word not in response.text, "the answer has a word of somebody else's text"
"""
_COUNT = r'mt_http_requests_total\{method="(\w+)",route="([^"]+)",status="(\d+)"\} ([0-9.e+]+)'


class Fuzzed(NamedTuple):
    """The result of one run of schemathesis."""

    cases: int
    is_clean: bool
    printed: str


def fuzz(api: ApiProcess, folder: Path, *options: str, settings: str = "", key: str = KEY) -> Fuzzed:
    """Run schemathesis with its default checks; 413, 414 and 422 may refuse what no schema can state.

    With the key of the other user no answer may have a word of the owner's text.

    Without chosen operations it calls all but `delete_run`, which would remove the runs that the others ask for.
    """
    if "--include-operation-id" not in options:
        options = (*options, "--exclude-operation-id", "delete_run")
    (folder / "schemathesis.toml").write_text(f"{_ACCEPTED}\n{settings}", encoding="utf-8")
    words = [sys.executable, "-m", "schemathesis.cli", "--no-color", "run", f"{api.url}/openapi.json"]
    words += ["--header", f"X-Api-Key: {key}", "--continue-on-failure", "--generation-database", "none"]
    words += ["--request-timeout", _PATIENCE, *options]
    environ = {**os.environ, "COLUMNS": "160"}
    if key == OTHER_KEY:
        (folder / "checks_of_others.py").write_text(_CHECKS, encoding="utf-8")
        environ |= {"SCHEMATHESIS_HOOKS": "checks_of_others", "PYTHONPATH": str(folder)}
    done = subprocess.run(
        words, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    counted = search(r"(\d+) generated", done.stdout)
    return Fuzzed(0 if counted is None else int(counted[1]), done.returncode == 0, done.stdout)


def fuzz_unreached(prepared: Prepared, folder: Path, *options: str) -> list[Fuzzed]:
    """Run schemathesis on the operations without a success so far: with ids of what exists, or after another one."""
    missing = unreached(prepared.api)
    first = [one for one in missing if not _leading_to(one)]
    positive = ("--mode", "positive", *options)
    ids = "\n".join(_with_ids(one, prepared) for one in first)
    done = [fuzz(prepared.api, folder, "--phases", "fuzzing", *positive, *_only(first), settings=ids)] if first else []
    for one in missing:
        if one not in first:
            pair = _only([one, *_leading_to(one)])
            done.append(fuzz(prepared.api, folder, "--phases", "stateful", *positive, *pair))
    return done


def _with_ids(operation: HttpOperation, prepared: Prepared) -> str:
    """Return the settings of schemathesis for an operation whose parameters are ids of what exists."""
    values = example_values(operation, prepared.values(operation))
    pairs = ", ".join(f'"{name}" = "{value}"' for name, value in values.items())
    return f'[[operations]]\ninclude-operation-id = "{operation.row.name}"\nparameters = {{ {pairs} }}\n'


def _only(operations: Sequence[HttpOperation]) -> list[str]:
    return [word for one in operations for word in ("--include-operation-id", one.row.name)]


def _leading_to(operation: HttpOperation) -> list[HttpOperation]:
    """Return the operations whose answers have the body for an operation."""
    return [
        one
        for one in OPERATIONS
        for answer in one.answers.values()
        if any(link.operation == operation.row.name and link.body is not None for link in answer.links)
    ]


def counts(api: ApiProcess) -> dict[str, Counter[int]]:
    """Return the number of answers of each operation by status."""
    found: dict[str, Counter[int]] = {f"{one.row.method} {one.row.path}": Counter() for one in OPERATIONS}
    for line in api.client.get("/metrics").text.splitlines():
        if counted := fullmatch(_COUNT, line):
            method, route, status, number = counted.groups()
            found.setdefault(f"{method} {route}", Counter())[int(status)] += int(float(number))
    return found


def unreached(api: ApiProcess) -> list[HttpOperation]:
    """Return the operations that have not answered with a success."""
    seen = counts(api)
    return [one for one in OPERATIONS if not any(200 <= s < 300 for s in seen[f"{one.row.method} {one.row.path}"])]


@contextmanager
def short_runs(prepared: Prepared) -> Iterator[None]:
    """Keep the worker free: let it claim jobs, and cancel the runs of schemathesis once they are seen twice."""
    stop = Event()
    watcher = Thread(target=_cancel_runs, args=(prepared, stop))
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
    end_runs(prepared.api)


def end_runs(api: ApiProcess) -> None:
    """Cancel all unfinished experiments, batteries and runs, and wait for the end of the runs."""
    for one in api.get("/experiments", ExperimentList).experiments:
        if one.status in ("queued", "running"):
            api.client.post(f"/experiments/{one.experiment_id}/cancel")
    for battery in api.get("/batteries", BatteryList).batteries:
        if battery.status in ("queued", "running"):
            api.client.post(f"/batteries/{battery.battery_id}/cancel")
    while active := _active(api.client):
        for run_id in active:
            api.client.post(f"/runs/{run_id}/cancel")
            api.client.get(f"/runs/{run_id}?wait=60")


def _cancel_runs(prepared: Prepared, stop: Event) -> None:
    seen: Sequence[str] = ()
    with httpx2.Client(base_url=prepared.api.url, headers={"X-Api-Key": KEY}, timeout=60) as client:
        while not stop.wait(_LOOK_SECONDS):
            found = prepared.api.post("/workers", WorkersState, {"action": "resume"})  # schemathesis may have paused it
            for worker in found.workers:
                if worker.state in ("draining", "drained"):  # schemathesis may have learned its name
                    prepared.api.post("/workers", WorkersState, {"action": "undrain", "name": worker.name})
            active = _active(client, spared=SPARED)
            for run_id in set(active) & set(seen):
                client.post(f"/runs/{run_id}/cancel")
            seen = active


def _active(client: httpx2.Client, *, spared: str | None = None) -> list[str]:
    """Return the unfinished runs, without those with the label, or of the experiment, `spared`."""
    pages = [client.get("/runs", params={"status": state, "limit": 200}) for state in ("queued", "running")]
    runs = [run for page in pages for run in RunPage.model_validate_json(page.content).runs]
    return [run.run_id for run in runs if spared is None or (run.label or "").split(" ")[0] != spared]


def own_text(api: ApiProcess) -> str:
    """Send a text as its owner, and train a run on it; return the hash of the text."""
    text = "".join(f"{OWN_WORD} counts {number} sheep\n" for number in range(30)).encode()
    digest = sha256(text).hexdigest()
    file: dict[str, object] = {"name": "own.txt", "bytes": len(text), "sha256": digest}
    upload_request: dict[str, object] = {"files": [file]}
    training: dict[str, object] = {"corpus": digest, "model_family": "ngram", "tokenizer": {"method": "word"}}
    with httpx2.Client(base_url=api.url, headers={"X-Api-Key": OWNER_KEY}, timeout=PATIENCE_SECONDS) as client:
        upload = UploadStatus.model_validate_json(client.post("/corpora", json=upload_request).content)
        headers = {"Content-Type": "application/octet-stream"}
        address = f"/corpora/uploads/{upload.upload_id}?offset=0"
        assert client.patch(address, content=text, headers=headers).is_success
        accepted = client.post("/runs/train?wait=60", json=training)
        assert accepted.is_success, accepted.text
    return digest


def _rounds(prepared: Prepared, folder: Path, numbers: Mapping[str, float]) -> list[Fuzzed]:
    """Run schemathesis with one seed after the other until there are enough cases, then on what was not reached."""
    seed = int(numbers["SEED"])
    rounds: list[Fuzzed] = []
    keys = cycle((KEY, OTHER_KEY, OWNER_KEY))
    own_text(prepared.api)
    with short_runs(prepared):
        while sum(one.cases for one in rounds) < numbers["CASES"]:
            drawn = str(seed + len(rounds) * 1_000_003)
            rounds.append(fuzz(prepared.api, folder, "--max-examples", str(_EXAMPLES), "--seed", drawn, key=next(keys)))
        rounds.extend(fuzz_unreached(prepared, folder, "--max-examples", "5", "--seed", str(seed)))
    return rounds


def _hold(folder: Path, numbers: Mapping[str, float], console: Console) -> bool:
    add_corpus(folder, some_text())
    with (
        running_worker(folder),
        api_process(folder, QUEUE__EMBEDDED_WORKERS="0", SECURITY__API_KEYS=CLIENTS) as api,
        prepare(api, folder) as prepared,
    ):
        rounds = _rounds(prepared, folder, numbers)
        answers = counts(api)
        missing = [one.row.name for one in unreached(api)]
    by_route = {route: dict(sorted(found.items())) for route, found in answers.items()}
    findings = [one.printed for one in rounds if not one.is_clean]
    broken = {"finding": findings, "without a success": missing}
    verdict = driver.Verdict(broken, {**by_route, "cases": sum(one.cases for one in rounds)})
    verdict.show(console)
    return verdict.holds


KIT = driver.Kit(_hold, {"SEED": driver.seed(), "CASES": 2000})
