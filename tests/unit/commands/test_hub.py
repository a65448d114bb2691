"""`mt push` and `mt pull`."""

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from syrupy.assertion import SnapshotAssertion

import trainer
from tests.support.finished_runs import finished_run
from tests.support.hub_runs import CLIENT_WARNINGS, NAME, TOKEN, add_steps, hub_fixture
from tests.support.hub_server import Hub
from tests.support.run_shell import Shell
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.errors import ErrorCode

__all__ = ["hub_fixture"]
pytestmark = [pytest.mark.process, CLIENT_WARNINGS]


class _File(BaseModel):
    path: str
    bytes: int
    sha256: str


class _Revision(BaseModel):
    name: str
    bytes: int
    files: list[_File]


class _Plan(BaseModel):
    run_id: str
    repository: str
    private: bool
    sent: list[str]
    revisions: list[_Revision]
    missing: list[str]


class _Pushed(BaseModel):
    run_id: str
    repository: str
    url: str
    private: bool
    revisions: int
    sent: list[str]
    kept: list[str]


@pytest.fixture(name="run")
def run_fixture(shell: Shell) -> RunDirectory:
    run = finished_run(shell.folder, "gru")
    add_steps(run, 500)
    return run


def test_push_without_yes__shows_what_it_would_send_and_sends_nothing(
    run: RunDirectory, hub: Hub, shell: Shell, snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = shell.type("push", run.run_id, NAME, "--license", "mit", "--public")
    assert re.sub(r"  [\d,]+$", "  SIZE", shown, flags=re.MULTILINE) == snapshot
    plan = shell.read(_Plan, "push", run.run_id, NAME, "--data-license", "cc0-1.0")
    assert hub.requests == []
    assert (plan.run_id, plan.repository, plan.private, plan.sent) == (run.run_id, NAME, True, [])
    assert plan.missing[0] == "the license of the model: give `--license`" and len(plan.missing) == 3
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    shell.type("push", run.run_id, NAME, "--yes", "--data-license", "cc0-1.0")
    repository = hub.models.repositories[NAME]
    assert [one.name for one in plan.revisions] == ["step-500", "main"]
    for revision in plan.revisions:
        first, files = repository.history(revision.name)
        assert {file.path: file.bytes for file in revision.files} == {
            path: len(content) for path, content in files.items() if path not in first
        }
        assert revision.bytes == sum(file.bytes for file in revision.files)


def test_push_and_pull__report_each_revision(
    run: RunDirectory, hub: Hub, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("LOGGING__LEVEL", "DEBUG")
    words = ("push", run.run_id, NAME, "--yes", "--license", "mit")
    shown = shell.type(*words)
    assert shown == f"{run.run_id} is in {hub.url}/{NAME} (private, 2 revisions).\n"
    assert shell.err == "step-500: sent\nmain: sent\n"
    hub.models.repositories[NAME].commit("main", {"README.md": b"by Ana"})
    again = shell.read(_Pushed, *words)
    assert again == _Pushed(
        run_id=run.run_id,
        repository=NAME,
        url=f"{hub.url}/{NAME}",
        private=True,
        revisions=2,
        sent=[],
        kept=["README.md"],
    )
    assert shell.err == "step-500: is there already\nmain: is there already\n"
    assert "Edited on the hub and left as they are: README.md. `--new-card` replaces them.\n" in shell.type(*words)
    shell.type(*words, "--new-card")
    assert repository_card(hub).startswith(b"---\n")
    before = trainer.load(run.path).surprisal("the sea")
    monkeypatch.setenv("APP__ARTIFACTS_ROOT", str(tmp_path / "elsewhere"))
    shown = shell.type("pull", NAME)
    assert shown == f'{run.run_id} is here. Score a text with: mt score {run.run_id} "…"\n'
    assert shell.type("pull", f"{NAME}@main") == f"{run.run_id} is here already.\n"
    assert trainer.load(run.run_id).surprisal("the sea") == before
    pulled: dict[str, object] = json.loads(shell.type("pull", f"{NAME}@step-500", "--json"))
    assert pulled == {"run_id": f"{run.run_id}-step-500", "new": True}
    assert trainer.load(f"{run.run_id}-step-500").surprisal("the sea") != before


def repository_card(hub: Hub) -> bytes:
    return hub.models.repositories[NAME].history("main")[-1]["README.md"]


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", ".env"])
def test_token__stands_in_no_output_and_no_file(
    name: str, run: RunDirectory, hub: Hub, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGGING__LEVEL", "DEBUG")
    monkeypatch.chdir(shell.folder)
    for token, code in ((TOKEN, 0), ("hf_otherqxwz", 2)):
        if name == ".env":
            shell.write(".env", f"HF_TOKEN={token}\n")
        else:
            monkeypatch.setenv(name, token)
        for words in (("push", run.run_id, NAME, "--yes"), ("pull", NAME)):
            shell.type(*words, code=code)
            assert "qxwz" not in shell.out + shell.err
    files = [path for path in shell.folder.rglob("*") if path.is_file() and path.name != ".env"]
    assert not [path for path in files if b"qxwz" in path.read_bytes()]
    assert not [one for one in hub.requests if "qxwz" in one]
    for commit in hub.models.repositories[NAME].commits.values():
        assert not [path for path, content in commit.files.items() if b"qxwz" in content]


def test_push_and_pull__refuse_what_they_cannot_do(run: RunDirectory, hub: Hub, shell: Shell) -> None:
    waiting = shell.add_interrupted_run()
    for words, code, part in [
        (f"push none {NAME}", ErrorCode.RUN_NOT_FOUND, "none"),
        (f"push {waiting.run_id} {NAME}", ErrorCode.RUN_NOT_READY, ""),
        (f"push {run.run_id} sea", ErrorCode.INVALID_INPUT, "'sea' is not the name of a repository: give OWNER/NAME"),
        (f"push {run.run_id} {NAME} --license a:", ErrorCode.INVALID_INPUT, "`--license` must be an identifier"),
        (f"push {run.run_id} {NAME} --data-license a:", ErrorCode.INVALID_INPUT, "`--data-license` must be an"),
        (f"push {run.run_id} {NAME} --yes", ErrorCode.UNAUTHORIZED, "set HF_TOKEN"),
        ("pull sea", ErrorCode.INVALID_INPUT, "'sea' is not the name of a repository"),
        (f"pull {NAME}", ErrorCode.DATA_NOT_FOUND, f"There is no repository '{NAME}', or it is private"),
    ]:
        error = shell.error(*words.split())
        assert (error.code, part in error.message) == (code, True), (words, error.message)
    assert not hub.models.repositories
