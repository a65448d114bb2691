"""lm-evaluation-harness against the API: the byte perplexity of a text is the one that `mt eval` measures."""

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_core import to_json

from tests.support import ROOT, add_corpus
from tests.support.families import POSITIONS
from tests.support.finished_runs import LINES, finished_run
from tests.support.http import ADMIN, lab_site
from tests.support.lab import Lab
from trainer.contracts.inference import EvalRequest
from trainer.export.folders import export_folder


class Report(BaseModel):
    """The file of results: metrics by task."""

    results: dict[str, dict[str, float | str]]


@pytest.mark.slow
async def test_lm_eval__measures_the_byte_perplexity_of_mt_eval(lab: Lab, tmp_path: Path) -> None:
    run = finished_run(tmp_path, "gpt2", "bpe")
    shutil.copytree(run.path, lab.folder / "artifacts" / "models" / run.run_id)
    export_folder(run, "hf", tmp_path / "exported")
    text = "\n".join([*LINES, "his sun", "the sea was making a bed"])
    (tmp_path / "documents.txt").write_text(text, encoding="utf-8")
    add_corpus(lab.folder, text, "documents")

    async with lab_site(lab) as site:
        metrics = await site.queue.inference.evaluate(run.run_id, EvalRequest(path_override="documents"))
        arguments = {
            "base_url": f"http://127.0.0.1:{site.port}/v1/completions",
            "model": run.run_id,
            "tokenizer": str(tmp_path / "exported"),
            "max_length": str(POSITIONS),
        }
        metadata: dict[str, str] = {"path": str(tmp_path / "documents.txt")}
        words = {
            "--model": "local-completions",
            "--model_args": ",".join(f"{name}={value}" for name, value in arguments.items()),
            "--tasks": "mt_documents",
            "--include_path": str(ROOT / "benchmarks" / "lm_eval_tasks"),
            "--metadata": to_json(metadata).decode(),
            "--batch_size": "4",
            "--output_path": str(tmp_path / "report"),
        }
        harness = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lm_eval", *(word for pair in words.items() for word in pair)),
            cwd=tmp_path,
            env={**os.environ, "OPENAI_API_KEY": ADMIN, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
            stdout=PIPE,
            stderr=STDOUT,
        )
        printed, _ = await harness.communicate()

    assert harness.returncode == 0, printed.decode()
    [file] = (tmp_path / "report").rglob("*.json")
    found = Report.model_validate_json(file.read_text(encoding="utf-8")).results["mt_documents"]
    assert metrics.bits_per_byte is not None
    assert found["bits_per_byte,none"] == pytest.approx(metrics.bits_per_byte, rel=1e-3)
    assert found["byte_perplexity,none"] == pytest.approx(2**metrics.bits_per_byte, rel=1e-3)
