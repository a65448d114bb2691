"""Corrupt and malicious files of a run: nothing is executed, nothing hangs, and all are refused."""

import os
import pickle
import random
import shutil
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
import torch

from bot.people.watchers import read_ledger
from tests.support import settings_in
from tests.support.checkpoints import Evil
from tests.support.markers import slow_except
from tests.support.refusals import refused
from tests.support.run_shell import FINISHED_RUN, Shell
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.contracts.base import FileRecord, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.export.verification import verify_run
from trainer.http.webhooks.ledger import read_webhooks
from trainer.inference.model_files import load_model, load_run
from trainer.system.files import BrokenFile, changed_files, read_regular, sha256_of
from trainer.training.checkpoint import CheckpointStore


@pytest.fixture(name="run")
def run_fixture(tmp_path: Path) -> RunDirectory:
    """A finished run that somebody watches."""
    shutil.copytree(FINISHED_RUN, tmp_path / "there")
    [run] = RunStore(tmp_path / "there" / "artifacts").all()
    run.write_seal()
    for ledger in (run.message_ledger, run.webhook_ledger, run.annotations_file):
        ledger.write_text('{"schema_version":1}', encoding="utf-8")
    return run


def refusals(run: RunDirectory) -> list[Exception]:
    """Read a run in every way that the product does; what is refused must be so by a typed error."""
    refused: list[Exception] = []
    root = run.path.parents[2]
    store = RunStore(root / "artifacts")
    ways: list[Callable[[], object]] = [
        *(partial(store.get, run.run_id), store.all, run.record, run.manifest),
        *(lambda: run.follow().refresh(), lambda: run.open_log().__exit__(), lambda: (run.lock() or BytesIO()).close()),
        *(partial(way, run) for way in (load_run, recover_whole, read_ledger, read_webhooks, verify_whole)),
        TokenizerStore(root / "artifacts").all,
    ]
    for way in ways:
        try:
            way()
        except (AppError, ValueError, FileNotFoundError) as error:
            refused.append(error)
    return refused


def recover_whole(run: RunDirectory) -> None:
    expected = CheckpointStore(FINISHED_RUN / run.checkpoints.relative_to(run.path.parents[2])).weights(34)
    if CheckpointStore(run.checkpoints).recover(expected).quarantined:
        raise BrokenFile("A checkpoint was set aside.")


def verify_whole(run: RunDirectory) -> None:
    if not verify_run(run, settings_in(run.path.parents[2])).ok:
        raise BrokenFile("A check failed.")


def put_evil(path: Path, kind: str, folder: Path) -> None:
    """Put something else in place of a file; a link leads to the very same bytes, outside."""
    was, marker = path.read_bytes(), folder / "ran"
    path.unlink()
    match kind:
        case "pickle":
            path.write_bytes(pickle.dumps(Evil(marker)))
        case "archive":
            torch.save({"evil": Evil(marker)}, path)
        case "link":
            (folder / "outside").write_bytes(was)
            path.symlink_to(folder / "outside")
        case "pipe":
            os.mkfifo(path)
        case _:
            path.mkdir()


@pytest.mark.parametrize("kind", slow_except(["pickle", "archive", "link", "pipe", "folder"], "pickle", "link"))
def test_evil_in_place_of_any_file__runs_nothing_and_is_refused(run: RunDirectory, tmp_path: Path, kind: str) -> None:
    assert refusals(run) == [], "the run as it was left"
    files = sorted(path for path in run.path.rglob("*") if path.is_file())
    unread = {"logs.jsonl", "annotations.json", *(["lock"] if kind in ("pickle", "archive") else [])}
    assert len(files) >= 20
    for path in files:
        was = path.read_bytes()
        put_evil(path, kind, tmp_path)
        assert refusals(run) or path.name in unread, path
        assert not (tmp_path / "ran").exists(), path
        assert kind != "link" or (tmp_path / "outside").read_bytes() == was
        for broken in run.checkpoints.glob("broken-*"):
            broken.rename(run.checkpoints / "-".join(broken.name.split("-")[1:3]))
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(was)


@pytest.mark.parametrize("name", ["tokenizer", "eval", "checkpoints/step-34"])
def test_folder_that_is_a_link__is_no_part_of_the_run(run: RunDirectory, tmp_path: Path, name: str) -> None:
    (run.path / name).rename(tmp_path / "outside")
    (run.path / name).symlink_to(tmp_path / "outside")
    assert refusals(run)


def test_file_elsewhere__counts_as_changed_and_a_device_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    for path in ("../secret", str(tmp_path / "secret")):
        record = FileRecord(path=path, bytes=1, sha256=sha256_of(tmp_path / "secret"))
        assert changed_files(tmp_path / "run", [record]) == [path]
    with pytest.raises(BrokenFile, match="no regular file"):
        read_regular(Path("/dev/zero"))


def test_command__names_a_broken_record_in_one_sentence(shell: Shell) -> None:
    run = shell.add_finished_run()
    (run.path / "request.json").write_bytes(b"\x80\x04garbage")
    assert "cannot be read" in shell.refuse("config", run.run_id, code=1)


def test_flipped_bit_or_cut__in_a_model_is_refused(run: RunDirectory) -> None:
    draw = random.Random(201)
    files = (run.path / "model.safetensors", run.path / "config.json", *run.tokenizer.iterdir())
    whole = {path: path.read_bytes() for path in files}
    places = [(path, byte) for path, data in whole.items() for byte in range(len(data))]
    for number in range(25):
        path, byte = draw.choice(places)
        data = bytearray(whole[path])
        data[byte] ^= 1 << draw.randrange(8)
        path.write_bytes(data if number < 20 else data[:byte])
        with refused(ErrorCode.MODEL_LOAD_FAILED, "changed or deleted"):
            load_run(run)
        path.write_bytes(whole[path])
    load_run(run)


def test_model_that_its_manifest_does_not_vouch_for__is_not_read(run: RunDirectory) -> None:
    manifest = run.completed_manifest()
    run.write_manifest(changed(manifest, files=tuple(f for f in manifest.files if f.path != "config.json")))
    with refused(ErrorCode.MODEL_LOAD_FAILED, "changed or deleted after its training: config.json"):
        load_run(run)
    run.write_manifest(manifest)
    with (run.path / "model.safetensors").open("r+b") as file:
        file.truncate(1 << 40)  # larger than it can be
    for load in (partial(load_run, run), partial(load_model, run.path)):
        with refused(ErrorCode.MODEL_LOAD_FAILED):
            load()
