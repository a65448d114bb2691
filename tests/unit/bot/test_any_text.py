"""Messages and forms with any text of a user: Discord accepts them, and the text stays in its place."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import discord
from hypothesis import strategies as st

from bot.commands.admin import deleted_answer, workers_answer
from bot.commands.compare import compare_answer
from bot.commands.compare import settings_answer as differences_answer
from bot.commands.corpora import added_answer, clean_name, corpora_page, corpus_answer
from bot.commands.evaluation import evaluating_answer
from bot.commands.queue import QueueRow, queue_answer
from bot.commands.settings import settings_answer
from bot.commands.tokenizers import tokenizer_answer, tokenizers_page
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
from bot.messages.buttons import Field, form
from bot.messages.corpus_build_card import corpus_build_card
from bot.messages.digest_card import digest_card, run_line
from bot.messages.experiment_card import experiment_card
from bot.messages.inference import chat_answer, generate_answer, predict_answer, report_answer, score_answer
from bot.messages.run_card import final_message, run_card
from bot.messages.text import plain
from bot.messages.tokenizer_card import tokenizer_card
from bot.people.user_settings import UserSettings
from local_discord.limits import message_problems
from local_discord.validation import Description
from local_discord.wire import Json, decode, mapping
from tests.support.cards import within_limits
from tests.support.experiment_results import experiment_status, finished_experiment
from tests.support.measured_runs import measured
from tests.support.properties import for_all
from tests.support.scores import score_of
from tests.support.stories import BEGIN, Story, run_record
from trainer.artifacts.corpus_builds import BuildRequest, BuildStatus
from trainer.artifacts.outcome import Outcome
from trainer.contracts.base import FileRecord
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.experiments import ExperimentStatus
from trainer.contracts.inference import (
    ChatResponse,
    GenerateRequest,
    GenerateResponse,
    PredictResponse,
    Sample,
    ScoreResponse,
    Suggestion,
)
from trainer.contracts.jobs import WorkerInfo
from trainer.contracts.runs import CorpusRef, RunRecord, RunStatus
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.data.corpus_overview import CorpusOverview, CorpusStatistics
from trainer.queue.queue import WorkersState
from trainer.queue.run_index import RunEntry
from trainer.reports.comparison import compare, differences
from trainer.reports.surprisal_report import ReportFiles, summarize

RUN = "char_lstm-20261120-0a1b2c"
HASH = "a" * 64
DISCORD = Description()
_MARKS = [
    *("@everyone", "@here", "<@1>", "<@!1>", "<@&1>", "<#2>", "</mt train:3>", "<t:0:R>", "<:a:1>", "https://x.y"),
    *("`", "``", "```", "```ansi\n", "\n```\n", "**", "__", "~~", "||", "[a](https://x.y)", "\n> ", "\n# ", "\n-# "),
    "[a](https://x.y)```[a](https://x.y)",
    *("\x1b[31m", "\x1b[2J", "\0", "\r", "\t", " ", "\n", "\\", "{name}", "%s", "\u2028", "\u0085"),
    *("\u202e", "\u202d", "\u202b", "\u2066", "\u2067", "\u2068", "\u2069", "\u202c", "\u200e", "\u200f", "\u061c"),
    *("\u200b", "\u200d", "\u2060", "\ufeff", "\u3164", "\u00ad", "\u0301" * 30, "a\u0361\u035c", "\U0001f468\u200d"),
    *("ئۇيغۇر", "שלום", "😀", "ﷺ", "\U000e0001", "\ufffd", "\uffff"),
]
_PIECES = st.one_of(st.sampled_from(_MARKS), st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
_SOME = st.lists(_PIECES, max_size=12).map("".join)
TEXTS = st.one_of(_SOME, _SOME, _SOME, _SOME.map(lambda some: some * 60))
"""Text without halves of surrogate pairs, which no contract accepts."""
HALVES = st.tuples(TEXTS, st.sampled_from(["", "\ud800", "\udfff\ud800", "a\udbffb"])).map("".join)
"""Text of messages that quote what a contract has refused."""

Make = Callable[[str], discord.Embed]


def record_of(given: str) -> RunRecord:
    """A run with a text in place of every name that a user chooses."""
    record = run_record()
    corpus: dict[str, object] = {"name": given or "x"}
    named: dict[str, object] = {"label": given, "corpus": record.effective.corpus.model_copy(update=corpus)}
    values: dict[str, object] = {"effective": record.effective.model_copy(update=named)}
    return record.model_copy(update=values)


def _status(tell: Callable[[Story], Story]) -> RunStatus:
    with TemporaryDirectory() as folder:
        return tell(Story(Path(folder), run_record())).follower().refresh()


QUEUED = _status(lambda story: story)
RUNNING = _status(lambda story: story.start().step(10, 3.0).step(25, 2.0, 2.1).checkpoint(25))
COMPLETED = _status(lambda story: story.start().step(100, 2.0, 2.1).complete())
FAILED = _status(lambda story: story.start().step(10, 3.0).checkpoint(10).fail())
CANCELLED = _status(lambda story: story.start().step(10, 3.0).cancel())
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
    return report_answer(record_of(given), ReportFiles(summarize(score, signs, "bits"), len(nats), {}), left_out=3)


def generated(given: str) -> discord.Embed:
    response = GenerateResponse(
        request_id="f",
        run_id=RUN,
        status="completed",
        outputs=(given, "", given, "x"),
        steps=(1,) * 4,
        eos_terminated=(True,) * 4,
        stop_reason=("eos",) * 4,
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
    one, *others = (measured(name) for name in "abcd")
    labelled = [one._replace(manifest=one.manifest.model_copy(update=named)) for one in (one, *others)]
    return compare_answer(compare(labelled, split="test"))


def differing(given: str) -> discord.Embed:
    one = measured("a", corpus=CorpusRef(name="one", sha256="1" * 64, bytes=1)).manifest.effective
    other = measured("b", corpus=CorpusRef(name="two", sha256="2" * 64, bytes=1)).manifest.effective
    return differences_answer(record_of(given), record_of(given), differences(one, other), lambda name: given)


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
    state = WorkersState((worker,), {"lstm-1": given}, is_paused=True)
    return workers_answer(state, {"lstm-1": entry(given)}, {"lstm-1": given})


OVERVIEW = CorpusOverview("x", 1, 1, (), None)
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
    "files": lambda given: files_answer(record_of(given), [FileRecord(path="a/b", bytes=1, sha256=HASH)] * 99),
    "file": lambda given: file_answer(record_of(given), FileRecord(path="a/b", bytes=1, sha256=HASH)),
    "config": lambda given: config_answer(record_of(given), given),
    "undelivered": lambda given: undelivered_note([run_card(record_of(given), failed(given), [])] * 4),
    "user error": lambda given: error_answer(AppError(ErrorCode.INVALID_INPUT, f"You gave '{given}'."), "f"),
    "fault": lambda given: error_answer(AppError(ErrorCode.INTERNAL_ERROR, given), "f"),
    "runs": lambda given: runs_page(
        [entry(given)] * 8, title=f"Your runs with «{plain(given)}»", total=8, page=1, pages=2
    ),
    "score": lambda given: score_answer(record_of(given), given, SCORE, "bits", 2.0, {given: 3, "`": 1}),
    "report": report,
    "generate": generated,
    "chat": chatted,
    "predict": predicted,
    "compare": compared,
    "differences": differing,
    "evaluating": lambda given: evaluating_answer(record_of(given), f"corpus {plain(given)}"),
    "corpora": lambda given: corpora_page([OVERVIEW._replace(name=given, languages=(given,))], total=1, page=""),
    "corpus": lambda given: corpus_answer(
        given,
        OVERVIEW._replace(name=given),
        CorpusStatistics(1, 9, 9, tuple((char, 1) for char in given[:9])),
        [given] * 9,
    ),
    "added": lambda given: added_answer(OVERVIEW._replace(name=clean_name(f"a{given}")), is_new=True),
    "corpus build": lambda given: corpus_build_card(
        "build-1",
        BuildStatus(
            request=BuildRequest(source="local", languages=("tr",)),
            error=RunError.of(AppError(ErrorCode.INVALID_INPUT, given)),
        ),
    ),
    "digest": lambda given: digest_card([run_line(record_of(given), RUNNING)] * 30, "digest-1"),
    "queue": lambda given: queue_answer(
        [QueueRow(entry(given), is_running=False)] * 30, has_worker=True, is_paused=False
    ),
    "settings": lambda given: settings_answer(UserSettings(), given),
    "tokenizers": lambda given: tokenizers_page([tokenizer(given, "queued")] * 8, total=8, page=""),
    "tokenizer": lambda given: tokenizer_answer(tokenizer(given, "failed"), [given] * 3),
    "tokenizer card": lambda given: tokenizer_card(tokenizer(given, "failed")),
    "workers": busy_worker,
    "deleted": lambda given: deleted_answer(record_of(given)),
    "experiment": lambda given: experiment_card(
        named_experiment(experiment_status("running", "completed", "running", "queued"), given)
    ),
    "finished experiment": lambda given: experiment_card(
        named_experiment(experiment_status("completed"), given), finished_experiment()
    ),
}
QUOTING = (
    "failed card",
    "status",
    "failed",
    "undelivered",
    "user error",
    "fault",
    "corpus build",
    "tokenizer",
    "tokenizer card",
)
"""Messages that quote a text in a sentence of the bot, which can mention somebody itself."""
_CODE = re.compile(r"```.*?```|(?<!\\)`[^`\n]*`", re.DOTALL)
_LIVE = re.compile(r"<(?:@[!&]?|#|/|t:|a?:)\w|@everyone|@here|://")
_LINK = re.compile(r"\]\([^)\s]*://")
_OVERRIDES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067"


def problems(operation: tuple[str, str], body: Json) -> list[str]:
    """Mistakes of a request, by Discord's API description and the limits that its pages name."""
    found = DISCORD.match(*operation)
    assert found is not None
    data = mapping(body.get("data")) or body
    refused = [*DISCORD.body_problems(found[0], body), *message_problems(data)]
    return [f"{problem.path}: {problem.message}" for problem in refused]


def shown(embed: discord.Embed) -> str:
    return f"{embed.title}\n{embed.description}"


def escapes(line: str) -> bool:
    """True if a line changes the direction of the text around it."""
    depth = 0
    for char in line:
        depth += (char == "\u2068") - (char == "\u2069")
        if depth < 0 or char in _OVERRIDES:
            return True
    return False


HARMLESS = {name: _CODE.sub("", shown(make("x"))) for name, make in MESSAGES.items()}


@for_all(TEXTS)
def test_messages__of_any_text_are_accepted_by_discord(given: str) -> None:
    for name, make in MESSAGES.items():
        embed = make(given)
        assert within_limits(embed), name
        body: Json = {"embeds": [decode(json.dumps(embed.to_dict()))]}
        assert problems(("POST", "/channels/1/messages"), body) == [], name


@for_all(TEXTS)
def test_messages__of_any_text_close_their_code_and_keep_its_marks_and_directions_inert(given: str) -> None:
    for name, make in MESSAGES.items():
        text = shown(make(given))
        outside = _CODE.sub("", text)
        live = _LINK if name in QUOTING else _LIVE
        found: list[str] = live.findall(outside)
        expected: list[str] = live.findall(HARMLESS[name])
        assert text.count("```") % 2 == 0, name
        assert set(found) <= set(expected), name
        assert not any(escapes(line) for line in outside.split("\n")), name


@for_all(HALVES)
def test_messages__of_text_with_half_a_character_can_be_encoded(given: str) -> None:
    for name in ("fault", "logs", "runs"):
        embed = MESSAGES[name](given)
        assert shown(embed).encode("utf-8") and within_limits(embed), name


@for_all(TEXTS)
def test_undelivered_results__of_any_text_name_every_run(given: str) -> None:
    assert (MESSAGES["undelivered"](given).description or "").count(f"`{RUN}`") == 4


@for_all(TEXTS)
def test_forms__of_any_text_are_accepted_by_discord(given: str) -> None:
    modal = form(
        "edit", RUN, f"Edit {given}", Field("prompt", f"Prompt {given}", given), Field("n", "N", given, True, 9)
    )
    data: dict[str, object] = modal.to_dict()
    body: Json = {"type": 9, "data": decode(json.dumps(data))}
    assert problems(("POST", "/interactions/1/token/callback"), body) == []
