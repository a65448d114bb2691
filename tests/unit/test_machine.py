"""What is known of the machine before anything heavy is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.machine import is_dead, may_have_cuda, physical_cores, process_name


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


def test_process__of_this_machine_is_dead_when_it_is_gone_and_of_another_one_never() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = process_name().rpartition(":")[0]

    assert not is_dead(process_name())
    assert is_dead(f"{here}:{gone.pid}") and is_dead(f"{here}:{10**30}")
    assert not is_dead(f"{here}:1")  # there, whosever it is
    assert not any(map(is_dead, (f"another-machine:{gone.pid}", f"{here}:", here, "", f"{here}:-1")))
