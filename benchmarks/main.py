"""Measures the speed of the product against what a user would use instead, and against the limits of this machine.

    python -m benchmarks [CASES …]

Prints a table and saves it with the facts of the machine below `benchmarks/results`. Exits 1 if a goal is missed that
the limits of this machine allow. With QUICK=1 in the environment it takes minutes instead of an hour. Needs the extras
`onnx` and `parity`.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console

from benchmarks.busy import busy_rows
from benchmarks.cold_start import cold_rows
from benchmarks.corpora import corpus_rows
from benchmarks.decode import decode_rows
from benchmarks.growth import growth_rows
from benchmarks.inference import inference_rows
from benchmarks.lab import Lab
from benchmarks.ngram import ngram_rows
from benchmarks.queue_latency import queue_rows
from benchmarks.rows import Row, print_rows, save, summary
from benchmarks.training import training_rows
from benchmarks.turns import adopt_orphans
from benchmarks.warm_score import FAMILIES, warm_rows
from trainer.contracts.base import now
from trainer.system.hardware import default_threads

RESULTS = Path(__file__).parent / "results"
CASES: dict[str, Callable[[Lab, bool], list[Row]]] = {
    "training": training_rows,
    "inference": inference_rows,
    "decode": decode_rows,
    "busy": busy_rows,
    "queue": lambda lab, is_quick: asyncio.run(queue_rows()),
    "warm": lambda lab, is_quick: asyncio.run(warm_rows(("lstm", "gpt2") if is_quick else FAMILIES)),
    "corpora": lambda lab, is_quick: corpus_rows(is_quick),
    "ngram": lambda lab, is_quick: ngram_rows(lab.folder, is_quick),
    "cold": lambda lab, is_quick: cold_rows(),
    "growth": lambda lab, is_quick: growth_rows(is_quick),
}


class _Arguments(argparse.Namespace):
    cases: list[str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures speed; QUICK=1 for minutes.")
    parser.add_argument("cases", nargs="*", metavar="CASES", help=f"default: all of {', '.join(CASES)}")
    cases = parser.parse_args(namespace=_Arguments()).cases or list(CASES)
    if unknown := set(cases) - CASES.keys():
        parser.error(f"unknown cases: {', '.join(sorted(unknown))}; possible: {', '.join(CASES)}")
    torch.set_num_threads(default_threads())
    adopt_orphans()
    console = Console() if os.isatty(1) else Console(width=200)
    is_quick, rows = os.environ.get("QUICK") == "1", list[Row]()
    begin = now()
    for case in cases:
        with TemporaryDirectory() as folder:
            found = CASES[case](Lab(Path(folder)), is_quick)
        print_rows(found, console)
        rows += found
        file = save(rows, RESULTS, begin, is_quick=is_quick)
        print(f"saved {file}", flush=True)
    print(summary(rows))
    return 1 if any(row.verdict == "MISSED" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
