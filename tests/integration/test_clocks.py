"""A machine whose clock is ten minutes off: its worker is there, and its runs and files have their ages."""

import os
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support import add_corpus, ended, settings_in, some_text, tiny_request
from tests.support import wait_for_status as wait
from tests.support.redis_servers import served
from tests.support.waiting import PATIENCE_SECONDS
from tests.support.worker_runs import LONG, events_of, training, worker_in
from trainer.contracts.base import changed
from trainer.data.corpus_uploads import expired_uploads
from trainer.queue.queue import JobQueue
from trainer.store.store import connect
from trainer.system.files import folder_time

COMPILER = shutil.which("cc")
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *at) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(id, at);
  if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += SECONDS;
  return failed;
}
int gettimeofday(struct timeval *at, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"""


def compile_shim(folder: Path, minutes: int) -> None:
    (folder / "shim.c").write_text(SHIM)
    words = (f"{COMPILER}", f"-DSECONDS=({minutes * 60})", "-shared", "-fPIC", "-o", "shim.so", "shim.c", "-ldl")
    subprocess.run(words, cwd=folder, check=True)


@pytest.mark.skipif(COMPILER is None or os.uname().sysname != "Linux", reason="needs a C compiler and LD_PRELOAD")
@pytest.mark.parametrize("minutes", [-10, pytest.param(10, marks=pytest.mark.slow)])
async def test_worker_with_a_wrong_clock__is_there_while_it_runs(tmp_path: Path, minutes: int) -> None:
    compile_shim(tmp_path, minutes)
    add_corpus(tmp_path, some_text())
    begin = time.time()
    async with served(tmp_path) as server:
        settings, store = settings_in(tmp_path), await connect(server.url)
        queue = JobQueue(changed(settings, queue=changed(settings.queue, lease_seconds=4)), store)
        shifted = {"LD_PRELOAD": f"{tmp_path}/shim.so", "REDIS__URL": server.url, "QUEUE__LEASE_SECONDS": "4"}
        async with worker_in(tmp_path, **shifted) as worker:
            first = await queue.train(tiny_request(), user_id=None)
            status = await wait(queue, first.run_id, ended)
            assert status.status == "completed"
            assert status.started_at is not None and status.finished_at is not None
            times = [event.ts for event in events_of(queue, first.run_id)]
            assert times == sorted(times)
            assert status.created_at <= status.started_at <= status.finished_at
            assert (status.finished_at - status.started_at).total_seconds() <= time.time() - begin
            manifest = queue.runs.get(first.run_id).completed_manifest()
            assert (manifest.timings.started, manifest.timings.finished) == (status.started_at, status.finished_at)
            shift = (times[1] - times[0]).total_seconds()
            assert shift < time.time() - begin if minutes < 0 else shift > 60, "the clock of the worker is shifted"
            (shown,) = (await queue.workers.state([])).workers
            assert shown.pid == str(worker.pid) and shown.started_at is not None
            assert begin - 1 < shown.started_at <= shown.seen_at <= time.time()
            assert await queue.workers.drain(shown.name, is_draining=True) == [shown.name]
            await queue.workers.drain(shown.name, is_draining=False)
            second = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
            assert (await wait(queue, second, training)).reachable
            running = await queue.states.steady_status(queue.runs.get(second).follow().refresh())
            assert running.reachable and running.last_heartbeat_ts is not None
            worker.send_signal(signal.SIGSTOP)

            async def is_missed() -> bool:
                status = await queue.states.steady_status(queue.runs.get(second).follow().refresh())
                return not status.reachable and await store.workers() == []

            deadline = time.monotonic() + PATIENCE_SECONDS
            while not await is_missed():
                assert time.monotonic() < deadline
            worker.kill()
        await store.close()


def test_age_of_a_file__is_by_the_clock_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uploads" / "new").mkdir(parents=True)
    old = tmp_path / "uploads" / "old"
    old.mkdir()
    os.utime(old, (time.time() - 400, time.time() - 400))
    real = time.time

    def shifted(seconds: float) -> float:
        return real() + seconds

    for seconds in (-600, 0, 600):
        monkeypatch.setattr(time, "time", partial(shifted, seconds))
        assert [*expired_uploads(tmp_path / "uploads", 300)] == [old]
        assert abs(folder_time(tmp_path) - real()) < 60
    assert folder_time(tmp_path / "nowhere") > real() + 500, "without a file it is the clock of this machine"
