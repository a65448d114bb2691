"""Runs on the hub: pushed and pulled by its real client, to and from a hub of this machine."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from pydantic import SecretStr, TypeAdapter
from torch import Tensor

from tests.support import ROOT
from tests.support.families import FAMILIES
from tests.support.finished_runs import finished_run
from tests.support.hub_models import Answer, Models
from tests.support.hub_runs import CLIENT_WARNINGS, NAME, TOKEN, add_steps, hub_environment, hub_fixture
from tests.support.hub_server import Hub, Watch
from tests.support.markers import slow_except
from tests.support.refusals import refused
from tests.support.tiny_models import tensor_of
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import FileRecord, changed
from trainer.contracts.errors import ErrorCode
from trainer.export.card import ExportRecord, Publication
from trainer.export.hub import Pulled, Pushed, check_repository, pull, push
from trainer.inference.model_files import load_run
from trainer.training.checkpoint import CheckpointStore

__all__ = ["hub_fixture"]
pytestmark = [pytest.mark.process, CLIENT_WARNINGS]
SECRET = SecretStr(TOKEN)
PUBLICATION = Publication(NAME, "mit", "cc0-1.0", (0, 500))
METHODS_OF = {"gpt2": "bpe with bytes", "llama": "sentencepiece", "lstm": "word", "rnn": "wordpiece", "bert": "bpe"}
"""Every kind of tokenizer somewhere; the other families have characters."""
Histories = Mapping[str, list[Mapping[str, bytes]]]
"""The files of each branch after each of its commits."""


def sent(run: RunDirectory, publication: Publication = PUBLICATION, *, is_public: bool = False) -> Pushed:
    return push(run, publication, SECRET, is_public=is_public)


def pulled(folder: Path, revision: str = "main") -> Pulled:
    return pull(NAME, revision, folder, SECRET)


def histories(hub: Hub) -> Histories:
    repository = hub.models.repositories.get(NAME)
    return {} if repository is None else {branch: repository.history(branch) for branch in repository.branches}


def last(hub: Hub, branch: str = "main") -> Mapping[str, bytes]:
    """The files of a branch now."""
    return histories(hub)[branch][-1]


def edit(hub: Hub, **files: bytes) -> None:
    """Change files of `main` as people do on the hub."""
    hub.models.repositories[NAME].commit("main", {name.replace("__", "."): data for name, data in files.items()})


@pytest.fixture(name="run")
def run_fixture(tmp_path: Path) -> RunDirectory:
    run = finished_run(tmp_path / "here", "gru")
    add_steps(run, 0, 500)
    return run


@pytest.mark.parametrize("family", slow_except(FAMILIES, "gru"))
def test_pulled_run__scores_the_same_to_the_last_bit(family: str, hub: Hub, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "here", family, METHODS_OF.get(family, "char"))
    add_steps(run, 500)
    sent(run, PUBLICATION._replace(steps=(500,)))
    before, tokenizer = load_run(run)
    ids = tokenizer.encode("the sea")
    for revision, weights in (("main", None), ("step-500", CheckpointStore(run.checkpoints).scheduled_weights(500))):
        there = pulled(tmp_path / "there", revision).run
        after, same_tokenizer = load_run(there)
        if weights is not None:
            before.load_state_dict(weights)
        with torch.inference_mode():
            assert torch.equal(before.forward(tensor_of([ids])), after.forward(tensor_of([ids])))
        assert same_tokenizer.encode("the sea") == ids
    manifest, before_push = pulled(tmp_path / "there").run.completed_manifest(), run.completed_manifest()
    files = tuple(file for file in before_push.files if not file.path.startswith("checkpoints/"))
    assert manifest == changed(before_push, files=files)
    assert not [*(tmp_path / "there").glob(".*")]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_revision__is_loaded_by_the_library_with_our_logits(family: str, hub: Hub, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "here", family)
    add_steps(run, 0, 500)
    sent(run)
    program = [sys.executable, "-P", str(ROOT / "tests" / "fixtures" / "load_revisions.py.txt")]
    done = subprocess.run(
        [*program, str(tmp_path / "found.json"), NAME, "main", "step-0", "step-500"],
        env={**os.environ, **hub_environment(hub, tmp_path), "HF_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = TypeAdapter(dict[str, list[list[float]]]).validate_json((tmp_path / "found.json").read_bytes())
    model, tokenizer = load_run(run)
    special = tokenizer.special_ids
    read = [special.start, *tokenizer.encode("the sea"), *([special.eos] if model.objective == "masked_lm" else [])]
    own: dict[str, Tensor] = model.state_dict()
    weights = {f"step-{step}": CheckpointStore(run.checkpoints).scheduled_weights(step) for step in (0, 500)}
    for revision, state in {"main": own, **weights}.items():
        model.load_state_dict(state)
        with torch.inference_mode():
            expected = model.forward(tensor_of([read]))[0]
        assert torch.allclose(torch.tensor(found[revision]), expected, rtol=0, atol=1e-5), revision


def test_push__makes_a_private_repository_with_one_commit_a_revision(run: RunDirectory, hub: Hub) -> None:
    reports: list[tuple[str, bool]] = []
    pushed = push(run, PUBLICATION, SECRET, report=lambda name, is_sent: reports.append((name, is_sent)))
    assert pushed == Pushed(f"{hub.url}/{NAME}", True, ("step-0", "step-500", "main"), ())
    assert reports == [("step-0", True), ("step-500", True), ("main", True)]
    assert {branch: len(history) for branch, history in histories(hub).items()} == dict.fromkeys(pushed.sent, 2)
    for branch in pushed.sent:
        first, files = histories(hub)[branch]
        assert first.keys() == {".gitattributes"}
        assert {"config.json", "model.safetensors", "run/manifest.json", "modeling_recurrent.py"} <= files.keys()
    assert sent(run, Publication("ana/open"), is_public=True).is_private is False
    assert not hub.models.repositories["ana/open"].is_private


def test_repeated_push__sends_nothing(run: RunDirectory, hub: Hub) -> None:
    sent(run)
    before, uploads = histories(hub), [*hub.models.uploads]
    assert sent(run) == Pushed(f"{hub.url}/{NAME}", True, (), ())
    assert (histories(hub), hub.models.uploads) == (before, uploads)
    assert len(uploads) == 3


@pytest.mark.slow
def test_card_that_was_edited_on_the_hub__stays(run: RunDirectory, hub: Hub) -> None:
    sent(run)
    edit(hub, README__md=b"by Ana", CITATION__cff=b"Ana")
    other = PUBLICATION._replace(licence="cc0-1.0")
    assert sent(run, other) == Pushed(f"{hub.url}/{NAME}", True, (), ("CITATION.cff", "README.md"))
    assert last(hub)["README.md"] == b"by Ana"
    replaced = push(run, other, SECRET, with_new_card=True)
    assert (replaced.sent, replaced.kept) == (("step-0", "step-500", "main"), ())
    assert all(b"license: cc0-1.0" in last(hub, branch)["README.md"] for branch in replaced.sent)


def broken_off(number: int) -> Watch:
    """A hub that answers a request with an error, after it has done its work."""
    return lambda at, done: Answer(423) if (at, done) == (number, True) else None


@pytest.mark.slow
def test_push_repeated_after_an_interruption__has_the_result_of_an_uninterrupted_one(hub: Hub, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "here", "gru")
    add_steps(run, 500)
    sent(run)
    whole, requests = histories(hub), [*hub.requests]
    for number in (number for number, request in enumerate(requests, 1) if "/commit/" in request):
        hub.models = Models()
        hub.requests.clear()
        hub.watch = broken_off(number)
        with refused(ErrorCode.SERVICE_UNAVAILABLE, "give the same command again later."):
            sent(run)
        for branch, history in histories(hub).items():
            assert history[-1].keys() in ({".gitattributes"}, whole[branch][-1].keys())
        hub.watch = lambda at, done: None
        sent(run)
        assert histories(hub) == whole
        assert len(hub.models.uploads) == len(set(hub.models.uploads)) == 2


def test_file_of_the_run_that_was_changed_on_the_hub__is_sent_again(run: RunDirectory, hub: Hub) -> None:
    sent(run)
    before = last(hub)
    edit(hub, config__json=b"{}")
    assert sent(run).sent == ("main",)
    assert last(hub) == before


def test_repository_of_another_run__is_left_alone(run: RunDirectory, hub: Hub, tmp_path: Path) -> None:
    sent(run)
    before = histories(hub)
    other = finished_run(tmp_path / "here", "rnn")
    with refused(ErrorCode.CONFLICT, f"'{NAME}' has the run '{run.run_id}': give the name of a new repository."):
        sent(other, Publication(NAME))
    edit(hub, export__json=b"{}")
    with refused(ErrorCode.CONFLICT, f"'{NAME}' has files of another model: give the name of a new repository."):
        sent(run)
    assert all(histories(hub)[branch] == before[branch] for branch in ("step-0", "step-500"))


def test_repository_of_another_model__is_left_alone(run: RunDirectory, hub: Hub) -> None:
    hub.models.post(hub.url, ["api", "repos", "create"], b'{"name": "sea"}')
    edit(hub, config__json=b"{}", README__md=b"of Ana")
    with refused(ErrorCode.CONFLICT, f"'{NAME}' has files of another model"):
        sent(run)
    with refused(ErrorCode.INVALID_INPUT, f"'{NAME}' has no run at 'main': `mt pull` reads what `mt push` has sent."):
        pulled(run.path.parent)
    assert histories(hub).keys() == {"main"}


def test_changed_meanwhile__is_a_conflict(run: RunDirectory, hub: Hub) -> None:
    def change(at: int, done: bool) -> None:
        if hub.requests[-1].startswith("POST") and "preupload/main" in hub.requests[-1] and done:
            edit(hub, LICENSE__txt=b"mit")

    hub.watch = change
    with refused(ErrorCode.CONFLICT, f"'{NAME}' was changed meanwhile: give the same command again."):
        sent(run)
    hub.watch = lambda at, done: None
    assert sent(run).sent == ("main",)
    assert last(hub)["LICENSE.txt"] == b"mit"


def test_pull__does_nothing_if_the_run_is_here(run: RunDirectory, hub: Hub, tmp_path: Path) -> None:
    sent(run)
    same = pulled(tmp_path / "here" / "artifacts")
    assert (same.run.path, same.is_new) == (run.path, False)
    first = pulled(tmp_path / "there")
    assert (first.is_new, pulled(tmp_path / "there").is_new) == (True, False)
    run = first.run
    run.write_manifest(changed(run.completed_manifest(), request_hash="0" * 64))
    with refused(ErrorCode.CONFLICT, f"There is another run '{run.run_id}' here: delete it first"):
        pulled(tmp_path / "there")


@pytest.mark.parametrize(
    "name",
    slow_except(
        ["model.safetensors", "tokenizer/manifest.json", "run/events.jsonl", "run/manifest.json", "export.json"],
        *("model.safetensors", "run/manifest.json"),
    ),
)
def test_changed_repository__is_not_pulled(name: str, run: RunDirectory, hub: Hub, tmp_path: Path) -> None:
    sent(run)
    hub.models.repositories[NAME].commit("main", {name: last(hub)[name][:-1]})
    with refused(ErrorCode.INVALID_INPUT, f"'{NAME}' was changed after its push"):
        pulled(tmp_path / "there")
    assert not [*(tmp_path / "there").rglob("*.json")]


def as_pushed(files: Mapping[str, bytes]) -> bytes:
    """The record of files, as a forger would write it."""
    record = ExportRecord.model_validate_json(files["export.json"])
    named = {file.path for file in record.files} | {path for path in files if path.startswith("run/")}
    described = (
        FileRecord(path=path, bytes=len(files[path]), sha256=sha256(files[path]).hexdigest()) for path in sorted(named)
    )
    return changed(record, files=tuple(described)).model_dump_json().encode()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run/more.py", b"pass", "Its files do not belong to one run."),
        ("run/events.jsonl", b"{}\n", "failed its check of"),
        ("model.safetensors", b"no weights", ""),
        ("tokenizer/tokenizer.json", b"{}", ""),
    ],
)
def test_forged_repository__is_not_pulled(
    name: str, content: bytes, said: str, run: RunDirectory, hub: Hub, tmp_path: Path
) -> None:
    sent(run)
    files = {**last(hub), name: content}
    hub.models.repositories[NAME].commit("main", {name: content, "export.json": as_pushed(files)})
    with refused(ErrorCode.INVALID_INPUT, said):
        pulled(tmp_path / "there")
    assert not [*(tmp_path / "there").rglob("*.json")]


def test_missing_revision_and_repository__are_named(run: RunDirectory, hub: Hub, tmp_path: Path) -> None:
    sent(run)
    with refused(ErrorCode.DATA_NOT_FOUND, f"'{NAME}' has no such revision: leave out `@`"):
        pulled(tmp_path / "there", "step-7")
    with refused(ErrorCode.DATA_NOT_FOUND, "There is no repository 'ana/none', or it is private"):
        pull("ana/none", "main", tmp_path / "there", SECRET)
    with refused(ErrorCode.DATA_NOT_FOUND, f"There is no repository '{NAME}', or it is private"):
        pull(NAME, "main", tmp_path / "there", None)
    push(run, Publication("ana/open"), SECRET, is_public=True)
    assert pull("ana/open", "main", tmp_path / "there", None).is_new


@pytest.mark.parametrize("token", [None, SecretStr("hf_other")])
def test_push_without_a_valid_token__says_so(token: SecretStr | None, run: RunDirectory, hub: Hub) -> None:
    with refused(ErrorCode.UNAUTHORIZED, "The hub needs a valid token: set HF_TOKEN to one with the right to write."):
        push(run, PUBLICATION, token)
    assert not hub.models.repositories


def test_push_into_the_name_of_others__says_so(run: RunDirectory, hub: Hub) -> None:
    with refused(ErrorCode.FORBIDDEN, "The token of HF_TOKEN has no right to write to 'bob/sea'."):
        sent(run, Publication("bob/sea"))


def test_license_that_the_hub_does_not_know__says_so(run: RunDirectory, hub: Hub) -> None:
    with refused(ErrorCode.INVALID_INPUT, "The hub does not accept the model card: give a `--license` that it knows"):
        sent(run, PUBLICATION._replace(licence="free"))
    assert last(hub).keys() == {".gitattributes"}


@pytest.mark.parametrize(
    ("request_line", "answer", "said"),
    [
        (
            "POST /api/repos/create",
            Answer(200, b"<html>"),
            "The hub's answer cannot be read: give the same command again",
        ),
        ("GET", Answer(429), "The hub has had too many requests: give the same command again later."),
        ("PUT /lfs/", Answer(423), "The hub failed (HTTP 423): give the same command again later."),
        ("GET /api/models/ana/sea/refs", Answer(423), "The hub failed (HTTP 423): give the same command again later."),
    ],
)
def test_failing_hub__is_one_sentence(
    request_line: str, answer: Answer, said: str, run: RunDirectory, hub: Hub
) -> None:
    hub.watch = lambda at, done: answer if hub.requests[-1].startswith(request_line) else None
    with refused(ErrorCode.RATE_LIMIT_EXCEEDED if answer.status == 429 else ErrorCode.SERVICE_UNAVAILABLE, said):
        sent(run)


def test_file_that_arrives_incomplete__is_one_sentence(run: RunDirectory, hub: Hub, tmp_path: Path) -> None:
    sent(run)
    hub.watch = lambda at, done: Answer(200, b"cut") if re.match("GET .*model.safetensors", hub.requests[-1]) else None
    with refused(ErrorCode.SERVICE_UNAVAILABLE, "A file was not transferred completely: give the same command again."):
        pulled(tmp_path / "there")
    hub.watch = lambda at, done: None
    assert pulled(tmp_path / "there").is_new


def test_folder_that_cannot_be_used__is_no_fault_of_the_hub(run: RunDirectory, hub: Hub, tmp_path: Path) -> None:
    sent(run)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        pulled(tmp_path / "file" / "artifacts")


def test_hub_that_cannot_be_reached__says_so(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    attempts: list[Callable[[], object]] = [lambda: sent(run), lambda: pulled(tmp_path / "there")]
    for attempt in attempts:
        with refused(ErrorCode.SERVICE_UNAVAILABLE, "The hub cannot be reached: give the same command again"):
            attempt()


_PARTS = [
    "",
    "a",
    "a-b",
    "a_",
    "_a",
    "a.b",
    "-a",
    "a.",
    "a--b",
    "a..b",
    "a b",
    "a@b",
    "A9",
    "a.git",
    "b" * 96,
]


def test_name_of_a_repository__follows_the_rules_of_the_client() -> None:
    for name in [*_PARTS, *(f"{owner}/{name}" for owner in _PARTS for name in _PARTS), "a/b/c"]:
        try:
            validate_repo_id(name)
            is_valid = "/" in name
        except HFValidationError:
            is_valid = False
        with nullcontext() if is_valid else refused(ErrorCode.INVALID_INPUT, " is not the name of a repository: give"):
            check_repository(name)
    for name in ("ana/é", f"{'b' * 97}/a", f"a/{'b' * 97}"):  # the client takes two of them before version 2
        with refused(ErrorCode.INVALID_INPUT, " is not the name of a repository: give"):
            check_repository(name)
