"""All that scores a text looks for it in what the model has read, or is named here with the reason why it does not."""

from collections.abc import Mapping

from pydantic import BaseModel

from trainer.artifacts.kinds import JOB_KINDS
from trainer.contracts.batteries import BatterySummary, LeakedItems
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.experiments import ExperimentResult
from trainer.contracts.operations import OPERATIONS
from trainer.contracts.readings import ReadingResult
from trainer.contracts.runs import Leak, RunManifest
from trainer.queue.inference_kinds import KINDS

NO_SEARCH: Mapping[str, str] = {
    "sequences": "parts of items and of running texts: the batteries and readings that send them search their texts",
    "sections": "the report of the experiment has the leaks, once for the runs of all seeds",
    "generate": "continues a prompt, which it does not score",
    "complete": "continues a prompt; the probabilities of its tokens have the form of another API",
    "predict": "has the probabilities of a next token, which is in no text",
    "chat": "continues a chat, which it does not score",
}
"""Kinds of inference whose answers have no leak, with the reason."""
RESULTS: Mapping[str, type[BaseModel]] = {
    "models": RunManifest,
    "batteries": BatterySummary,
    "readings": ReadingResult,
    "experiments": ExperimentResult,
}
"""The results of the kinds of jobs that score texts."""
NO_RESULTS: Mapping[str, str] = {
    "studies": "its losses are those of its runs, whose manifests have the leaks of their splits",
    "tokenizers": "has no model",
    "exports": "scores no text",
    "verifications": "compares files with those of another training",
    "corpus_builds": "has no model",
}
"""Kinds of jobs that score no text themselves, with the reason."""
JOBS_OF_OPERATIONS: Mapping[str, str] = {
    "start_battery": "batteries",
    "start_reading": "readings",
    "start_experiment": "experiments",
    "start_study": "studies",
    "predict_with_newest": "predict",
}
"""Operations that score texts by a kind of another name."""


def has_leak(record: type[BaseModel]) -> bool:
    """Whether a record, or one that it can hold, has leaks."""
    described: dict[str, object] = record.model_json_schema()
    definitions = described.get("$defs")
    return isinstance(definitions, dict) and not {Leak.__name__, LeakedItems.__name__}.isdisjoint(definitions)


def test_answer__of_each_kind_of_inference_has_leaks_or_a_reason() -> None:
    searched = {name for name, kind in KINDS.items() if has_leak(kind.request.response_type())}
    assert searched.isdisjoint(NO_SEARCH)
    assert searched | NO_SEARCH.keys() == KINDS.keys()
    assert has_leak(EvalMetrics)


def test_result__of_each_kind_of_job_has_leaks_or_a_reason() -> None:
    assert RESULTS.keys().isdisjoint(NO_RESULTS)
    assert RESULTS.keys() | NO_RESULTS.keys() == {kind.name for kind in JOB_KINDS}
    assert all(map(has_leak, RESULTS.values()))


def test_operation__that_scores_a_text_does_so_by_one_of_these_kinds() -> None:
    inference = {one.name for one in OPERATIONS if one.method == "POST" and one.tag in ("inference", "completions")}
    jobs = {one.name for one in OPERATIONS if one.name.startswith("start_") and one.tag != "corpora"}
    assert inference | jobs <= KINDS.keys() | JOBS_OF_OPERATIONS.keys()
    assert set(JOBS_OF_OPERATIONS.values()) <= KINDS.keys() | RESULTS.keys() | NO_RESULTS.keys()
