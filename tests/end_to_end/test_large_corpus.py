"""A corpus of 200 MB through the real command needs less than 400 MB beside the model."""

import subprocess
import sys
from itertools import count
from pathlib import Path
from time import sleep

import pytest

from tests.support import ROOT, environment_in, processes
from trainer.artifacts.runs import RunStore
from trainer.contracts.runs import RunStatus

pytestmark = pytest.mark.slow

MEGABYTE = 10**6
SMALL = [
    *("--set", "model.embedding_size=8", "--set", "model.hidden_size=8", "--set", "model.num_layers=1"),
    *("--set", "max_seq_len=64", "--set", "batch_size=16", "--set", "max_steps=20", "--set", "threads=1"),
    *("--set", "holdout_fraction=0.001", "--set", "test_fraction=0.001", "--set", "device=cpu"),
]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak of a process")
def test_200_megabytes__train_with_less_than_400_more_than_few_lines(tmp_path: Path) -> None:
    corpora = tmp_path / "data" / "corpus"
    corpora.mkdir(parents=True)
    lines = {name: write_corpus(corpora / f"{name}.txt", size * MEGABYTE) for name, size in (("few", 0), ("many", 200))}
    peaks = {name: train(tmp_path, name) for name in lines}
    assert peaks["many"] - peaks["few"] < 400 * MEGABYTE
    for run in RunStore(tmp_path / "artifacts").all():
        data = run.completed_manifest().data
        assert data is not None and data.test is not None
        assert data.train.lines + data.validation.lines + data.test.lines == lines[data.corpus.name]


def write_corpus(path: Path, size: int) -> int:
    """Write the shipped text, each line with a number, until a file has so many bytes; return how many lines it has."""
    lines = (ROOT / "corpora" / "demo.txt").read_text(encoding="utf-8").splitlines()
    with path.open("wb") as file:
        for number in count(1):
            file.write("".join(f"{number} {line}\n" for line in lines).encode())
            if file.tell() >= size:
                break
    return number * len(lines)


def train(folder: Path, corpus: str) -> int:
    """Train on a corpus to the end; return the most memory in bytes that the child process ever had."""
    words = [sys.executable, "-m", "trainer", "train", "--corpus", corpus, *SMALL, "--json"]
    # without coverage, which would count millions of lines that other tests count too
    environment = {name: value for name, value in environment_in(folder).items() if not name.startswith("COVERAGE_")}
    command = subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    peak_kib = 0
    with command:
        while command.poll() is None:
            for process in processes(folder, "train-child"):
                peak_kib = max(peak_kib, peak_of(process.pid))
            sleep(0.05)
        assert command.stdout is not None
        status = RunStatus.model_validate_json(command.stdout.read())
    assert (status.status, status.step) == ("completed", 20)
    assert peak_kib > 0
    return peak_kib * 1024


def peak_of(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:  # it has just ended
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) if "VmHWM:" in status else 0
