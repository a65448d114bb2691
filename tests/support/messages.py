"""Every message of the bot, made with any text of a user in place of its names."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import discord

from bot.commands.admin import deleted_answer, workers_answer
from bot.commands.compare import compare_answer
from bot.commands.compare import settings_answer as differences_answer
from bot.commands.corpora import added_answer, clean_name, corpora_page, corpus_answer
from bot.commands.evaluation import evaluating_answer
from bot.commands.queue import QueueRow, queue_answer
from bot.commands.settings import settings_answer
from bot.messages.answers import (
    accepted_answer,
    cancel_answer,
    cancel_question,
    config_answer,
    error_answer,
    file_answer,
    files_answer,
    logs_answer,
    runs_page,
    status_answer,
    undelivered_note,
    watch_answer,
)
from bot.messages.digest_card import digest_card, run_line
from bot.messages.inference import chat_answer, generate_answer, predict_answer, report_answer, score_answer
from bot.messages.job_cards import job_card, jobs_page
from bot.messages.run_card import final_message, run_card
from bot.messages.text import plain
from bot.people.user_settings import UserSettings
from tests.support.experiment_results import experiment_status, finished_experiment
from tests.support.measured_runs import measured
from tests.support.scores import score_of
from tests.support.stories import BEGIN, Story, run_record
from trainer.artifacts.outcome import Outcome
from trainer.config.validation import parse
from trainer.contracts.base import FileRecord, changed, now
from trainer.contracts.chats import ChatResponse
from trainer.contracts.corpora import BuildRequest, BuildStatus, CorpusOverview, CorpusStatistics
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.experiments import ExperimentStatus
from trainer.contracts.generations import GenerateRequest, GenerateResponse, Sample
from trainer.contracts.jobs import WorkerInfo, WorkersState
from trainer.contracts.operations import JOB_ROWS
from trainer.contracts.predictions import PredictResponse, Suggestion
from trainer.contracts.runs import CorpusRef, KnownFigures, RunRecord, RunStatus
from trainer.contracts.scores import ScoreResponse
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.queue.run_index import RunEntry, rows_of
from trainer.reports.comparison import compare, differences
from trainer.reports.corpus_report import corpus_report
from trainer.reports.experiment_report import experiment_report
from trainer.reports.surprisal_report import ReportFiles, summarize

RUN = "char_lstm-20261120-0a1b2c"
HASH = "a" * 64

Make = Callable[[str], discord.Embed]
_RECORD, _FINISHED = run_record(), finished_experiment()
_COMPARED = [measured(name) for name in "abcd"]
_ONE, _OTHER = (
    measured(sign, corpus=CorpusRef(name=sign, sha256=sign * 64, bytes=1)).manifest.effective for sign in "12"
)
_DIFFERENCES = tuple(differences(_ONE, _OTHER))


def record_of(given: str) -> RunRecord:
    """A run with a text in place of every name that a user chooses."""
    corpus: dict[str, object] = {"name": given or "x"}
    named: dict[str, object] = {"label": given, "corpus": _RECORD.effective.corpus.model_copy(update=corpus)}
    values: dict[str, object] = {"effective": _RECORD.effective.model_copy(update=named)}
    return _RECORD.model_copy(update=values)


def status_of(tell: Callable[[Story], Story]) -> RunStatus:
    with TemporaryDirectory() as folder:
        return tell(Story(Path(folder), run_record())).follower().refresh()


QUEUED = status_of(lambda story: story)
RUNNING = status_of(lambda story: story.start().step(10, 3.0).step(25, 2.0, 2.1).checkpoint(25))
COMPLETED = status_of(lambda story: story.start().step(100, 2.0, 2.1).complete())
FAILED = status_of(lambda story: story.start().step(10, 3.0).checkpoint(10).fail())
CANCELLED = status_of(lambda story: story.start().step(10, 3.0).cancel())
ENTRY = RunEntry("lstm-1", 7, BEGIN, "kk-ipa", "lstm", "kk_ipa", has_attached_text=False)
SCORE = ScoreResponse(
    request_id="f", run_id=RUN, status="completed", mean_surprisal=1.9, nats=2.0, n_tokens=1, n_scored=1, unk_count=1
)


def failed(given: str) -> RunStatus:
    error: dict[str, object] = {"error": RunError.of(AppError(ErrorCode.INVALID_INPUT, given or "x"))}
    return FAILED.model_copy(update=error)


def entry(given: str) -> RunEntry:
    return ENTRY._replace(label=given or None, corpus=given)


def report(given: str) -> discord.Embed:
    signs = "a" + given[:300]
    nats = [3.0] * sum(char != "\n" for char in signs)
    score = score_of(signs, nats, unknown=signs, expected=((given[:40], 0.5), ("`", 0.2)))
    record = record_of(given)
    return report_answer(record, ReportFiles(summarize(score, signs), len(nats), {}), record.run_id, left_out=3)


def generated(given: str) -> discord.Embed:
    response = parse(
        GenerateResponse,
        {
            **{"request_id": "f", "run_id": RUN, "status": "completed", "outputs": (given, "", given, "x")},
            **{"steps": (1,) * 4, "eos_terminated": (True,) * 4, "stop_reason": ("eos",) * 4},
        },
    )
    return generate_answer(record_of(given), GenerateRequest(prompt_text=given[:4000]), response)


def chatted(given: str) -> discord.Embed:
    response = ChatResponse(request_id="f", run_id=RUN, session_id="s", status="completed", answer=given)
    return chat_answer(record_of(given), given, response)


def predicted(given: str) -> discord.Embed:
    suggestions = (Suggestion(token=given, prob=0.5, logp=-0.7),) * 5
    response = PredictResponse(request_id="f", run_id=RUN, status="completed", suggestions=suggestions, unk_count=2)
    return predict_answer(record_of(given), given, response)


def final(given: str) -> discord.Embed:
    sample = Sample(prompt=given, text=given, seed=1, steps=1, stop_reason="eos")
    files = (FileRecord(path="model.safetensors", bytes=1, sha256=HASH), FileRecord(path="x", bytes=1, sha256=HASH))
    return final_message(record_of(given), COMPLETED, Outcome(files=files, samples=(sample, sample)))


def compared(given: str) -> discord.Embed:
    named: dict[str, object] = {"effective": record_of(given[:64]).effective}
    labelled = [each._replace(manifest=each.manifest.model_copy(update=named)) for each in _COMPARED]
    return compare_answer(compare(labelled, split="test"))


def tokenizer(given: str, state: str) -> TokenizerStatus:
    values: dict[str, object] = {
        **{"tokenizer_id": "char-1", "status": state, "message": "m", "method": "char", "vocab_size": None},
        **{"stats": None, "artifact": "tokenizers/char-1", "error": None, "label": None, "created_at": BEGIN},
    }
    labelled: dict[str, object] = {"label": given, "message": given}
    return TokenizerStatus.model_validate(values).model_copy(update=labelled)


def named_experiment(status: ExperimentStatus, given: str) -> ExperimentStatus:
    name: dict[str, object] = {"name": given}
    return status.model_copy(update=name)


def busy_worker(given: str) -> discord.Embed:
    worker = WorkerInfo(name=given, version=given, slots=1, seen_at=1.0)
    state = WorkersState(workers=(worker,), runs={"lstm-1": given}, is_paused=True)
    return workers_answer(state, {"lstm-1": entry(given)}, {"lstm-1": given})


EVALUATION = parse(
    EvalMetrics,
    {
        **{"run_id": RUN, "split": "validation", "dataset": "text", "checkpoint": "model", "created_at": BEGIN},
        **{"loss": 2.0, "perplexity": 7.389, "bits_per_char": 1.5, "top1_accuracy": 0.25, "top5_accuracy": 0.5},
        **{"n_tokens": 1234, "n_chars": 1, "unknown_char_share": 0.25, "tokens_per_char": 1.0, "tokens_per_word": 1.0},
        **{"distinct_1": 0.0, "distinct_2": 0.0, "repetition_rate": 0.0, "seed": 1},
        "seq_len": {"min": 1, "p50": 1, "p95": 1, "max": 1},
        "lines": {"nats": [1.0], "tokens": [1], "chars": [1]},
    },
)
KNOWN_EVALUATION = changed(
    EVALUATION, known=KnownFigures(loss=3.0, top1_accuracy=0.125, top5_accuracy=0.25, n_tokens=900)
)
MASKED_EVALUATION = changed(EVALUATION, objective="masked_lm", bits_per_char=None, unknown_char_share=None)
OVERVIEW = CorpusOverview(name="x", bytes=1, lines=1, languages=(), is_ipa=None)
MESSAGES: Mapping[str, Make] = {
    "queued card": lambda given: run_card(record_of(given), QUEUED, []),
    "running card": lambda given: run_card(record_of(given), RUNNING, [3.0, 2.0]),
    "completed card": lambda given: run_card(record_of(given), COMPLETED, []),
    "failed card": lambda given: run_card(record_of(given), failed(given), []),
    "cancelled card": lambda given: run_card(record_of(given), CANCELLED, []),
    "status": lambda given: status_answer(record_of(given), failed(given), [], closed="dm"),
    "completed": final,
    "failed": lambda given: final_message(record_of(given), failed(given), Outcome(last_lines=(given, given))),
    "accepted": lambda given: accepted_answer(record_of(given), "Note."),
    "cancel": lambda given: cancel_answer(record_of(given), has_ended=True, has_started=True),
    "cancel question": lambda given: cancel_question(record_of(given)),
    "watch": lambda given: watch_answer(record_of(given), "here", has_ended=True, has_final=False, closed=None),
    "logs": lambda given: logs_answer(record_of(given), [given, given], is_attached=False),
    "files": lambda given: files_answer(record_of(given), [FileRecord(path="f" * 99, bytes=1, sha256=HASH)] * 99),
    "file": lambda given: file_answer(record_of(given), FileRecord(path="a/b", bytes=1, sha256=HASH)),
    "config": lambda given: config_answer(record_of(given), given),
    "undelivered": lambda given: undelivered_note([run_card(record_of(given), failed(given), [])] * 4),
    "user error": lambda given: error_answer(AppError(ErrorCode.INVALID_INPUT, f"You gave '{given}'."), "f"),
    "fault": lambda given: error_answer(AppError(ErrorCode.INTERNAL_ERROR, given), "f"),
    "runs": lambda given: runs_page(
        rows_of([entry(given)]) * 8, title=f"Your runs with «{plain(given)}»", total=8, page=" · page 1 of 2"
    ),
    "score": lambda given: score_answer(record_of(given), given, SCORE, 2.0, {given: 3, "`": 1}),
    "report": report,
    "generate": generated,
    "chat": chatted,
    "predict": predicted,
    "compare": compared,
    "differences": lambda given: differences_answer(
        record_of(given), record_of(given), _DIFFERENCES, lambda name: given
    ),
    "evaluating": lambda given: evaluating_answer(record_of(given), f"corpus {plain(given)}", record_of(given).run_id),
    "corpora": lambda given: corpora_page([changed(OVERVIEW, name=given, languages=(given,))], total=1, page=""),
    "corpus": lambda given: corpus_answer(
        given,
        corpus_report(
            changed(OVERVIEW, name=given),
            CorpusStatistics(1, 9, 9, tuple((char, 1) for char in given[:9])),
            [given] * 9,
        ),
    ),
    "added": lambda given: added_answer(changed(OVERVIEW, name=clean_name(f"a{given}")), is_new=True),
    "corpus build": lambda given: job_card(
        JOB_ROWS["corpus_builds"],
        BuildStatus(
            build_id="build-1",
            created_at=now(),
            status="failed",
            request=BuildRequest(source="local", languages=("tr",)),
            error=RunError.of(AppError(ErrorCode.INVALID_INPUT, given)),
        ),
    ),
    "digest": lambda given: digest_card([run_line(record_of(given), RUNNING)] * 30, "digest-1"),
    "queue": lambda given: queue_answer([QueueRow(entry(given), is_running=False)] * 30, absence=None, is_paused=False),
    "settings": lambda given: settings_answer(UserSettings(), given, "bits"),
    "tokenizers": lambda given: jobs_page(JOB_ROWS["tokenizers"], [tokenizer(given, "queued")] * 8, total=8, page=""),
    "tokenizer": lambda given: job_card(JOB_ROWS["tokenizers"], tokenizer(given, "failed"), corpora=[given] * 3),
    "workers": busy_worker,
    "deleted": lambda given: deleted_answer(record_of(given)),
    "experiment": lambda given: job_card(
        JOB_ROWS["experiments"], named_experiment(experiment_status("running", "completed", "running", "queued"), given)
    ),
    "finished experiment": lambda given: job_card(
        JOB_ROWS["experiments"], named_experiment(experiment_status("completed"), given), experiment_report(_FINISHED)
    ),
}
