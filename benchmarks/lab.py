"""A folder in which `mt` trains runs for a benchmark, with text for them."""

import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.contracts.runs import RunStatus
from trainer.export.folders import export_folder

ROOT = Path(__file__).resolve().parents[1]
DEMO_CORPUS = ROOT / "corpora" / "demo.txt"


class Lab:
    """The data and artifacts of a benchmark, away from the user's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = RunStore(folder / "artifacts")
        self.environment = {
            **os.environ,
            "APP__DATA_ROOT": str(folder / "data"),
            "APP__ARTIFACTS_ROOT": str(folder / "artifacts"),
            "HF_HOME": str(folder / "hf"),  # the library copies the code of exported recurrent models there
        }

    def train(self, corpus: Path, fields: Mapping[str, object]) -> RunDirectory:
        """Train a run on the CPU with `mt train`; its request has the given fields, nested ones with dots."""
        given = {"device": "cpu", "holdout_fraction": 0.01, "test_fraction": 0, **fields}
        assignments = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
        done = self.mt("train", "--corpus", str(corpus), "--json", *assignments)
        return self.runs.get(RunStatus.model_validate_json(done).run_id)

    def mt(self, *words: str) -> str:
        """Run `mt` and return its output. Raises SystemExit with it if the command fails."""
        command = [sys.executable, "-m", "trainer", *words]
        done = subprocess.run(command, env=self.environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"mt {' '.join(words)} failed: {done.stdout}")
        return done.stdout

    def export(self, run: RunDirectory) -> Path:
        """Export a run as a folder of the transformers library."""
        folder = self.folder / "exports" / run.run_id
        folder.parent.mkdir(exist_ok=True)
        export_folder(run, "hf", folder)
        return folder


def demo_lines() -> list[str]:
    """Return the lines of the demo corpus that are not blank."""
    lines = (line.strip() for line in DEMO_CORPUS.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def write_text(file: Path, characters: int, *, line_characters: int = 0) -> Path:
    """Write lines of the demo corpus, shuffled over and over, until the file has about so many characters.

    Lines are joined until they have `line_characters`.
    """
    lines, draw = demo_lines(), random.Random(1)
    written = length = 0
    with file.open("w", encoding="utf-8") as text:
        while written < characters:
            draw.shuffle(lines)
            for line in lines:
                length += len(line)
                is_end = length >= line_characters
                text.write(line + ("\n" if is_end else " "))
                written += len(line) + 1
                length = 0 if is_end else length
    return file


def sentences(count: int, *, seed: int = 1) -> list[str]:
    """Return different sentences of 5 to 30 words of the demo corpus, in random order."""
    words, draw = " ".join(demo_lines()).split(), random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        first = draw.randrange(len(words) - 30)
        found[" ".join(words[first : first + draw.randint(5, 30)])] = None
    return list(found)


def printed_number(module: str, *arguments: str) -> float:
    """Run a module of the benchmarks in the environment of its user; return the number in its last line."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])
