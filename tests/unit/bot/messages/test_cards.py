"""The text of every message in each of its states, as a snapshot in each language."""

from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import partial
from math import log

import discord
import pytest
from syrupy.assertion import SnapshotAssertion

from bot.commands.admin import access_answer, doctor_answer, workers_answer
from bot.commands.compare import compare_answer
from bot.commands.corpora import added_answer, corpora_page
from bot.commands.evaluation import evaluation_answer
from bot.commands.export import export_link_answer, exporting_answer
from bot.commands.queue import queue_answer
from bot.commands.settings import settings_answer
from bot.commands.tokenizers import tokenizers_page
from bot.messages.answers import (
    accepted_answer,
    cancel_answer,
    error_answer,
    logs_answer,
    runs_page,
    status_answer,
    watch_answer,
)
from bot.messages.digest_card import digest_card, run_line
from bot.messages.experiment_answers import METRICS, Metric, experiments_page, metric_answer
from bot.messages.experiment_card import experiment_card
from bot.messages.group_card import group_card
from bot.messages.inference import chat_answer, report_answer, score_answer, table_answer
from bot.messages.job_cards import corpus_build_card, tokenizer_card
from bot.messages.run_card import final_message, run_card
from bot.people.user_settings import UserSettings
from tests.support.baselines import BETTER, UNCLEAR, WORSE
from tests.support.cards import within_limits
from tests.support.experiment_results import experiment_status, finished_experiment, with_one_seed
from tests.support.measured_runs import line_losses, measured
from tests.support.messages import (
    CANCELLED,
    COMPLETED,
    ENTRY,
    EVALUATION,
    FAILED,
    HASH,
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
from tests.support.scores import report_of
from tests.support.stories import run_record
from trainer.artifacts.corpus_builds import BuildRequest, BuildStatus
from trainer.artifacts.outcome import Outcome
from trainer.config.validation import parse
from trainer.contracts.base import FileRecord, RunState, changed
from trainer.contracts.corpora import BuildProgress, CorpusManifest
from trainer.contracts.cost import Cost
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem, RunError
from trainer.contracts.experiments import ExperimentResult
from trainer.contracts.groups import group_status
from trainer.contracts.inference import ChatResponse, Sample
from trainer.contracts.jobs import WorkersState
from trainer.contracts.runs import Leak, Leaks, RunRecord, RunStatus
from trainer.contracts.search import Search, Trial
from trainer.contracts.seeds import RunGroup
from trainer.contracts.training_options import ChosenValue, EarlyStopping
from trainer.people.language import LANGUAGE_NAMES, Language, use_language
from trainer.queue.run_index import RunRow
from trainer.reports.comparison import compare
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
TRIAL = Trial(number=3, learning_rate=0.0179, dropout=0.24, round=3, steps=500, val_loss=1.25)
SEARCH = Search(variants=8, trials=(TRIAL,))
UNKNOWN: dict[str, object] = dict.fromkeys(
    ("total_steps", "best_val_loss", "train_bits_per_char", "val_bits_per_char", "chars_per_second", "eta_seconds"),
    None,
)
DIVERGED = changed(FAILED, error=RunError.of(AppError(ErrorCode.TRAINING_NAN_LOSS, "x")))
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
    "noted": (
        RECORD,
        status_of(lambda story: story.start(notes=("Left out: a_b.csv.",)).step(100, 1.1, 1.2).complete()),
    ),
    "leaking": (RECORD, status_of(lambda story: story.start(LEAKS).step(100, 1.1, 1.2).complete())),
    "searched": (RECORD, changed(COMPLETED, search=SEARCH)),
    "searched for a rate": (RECORD, changed(COMPLETED, search=changed(SEARCH, trials=(changed(TRIAL, dropout=None),)))),
    "better than counting": (RECORD, changed(COMPLETED, baseline=BETTER)),
    "worse than counting": (RECORD, changed(COMPLETED, baseline=WORSE, warnings=WORSE.warnings())),
    "not clearly better": (RECORD, changed(COMPLETED, baseline=UNCLEAR, warnings=UNCLEAR.warnings())),
    "weights of the parent": (RECORD, changed(COMPLETED, best_epoch=0)),
    "masked": (MASKED, changed(COMPLETED, objective="masked_lm", bits_per_char=None)),
    "diverged at once": (RECORD, changed(DIVERGED, learning_rate=None)),
    "ahead of its last step": (RECORD, status_of(lambda story: story.start().step(30, 2.0).checkpoint(34).cancel())),
    "failed": (RECORD, FAILED),
    "failed untyped": (RECORD, changed(FAILED, error=None)),
    "diverged": (RECORD, DIVERGED),
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
BUILD = BuildStatus(request=BuildRequest(source="local", languages=("kk", "tr"), characters=1000))
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
LOSS = changed(SCORE, loss=2.0, perplexity=7.389, bits_per_char=2.885, nats=2306.6, unknown_chars=5)
UNKNOWN_SIGNS = {"ğ": 3, "*": 1, " ": 9, "x" * 30: 2, "a": 1, "b": 1}
PART = report_of("abcd", [1.0, 2.0, 3.0, 4.0])._replace(shown_characters=3)
PIECES = PART._replace(summary=PART.summary._replace(n_characters=5, bits_per_char=None, perplexity=None, n_unknown=2))
SAID: dict[str, object] = {"answer": "```\n@everyone", "steps": 3, "stop_reason": "eos", "turns_dropped": 2}
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


def tokenizer_in(state: str) -> discord.Embed:
    return tokenizer_card(tokenizer("kk", state))


def table_of(metric: Metric) -> discord.Embed:
    return metric_answer(experiment_status("completed"), finished_experiment(), metric)


def run(state: str) -> discord.Embed:
    record, status = RUN_STATES[state]
    return run_card(record, status, [3.0, 2.0])


def group(*statuses: RunStatus) -> discord.Embed:
    """The card of a group with runs in these states."""
    seeds = RunGroup(group_id="group-1", seeds=tuple(range(len(statuses))))
    members = [changed(status, seed=seed, group=seeds) for seed, status in enumerate(statuses)]
    return group_card(RECORD, group_status("group-1", members))


def end(state: str, outcome: Outcome | None = None) -> discord.Embed:
    record, status = RUN_STATES[state]
    return final_message(record, status, outcome or Outcome())


def error(code: ErrorCode, *problems: FieldProblem) -> discord.Embed:
    return error_answer(AppError(code, "`epochs` must be 1 to 1000, you gave 0.", problems), "0a1b2c3d")


def experiment(
    status: RunState, result: ExperimentResult | None = None, elapsed: float | None = 754.0
) -> discord.Embed:
    found = experiment_status(status, "completed", "running", "queued", "failed", "cancelled")
    return experiment_card(changed(found, elapsed_seconds=elapsed), result)


CASES: Mapping[str, Callable[[], discord.Embed]] = {
    **{f"any {name}": partial(make, "kk-ipa") for name, make in MESSAGES.items()},
    **{f"card {state}": partial(run, state) for state in RUN_STATES},
    **{f"end {state}": partial(end, state) for state, (_, one) in RUN_STATES.items() if one.has_ended},
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
    "no runs": lambda: runs_page([], title="Your runs", total=0, page=1, pages=1),
    "runs": lambda: runs_page(ROWS, title="Your runs", total=17, page=2, pages=3),
    "score in nats": lambda: score_answer(RECORD, "g" * 1214, LOSS, "nats", 2.6, {}, "Ask <@1>."),
    "score less surprised": lambda: score_answer(RECORD, "g", LOSS, "bits", 3.885, {}),
    "score as surprised": lambda: score_answer(RECORD, "g", LOSS, "bits", 2.884, {}),
    "score of unknown text": lambda: score_answer(RECORD, "g", changed(LOSS, unknown_char_share=0.8), "bits", 2.0, {}),
    "score of unknown signs": lambda: score_answer(RECORD, "g", LOSS, "bits", None, UNKNOWN_SIGNS),
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
    "evaluation of one line": lambda: evaluation_answer(
        RECORD, "text", changed(EVALUATION, lines=line_losses(2.0, lines=1)), RECORD.run_id
    ),
    "masked evaluation": lambda: evaluation_answer(RECORD, "text", MASKED_EVALUATION, RECORD.run_id),
    "group queued": lambda: group(QUEUED, QUEUED),
    "group training": lambda: group(COMPLETED, changed(RUNNING, progress=41.6), changed(RUNNING, status="paused")),
    "group completed": lambda: group(COMPLETED, changed(COMPLETED, test_loss=1.2, bits_per_char=1.8), FAILED),
    "group of masked models": lambda: group(*[changed(COMPLETED, bits_per_char=None, test_loss=None)] * 2),
    "group of many": lambda: group(*[QUEUED] * 21),
    "group failed": lambda: group(FAILED, CANCELLED),
    "group accepted": lambda: accepted_answer(WARM, group=RunGroup(group_id="group-1", seeds=(1, 5, 9))),
    "better": lambda: compare_answer(compare([measured("new", summary=LOW), measured("old")], split="test")),
    "regression": lambda: compare_answer(compare([measured("old"), measured("new", summary=LOW)], split="test")),
    "equal": lambda: compare_answer(compare([measured("new"), measured("old")], split="test")),
    "not comparable": lambda: compare_answer(compare([measured("new", split_seed=1), measured("old")], split="test")),
    "already there": lambda: added_answer(OVERVIEW, is_new=False),
    "no corpora": lambda: corpora_page([], total=0, page=""),
    "corpora in IPA": lambda: corpora_page([changed(OVERVIEW, is_ipa=True, lines=None)], total=1, page=" · page"),
    "build waiting": lambda: corpus_build_card("build-1", BUILD),
    "build running": lambda: corpus_build_card("build-1", changed(BUILD, progress=(HALF,))),
    "build ended": lambda: corpus_build_card("build-1", changed(BUILD, manifest=MANIFEST)),
    "digest": lambda: digest_card((run_line(*one) for one in LISTED), "digest-1"),
    "empty digest": lambda: digest_card([], "digest-1"),
    "full digest": lambda: digest_card(["🏃 **" + "🐈" * 24 + "** · 41 % · loss 1.234"] * 500, "digest-1"),
    "empty queue": lambda: queue_answer([], has_worker=False, is_paused=False),
    "paused queue": lambda: queue_answer([], has_worker=False, is_paused=True),
    "settings": lambda: settings_answer(UserSettings(language="ru", notify="off", unit="nats"), None),
    "no tokenizers": lambda: tokenizers_page([], total=0, page=""),
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
    **{f"metric {metric}": partial(table_of, metric) for metric in METRICS.values()},
    "no experiments": lambda: experiments_page([], total=0, page=""),
    "experiments": lambda: experiments_page([experiment_status("running", "completed")], total=1, page=""),
}


def text_of(language: Language, make: Callable[[], discord.Embed]) -> str:
    """The colour, the title, the lines and the footer of a message in a language."""

    def shown() -> str:
        use_language(language)
        embed = make()
        assert within_limits(embed) and embed.colour is not None
        return f"{embed.colour} {embed.title}\n{embed.description}\n-- {embed.footer.text or ''}"

    return copy_context().run(shown)


@pytest.mark.parametrize("case", CASES)
def test_message__has_the_text_of_its_state_in_each_language(case: str, snapshot: SnapshotAssertion) -> None:
    assert "\n\n".join(text_of(language, CASES[case]) for language in LANGUAGE_NAMES) == snapshot
