"""Folders that earlier versions have made: all that is in them is listed, opened and used by this version."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local_discord.driver import shown_text
from tests.support import settings_in
from tests.support.bot import place
from tests.support.earlier_labs import LABS, unpack_lab
from tests.support.http import site, with_api
from tests.support.run_shell import Shell
from trainer.artifacts.job_folder import AnyJob, unreadable
from trainer.artifacts.kinds import JOB_KINDS, STATUS_KINDS
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.contracts.base import KindName
from trainer.contracts.http_answers import RunPage
from trainer.contracts.operations import CHAT_COMMANDS, JOB_ROWS
from trainer.contracts.verification import Verification
from trainer.lab.calls import JOB_CALLS

EARLIER = pytest.mark.parametrize("name", LABS)
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
    runs = ((run, run.manifest()) for run in RunStore(shell.artifacts).all())
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


@EARLIER
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


@EARLIER
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
