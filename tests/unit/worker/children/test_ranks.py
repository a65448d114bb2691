"""Trainings in several processes: the requests that are refused, and the end that torchrun reports."""

import os
import signal
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from tests.support.families import effective_of
from tests.support.runs import record
from tests.support.tiny_models import POEM, make_run
from trainer.artifacts.attempts import DISK_FULL_EXIT_CODE, LOCKED_EXIT_CODE, cause_of
from trainer.artifacts.runs import RunDirectory, RunStore, finish_run, manifest_of
from trainer.config.presets import request_hash
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.worker.children import ranks
from trainer.worker.children.rank import end_with, report
from trainer.worker.children.ranks import end_after, end_of, launch_ranks


@pytest.fixture(name="run")
def run_fixture(tmp_path: Path) -> RunDirectory:
    return RunStore(tmp_path).create(record())


def failure(rank: int, exit_code: int, error_file: Path = Path("missing")) -> ProcessFailure:
    return ProcessFailure(rank, pid=1, exitcode=exit_code, error_file=str(error_file))


def error_of(run: RunDirectory) -> tuple[ErrorCode, str]:
    manifest = run.manifest()
    assert manifest is not None and manifest.error is not None
    return manifest.error.code, manifest.error.message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 2, "devices": 3}, "`batch_size` must be 3 or more"),
        ({"devices": 2, "strategy": "fsdp"}, "`strategy` 'fsdp' is for transformers"),
        ({"devices": 2, "device": "cuda:1"}, "names one GPU"),
    ],
)
def test_devices__requests_that_cannot_be_trained_are_refused(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(AppError, match=message):
        make_run(tmp_path, POEM, **fields)
    effective = effective_of("lstm")
    assert request_hash(changed(effective, devices=2)) == request_hash(effective)


def test_error_of_a_later_process__is_the_error_of_the_run(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    report(AppError(ErrorCode.OUT_OF_MEMORY, "There is not enough memory."))
    assert end_of(run, {0: failure(0, 1), 1: failure(1, 1, tmp_path / "error.json")}) == 0
    assert error_of(run) == (ErrorCode.OUT_OF_MEMORY, "There is not enough memory.")


@pytest.mark.parametrize(
    ("codes", "cause"),
    [
        ((-signal.SIGTERM, -signal.SIGKILL), "killed"),
        ((1, -signal.SIGKILL), "killed"),
        ((DISK_FULL_EXIT_CODE, -signal.SIGTERM), "disk_full"),
        ((LOCKED_EXIT_CODE, 1), None),
        ((1, -signal.SIGTERM), "crashed"),
        ((1, -signal.SIGSEGV), "crashed"),
    ],
)
def test_exit_code__comes_from_the_failed_process(run: RunDirectory, codes: tuple[int, ...], cause: str | None) -> None:
    code = end_of(run, {rank: failure(rank, code) for rank, code in enumerate(codes)})
    assert cause_of(code, stalled=False, starved=False) == cause


def test_run_of_another_child__is_left_alone(run: RunDirectory) -> None:
    with run.wait_for_lock(1):
        assert launch_ranks(Settings(), run, 2) == LOCKED_EXIT_CODE


def test_run_without_the_gpus__fails_with_the_reason(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create(record(effective=changed(record().effective, device="cuda")))
    assert launch_ranks(Settings(), run, 64) == 0
    assert error_of(run)[0] is ErrorCode.CUDA_NOT_AVAILABLE


def test_process_without_its_parent__kills_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []

    def kill(group: int, number: int) -> None:
        killed.append((group, number))

    monkeypatch.setattr(os, "killpg", kill)
    end_with(os.getpid())  # no process is its own parent
    assert killed == [(0, signal.SIGKILL)]  # its own group


def test_processes_that_outlast_the_end_of_their_run__are_terminated(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "_TEARDOWN_SECONDS", 0.0)
    with run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "cancelled"))
    caught: list[int] = []

    def catch(number: int, _: object) -> None:
        caught.append(number)

    handler = signal.signal(signal.SIGTERM, catch)
    try:
        end_after(run)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert caught == [signal.SIGTERM]
