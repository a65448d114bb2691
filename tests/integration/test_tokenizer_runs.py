"""A run with each tokenizer through queue, worker and child processes: train, infer, evaluate, share, resume."""

import asyncio

import pytest

from tests.support import add_corpus, ended, tiny_request, wait_for_status
from tests.support.lab import Lab
from tests.support.markers import slow_except
from tests.support.worker_runs import finished
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.evaluations import EvalRequest
from trainer.contracts.generations import GenerateRequest
from trainer.contracts.scores import ScoreRequest
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest
from trainer.contracts.tokenizers import METHODS

CORPUS = "animals"
TEXT = "\n".join(f"the {animal} saw the {other}" for animal in ("cat", "dog", "owl", "hen") for other in "abcdefgh")
ANIMALS: dict[str, object] = {"model_family": "lstm", "corpus": CORPUS}


@pytest.mark.parametrize("method", slow_except(METHODS, "bpe"))
async def test_run__of_every_tokenizer_is_trained_and_answers(lab: Lab, method: str) -> None:
    add_corpus(lab.folder, TEXT, CORPUS)
    async with lab.queue() as queue:
        size: dict[str, object] = {} if method in ("char", "byte", "word") else {"vocab_size": 60}
        run = await finished(queue, **ANIMALS, tokenizer={"method": method, **size})
        scored = await queue.inference.ask(run.run_id, ScoreRequest(text="the cat saw the d", detail_level="per_char"))
        asked = GenerateRequest(prompt_text="the cat", seed=1, max_new_tokens=5)
        written = await queue.inference.ask(run.run_id, asked)
        metrics = (await queue.inference.ask(run.run_id, EvalRequest(split="validation"))).measured()
        other = (await queue.inference.ask(run.run_id, EvalRequest(path_override=CORPUS))).measured()
    manifest = run.completed_manifest()
    assert manifest.tokenizer is not None and manifest.tokenizer.id.startswith(f"{method}-")
    assert scored.tokens is not None and scored.n_scored == len(scored.tokens) >= 4
    assert written.outputs is not None
    assert metrics.loss == manifest.metrics.val or metrics.loss == manifest.metrics.best
    assert other.n_chars == len(TEXT.replace("\n", ""))


@pytest.mark.parametrize("method", slow_except(["word", "bpe", "sentencepiece"]))
async def test_tokenizer__of_each_file_format_is_shared_and_inherited(lab: Lab, method: str) -> None:
    add_corpus(lab.folder, TEXT, CORPUS)
    asked = TokenizerTrainRequest(method=method, corpora=(CORPUS,), label="mine")
    async with lab.queue() as queue:
        own = queue.tokenizers.get((await queue.train_tokenizer(asked)).tokenizer_id)
        while own.is_unfinished():
            await asyncio.sleep(0.05)
        shared = await finished(queue, **ANIMALS, tokenizer_id=own.tokenizer_id)
        child = await finished(queue, **ANIMALS, init_from_run_id=shared.run_id)
    own_manifest = own.completed_manifest()
    facts = shared.completed_manifest().tokenizer
    assert facts is not None and (facts.id, facts.sha256) == (own.tokenizer_id, own_manifest.files[0].sha256)
    assert own.status().method == own_manifest.method == method
    assert child.completed_manifest().tokenizer == facts


async def test_tokenizer_folder_of_a_file__is_found_for_the_same_text_only(lab: Lab) -> None:
    add_corpus(lab.folder, TEXT.replace("the", "a"), "zoo")
    add_corpus(lab.folder, TEXT.upper(), "loud")
    async with lab.queue() as queue:

        async def logged(corpus: str = "zoo") -> tuple[RunDirectory, str]:
            """The run, and what its log says of its tokenizer."""
            request = tiny_request(model_family="lstm", corpus=corpus, max_steps=1, tokenizer={"method": "char"})
            paths = ("tokenizers/zoo", "models/zoo", "logs")
            accepted = await queue.train(request, user_id=None, requested_paths=paths)
            status = await wait_for_status(queue, accepted.run_id, ended)
            assert status.status == "completed", status.message
            run = queue.runs.get(accepted.run_id)
            return run, "".join(line for line in run.logs.read_text().splitlines() if '"event": "tokenizer_' in line)

        first, made = await logged()
        again, found = await logged()
        other, made_too = await logged("loud")
        facts = first.completed_manifest().tokenizer
        assert facts is not None
        stored = queue.tokenizers.get(facts.id)
        (stored.path / "tokenizer.json").write_bytes(b"{}")
        repaired, made_again = await logged()
    assert "tokenizer_trained" in made and stored.logs.read_text().replace("\n", "") == made
    assert "tokenizer_found" in found and "tokenizer_trained" not in found
    assert all("tokenizer_trained" in log and "tokenizer_found" not in log for log in (made_too, made_again))
    assert stored.status().label == "tokenizers/zoo"
    assert len({run.record().request_hash for run in (first, again, repaired)}) == 1
    assert all(run.completed_manifest().tokenizer == facts for run in (again, repaired))
    elsewhere = other.completed_manifest().tokenizer
    assert elsewhere is not None and elsewhere.id != facts.id
    weights = [(run.path / "model.safetensors").read_bytes() for run in (first, again, repaired)]
    assert weights[0] == weights[1] == weights[2]
