"""The text of every message in each of its states, as a snapshot in English; of a variant what it changes."""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import ndiff
from functools import partial
from math import log
from typing import Literal

import discord
import pytest
from syrupy.assertion import SnapshotAssertion

from bot.commands.admin import access_answer, doctor_answer, workers_answer
from bot.commands.compare import compare_answer
from bot.commands.corpora import added_answer, corpora_page
from bot.commands.evaluation import evaluation_answer
from bot.commands.export import export_link_answer, exporting_answer
from bot.commands.queue import queue_answer
from bot.commands.run_options import described
from bot.commands.settings import settings_answer
from bot.messages.answers import (
    accepted_answer,
    cancel_answer,
    details_answer,
    error_answer,
    logs_answer,
    runs_page,
    status_answer,
    watch_answer,
)
from bot.messages.digest_card import digest_card, run_line
from bot.messages.group_card import group_card
from bot.messages.inference import chat_answer, report_answer, report_files, score_answer, table_answer
from bot.messages.job_cards import job_card, jobs_page
from bot.messages.report_card import attach_figures, figure_in_words
from bot.messages.run_card import chart_alt_text, final_message, run_card
from bot.people.user_settings import UserSettings
from tests.support.baselines import BETTER, MOSTLY_UNKNOWN, UNCLEAR, WORSE
from tests.support.battery_results import ONE, SEVERAL
from tests.support.cards import for_reader, within_limits
from tests.support.development_results import DEVELOPMENT, NO_ITEMS
from tests.support.experiment_results import (
    experiment_status,
    finished_experiment,
    model_tables,
    with_batteries,
    with_one_seed,
)
from tests.support.measured_runs import line_losses, measured
from tests.support.messages import (
    CANCELLED,
    COMPLETED,
    ENTRY,
    EVALUATION,
    FAILED,
    HASH,
    KNOWN_EVALUATION,
    MASKED_EVALUATION,
    MESSAGES,
    OVERVIEW,
    QUEUED,
    RUN,
    RUNNING,
    SCORE,
    status_of,
    tokenizer,
)
from tests.support.reports import STATS
from tests.support.scores import report_of
from tests.support.stories import BEGIN, run_record
from trainer.artifacts.outcome import Outcome
from trainer.config.validation import parse
from trainer.contracts.base import FileRecord, RunState, changed, now
from trainer.contracts.batteries import BatteryStatus, RunResult
from trainer.contracts.chats import ChatResponse
from trainer.contracts.corpora import BuildProgress, BuildRequest, BuildStatus, CorpusManifest
from trainer.contracts.cost import Cost
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem, RunError
from trainer.contracts.experiments import ExperimentResult, ExperimentStatus, Validity
from trainer.contracts.generations import Sample
from trainer.contracts.groups import group_status
from trainer.contracts.jobs import WorkersState
from trainer.contracts.operations import JOB_ROWS
from trainer.contracts.reports import note
from trainer.contracts.runs import Leak, Leaks, RunRecord, RunStatus
from trainer.contracts.seeds import RunGroup
from trainer.contracts.training_options import ChosenValue, EarlyStopping
from trainer.contracts.units import Unit
from trainer.lab.language import LANGUAGE_NAMES, Language
from trainer.queue.run_index import RunRow
from trainer.reports.battery_report import battery_report
from trainer.reports.comparison import MeasuredGroup, compare
from trainer.reports.development_report import development_report
from trainer.reports.experiment_report import experiment_report
from trainer.reports.leak_notes import leak_notes, training_text_note
from trainer.services.health import Finding

RECORD = run_record()
COST = Cost(params=961_234, memory_bytes=1 << 30, disk_bytes=1 << 20, steps=30, seconds=50.0, bf16_pays=True)
WARM = changed(
    RECORD,
    cost=COST,
    effective=changed(RECORD.effective, init_from_run_id="lstm-1", freeze_embeddings=True, model_size="small"),
)
CHOSEN = (
    ChosenValue(field="num_epochs", value=7, reason="a short text is read more often: 1,000,000 training tokens"),
    ChosenValue(field="learning_rate", value=0.005, reason="recurrent of width 256"),
    ChosenValue(field="early_stopping.enabled", value=True, reason="a training that no longer learns ends"),
)
STOPPING = changed(
    RECORD, effective=changed(RECORD.effective, early_stopping=EarlyStopping(enabled=True, patience=3), num_epochs=1)
)
ATTACHED = changed(
    RECORD, effective=changed(RECORD.effective, corpus=changed(RECORD.effective.corpus, name=HASH, bytes=999))
)
MASKED = changed(
    RECORD,
    effective=changed(
        RECORD.effective, objective="masked_lm", model=changed(RECORD.effective.model, bidirectional=True)
    ),
)
LEAKS: Leaks = {"test": Leak(lines=0.5)}
MEASURED: dict[str, object] = {
    "learning_rate": 7.4e-4,
    "gpu_memory_bytes": (3_149_000_000, 2_951_000_000),
    "best_epoch": 2,
    "evals_without_gain": 1,
    "device": "cuda:0",
}
UNKNOWN: dict[str, object] = dict.fromkeys(
    (
        "total_steps",
        "best_val_loss",
        "train_bits_per_char",
        "val_bits_per_char",
        "chars_per_second",
        "eta_seconds",
        "evals_without_gain",
    ),
    None,
)


def failed(code: ErrorCode, **fields: object) -> RunStatus:
    return changed(FAILED, error=RunError.of(AppError(code, "x")), **fields)


DIVERGED = failed(ErrorCode.TRAINING_NAN_LOSS)
RUN_STATES: Mapping[str, tuple[RunRecord, RunStatus]] = {
    "queued": (RECORD, QUEUED),
    "waiting for a worker": (WARM, changed(QUEUED, queue_position=2, waits_for="worker")),
    "resumed": (changed(ATTACHED, resumed_from_run_id="lstm-0"), QUEUED),
    "reading": (RECORD, status_of(lambda story: story.read_corpus())),
    "running": (RECORD, RUNNING),
    "measured": (STOPPING, changed(RUNNING, **MEASURED)),
    "hardly measured": (RECORD, changed(RUNNING, grad_norm=None, **UNKNOWN)),
    "without checkpoint": (RECORD, status_of(lambda story: story.start().step(10, 3.0))),
    "unknown text": (RECORD, changed(RUNNING, unknown_char_share=0.002)),
    "unreachable": (RECORD, changed(RUNNING, reachable=False)),
    "never reached": (RECORD, changed(RUNNING, reachable=False, last_heartbeat_ts=None, total_steps=None)),
    "worker ended": (RECORD, status_of(lambda story: story.start().step(25, 2.0).checkpoint(25).end_worker())),
    "evaluating": (RECORD, status_of(lambda story: story.start().step(100, 1.1, 1.2).evaluate())),
    "evaluating unvalidated": (RECORD, status_of(lambda story: story.start().evaluate())),
    "paused": (RECORD, status_of(lambda story: story.start().step(50, 2.0).checkpoint(50).pause())),
    "completed": (RECORD, COMPLETED),
    "completed early": (
        RECORD,
        changed(COMPLETED, auc=201.44, early_stopped=True, best_epoch=4, best_val_margin=0.05, params=7),
    ),
    "stopped late": (RECORD, changed(COMPLETED, early_stopped=False)),
    "unmeasured": (RECORD, changed(COMPLETED, test_loss=None, best_val_loss=None, started_at=None, step=1, epoch=1)),
    "learned nothing": (RECORD, changed(COMPLETED, test_loss=0.97 * log(43))),
    "learned nothing of validation text": (RECORD, changed(COMPLETED, test_loss=None, best_val_loss=0.97 * log(43))),
    "learned a little": (RECORD, changed(COMPLETED, test_loss=0.9 * log(43))),
    "hardly unknown text": (RECORD, changed(COMPLETED, unknown_char_share=0.001)),
    "noted": (
        RECORD,
        status_of(lambda story: story.start(notes=("Left out: a_b.csv.",)).step(100, 1.1, 1.2).complete()),
    ),
    "leaking": (RECORD, status_of(lambda story: story.start(LEAKS).step(100, 1.1, 1.2).complete())),
    "better than counting": (RECORD, changed(COMPLETED, baseline=BETTER)),
    "worse than counting": (RECORD, changed(COMPLETED, baseline=WORSE, warnings=WORSE.warnings())),
    "largely unknown": (RECORD, changed(COMPLETED, unknown_char_share=0.5, baseline=MOSTLY_UNKNOWN)),
    "not clearly better": (RECORD, changed(COMPLETED, baseline=UNCLEAR, warnings=UNCLEAR.warnings())),
    "weights of the parent": (RECORD, changed(COMPLETED, best_epoch=0)),
    "masked": (MASKED, changed(COMPLETED, objective="masked_lm", bits_per_char=None)),
    "diverged at once": (RECORD, changed(DIVERGED, learning_rate=None)),
    "ahead of its last step": (RECORD, status_of(lambda story: story.start().step(30, 2.0).checkpoint(34).cancel())),
    "failed": (RECORD, FAILED),
    "failed untyped": (RECORD, changed(FAILED, error=None)),
    "diverged": (RECORD, DIVERGED),
    "diverged and cancelled": (RECORD, changed(DIVERGED, status="cancelled")),
    "cancelled behind a checkpoint": (RECORD, changed(CANCELLED, last_checkpoint_step=3)),
    "crashed at once": (RECORD, failed(ErrorCode.CRASH_LOOP, last_checkpoint_step=None)),
    "disk full": (RECORD, failed(ErrorCode.INSUFFICIENT_STORAGE)),
    "crashed": (RECORD, failed(ErrorCode.CRASH_LOOP)),
    "out of memory by one": (RECORD, failed(ErrorCode.OUT_OF_MEMORY, batch_size=1)),
    "cancelled": (RECORD, CANCELLED),
    "cancelled while queued": (RECORD, status_of(lambda story: story.cancel())),
    "cancelled when resumed": (RECORD, status_of(lambda story: story.checkpoint(34).cancel())),
}
SAMPLES = [
    Sample(prompt=prompt, text=f"{text} ```@here", seed=1, steps=5, stop_reason="eos")
    for prompt, text in (("", "men bolamen"), ("al", "tyn"))
]
FILES = [FileRecord(path=path, bytes=1_500_000, sha256=HASH) for path in ("model.safetensors", "x", "y")]
LINES = [*("x" * 200 for _ in range(9)), "Fatal Python error: Aborted"]
BUILD = BuildStatus(
    build_id="build-1",
    created_at=now(),
    status="queued",
    request=BuildRequest(source="local", languages=("kk", "tr"), characters=1000),
)
REMOVED = {"language_identification": 0.2, "short_lines": 0.5, "cut": 0.5}
BUILT: dict[str, object] = {
    "file": FileRecord(path="local_kk_ipa.txt", bytes=86, sha256=HASH),
    **{"source_sha256": None, "lines": 2, "characters": 86, "threshold": 0.9, "documents": 3, "rejected_documents": 1},
    **{"rejected_share": 1 / 3, "steps": ()},
    "removed": [{"step": step, "characters": 5, "share": share} for step, share in REMOVED.items()],
}
BUILD_FIELDS: dict[str, object] = {
    **{"source": "local", "dataset": None, "is_ipa": False, "min_ipa_share": 0.9, "min_line_characters": 20},
    **{"off": (), "budget_characters": None, "languages": {"kk": BUILT}, "versions": {}},
}
MANIFEST = parse(CorpusManifest, BUILD_FIELDS)
HALF = BuildProgress(language="kk", documents=3, rejected_documents=1, lines=2, characters=500)
PROBLEMS = tuple(FieldProblem(path=name, message=f"`{name}` must be text") for name in "ab")
FINDINGS = {state: Finding(state, "Found.") for state in ("ok", "warning", "failure")}
BATTERY = BatteryStatus(
    battery_id="ab-1",
    status="completed",
    message="Done.",
    runs=("lstm-1",),
    batteries=("a&b",),
    done=20,
    total=20,
    created_at=BEGIN,
    elapsed_seconds=2.0,
)
[SCORED] = ONE.runs
SUITE = changed(
    SCORED,
    formulas=(*(changed(SCORED.formulas[0], paradigm="x", n_right=n) for n in (1, 2)), *SCORED.formulas),
    controls=(changed(SCORED.controls[0], suite="x"),) * 11,
)
LEAKED = changed(SCORED.leaks[0], validation_whole=0.6, unsearched=("deleted",))
PARADIGMS = tuple(changed(SCORED.groups[1], name=f"paradigm {n}") for n in range(60))
CHAT = ChatResponse(request_id="f", run_id=RUN, session_id="s", status="queued")

CODES = (ErrorCode.INVALID_INPUT, ErrorCode.FORBIDDEN, ErrorCode.RATE_LIMIT_EXCEEDED, ErrorCode.INTERNAL_ERROR)
ENTRIES = [
    ENTRY,
    ENTRY._replace(state="running", progress=41.6, loss_nats=2.5, user_id=None),
    ENTRY._replace(state="completed", loss_nats=1.5, bits_per_char=2.164, has_attached_text=True, label=None),
    ENTRY._replace(state="completed", loss_nats=0.5, bits_per_char=0.899, unknown_char_share=0.845),
]
OF_GROUP = [ENTRIES[1], ENTRIES[2], ENTRIES[2]._replace(loss_nats=1.7, bits_per_char=2.4)]
ROWS = [*(RunRow(one.run_id, (one,)) for one in ENTRIES), RunRow("group-1", tuple(OF_GROUP))]
TOLD = tuple(leak_notes(Leak(lines=0.5, plain_lines=0.75), note("this text"), training_text_note("lstm-1")))
LOSS = changed(SCORE, loss=2.0, perplexity=7.389, bits_per_char=2.885, nats=2306.6, unknown_chars=5)
UNKNOWN_SIGNS = {"ğ": 3, "*": 1, " ": 9, "x" * 30: 2, "a": 1, "b": 1}
PART = report_of("abcd", [1.0, 2.0, 3.0, 4.0])._replace(shown_characters=3)
PIECES = PART._replace(summary=PART.summary._replace(n_characters=5, bits_per_char=None, perplexity=None, n_unknown=2))
SAID: dict[str, object] = {"answer": "```\n@everyone", "steps": 3, "stop_reason": "eos", "turns_dropped": 2}
FOUR = (("a", 1.9), ("b", 2.0), ("c", 1.8), ("d", 2.0))
LOW: dict[str, object] = {"loss": 1.9, "top1_accuracy": None}
LISTED = [
    (RECORD, status)
    for status in (
        *(QUEUED, changed(QUEUED, queue_position=3), RUNNING, changed(RUNNING, reachable=False)),
        *(changed(RUNNING, train_bits_per_char=None), changed(RUNNING, unknown_char_share=0.5)),
        changed(RUNNING, status="paused", eta_seconds=None, train_loss=None),
    )
]
TOKENIZER_STATES = ("queued", "running", "failed", "completed")
STATES: tuple[RunState, ...] = ("queued", "running", "completed", "failed", "cancelled")


battery_card = partial(job_card, JOB_ROWS["batteries"])
experiment_card = partial(job_card, JOB_ROWS["experiments"])


def tokenizer_in(state: str) -> discord.Embed:
    status = tokenizer("kk", state)
    measured = changed(status, vocab_size=29, stats=STATS) if state == "completed" else status
    return job_card(JOB_ROWS["tokenizers"], measured)


def build(**fields: object) -> discord.Embed:
    return job_card(JOB_ROWS["corpus_builds"], changed(BUILD, **fields))


def run(state: str, *, is_brief: bool = False) -> discord.Embed:
    record, status = RUN_STATES[state]
    return run_card(record, status, [3.0, 2.0], is_brief=is_brief)


def seeds(name: str, *losses: float) -> MeasuredGroup:
    """A group with a completed run for each test loss."""
    runs = [measured(f"{name}-{seed}", seed=seed, summary={"loss": loss}) for seed, loss in enumerate(losses)]
    return MeasuredGroup(name, runs)


def group(*statuses: RunStatus) -> discord.Embed:
    """The card of a group with runs in these states."""
    seeds = RunGroup(group_id="group-1", seeds=tuple(range(len(statuses))))
    members = [changed(status, seed=seed, group=seeds) for seed, status in enumerate(statuses)]
    return group_card(RECORD, group_status("group-1", members))


def end(state: str, outcome: Outcome | None = None) -> discord.Embed:
    record, status = RUN_STATES[state]
    return final_message(record, status, outcome or Outcome())


def details(state: str) -> discord.Embed:
    return details_answer(*RUN_STATES[state], Outcome(FILES))


def error(code: ErrorCode, *problems: FieldProblem) -> discord.Embed:
    return error_answer(AppError(code, "`epochs` must be 1 to 1000, you gave 0.", problems), "0a1b2c3d")


def battery(*runs: RunResult, **fields: object) -> discord.Embed:
    return battery_card(BATTERY, battery_report(changed(ONE, runs=runs, **fields)))


def experiment(
    status: RunState, result: ExperimentResult | None = None, elapsed: float | None = 754.0
) -> discord.Embed:
    found = experiment_status(status, "completed", "running", "queued", "failed", "cancelled")
    report = None if result is None else experiment_report(result)
    return experiment_card(changed(found, elapsed_seconds=elapsed), report)


def with_checks() -> ExperimentResult:
    """A result whose checks fail, or pass for controls."""
    [joined, shuffled] = finished_experiment().validity.checks
    checks = (
        changed(joined, name="held_out", joins_branches_first=False),
        shuffled,
        changed(shuffled, name="control", passed=True),
    )
    return changed(finished_experiment(), validity=Validity(passed=False, checks=checks))


def with_phases() -> ExperimentResult:
    """A result of two phases, without a perplexity of the model of ky."""
    finished = finished_experiment()
    phases: dict[str, Literal["first", "second"]] = {"kk": "first", "ky": "second"}
    curves = tuple(changed(row, phase=phases.get(row.language, "single")) for row in finished.curves)
    rows = tuple(row for row in finished.perplexities if (row.listener_language, row.text_language) != ("ky", "fi"))
    return changed(finished, languages=("kk", "ky"), curves=curves, perplexities=rows)


def with_many_languages() -> ExperimentResult:
    many = tuple(f"{first}{second}" for first in "abcdefgh" for second in "abcd")
    result = finished_experiment()
    [row] = [row for row in result.models[0].tables.matrix[:2] if row.text_language == "az"]
    matrix = tuple(changed(row, listener_language=a, text_language=b) for a in many for b in many)
    tables = changed(model_tables("lstm", "passages"), tables=changed(result.models[0].tables, matrix=matrix))
    return changed(result, languages=many, models=(tables,), seed_rows=())


def with_batteries_of_others() -> ExperimentResult:
    result = with_batteries()
    rows = tuple(row for row in result.batteries if row.battery_language != row.model_language)
    return changed(result, batteries=rows)


def without_curves() -> ExperimentResult:
    finished = finished_experiment()
    curves = [changed(row, auc=None) if row.language == "kk" else row for row in finished.curves]
    return changed(finished, curves=curves)


def of_every_cell() -> ExperimentStatus:
    status = experiment_status("running", "completed", "running")
    cells = [changed(cell, kind=kind) for kind in ("battery", "score", "train") for cell in status.cells]
    return changed(status, cells=tuple(cells))


ENDS = (
    *("completed", "completed early", "noted", "weights of the parent", "masked"),
    *("failed", "cancelled", "cancelled behind a checkpoint", "diverged and cancelled"),
)
"""States whose final messages end differently; what comes before has the card, too."""
SHOWN_BELOW = (
    *(f"{state} card" for state in ("queued", "running", "completed", "failed", "cancelled")),
    *("completed", "failed", "status", "runs", "report", "compare", "digest", "tokenizers", "tokenizer"),
    *("experiment", "finished experiment"),
)
"""Messages with text of a user that the cases below have, too."""
CASES: Mapping[str, Callable[[], discord.Embed]] = {
    **{f"any {name}": partial(make, "kk-ipa") for name, make in MESSAGES.items() if name not in SHOWN_BELOW},
    **{f"card {state}": partial(run, state) for state in RUN_STATES},
    **{f"end {state}": partial(end, state) for state in ENDS},
    **{
        f"brief card {state}": partial(run, state, is_brief=True)
        for state in ("running", "completed", "worse than counting")
    },
    **{
        f"details {state}": partial(details, state)
        for state in ("completed", "completed early", "stopped late", "failed")
    },
    "details of a plan": lambda: details_answer(changed(WARM, chosen=CHOSEN), QUEUED, Outcome()),
    "end with outcome": lambda: end("completed", Outcome(FILES, SAMPLES)),
    "end without weights": lambda: end("completed", Outcome(FILES[1:])),
    "end with a log": lambda: end("failed", Outcome(last_lines=LINES)),
    "accepted with cost": lambda: accepted_answer(
        changed(WARM, leaks=LEAKS, chosen=CHOSEN, notes=("Left out: a_b.csv.",)), notify="here"
    ),
    "accepted silently": lambda: accepted_answer(RECORD, notify="off"),
    "status": lambda: status_answer(RECORD, RUNNING, [], closed=None),
    "status in a closed channel": lambda: status_answer(RECORD, RUNNING, [], closed="channel"),
    "status of a queued run": lambda: status_answer(RECORD, QUEUED, [], closed=None),
    "cancelling": lambda: cancel_answer(RECORD, has_ended=False, has_started=True),
    "never started": lambda: cancel_answer(RECORD, has_ended=True, has_started=False),
    "watch": lambda: watch_answer(RECORD, "here", has_ended=False, has_final=False, closed=None),
    "watch sent": lambda: watch_answer(RECORD, "here", has_ended=True, has_final=True, closed=None),
    "watch closed": lambda: watch_answer(RECORD, "here", has_ended=True, has_final=True, closed="dm"),
    "no log": lambda: logs_answer(RECORD, [], is_attached=False),
    "log as a file": lambda: logs_answer(RECORD, ["x", "y"], is_attached=True),
    **{f"error {code}": partial(error, code) for code in (*CODES,)},
    "error of a field": lambda: error(ErrorCode.INVALID_INPUT, *PROBLEMS[:1]),
    "errors of fields": lambda: error(ErrorCode.INVALID_INPUT, *PROBLEMS),
    "no runs": lambda: runs_page([], title="Your runs", total=0, page=""),
    "runs": lambda: runs_page(ROWS, title="Your runs", total=17, page=" · page 2 of 3"),
    "score in nats": lambda: for_reader(lambda: score_answer(RECORD, "g" * 1214, LOSS, 2.6, {}, "Ask <@1>."), "nats"),
    "score less surprised": lambda: score_answer(RECORD, "g", LOSS, 3.885, {}),
    "score of trained text": lambda: score_answer(RECORD, "g", changed(LOSS, notes=TOLD), None, {}),
    "score as surprised": lambda: score_answer(RECORD, "g", LOSS, 2.8849, {}),
    "score of unknown text": lambda: score_answer(RECORD, "g", changed(LOSS, unknown_char_share=0.8), 2.0, {}),
    "score of unknown signs": lambda: score_answer(RECORD, "g", LOSS, None, UNKNOWN_SIGNS),
    "report": lambda: report_answer(
        RECORD, report_of("ab ғ", [1.0, 2.0, 6.0, 11.4], unknown="ғ"), RECORD.run_id, left_out=0
    ),
    "report without guesses": lambda: report_answer(
        RECORD, report_of("ab", [1.0, 2.0], expected=None), RECORD.run_id, left_out=0
    ),
    "report of a part": lambda: report_answer(RECORD, PART, RECORD.run_id, left_out=1200),
    "report of tokens": lambda: report_answer(RECORD, PIECES, RECORD.run_id, left_out=0),
    "table": lambda: table_answer(RECORD, PART, RECORD.run_id),
    "chat": lambda: chat_answer(RECORD, "hm", changed(CHAT, **SAID)),
    "chat unanswered": lambda: chat_answer(RECORD, "hm", CHAT),
    "evaluation": lambda: evaluation_answer(RECORD, "its own test split", EVALUATION, RECORD.run_id),
    "evaluation beside counts": lambda: evaluation_answer(
        RECORD, "its own test split", changed(EVALUATION, baseline=BETTER), RECORD.run_id
    ),
    "evaluation of lines": lambda: evaluation_answer(
        RECORD, "text", changed(EVALUATION, lines=line_losses(2.0, 0.2)), RECORD.run_id
    ),
    "evaluation over known words": lambda: evaluation_answer(RECORD, "text", KNOWN_EVALUATION, RECORD.run_id),
    "masked evaluation": lambda: evaluation_answer(RECORD, "text", MASKED_EVALUATION, RECORD.run_id),
    "group queued": lambda: group(QUEUED, QUEUED),
    "group training": lambda: group(COMPLETED, changed(RUNNING, progress=41.6), changed(RUNNING, status="paused")),
    "group completed": lambda: group(COMPLETED, changed(COMPLETED, test_loss=1.2, bits_per_char=1.8), FAILED),
    "group of masked models": lambda: group(
        *[changed(COMPLETED, objective="masked_lm", bits_per_char=None, best_val_bits_per_char=None)] * 2
    ),
    "group of n-grams": lambda: group(*[changed(COMPLETED, model_family="ngram")] * 2),
    "group of many": lambda: group(*[QUEUED] * 21),
    "group failed": lambda: group(FAILED, CANCELLED),
    "group accepted": lambda: accepted_answer(WARM, group=RunGroup(group_id="group-1", seeds=(1, 5, 9))),
    **{f"battery {state}": partial(battery_card, changed(BATTERY, status=state, done=5)) for state in STATES},
    "battery of a run": lambda: battery_card(BATTERY, battery_report(ONE)),
    "battery of two runs": lambda: battery_card(BATTERY, battery_report(SEVERAL)),
    "battery of a suite": lambda: battery(SUITE),
    "battery of two runs with a suite": lambda: battery(SUITE, changed(SUITE, run=changed(SUITE.run, run_id="lstm-2"))),
    "battery of leaked text": lambda: battery(
        changed(SCORED, leaks=(LEAKED,)), notes=(note("These are not compared."),)
    ),
    "battery of many paradigms": lambda: battery(changed(SCORED, groups=PARADIGMS)),
    "no batteries": lambda: jobs_page(JOB_ROWS["batteries"], [], total=0, page=""),
    "batteries": lambda: jobs_page(
        JOB_ROWS["batteries"], [BATTERY, changed(BATTERY, status="queued")], total=2, page=" · page 1 of 1"
    ),
    "development": lambda: battery_card(BATTERY, development_report(DEVELOPMENT, NO_ITEMS)),
    "development with items": lambda: battery_card(BATTERY, development_report(DEVELOPMENT, ONE)),
    "better": lambda: compare_answer(compare([measured("new", summary=LOW), measured("old")], split="test")),
    "regression": lambda: compare_answer(compare([measured("old"), measured("new", summary=LOW)], split="test")),
    "four runs": lambda: compare_answer(
        compare([measured(name, learning_rate=loss / 100, summary={"loss": loss}) for name, loss in FOUR], split="test")
    ),
    "groups": lambda: compare_answer(compare([seeds("new", 1.9, 1.8), seeds("old", 2.0, 2.2)], split="test")),
    "other tokenizers": lambda: compare_answer(
        compare([measured("new", tokenizer="b"), measured("old", summary={"unknown_char_share": 0.8})], split="test")
    ),
    "equal": lambda: compare_answer(compare([measured("new"), measured("old")], split="test")),
    "not comparable": lambda: compare_answer(compare([measured("new", split_seed=1), measured("old")], split="test")),
    "already there": lambda: added_answer(OVERVIEW, is_new=False),
    "no corpora": lambda: corpora_page([], total=0, page=""),
    "corpora in IPA": lambda: corpora_page([changed(OVERVIEW, is_ipa=True, lines=None)], total=1, page=" · page"),
    "build waiting": build,
    "build running": lambda: build(status="running", progress=(HALF,)),
    "build ended": lambda: build(status="completed", manifest=MANIFEST),
    "unit of the bot": lambda: settings_answer(UserSettings(), None, "nats"),
    "digest": lambda: digest_card((run_line(*one) for one in LISTED), "digest-1"),
    "empty digest": lambda: digest_card([], "digest-1"),
    "full digest": lambda: digest_card(["🏃 **" + "🐈" * 240 + "** · 41 % · loss 1.234"] * 500, "digest-1"),
    "empty queue": lambda: queue_answer([], absence="worker", is_paused=False),
    "paused queue": lambda: queue_answer([], absence="worker", is_paused=True),
    "queue of broken workers": lambda: queue_answer([], absence="broken", is_paused=False),
    "settings": lambda: settings_answer(UserSettings(language="ru", notify="off", unit="nats"), None, "bits"),
    "no tokenizers": lambda: jobs_page(JOB_ROWS["tokenizers"], [], total=0, page=""),
    **{f"tokenizer {state}": partial(tokenizer_in, state) for state in TOKENIZER_STATES},
    "exporting": lambda: exporting_answer(RECORD, "hf"),
    "export": lambda: export_link_answer(RECORD, "torchscript", "x.zip", 1_500_000, "https://x.y/z", 1_795_176_000),
    "access given": lambda: access_answer(1, "user"),
    "access taken": lambda: access_answer(1, "none"),
    "no worker": lambda: workers_answer(WorkersState(workers=(), runs={}, is_paused=False), {}, {}),
    "worker starting": lambda: workers_answer(
        WorkersState(workers=(), runs={}, is_paused=False, is_starting=True), {}, {}
    ),
    "doctor well": lambda: doctor_answer({"a": FINDINGS["ok"], "b": FINDINGS["ok"]}),
    "doctor warning": lambda: doctor_answer({"a": FINDINGS["ok"], "b": FINDINGS["warning"]}),
    "doctor failure": lambda: doctor_answer({"a": FINDINGS["failure"], "b": FINDINGS["warning"]}),
    **{f"experiment {state}": partial(experiment, state) for state in STATES},
    "experiment begun": lambda: experiment("running", elapsed=42.0),
    "experiment without time": lambda: experiment("running", elapsed=None),
    "experiment result": lambda: experiment("completed", finished_experiment()),
    "experiment of one seed": lambda: experiment("completed", with_one_seed()),
    "experiment unrated": lambda: experiment("completed", changed(finished_experiment(), correlations=())),
    "experiment of checks": lambda: experiment("completed", with_checks()),
    "experiment of phases": lambda: experiment("completed", with_phases()),
    "experiment of many languages": lambda: experiment("completed", with_many_languages()),
    "experiment with batteries": lambda: experiment("completed", with_batteries()),
    "experiment with batteries of others": lambda: experiment("completed", with_batteries_of_others()),
    "experiment of every cell": lambda: experiment_card(of_every_cell()),
    "experiment that waits": lambda: experiment_card(experiment_status("running", "paused", "queued")),
    "no experiments": lambda: jobs_page(JOB_ROWS["experiments"], [], total=0, page=""),
    "experiments": lambda: jobs_page(
        JOB_ROWS["experiments"], [experiment_status("running", "completed")], total=1, page=""
    ),
}


def text_of(language: Language, make: Callable[[], discord.Embed], unit: Unit = "bits") -> str:
    """The colour, the title, the lines and the footer of a message in a language."""
    embed = for_reader(make, unit, language)
    assert within_limits(embed) and embed.colour is not None
    return f"{embed.colour} {embed.title}\n{embed.description}\n-- {embed.footer.text or ''}"


VARIANTS: Mapping[str, Sequence[str]] = {
    "any accepted": ("accepted with cost", "accepted silently", "group accepted"),
    "card running": ("status", "status in a closed channel"),
    "card queued": ("status of a queued run",),
    "any cancel": ("cancelling", "never started"),
    "any watch": ("watch", "watch sent", "watch closed"),
    "score less surprised": ("any score", "score as surprised", "score of unknown text", "score of unknown signs"),
    "report": ("report without guesses", "report of a part", "report of tokens"),
    "any chat": ("chat", "chat unanswered"),
    "evaluation": ("evaluation beside counts", "evaluation of lines", "masked evaluation"),
    "group queued": ("group of many",),
    "group completed": ("group of masked models", "group of n-grams"),
    "battery of a run": ("battery of a suite", "battery of leaked text", "battery of many paradigms"),
    "battery of two runs": ("battery of two runs with a suite",),
    "development": ("development with items",),
    "better": ("regression", "four runs", "groups", "other tokenizers", "equal", "not comparable"),
    "any added": ("already there",),
    "any corpora": ("corpora in IPA",),
    "any corpus build": ("build waiting", "build running"),
    "any settings": ("settings", "unit of the bot"),
    "any queue": ("empty queue", "paused queue"),
    "tokenizer queued": ("tokenizer running", "tokenizer failed"),
    "doctor well": ("doctor warning", "doctor failure"),
    "battery running": ("battery failed", "battery cancelled"),
    "experiment running": (
        *("experiment failed", "experiment cancelled", "experiment begun", "experiment without time"),
        *("experiment of every cell", "experiment that waits"),
    ),
    "experiment result": (
        *("experiment of one seed", "experiment unrated", "experiment of checks", "experiment of phases"),
        *("experiment with batteries", "experiment of many languages"),
    ),
    "experiment with batteries": ("experiment with batteries of others",),
}
BASES: Mapping[str, str] = {
    **{f"end {state}": f"card {state}" for state in ENDS},
    **{f"card {name}": f"card {one.status}" for name, (_, one) in RUN_STATES.items() if name != one.status},
    **{variant: base for base, variants in VARIANTS.items() for variant in variants},
    **{"end with outcome": "end completed", "end without weights": "end completed", "end with a log": "end failed"},
}
"""The message that a variant differs from: of a run that of its state, of its final message the card."""


@pytest.mark.parametrize("case", CASES)
def test_message__has_the_text_of_its_state(case: str, snapshot: SnapshotAssertion) -> None:
    text = text_of("en", CASES[case])
    if case in BASES:
        lines = ndiff(text_of("en", CASES[BASES[case]]).split("\n"), text.split("\n"))
        text = "\n".join(line for line in lines if line[0] in "+-")
    assert text == snapshot


PICTURES = dict.fromkeys(("heat_map", "tree", "batteries"), b"png")
WORDS: Mapping[str, Callable[[], str]] = {
    "picture of a run": lambda: chart_alt_text(RUNNING),
    "picture of a report": lambda: report_files(PART)[0].description or "",
    "picture of a development": lambda: figure_in_words(development_report(DEVELOPMENT, NO_ITEMS).figures()[0]),
    "pictures of an experiment": lambda: "\n".join(
        f"{file.filename}: {file.description}"
        for file in attach_figures(discord.Embed(), experiment_report(with_batteries()).figures(), PICTURES)
    ),
    "suggestion": lambda: described(ENTRIES[2]),
    "suggestion without characters": lambda: described(ENTRIES[2]._replace(bits_per_char=None, objective="masked_lm")),
}
"""Texts that are not in a message: descriptions of pictures, and what is suggested while a person types."""
UNITS: tuple[Unit, ...] = ("bits", "nats")
UNIT_WORDS = {"bits": r"\b(bit|бит)(s|а|ы|ов|ах)?\b", "nats": r"\b(nat|нат)(s|а|ы|ов|ах)?\b"}
EXPLAINING = ("any settings", "settings", "unit of the bot")
"""Messages that say what the units are."""


def words_of(case: str, unit: Unit, language: Language = "en") -> str:
    return for_reader(WORDS[case], unit, language) if case in WORDS else text_of(language, CASES[case], unit)


@pytest.mark.parametrize("case", sorted({*CASES, *WORDS} - {*EXPLAINING, "score in nats"}))
def test_message__has_one_unit_that_of_its_reader(case: str) -> None:
    for language in LANGUAGE_NAMES:
        in_bits, in_nats = (words_of(case, unit, language) for unit in UNITS)
        assert re.search(UNIT_WORDS["nats"], in_bits) is None, in_bits
        assert re.search(UNIT_WORDS["bits"], in_nats) is None, in_nats
        assert (re.search(UNIT_WORDS["bits"], in_bits) is None) == (in_bits == in_nats), "a figure without a unit"


BIT = log(2)
"""Nats."""
FIGURES: Sequence[tuple[str, str, Sequence[float]]] = [
    ("card running", "Loss **{:.3f}** {u}/token · {:.3f} {u}/char · perplexity 7.39", (2.0, 4.0)),
    ("card running", "Validation {:.3f} {u}/token · {:.3f} {u}/char · best {:.3f}", (2.1, 4.2, 2.1)),
    ("card without checkpoint", "Loss **{:.3f}** {u}/token · {:.3f} {u}/char", (3.0, 6.0)),
    ("card completed", "Test **{:.3f}** {u}/token · {:.3f} {u}/char · perplexity 2.72", (1.0, 1.5 * BIT)),
    ("details completed early", "Area under the loss curve: {:.2f} {u} · steps", (201.44,)),
    ("end completed early", "Validation {:.3f} ± {:.3f} (95 %) {u}/token", (2.1, 0.05)),
    ("card learned nothing", "its loss is {:.3f} {u}/token, and the uniform baseline has {:.3f}.", (3.64837, 3.76120)),
    ("card masked", "Test **{:.3f}** {u}/masked token · perplexity 2.72", (1.0,)),
    (
        "card better than counting",
        "5-gram: {:.3f} {u} per character; this model {:.3f} (-{:.3f})",
        (1.8128 * BIT, 1.5 * BIT, 0.3128 * BIT),
    ),
    ("card learned nothing of validation text", "its loss is {:.3f} {u}/token, and the uniform", (3.64837,)),
    ("card hardly unknown text", "{:.3f} {u}/char · perplexity", (1.5 * BIT,)),
    ("card unknown text", "{:.3f} {u}/char ⚠ · perplexity 7.39 ⚠", (4.0,)),
    ("card not clearly better", "unigram: {:.3f} {u} per character; this model {:.3f}", (1.5308 * BIT, 1.5 * BIT)),
    ("digest", "25 % · loss {:.3f} {u}/token · {:.3f} {u}/char · ETA", (2.0, 4.0)),
    ("card largely unknown", "Test **{:.3f}** {u}/token ⚠", (1.0,)),
    (
        "group completed",
        "Test **{:.3f} ± {:.3f}** {u}/token · {:.3f} ± {:.3f} {u}/char",
        (1.1, 0.1414214, 1.65 * BIT, 0.2121320 * BIT),
    ),
    ("group of masked models", "Validation **{:.3f} ± 0.000** {u}/masked token", (2.1,)),
    ("runs", "running 42 % · {:.3f} {u}/token", (2.5,)),
    ("runs", "completed · {:.3f} {u}/token ⚠ · {:.3f} {u}/char ⚠", (0.5, 0.899 * BIT)),
    ("evaluation", "**{:.3f}** {u}/token ⚠ · {:.3f} {u}/char ⚠ · perplexity 7.39 ⚠", (2.0, 1.5 * BIT)),
    ("evaluation over known words", "**{:.3f}** {u}/token ⚠", (2.0,)),
    ("evaluation over known words", "Over known tokens: {:.3f} {u} per token, perplexity 20.09", (3.0,)),
    ("masked evaluation", "**{:.3f}** {u}/masked token · perplexity 7.39", (2.0,)),
    ("score less surprised", "**{:.3f}** {u}/token · {:.3f} {u}/char", (2.0, 2.885 * BIT)),
    ("score less surprised", "{:.3f} {u}/token without line ends · {:.2f} {u} in total", (1.9, 2306.6)),
    ("score less surprised", "by {:.3f} {u}/char.", (1.0 * BIT,)),
    ("report", "Mean **{:.3f}** {u} · median {:.2f} · max {:.2f} at 4", (5.1 * BIT, 4 * BIT, 11.4 * BIT)),
    ("report", "· above {:.3g}: 1 of 4 characters", (6 * BIT,)),
    ("battery of a run", "s      c            1 verb  {:.2f}  {:.2f} to {:.2f}\n", (2.5, 2.0, 3.0)),
    ("better", "new  {:.3f}           {:.3f}", (1.9, 1.5 * BIT)),
    ("better", "old   {:+.3f}", (-0.1,)),
    ("groups", "Paired over 2 seeds: {:+.3f}", (-0.25,)),
    ("experiment result", "kk  {:.3f}  {:.3f}  0.000", (0.99, 0.97)),
    (
        "experiment result",
        "passages: The mean distance is {:.3f} {u} within branches and {:.3f} across branches: a gap of {:.3f},",
        (0.443333, 0.883333, 0.44),
    ),
    ("experiment result", "shuffled: With shuffled characters the gap is {:.3f} {u}.", (0.44,)),
    ("experiment of checks", "it should be below half of the {:.3f} of the held-out text.\n", (0.44,)),
    ("experiment of checks", "a control is {:.3f} {u} (fi); it should be above the mean", (1.6,)),
    ("development", "  {:.3f}\n4 ", (14 / 3 * BIT,)),
    ("picture of a run", "training loss {:.3f} {u}/token, validation loss {:.3f}.", (2.0, 2.1)),
    ("picture of a report", "mean {:.3f} {u}, highest {:.2f} at 4.", (2.5 * BIT, 4 * BIT)),
    ("suggestion", "· {:.3f} {u}/char", (2.164 * BIT,)),
    ("suggestion without characters", "· {:.3f} {u}/masked token", (1.5,)),
]
"""A message, a text in it, and its figures in nats."""


@pytest.mark.parametrize(("unit", "nats"), [("bits", BIT), ("nats", 1.0)])
def test_message__has_its_figures_in_the_unit_of_its_reader(unit: Unit, nats: float) -> None:
    for case, text, figures in FIGURES:
        assert text.format(*(figure / nats for figure in figures), u=unit) in words_of(case, unit), case
