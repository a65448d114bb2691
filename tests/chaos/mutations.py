"""Switches one safeguard after the other off, in a copy of the source: a test has to turn red (`make mutations`).

Exits 0 only if the tests pass as they are and each mutation makes the tests fail that are named with it.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.support import ROOT

_ALL_SECONDS, _SOME_SECONDS = 3600.0, 1200.0
_FAILED, _PASSED = 1, 0
_LOG = "pytest.log"


class Mutation(NamedTuple):
    """One safeguard that is switched off, and the tests that should notice."""

    safeguard: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]
    times: int = 1
    """Number of times that `old` occurs in the file; all of them are replaced."""


LISTENER, WORKER = "tests/integration/test_notifier.py", "tests/integration/test_worker.py"
_TRAINING, _ARTIFACTS = "tests/unit/training/test_", "tests/unit/artifacts/test_"
CHECKPOINT, RESUME, FAULT = (f"{_TRAINING}{name}.py" for name in ("checkpoint", "resume", "fault_checkpoint"))
CLEANUP, DURABILITY, GOING_ON, RUNS = (
    f"{_ARTIFACTS}{name}.py" for name in ("cleanup", "durability", "resumable_runs", "runs")
)
RESUMED = (f"{RESUME}::test_resume__after_thirty_interruptions_continues_bit_for_bit",)

MUTATIONS = (
    Mutation(
        "the lock of a run has one holder",
        "trainer/system/files.py",
        "        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "        pass\n",
        (f"{WORKER}::test_run_held_by_another_child__waits_for_it",),
    ),
    Mutation(
        "an unknown outcome is looked up before the next try",
        "bot/notifications/delivery.py",
        "message_id = await self._find(slot, channel) if may_exist else None",
        "message_id = None",
        (LISTENER,),
    ),
    Mutation(
        "a message keeps its nonce",
        "bot/notifications/delivery.py",
        "nonce=sent.nonce,\n                allowed",
        "nonce=str(id(object())),\n                allowed",
        (
            "tests/integration/test_discord_faults.py::test_lost_reply__that_the_history_no_longer_shows_is_known_by_its_nonce",
        ),
    ),
    Mutation(
        "the intent is in the ledger before the call",
        "bot/notifications/delivery.py",
        "        await self._update(**{slot: sent})\n",
        "",
        (LISTENER,),
    ),
    Mutation(
        "the message's id is in the ledger after the call",
        "bot/notifications/delivery.py",
        "{slot: SentMessage(nonce=sent.nonce, message_id=message_id)}",
        "{slot: sent}",
        (f"{LISTENER}::test_restart__goes_on_with_the_same_card",),
    ),
    Mutation(
        "a delivery that fails is begun again",
        "bot/notifications/notifier.py",
        "            await asyncio.sleep(seconds)\n",
        "            return\n",
        (f"{LISTENER}::test_delivery_that_fails__is_said_tried_again_and_holds_up_nobody_else",),
    ),
    Mutation(
        "a lost bell is made up for by looking",
        "bot/notifications/delivery.py",
        "async with asyncio.timeout(self._poll_seconds()):\n",
        "async with asyncio.timeout(None):\n",
        (f"{LISTENER}::test_lost_bell__is_made_up_by_looking",),
    ),
    Mutation(
        "the reconciler puts runs back",
        "trainer/worker/reconciler.py",
        "    for run in unfinished:\n",
        "    for run in unfinished[:0]:\n",
        (f"{WORKER}::test_wiped_store__run_is_put_back_from_disk",),
    ),
    Mutation(
        "the lease is short",
        "trainer/store/store.py",
        "int(seconds * 1000))",
        "1000 * 1000)",
        (
            "tests/integration/test_training_faults.py::test_worker_stopped_beyond_its_lease__another_one_waits_for_the_lock",
        ),
        times=4,
    ),
    Mutation(
        "a worker whose loop has ended ends",
        "trainer/worker/process.py",
        "ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)",
        "ended, _ = await asyncio.wait(tasks)",
        ("tests/integration/test_redis_faults.py::test_rights_that_are_missing__end_the_worker_with_1",),
    ),
    Mutation(
        "an event is written once",
        "trainer/artifacts/event_log.py",
        "        if event.event_id not in self._known:\n",
        "        if True:\n",
        (RUNS,),
    ),
    Mutation(
        "a torn event is cut off",
        "trainer/artifacts/event_log.py",
        "disk.cut(self._file, whole)",
        "pass",
        (RUNS,),
    ),
    Mutation(
        "a checkpoint's names are durable before it gets its own",
        "trainer/training/checkpoint.py",
        "            self._disk.sync(temporary)\n",
        "",
        (DURABILITY,),
    ),
    Mutation("an end is written once", "trainer/artifacts/runs.py", "    if end is None:\n", "    if True:\n", (RUNS,)),
    Mutation(
        "a cleanup spares what others need",
        "trainer/artifacts/cleanup.py",
        "if run.run_id not in needed and ",
        "if ",
        (f"{CLEANUP}::test_cleanup__removes_nothing_that_a_run_or_an_experiment_needs",),
    ),
    Mutation(
        "a cleanup spares a run that is read",
        "trainer/artifacts/cleanup.py",
        "    claim = claim_folder(run.path)\n",
        "    claim = os.open(run.path, os.O_RDONLY)\n",
        (f"{CLEANUP}::test_run_in_use__is_left_alone",),
    ),
    Mutation(
        "a checkpoint's bytes are compared with their hashes",
        "trainer/training/checkpoint.py",
        "if any(sha256(content[record.path]).hexdigest() != record.sha256 for record in files):",
        "if False:",
        (f"{CHECKPOINT}::test_damaged_file__is_refused_and_the_earlier_checkpoint_used",),
    ),
    Mutation(
        "the state before a step that fails is saved",
        "trainer/training/loop.py",
        "            training.save_after_fault()\n",
        "            pass\n",
        (FAULT,),
    ),
    Mutation(
        "weights that may have moved are not saved as those before the step",
        "trainer/training/loop.py",
        "            self._snapshot = None  # the weights move\n",
        "",
        (FAULT,),
    ),
    Mutation(
        "what a run takes over is durable before the run is there",
        "trainer/artifacts/runs.py",
        "        self._disk.sync(run.checkpoints)\n",
        "",
        (GOING_ON,),
    ),
    Mutation(
        "only the same training goes on",
        "trainer/queue/resolve.py",
        "    if request_hash(again) == record.request_hash:\n        return\n",
        "    return\n",
        (GOING_ON,),
    ),
    Mutation(
        "pickled code is refused",
        "trainer/training/checkpoint.py",
        "torch.load(BytesIO(data), weights_only=True)",
        "torch.load(BytesIO(data), weights_only=False)",
        (f"{CHECKPOINT}::test_pickled_code__never_runs",),
    ),
    Mutation(
        "a checkpoint appears under its name when it is whole",
        "trainer/training/checkpoint.py",
        '        temporary = parent / f".tmp-step-{step}"\n',
        "        temporary = step_folder(parent, step)\n",
        (f"{DURABILITY}::test_promises__hold_in_any_state_that_a_crash_may_leave",),
    ),
    Mutation(
        "the state of the generators is in the checkpoint",
        "trainer/training/optimizer.py",
        '        restore_random_state(state["random"])\n',
        "",
        RESUMED,
    ),
    Mutation(
        "the state of the optimizer is in the checkpoint",
        "trainer/training/optimizer.py",
        '        self._optimizer.load_state_dict(state["optimizer"])\n',
        "",
        RESUMED,
    ),
    Mutation(
        "the position in the epoch is in the checkpoint",
        "trainer/training/progress.py",
        "        self.state = state or start\n",
        '        self.state = state.model_copy(update={"position": 0}) if state else start\n',
        RESUMED,
    ),
)


def main() -> int:
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="mt-mutations-") as folder:
        copy = Path(folder)
        _copy_source(copy)
        tests = sorted({test for mutation in MUTATIONS for test in mutation.tests})
        if _run(copy, tests, _ALL_SECONDS) != _PASSED:
            console.print((copy / _LOG).read_text(encoding="utf-8"), markup=False)
            console.print("The tests fail already without any mutation.", style="bold red")
            return 1
        table = Table("safeguard switched off", "noticed", "s")
        unnoticed = 0
        for mutation in MUTATIONS:
            started = time.monotonic()
            is_noticed = _is_noticed(copy, mutation)
            unnoticed += not is_noticed
            verdict = "yes" if is_noticed else "NO"
            console.print(f"{verdict:>3}  {mutation.safeguard}")
            style = "green" if is_noticed else "bold red"
            table.add_row(mutation.safeguard, verdict, f"{time.monotonic() - started:.0f}", style=style)
    console.print(table)
    return 1 if unnoticed else 0


def mutated(source: str, mutation: Mutation) -> str:
    """The source with a safeguard off; raises ValueError where its text does not stand there as often as it should."""
    if (count := source.count(mutation.old)) != mutation.times:
        raise ValueError(f"{mutation.path} has {mutation.old!r} {count} times, not {mutation.times}.")
    return source.replace(mutation.old, mutation.new)


def _copy_source(folder: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)


def _is_noticed(copy: Path, mutation: Mutation) -> bool:
    file = copy / mutation.path
    source = file.read_text(encoding="utf-8")
    file.write_text(mutated(source, mutation), encoding="utf-8")
    try:
        return _run(copy, mutation.tests, _SOME_SECONDS) == _FAILED
    finally:
        file.write_text(source, encoding="utf-8")


def _run(copy: Path, tests: Sequence[str], seconds: float) -> int:
    """pytest's exit code for some tests of a copy; one that hangs has failed."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    with (copy / _LOG).open("wb") as log:
        process = subprocess.Popen(command, cwd=copy, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return _FAILED
    finally:
        with suppress(ProcessLookupError):  # nothing that it has started is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
