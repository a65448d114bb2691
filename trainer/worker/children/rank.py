"""One of the processes of a training: `python -m trainer.worker.children.rank RUN [PARENT]`, started by torchrun.

The first process writes the run. The others compute its other shares and report only their own errors, to torchrun.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import structlog

from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.settings import Settings, load_settings
from trainer.contracts.errors import AppError, RunError
from trainer.system.child_environment import set_oom_score
from trainer.system.logs import setup_logging
from trainer.system.signals import StopFlag, heed_warnings
from trainer.training.device import resolve_device
from trainer.training.distributed import DistributedProcesses
from trainer.training.loop import train
from trainer.training.processes import Processes
from trainer.worker.children.train_child import NICENESS, train_in_process
from trainer.worker.children.train_run import PEER_SECONDS, load_parts, unforeseen_error

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_PARENT_SECONDS = 0.2


def run_rank(run_id: str, parent: int) -> int:
    """Do this process's share of a training; return its exit code."""
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    set_oom_score()
    settings = load_settings()
    setup_logging(settings, "model-trainer-worker", sys.stderr)
    ending = StopFlag()
    signal.signal(signal.SIGTERM, ending.set)
    heed_warnings()
    run = RunStore(settings.app.artifacts_root).get(run_id)
    processes = DistributedProcesses(resolve_device(run.record().effective.device))
    if processes.is_first:
        exit_code = train_in_process(settings, run_id, processes)
        manifest = run.manifest()
        return 1 if manifest is not None and manifest.status == "failed" else exit_code
    os.nice(NICENESS)
    try:
        _follow(settings, run, processes)
    except AppError as error:
        report(error)
        return 1
    except Exception as error:
        # the training child records the error, unless another process has failed first
        if ending.wait(PEER_SECONDS):
            return 1
        unforeseen = unforeseen_error(error)
        log.exception("run_failed", error_code=unforeseen.code)
        report(unforeseen)
        return 1
    return 0


def _follow(settings: Settings, run: RunDirectory, processes: Processes) -> None:
    """Train as the first process does, without a word."""
    model, _, corpus, compute, store, checkpoint = load_parts(settings, run, processes)
    effective = run.record().effective
    train(model, corpus, effective, compute, store, resume=checkpoint, processes=processes)


def report(error: AppError) -> None:
    """Write an error to the file that torchrun reads."""
    report = {"message": RunError.of(error).model_dump_json(by_alias=True), "timestamp": str(int(time.time()))}
    Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(json.dumps(report), encoding="utf-8")


def end_with(parent: int) -> None:
    """Kill this process and those that it has started when its parent has ended."""
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    code = run_rank(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else os.getppid())
    sys.stderr.flush()
    os._exit(code)  # without torch.distributed's own end, which can hang
