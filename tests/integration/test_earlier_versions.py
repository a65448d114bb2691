"""Folders that earlier versions have made: all that is in them is listed, opened and used by this version."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_discord.driver import shown_text
from tests.support import settings_in
from tests.support.bot import place
from tests.support.earlier_labs import LABS, unpack_lab
from tests.support.http import ANA, site, with_api
from tests.support.lab import running_worker
from tests.support.run_shell import TINY, Shell
from tests.support.waiting import wait_until
from trainer.artifacts.job_folder import AnyJob, unreadable
from trainer.artifacts.kinds import JOB_KINDS, STATUS_KINDS
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.contracts.base import KindName
from trainer.contracts.batteries import BatteryList
from trainer.contracts.errors import ErrorCode
from trainer.contracts.http_answers import RunPage
from trainer.contracts.operations import CHAT_COMMANDS, JOB_ROWS
from trainer.contracts.verification import Verification
from trainer.lab.calls import JOB_CALLS

EARLIER = pytest.mark.parametrize("name", LABS)
BY_FACE = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "0.1.0-30549b9")) for name in LABS]
)
_COMMANDS: dict[KindName, str] = {
    **{"tokenizers": "tokenizer", "batteries": "battery", "experiments": "experiment", "studies": "study"},
}
"""The groups of `mt` of the kinds that have their own."""


@pytest.fixture(name="lab_of_before")
def lab_of_before_fixture(shell: Shell, name: str) -> Shell:
    unpack_lab(name, shell.root)
    return shell


def jobs_of(root: Path) -> Iterator[tuple[KindName, AnyJob]]:
    for kind in JOB_KINDS:
        store = kind.store(root / "artifacts")
        yield from ((kind.name, store.directory(job_id)) for job_id in sorted(store.ids()))


def completed(shell: Shell) -> list[RunDirectory]:
    runs = [(run, run.manifest()) for run in RunStore(shell.artifacts).all()]
    return [run for run, manifest in runs if manifest is not None and manifest.status == "completed"]


@EARLIER
def test_earlier_folder__is_read_and_shown_by_the_terminal(lab_of_before: Shell) -> None:
    shell, ids = lab_of_before, set[str]()
    for kind, job in jobs_of(shell.root):
        assert unreadable(job) is None
        if kind == "models":
            ids.add(job.job_id)
            shell.type("status", job.job_id)
            shell.type("config", job.job_id)
            shell.type("files", job.job_id)
        else:
            group = [_COMMANDS[kind]] if kind in _COMMANDS else ["job"]
            assert job.job_id in shell.type(*group, "list", *([] if kind in _COMMANDS else [kind]))
            shell.type(*group, "show", *([] if kind in _COMMANDS else [kind]), job.job_id)
    listed = shell.type("runs", "--members", "--limit", "99")
    assert all(run_id in listed for run_id in ids) and "cannot be read" not in listed
    shell.type("compare", "done", "stopped")
    assert shell.read(Verification, "verify", "done").ok


@BY_FACE
async def test_earlier_folder__is_served_over_http(tmp_path: Path, name: str) -> None:
    unpack_lab(name, tmp_path)
    async with site(with_api(settings_in(tmp_path, embedded_workers=0))) as here:
        runs = (await here.get("/runs?limit=100")).record(RunPage)
        assert runs.unreadable == () and {run.run_id for run in runs.runs} == set(
            RunStore(tmp_path / "artifacts").ids()
        )
        for run in runs.runs:
            for path in ("", "/request", "/manifest", "/files", "/curve", "/report", "/logs"):
                assert (await here.get(f"/runs/{run.run_id}{path}")).status == 200
            if run.status == "completed":
                assert (await here.get(f"/runs/{run.run_id}/eval")).status == 200
        for kind in STATUS_KINDS.values():
            row, calls = JOB_ROWS[kind.name], JOB_CALLS[kind.name]
            found = await here.get(calls.list.operation.path)
            assert found.status == 200 and found.fields["unreadable"] == []
            for job_id in kind.store(tmp_path / "artifacts").ids():
                path = calls.get.operation.path.replace(f"{{{row.id_field}}}", job_id)
                status = await here.get(path)
                assert status.status == 200
                if status.fields["status"] == "completed":
                    files = await here.get(f"/artifacts/{kind.name}/{job_id}")
                    assert files.status == 200
                    if '"report.json"' in files.text or kind.name in ("batteries", "experiments"):
                        report = await here.get(f"/artifacts/{kind.name}/{job_id}/download?path=report.json")
                        assert report.status == 200


@BY_FACE
async def test_earlier_folder__is_shown_in_discord(tmp_path: Path, name: str) -> None:
    unpack_lab(name, tmp_path)
    async with place(tmp_path) as here:
        listed = shown_text((await here.reply(here.ana, "runs", {"mine": False})).payload)
        assert "cannot be read" not in listed
        for run in RunStore(tmp_path / "artifacts").all():
            shown = shown_text((await here.reply(here.ana, "status", {"run": run.run_id})).payload)
            assert run.run_id in shown
        for kind in STATUS_KINDS.values():
            row = JOB_ROWS[kind.name]
            for job_id in kind.store(tmp_path / "artifacts").ids():
                if row.chat_command("show") in CHAT_COMMANDS:
                    read = await here.ask(here.ana, row.chat_command("show"), {row.word: job_id})
                    assert job_id in read.text


@pytest.mark.slow
@EARLIER
def test_earlier_folder__is_scored_resumed_exported_and_deleted(shell: Shell, name: str) -> None:
    unpack_lab(name, shell.root)
    [cancelled] = [run for run in RunStore(shell.artifacts).all() if (run.path / "cancel").exists()]
    before = {run.run_id for run in RunStore(shell.artifacts).all()}
    with running_worker(shell.root):
        shell.type("score", "done", "abc ab")
        shell.type("generate", "done", "abc", "--max-new-tokens", "4")
        shell.type("predict", "done", "abc")
        shell.type("eval", "done")
        shell.type("resume", cancelled.run_id)
        [resumed] = [run for run in RunStore(shell.artifacts).all() if run.run_id not in before]
        assert resumed.completed_manifest().resumed_from_run_id == cancelled.run_id
        shell.type("train", *TINY, "--corpus", "poem", "--init-from", "done", "--name", "warm")
        shell.type("battery", "run", "done", str(shell.write("pairs.tsv", "good\tbad\nabc\tacb\n")))
    for kind in ("hf", "archive", "csv"):
        shell.type("export", "done", "--format", kind, "--out", f"out-{kind}")
    first = shell.read(Verification, "verify", resumed.run_id)
    assert first.ok
    shell.type("delete", "--yes", cancelled.run_id, resumed.run_id)
    for kind, job in jobs_of(shell.root):
        if kind in ("experiments", "studies", "readings"):
            group = [_COMMANDS[kind]] if kind in _COMMANDS else ["job"]
            shell.type(*group, "delete", *([] if kind in _COMMANDS else [kind]), "--yes", job.job_id)
    for run in completed(shell):
        if run.record().effective.label not in ("done", "warm"):
            shell.type("delete", "--yes", run.run_id)
    for run_id in ("warm", "done"):
        shell.type("delete", "--yes", run_id)
    for kind, job in jobs_of(shell.root):
        if kind in ("batteries", "tokenizers"):
            shell.type(_COMMANDS[kind], "delete", "--yes", job.job_id)
    assert [kind for kind, _ in jobs_of(shell.root) if kind in ("models", *_COMMANDS)] == []


@pytest.mark.parametrize("has_searched", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_unfinished_run_with_a_search__ends_with_what_to_do_or_trains_by_the_rules(
    shell: Shell, *, has_searched: bool
) -> None:
    """After its search, a checkpoint has values that only version 0.1.0 reads."""
    run = shell.add_interrupted_run()
    request = run.path / "request.json"
    stored: dict[str, dict[str, object]] = json.loads(request.read_bytes())
    stored["effective"] |= {"search": 3, "searched": ["learning_rate"], "learning_rate": 0.5}
    request.write_text(json.dumps(stored), encoding="utf-8")
    if not has_searched:
        shutil.rmtree(run.checkpoints)
    with running_worker(shell.root):
        wait_until(lambda: run.manifest() is not None)
    error = shell.status(run).error
    if not has_searched:
        assert error is None
        return
    assert error is not None and error.code is ErrorCode.MODEL_INCOMPATIBLE
    assert error.message.endswith("Start a new training; with `search`, it compares settings again.")
    assert shell.refuse("resume", run.run_id) == f"mt: {error.message}\n"


REASON = "has another form: it has schema_version 9, and this program reads up to 4: update the program."


@pytest.fixture(name="mixed")
def mixed_fixture(shell: Shell) -> Shell:
    """A run, one of a later version, one whose request was changed, and a battery of a later version."""
    run = shell.add_finished_run()
    later, changed = (shutil.copytree(run.path, run.path.with_name(name)) for name in ("later-1", "changed-1"))
    for folder in (later, changed):
        request = folder / "request.json"
        request.write_bytes(request.read_bytes().replace(b'"schema_version": 1', b'"schema_version": 9'))
    (later / "SHA256SUMS").unlink()
    battery = shell.artifacts / "batteries" / "battery-1"
    battery.mkdir(parents=True)
    (battery / "request.json").write_text('{"schema_version": 9}', encoding="utf-8")
    return shell


def test_record_of_a_later_version__is_listed_by_the_terminal(mixed: Shell) -> None:
    shell, reason = mixed, REASON
    [run] = completed(shell)
    listed = shell.type("runs")
    assert "2 runs cannot be read; the files stay as they are:" in listed and run.run_id in listed
    assert f"later-1  The file 'request.json' of 'later-1' {reason}" in " ".join(listed.split("\n"))
    assert "changed-1  A record of 'changed-1' is damaged: its hash has changed." in listed
    assert f"The file 'request.json' of 'later-1' {reason}" in shell.refuse("status", "later-1", code=1)
    assert "1 battery cannot be read" in shell.type("battery", "list")
    assert reason in shell.type("doctor", code=1)


async def test_record_of_a_later_version__is_counted_over_http_and_listed_in_discord(mixed: Shell) -> None:
    shell, reason = mixed, REASON
    async with site(with_api(settings_in(shell.root, embedded_workers=0), private_runs=True)) as here:
        page = (await here.get("/runs")).record(RunPage)
        assert (page.total, len(page.runs), [one.job_id for one in page.unreadable]) == (3, 1, ["changed-1", "later-1"])
        assert (await here.get("/runs?status=completed")).record(RunPage).unreadable == ()
        assert (await here.get("/runs", key=ANA)).record(RunPage).total == 0
        assert (await here.get("/runs/later-1")).outcome == (409, "RECORD_UNREADABLE")
        found = (await here.get("/batteries")).record(BatteryList)
        assert (found.total, [one.job_id for one in found.unreadable]) == (1, ["battery-1"])
        assert (await here.get("/batteries/battery-1")).outcome == (409, "RECORD_UNREADABLE")
    async with place(shell.root) as there:
        shown = shown_text((await there.reply(there.ana, "runs", {"mine": False})).payload)
        assert "All runs: 3" in shown and "`later-1` cannot be read: The file" in shown
        assert reason in shown.replace("\\", "")
        read = await there.ask(there.ana, JOB_ROWS["batteries"].chat_command("list"))
        assert "`battery-1` cannot be read" in read.text
        read = await there.ask(there.ana, "status", {"run": "later-1"})
        assert reason in read.text.replace("\\", "")
