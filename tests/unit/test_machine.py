"""What is known of the machine before anything heavy is imported."""

import os
from pathlib import Path

import pytest

from trainer.machine import may_have_cuda, physical_cores


def test_threads__are_the_physical_cores_or_all_where_the_system_does_not_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", two_unknown_cpus)
        assert physical_cores() == 2
    assert 1 <= physical_cores() <= len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert physical_cores() == os.cpu_count()


def two_unknown_cpus(pid: int) -> set[int]:
    return {pid + 99_998, pid + 99_999}


def test_cuda__is_ruled_out_only_where_torch_or_the_driver_cannot_have_it(tmp_path: Path) -> None:
    driver = tmp_path / "nvidiactl"
    assert not may_have_cuda("2.13.0", (driver,))
    driver.touch()

    assert may_have_cuda("2.13.0", (driver,))
    assert may_have_cuda("2.13.0+cu130", (driver,))
    assert not may_have_cuda("2.13.0+cpu", (driver,))
