"""Workers on a broken machine: the children end at their start, as with a driver that does not work."""

import os
from asyncio.subprocess import Process
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from tests.support.worker_runs import worker_in

LAST_LINE = "RuntimeError: CUDA error: no kernel image is available for execution on the device"

_FAULT = f"""
import os, sys

def end(*_):
    if os.path.exists(os.environ["BROKEN"]):
        os.write(2, b"{LAST_LINE}\\n")
        os._exit(1)

def begin():
    module = sys.modules.get("trainer.worker.child_process")
    if module is not None:
        module.set_oom_score = end  # the first call of a child that has its output

if "--json" in sys.orig_argv:
    end()
os.register_at_fork(after_in_child=begin)
"""
"""Code that Python runs at its start, in a worker and in each of its children."""


def broken_worker(
    folder: Path, url: str, name: str = "broken", **environment: str
) -> AbstractAsyncContextManager[Process]:
    """A worker whose children end at their start while the file of its name exists; it logs to `NAME.log`."""
    (folder / name).touch()
    (code := folder / "fault").mkdir(exist_ok=True)
    (code / "sitecustomize.py").write_text(_FAULT, encoding="utf-8")
    path = os.pathsep.join([str(code), *filter(None, [os.environ.get("PYTHONPATH")])])
    more = {"BROKEN": str(folder / name), "PYTHONPATH": path, "REDIS__URL": url}
    return worker_in(folder, log_name=f"{name}.log", **more)
