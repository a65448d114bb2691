"""Trainings in several processes: the requests that are refused, and the end that torchrun reports."""

import signal
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from tests.support.runs import record
from tests.support.tiny_models import POEM, make_run
from trainer.artifacts.attempts import DISK_FULL_EXIT_CODE, LOCKED_EXIT_CODE, cause_of
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.presets import request_hash
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.worker.children.rank import report
from trainer.worker.children.ranks import end_of, launch_ranks


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


def test_devices__do_not_change_the_request_hash(tmp_path: Path) -> None:
    effective = make_run(tmp_path).effective
    assert request_hash(changed(effective, devices=2)) == request_hash(effective)


def test_ranks__error_of_another_process_than_the_first_is_that_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, error_file = _run(tmp_path), tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(error_file))
    report(AppError(ErrorCode.OUT_OF_MEMORY, "There is not enough memory."))
    code = end_of(run, {0: _failure(0, 1), 1: _failure(1, 1, error_file)})
    manifest = run.manifest()
    assert code == 0
    assert manifest is not None and manifest.error is not None
    assert (manifest.error.code, manifest.error.message) == (ErrorCode.OUT_OF_MEMORY, "There is not enough memory.")


@pytest.mark.parametrize(
    ("codes", "cause"),
    [
        ((-signal.SIGTERM, -signal.SIGKILL), "killed"),
        ((1, -signal.SIGKILL), "killed"),
        ((DISK_FULL_EXIT_CODE, -signal.SIGTERM), "full"),
        ((LOCKED_EXIT_CODE, 1), None),
        ((1, -signal.SIGTERM), "crashed"),
        ((1, -signal.SIGSEGV), "crashed"),
    ],
)
def test_ranks__exit_code_is_that_of_the_process_that_failed(
    tmp_path: Path, codes: tuple[int, ...], cause: str | None
) -> None:
    code = end_of(_run(tmp_path), {rank: _failure(rank, code) for rank, code in enumerate(codes)})
    assert cause_of(code, stalled=False, starved=False) == cause


def test_ranks__run_of_another_child_is_left_alone(tmp_path: Path) -> None:
    run = _run(tmp_path)
    with run.wait_for_lock(1):
        assert launch_ranks(Settings(), run, 2) == LOCKED_EXIT_CODE


def test_ranks__without_the_gpus_the_run_fails_with_the_reason(tmp_path: Path) -> None:
    accepted = record()
    run = RunStore(tmp_path).create(changed(accepted, effective=changed(accepted.effective, device="cuda")))
    assert launch_ranks(Settings(), run, 64) == 0
    manifest = run.manifest()
    assert manifest is not None and manifest.error is not None
    assert manifest.error.code is ErrorCode.CUDA_NOT_AVAILABLE


def _run(folder: Path) -> RunDirectory:
    return RunStore(folder).create(record())


def _failure(rank: int, exit_code: int, error_file: Path = Path("missing")) -> ProcessFailure:
    return ProcessFailure(rank, pid=1, exitcode=exit_code, error_file=str(error_file))
