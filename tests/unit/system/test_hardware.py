"""Facts about the machine that need no heavy import."""

import os
import subprocess
import sys
from collections.abc import Mapping
from mmap import mmap
from pathlib import Path

import pytest

from trainer.system import hardware


def test_physical_cores__are_all_cores_where_the_system_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def two_unknown_cpus(pid: int) -> set[int]:
        return {pid + 99_998, pid + 99_999}

    assert 1 <= hardware.physical_cores() <= len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", two_unknown_cpus)
    assert hardware.physical_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert hardware.physical_cores() == os.cpu_count()


OWN_THREADS = min(hardware.physical_cores(), hardware.granted_cpus() or 1024)


@pytest.mark.parametrize(
    ("omp", "mkl", "threads"),
    [
        *(("3", None, 3), (None, "5", 5), ("3", "2", 2), ("4,2", None, 4), ("9999", None, 1024)),
        *(("0", "many", OWN_THREADS), ("", None, OWN_THREADS), (None, None, OWN_THREADS)),
    ],
)
def test_default_threads__are_of_the_environment_or_the_cores(omp: str | None, mkl: str | None, threads: int) -> None:
    given = {"OMP_NUM_THREADS": omp, "MKL_NUM_THREADS": mkl}
    assert hardware.default_threads({name: value for name, value in given.items() if value is not None}) == threads


def v1(quota: int) -> dict[str, str]:
    return {"a/cpu.cfs_quota_us": f"{quota}\n", "a/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("own", "files", "granted"),
    [
        ("0::/job/step\n", {"job/cpu.max": "250000 100000\n", "job/step/cpu.max": "max 100000\n"}, 3),
        ("0::/job/step\n", {"job/cpu.max": "400000 100000\n", "job/step/cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/job\n", {"job/cpu.max": "max 100000\n"}, None),
        ("5:memory:/a\n4:cpu,cpuacct:/a\n", {f"cpu,cpuacct/{name}": text for name, text in v1(600000).items()}, 6),
        ("4:cpu:/a\n", {f"cpu/{name}": text for name, text in v1(-1).items()}, None),
        *(("0::/elsewhere\n", {}, None), ("not a group\n", {}, None), (None, {}, None)),
    ],
)
def test_quota_of_a_container__is_the_smallest_around_this_process(
    own: str | None, files: dict[str, str], granted: int | None, tmp_path: Path
) -> None:
    groups = control_groups(tmp_path, own, files)
    assert hardware.granted_cpus(*groups) == granted


def control_groups(folder: Path, own: str | None, files: Mapping[str, str]) -> tuple[Path, Path]:
    """Write files of control groups, and the file that names those of a process."""
    for name, content in files.items():
        file = folder / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    if own is not None:
        (folder / "cgroup").write_text(own)
    return folder / "groups", folder / "cgroup"


def test_other_programs__are_those_that_use_cores_beside_this_one(tmp_path: Path) -> None:
    times, ticks = tmp_path / "stat", os.sysconf("SC_CLK_TCK")
    times.write_text("cpu  100 7 50 900 0 0 0\ncpu0 1 2 3 4\n")
    others, elsewhere = hardware.OtherPrograms(times), hardware.OtherPrograms(tmp_path / "nowhere")
    times.write_text(f"cpu  {100 + 10_000 * ticks} 7 50 900 0 0 0\ncpu0 1 2 3 4\n")
    assert others.cores() > 1
    assert elsewhere.cores() == 0
    assert hardware.OtherPrograms(times).cores() == 0


def test_use_cores__restricts_to_at_most_the_cores_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    try:
        for count, left in ((0, len(before)), (len(before) + 5, len(before)), (1, 1)):
            hardware.use_cores(count)
            assert len(os.sched_getaffinity(0)) == left
            assert os.sched_getaffinity(0) <= before
    finally:
        os.sched_setaffinity(0, before)
    monkeypatch.delattr(os, "sched_getaffinity")
    hardware.use_cores(1)


def test_memory_held__is_what_this_process_has_now_or_0_if_unknown(tmp_path: Path) -> None:
    before = hardware.memory_held_bytes()
    with mmap(-1, 50_000_000) as ballast:  # new pages; an object may get pages that were freed
        ballast.write(b"x" * len(ballast))
        assert hardware.memory_held_bytes() > before + len(ballast) // 2 > 1_000_000
    assert hardware.memory_held_bytes(tmp_path / "nowhere") == 0


@pytest.mark.process
def test_most_memory__is_of_this_process_and_not_of_its_parent(tmp_path: Path) -> None:
    ballast = bytearray(300_000_000)
    code = "from trainer.system.hardware import most_memory_bytes; print(most_memory_bytes())"
    of_child = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert hardware.most_memory_bytes() > len(ballast) > 2 * of_child > 2_000_000
    assert hardware.most_memory_bytes(tmp_path / "nowhere") > len(ballast)


@pytest.mark.parametrize(
    ("version", "has_driver", "may_have"),
    [
        *(("2.13.0", False, False), ("2.13.0", True, True), ("2.13.0+cu130", True, True), ("2.13.0+cpu", True, False)),
        (hardware.package_version("no-such-package"), True, False),
    ],
)
def test_cuda__is_ruled_out_only_where_torch_or_the_driver_cannot_have_it(
    tmp_path: Path, version: str, has_driver: bool, may_have: bool
) -> None:
    if has_driver:
        (tmp_path / "nvidiactl").touch()
    assert hardware.may_have_cuda(version, (tmp_path / "nvidiactl",)) is may_have


@pytest.mark.process
def test_is_dead__is_true_for_an_ended_process_of_this_machine() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = hardware.process_name().rpartition(":")[0]
    assert not hardware.is_dead(hardware.process_name())
    assert hardware.is_dead(f"{here}:{gone.pid}") and hardware.is_dead(f"{here}:{10**30}")
    assert not hardware.is_dead(f"{here}:1")  # there, whosever it is
    assert not any(map(hardware.is_dead, (f"another-machine:{gone.pid}", f"{here}:", here, "", f"{here}:-1")))


MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
V1, NONE = "memory.limit_in_bytes", str((1 << 63) - 4096)
"""A limit of the first version, and what its file has without one."""


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/system.slice/lab.service\n", {"system.slice/lab.service/memory.max": "4096000\n"}, 4096000),
        ("0::/job/step\n", {"job/memory.max": "9000\n", "job/step/memory.max": "max\n"}, 9000),
        ("0::/job/step\n", {"job/memory.max": "9000\n", "job/step/memory.max": "8000\n", "memory.max": "max\n"}, 8000),
        ("0::/job\n", {"job/memory.max": "max\n", "other/memory.max": "8000\n"}, MACHINE),
        ("0::/job\n", {"job/memory.max": f"{1 << 62}\n"}, MACHINE),
        ("0::/\n", {"memory.max": "7000\n"}, 7000),
        ("0::/docker/elsewhere\n", {"memory.max": "7000\n"}, 7000),
        ("9:memory:/a/b\n4:cpu:/c\n", {f"memory/a/{V1}": "6000\n", f"memory/a/b/{V1}": NONE}, 6000),
        ("9:memory:/docker/elsewhere\n", {f"memory/{V1}": "5000\n"}, 5000),
        ("9:memory:/a\n0::/b\n", {f"memory/a/{V1}": NONE, "b/memory.max": "max\n"}, MACHINE),
        *(("not a group\n", {"memory.max": "7000\n"}, 7000), (None, {f"memory/{V1}": "5000\n"}, 5000)),
        *(("0::/elsewhere\n", {}, MACHINE), (None, {}, MACHINE)),
    ],
)
def test_memory__is_the_smallest_limit_around_this_process(
    own: str | None, files: dict[str, str], limit: int, tmp_path: Path
) -> None:
    assert hardware.memory_bytes(*control_groups(tmp_path, own, files)) == limit


@pytest.mark.parametrize(
    ("flags", "has"), [("fpu avx512_bf16 sse", True), ("amx_bf16", True), ("avx512f sse", False), ("", False)]
)
def test_bf16__follows_the_flags_of_the_processor_unless_it_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, has: bool
) -> None:
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert hardware.has_bf16(tmp_path / "cpuinfo") is has
    assert not hardware.has_bf16(tmp_path / "none")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert not hardware.has_bf16(tmp_path / "cpuinfo")
