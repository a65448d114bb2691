"""lm-evaluation-harness against the API, by the recipe of docs/generating.md: its numbers are those of `mt score`."""

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
from tests.support.http import ADMIN, Site, lab_site
from tests.support.lab import Lab
from trainer.api import Model
from trainer.artifacts.runs import RunDirectory
from trainer.batteries.outcomes import outcomes_of
from trainer.batteries.reading import read_battery
from trainer.contracts.batteries import BatteryOptions
from trainer.contracts.completions import CompletionRequest
from trainer.contracts.evaluations import EvalRequest
from trainer.contracts.scores import ScoreRequest
from trainer.contracts.sequences import SequencesRequest
from trainer.export.folders import export_folder
from trainer.inference.model_files import load_run

ITEMS = [("the sun", " was shining"), ("the sea was ", "his bed"), ("", "he did"), ("Жquokka", " did best")]
"""Contexts with their continuations: with a space between them on either side, without a context, with unknowns."""
OTHER = " on"
"""The second choice of every item."""
TASKS: dict[str, dict[str, object]] = {
    "pairs": {"output_type": "loglikelihood", "doc_to_target": "{{end}}"},
    "choices": {"output_type": "multiple_choice", "doc_to_target": 0, "doc_to_choice": f"{{{{[end, '{OTHER}']}}}}"},
    "lines": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{context}}{{end}}"},
    "answers": {
        "output_type": "generate_until",
        "doc_to_target": "{{end}}",
        "generation_kwargs": {"until": ["s "], "max_gen_toks": 9},
    },
}
HARNESS = {"OPENAI_API_KEY": ADMIN, "HF_HUB_OFFLINE": "1", "DISABLE_MULTIPROC": "1"}
"""Variables of the harness: its pool of processes for standard errors, which no test reads, has once never ended."""
METRICS = {"pairs": "perplexity", "choices": "acc", "lines": "bits_per_byte", "answers": "exact_match"}
MINIMAL_PAIRS = [
    *((" ".join(words), " ".join(words[::-1])) for words in (line.split()[:4] for line in LINES)),
    ("he did", "he did his very best"),
    ("the sun was shining", "the sun was"),
    ("best", "Жest"),
]
"""Sentences, of which the second is the wrong one, of equal and of other lengths."""


class Report(BaseModel):
    """The file of results: metrics by task."""

    results: dict[str, dict[str, float | str]]


class Item(BaseModel):
    """A line of a file of samples: the answers of the model to the requests of an item, and how they are judged."""

    doc_id: int
    resps: list[list[str | list[str]]]
    acc: float | None = None
    acc_norm: float | None = None


def write_tasks(folder: Path) -> None:
    rows = [{"context": context, "end": end} for context, end in ITEMS]
    (folder / "items.jsonl").write_bytes(b"\n".join([to_json(row) for row in rows]))
    common: dict[str, object] = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "items.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{context}}",
        "target_delimiter": "",
    }
    pairs = [{"sentence_good": good, "sentence_bad": bad, "UID": "made_up"} for good, bad in MINIMAL_PAIRS]
    (folder / "pairs.jsonl").write_bytes(b"\n".join([to_json(row) for row in pairs]))
    blimp: dict[str, object] = {  # as lm-evaluation-harness has the tasks of BLiMP and MultiBLiMP
        **common,
        "task": "mt_blimp",
        "dataset_kwargs": {"data_files": {"test": str(folder / "pairs.jsonl")}},
        "output_type": "multiple_choice",
        "doc_to_text": "",
        "doc_to_target": 0,
        "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    (folder / "mt_blimp.yaml").write_bytes(to_json(blimp))
    for name, fields in TASKS.items():
        task: dict[str, object] = {"task": name, **common, "metric_list": [{"metric": METRICS[name]}], **fields}
        (folder / f"{name}.yaml").write_bytes(to_json(task))  # JSON is YAML, too


def items_in(report: Path, task: str) -> list[Item]:
    [file] = report.rglob(f"samples_{task}_*.jsonl")
    items = [Item.model_validate_json(line) for line in file.read_text(encoding="utf-8").splitlines()]
    items.sort(key=lambda item: item.doc_id)
    return items


def answers_in(report: Path, task: str) -> list[list[str]]:
    """The answers of a task: for each item those to its requests, a log likelihood or a text."""
    items = items_in(report, task)
    return [[answer if isinstance(answer, str) else answer[0] for [answer] in item.resps] for item in items]


def check_battery(run: RunDirectory, report: Path, pairs: Path) -> None:
    """Compare the scores and the outcomes of a battery with those of lm-evaluation-harness, item by item."""
    model = Model.load(run.path)
    items = read_battery(pairs, BatteryOptions()).items
    answer = model.ask(SequencesRequest(sequences=tuple(one for item in items for one in item.sequences)))
    scores = iter(answer.scores or ())
    for item, judged, answers in zip(items, items_in(report, "mt_blimp"), answers_in(report, "mt_blimp"), strict=True):
        both = [next(scores) for _ in item.sequences]
        assert [-score.nats for score in both] == pytest.approx(list(map(float, answers)), abs=1e-5)
        found = outcomes_of(item, both)
        assert (found["sum"], found["char"]) == tuple(
            "right" if one else "wrong" for one in (judged.acc, judged.acc_norm)
        )


async def nats_of(site: Site, run_id: str, context: str, end: str) -> float:
    """The log likelihood of a text after a context, by `mt score`: of the tokens that the context does not have."""
    client = site.queue.inference
    score = await client.ask(run_id, ScoreRequest(text=context + end, detail_level="per_char"))
    before = await client.ask(run_id, ScoreRequest(text=context.rstrip() or "x", detail_level="per_char"))
    assert score.surprisal is not None and before.n_tokens is not None
    return -sum(nats or 0 for nats in score.surprisal[before.n_tokens if context else 0 :])


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), [("gpt2", "bpe"), ("char_lstm", "char"), ("gru", "word")])
async def test_lm_eval__measures_the_numbers_of_mt_score(lab: Lab, tmp_path: Path, family: str, method: str) -> None:
    run = finished_run(tmp_path, family, method, run_id=f"harness-{family}")
    shutil.copytree(run.path, lab.folder / "artifacts" / "models" / run.run_id)
    export_folder(run, "hf", tmp_path / "exported")
    _, tokenizer = load_run(run)
    text = "\n".join([*LINES, "his sun", "the sea was making a bed"]) if method == "bpe" else "his sun\nthe sea"
    (tmp_path / "documents.txt").write_text(text, encoding="utf-8")
    add_corpus(lab.folder, text, "documents")
    shutil.copytree(ROOT / "benchmarks" / "lm_eval_tasks", tmp_path / "tasks")
    write_tasks(tmp_path / "tasks")
    async with lab_site(lab) as site:
        metrics = (await site.queue.inference.ask(run.run_id, EvalRequest(path_override="documents"))).measured()
        model = f"base_url=http://127.0.0.1:{site.port}/v1/completions,model={run.run_id},max_length={POSITIONS}"
        end_token = tokenizer.names[tokenizer.special_ids.eos]
        metadata: dict[str, str] = {"path": str(tmp_path / "documents.txt"), "end": end_token}
        words = {
            "--model": "local-completions",
            "--model_args": f"{model},tokenizer={tmp_path / 'exported'},trust_remote_code=True",
            "--tasks": ",".join(["mt_documents", "mt_blimp", *TASKS]),
            "--include_path": str(tmp_path / "tasks"),
            "--metadata": to_json(metadata).decode(),
            "--batch_size": "4",
            "--output_path": str(tmp_path / "report"),
        }
        harness = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lm_eval", "--log_samples", *(word for pair in words.items() for word in pair)),
            cwd=tmp_path,
            env={**os.environ, **HARNESS, "HF_HOME": str(tmp_path / "hf")},
            stdout=PIPE,
            stderr=STDOUT,
        )
        printed, _ = await harness.communicate()
        assert harness.returncode == 0, printed.decode()
        report = tmp_path / "report"
        for task, ends in (("pairs", [""]), ("choices", ["", OTHER])):
            for (context, end), answers in zip(ITEMS, answers_in(report, task), strict=True):
                expected = [await nats_of(site, run.run_id, context, other or end) for other in ends]
                assert list(map(float, answers)) == pytest.approx(expected, abs=1e-5), (task, context, end)
        check_battery(run, report, tmp_path / "tasks" / "pairs.jsonl")
        for (context, end), [answer] in zip(ITEMS, answers_in(report, "lines"), strict=True):
            assert float(answer) == pytest.approx(await nats_of(site, run.run_id, "", context + end), abs=1e-5)
        for (context, _), [answer] in zip(ITEMS, answers_in(report, "answers"), strict=True):
            ids = tuple(
                tokenizer.encode(context)
            )  # as lm-evaluation-harness sends it, with a space at its end as a token
            greedy = CompletionRequest(prompts=(ids,), max_tokens=9, temperature=0, stop=("s ",))
            completed = await site.queue.inference.ask(run.run_id, greedy)
            assert [choice.text for choice in completed.choices or ()] == [answer]
    [file] = report.rglob("results_*.json")
    found = Report.model_validate_json(file.read_text(encoding="utf-8")).results["mt_documents"]
    assert metrics.bits_per_byte is not None
    assert found["bits_per_byte,none"] == pytest.approx(metrics.bits_per_byte, rel=1e-5)
    assert found["byte_perplexity,none"] == pytest.approx(2**metrics.bits_per_byte, rel=1e-4)
