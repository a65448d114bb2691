"""The operations of an installation, one row each: its names in each face, its rights, limits and words.

Without further imports, so that `mt --help` is quick; `trainer/lab/calls.py` has the records of each operation.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trainer.contracts.base import KindName, RunState

Section = Literal[
    "Start",
    "Train",
    "Runs",
    "Use a model",
    "Batteries",
    "Reading times",
    "Experiments",
    "Studies",
    "Data and tokenizers",
    "Check",
]
"""The sections of `mt --help`."""
Tag = Literal[
    "service",
    "runs",
    "exports",
    "inference",
    "completions",
    "corpora",
    "tokenizers",
    "experiments",
    "studies",
    "batteries",
    "readings",
    "artifacts",
]
"""The sections of `/docs`."""


class Role(StrEnum):
    """The people who may do something."""

    USER = "users"
    WEIGHTS = "people who may get the run's weights"
    """Its owner and admins; with SECURITY__OPEN_WEIGHTS, users too, if the texts of the run have names."""
    OWNER = "the run's owner and admins"
    ADMIN = "admins"


class TerminalCommand(NamedTuple):
    """An operation as a command of `mt`."""

    command: str
    module: str
    """The module of `trainer/commands` that adds it to the parser."""
    about: str
    example: str


class ChatCommand(NamedTuple):
    """An operation as a command of the bot."""

    command: str
    module: str = ""
    """Module of `bot/commands` that has the command or its group; empty: named as the command's first word.

    After a colon the name there, if that is not the first word.
    """
    is_public: bool = False
    """Everybody in the channel sees its answer."""
    noun: str | None = None
    """The noun for the runs that it needs, in the answer where there is none."""

    @property
    def source(self) -> tuple[str, str]:
        """The module with the command or its group, and the name there."""
        word = self.command.split()[0]
        module, _, name = (self.module or word).partition(":")
        return module, name or word.replace("-", "_")


class Operation(NamedTuple):
    """One thing that people can do."""

    name: str
    """Name of its function in `trainer/lab`, and its operationId."""
    route: str = ""
    """Method and path; empty: not over HTTP."""
    tag: Tag = "service"
    answer: str = ""
    """The successful answer, in words; empty for a job that starts."""
    terminal: TerminalCommand | None = None
    chat: ChatCommand | None = None
    role: Role = Role.USER
    limit: Literal["requests"] | None = None
    """The limit that it counts towards; new runs are counted where they are accepted."""
    states: tuple[RunState, ...] = ()
    """States of the runs that it is meant for; empty: all."""
    takes_model: bool = False
    """A checkpoint, as RUN@1200, may be named in place of a run."""
    takes_group: bool = False
    """A group of runs may be named in place of a run."""
    takes_default: bool = False
    """Without a name it takes the default run of a person, as long as that fits."""
    generates: bool = False
    """Only for runs that predict the next token."""
    follows: str = ""
    """The operation that reads the status of what this one starts."""
    is_open: bool = False
    """Needs no API key."""
    kind: KindName | None = None
    """The kind of jobs that it lists, reads, cancels or deletes."""
    work: str = ""
    """Module in `trainer/lab` of the function that does it, and its name if that is another; empty: the tag."""
    summary: str = ""
    """A sentence on its work; empty: the docstring of its function."""
    content: str = ""
    """Media type of an answer that is no record."""
    body_type: str | None = None
    """Media type of a body of bytes."""
    example: Mapping[str, object] | None = None
    """A body."""
    query_example: Mapping[str, str] = {}

    @property
    def is_ephemeral(self) -> bool:
        """True if only the caller sees the bot's answer."""
        return self.chat is None or not self.chat.is_public

    @property
    def method(self) -> str:
        return self.route.partition(" ")[0]

    @property
    def path(self) -> str:
        return self.route.partition(" ")[2]


class JobRow(NamedTuple):
    """A kind of jobs as people see it: its words, its list, and the people who may read and end a job."""

    kind: KindName
    """Its path over HTTP, and the folder of its artifacts."""
    word: str
    words: str
    """The field of a list with the jobs."""
    tag: Tag
    columns: tuple[tuple[str, str], ...]
    """The columns of a list in tables: the title, and the field of the status that it shows.

    The page shows the column `done` and the one after it, which is the total, as a bar.
    """
    reads: Role = Role.USER
    ends: Role = Role.OWNER
    """The people who may cancel and delete a job; its owner is the one who has started it."""
    copies: Role | None = None
    """The people who may copy all files of a job, if not those who may read it."""
    shared: tuple[str, ...] = ()
    """Patterns of the files that those who may read a job get, too: they have no texts."""
    starts: str = ""
    """The operation that starts one."""
    chat: str = ""
    """The group of its commands in the bot, if that is not its word: `/mt` takes 25 commands and groups."""

    @property
    def id_field(self) -> str:
        return f"{self.word}_id"

    def chat_command(self, action: str) -> str:
        """Return the bot's command for an action on jobs of the kind."""
        return f"{self.chat or self.word} {action}"


_REPORT = ("report.json", "report.html", "*.png")
_STATE = (("state", "status"), ("started", "created_at"))
JOB_ROWS: Mapping[KindName, JobRow] = {
    row.kind: row
    for row in (
        JobRow(
            "tokenizers",
            "tokenizer",
            "tokenizers",
            "tokenizers",
            (("id", "tokenizer_id"), ("label", "label"), *_STATE, ("method", "method"), ("tokens", "vocab_size")),
            copies=Role.OWNER,
            starts="train_tokenizer",
        ),
        JobRow(
            "experiments",
            "experiment",
            "experiments",
            "experiments",
            (("id", "experiment_id"), *_STATE, ("done", "cells_done"), ("cells", "n_cells"), ("valid", "is_valid")),
            ends=Role.ADMIN,
            starts="start_experiment",
            chat="mt-experiment",
        ),
        JobRow(
            "studies",
            "study",
            "studies",
            "studies",
            (("id", "study_id"), *_STATE, ("done", "runs_done"), ("runs", "n_runs"), ("winner", "winner")),
            starts="start_study",
            chat="mt-study",
        ),
        JobRow(
            "batteries",
            "battery",
            "batteries",
            "batteries",
            (
                ("id", "battery_id"),
                *_STATE,
                ("done", "done"),
                ("items", "total"),
                ("runs", "runs"),
                ("batteries", "batteries"),
            ),
            copies=Role.OWNER,
            shared=(
                *(*_REPORT, "table.tex"),
                *("accuracy.csv", "comparisons.csv", "seeds.csv", "checkpoints.csv", "development.csv"),
            ),
            starts="start_battery",
            chat="mt-battery",
        ),
        JobRow(
            "readings",
            "reading",
            "readings",
            "readings",
            (("id", "reading_id"), *_STATE, ("done", "done"), ("steps", "total"), ("runs", "runs"), ("table", "name")),
            copies=Role.OWNER,
            shared=(*_REPORT, "gains.csv", "effects.csv"),
            starts="start_reading",
            chat="mt-reading",
        ),
        JobRow(
            "exports",
            "export",
            "exports",
            "exports",
            (("id", "export_id"), *_STATE, ("run", "run_id"), ("format", "format")),
            reads=Role.OWNER,
            starts="export_run",
        ),
        JobRow(
            "verifications",
            "verification",
            "verifications",
            "runs",
            (("id", "verification_id"), *_STATE, ("run", "run_id")),
            starts="verify_run",
        ),
        JobRow(
            "corpus_builds",
            "build",
            "builds",
            "corpora",
            (("id", "build_id"), *_STATE),
            reads=Role.ADMIN,
            ends=Role.ADMIN,
            starts="build_corpora",
        ),
    )
}
"""The kinds of jobs but runs."""


def _jobs(
    kind: KindName,
    *,
    has_group: bool = False,
    chat: Sequence[str] = (),
    public: Sequence[str] = (),
) -> Iterator[Operation]:
    """Yield the operations on the jobs of a kind: list, get, cancel and delete, and without a route wait and export.

    With `has_group` its word is a group of commands of `mt`, else `mt job` has them. `chat` names those of the bot.
    """
    row = JOB_ROWS[kind]
    a_job, one = f"{'an' if row.word[0] in 'aeiou' else 'a'} {row.word}", f"/{kind}/{{{row.id_field}}}"
    of_list = Role.ADMIN if row.reads is Role.ADMIN else Role.USER
    for action, route, role, answer, summary in (
        ("list", f"GET /{kind}", of_list, f"A page of {row.words}", f"List the {row.words}, newest first."),
        (
            "get",
            f"GET {one}",
            row.reads,
            f"The status of the {row.word}",
            f"Read the status of {a_job}; with `wait`, after its end or after this time.",
        ),
        (
            "cancel",
            f"POST {one}/cancel",
            row.ends,
            f"The status of the cancelled {row.word}",
            f"Cancel {a_job} that has not ended; what it has stored stays.",
        ),
        (
            "delete",
            f"DELETE {one}",
            row.ends,
            f"The {row.word} is deleted",
            f"Delete {a_job} that has ended, with its files, unless something needs it.",
        ),
        ("wait", "", row.reads, "", f"Follow {a_job} to its end, and show its status."),
        ("export", "", row.copies or row.reads, "", f"Copy the files of {a_job} that has completed to a folder."),
    ):
        if not (route or has_group):
            continue
        shown = "show" if action == "get" else action
        command = f"{row.word} {shown}"
        about = f"{summary[0].lower()}{summary[1:-1]}"
        if action == "get":
            about = f"show the state of {a_job}, or its results"
        example = f"mt {command}{_JOB_ARGUMENTS.get(action, ' ID')}"
        yield Operation(
            f"{action}_{row.words if action == 'list' else row.word}",
            route,
            row.tag,
            answer,
            TerminalCommand(command, kind, about, example) if has_group else None,
            ChatCommand(row.chat_command(shown), kind, is_public=action in public) if action in chat else None,
            role,
            kind=kind,
            work=f"jobs:{action}_jobs" if action == "list" else f"jobs:{action}_job",
            summary=summary,
        )


_JOB_ARGUMENTS = {"list": "", "export": " ID FOLDER"}
"""The arguments of commands on jobs in examples, by action, besides those that take an id."""


def _here(name: str, command: str, module: str, about: str, example: str, role: Role = Role.USER) -> Operation:
    """Return an operation that only `mt` has; `role` is for runs of the server of MT_URL."""
    return Operation(name, terminal=TerminalCommand(command, module, about, example), role=role)


RUN, OTHER_RUN = "RUN", "OTHER_RUN"
"""Ids of runs in examples."""
_COMPLETED: tuple[RunState, ...] = ("completed",)
UNFINISHED_STATES: tuple[RunState, ...] = ("queued", "running", "paused")
RESUMABLE_STATES: tuple[RunState, ...] = ("paused", "failed", "cancelled")
_ENDED: tuple[RunState, ...] = ("completed", "failed", "cancelled")
_TINY_RUN: Mapping[str, object] = {"corpus": "demo", "model_family": "char_lstm", "model_size": "tiny", "max_steps": 20}
_TINY_MODEL: Mapping[str, object] = {
    "model_family": "lstm",
    "tokenizer": {"method": "char"},
    "model": {"embedding_size": 8, "hidden_size": 8, "num_layers": 1},
    "max_seq_len": 64,
    "max_steps": 2,
    "split_by": "position",
    "threads": 1,
}
_STREAM = "Server-sent events"
_GENERATING = "completed run that can generate text"
_SHA256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
_TIMES = {
    "name": "times.csv",
    "content": "text,position,word,rt\n"
    + "".join(
        f"{text},{place},{word},{300 + 7 * text * place % 50}\n"
        for text, subject in enumerate("sun moon walrus carpenter oyster sand".split(), 1)
        for place, word in enumerate(f"the {subject} was shining on the sea".split(), 1)
    ),
}
_PAIRS = {"name": "pairs.csv", "content": "good,bad\nthe sun was shining,the sun were shining\n"}

_SERVICE = (
    Operation("get_healthz", "GET /healthz", answer="The server runs", is_open=True),
    Operation("get_health", "GET /health", answer="The server runs", is_open=True),
    Operation("get_readyz", "GET /readyz", answer="Jobs can run", is_open=True),
    Operation("get_metrics", "GET /metrics", answer="The figures", content="text/plain"),
    Operation(
        "list_workers",
        "GET /workers",
        answer="The workers",
        terminal=TerminalCommand(
            "workers",
            "workers",
            "list the workers of all machines; pause the queue, drain a worker",
            "mt workers drain gpu-box",
        ),
        work="workers",
    ),
    Operation(
        "order_workers",
        "POST /workers",
        answer="The workers",
        role=Role.ADMIN,
        chat=ChatCommand("mt-admin workers", "admin:mt_admin"),
        example={"action": "resume"},
        work="workers",
    ),
)
_RUNS = (
    Operation(
        "list_runs",
        "GET /runs",
        "runs",
        "A page of runs",
        TerminalCommand("runs", "listing", "list runs, newest first", "mt runs --status completed"),
        ChatCommand("runs", "list_runs"),
    ),
    Operation(
        "train",
        "POST /runs/train",
        "runs",
        terminal=TerminalCommand(
            "train",
            "training",
            "train a model and show its progress",
            "mt train --corpus demo --model lstm --size tiny --epochs 3",
        ),
        chat=ChatCommand("train", "training"),
        states=_COMPLETED,
        takes_model=True,
        follows="get_run",
        example=_TINY_RUN,
    ),
    Operation(
        "check_training",
        "POST /runs/check",
        "runs",
        "The request would be accepted",
        TerminalCommand(
            "validate",
            "training",
            "check an experiment file and estimate its cost, without starting anything",
            "mt validate char_lstm_ipa",
        ),
        limit="requests",
        example=_TINY_RUN,
    ),
    Operation(
        "get_run",
        "GET /runs/{run_id}",
        "runs",
        "The status of the run",
        TerminalCommand("status", "runs", "show the state, losses and progress of a run", "mt status RUN"),
        ChatCommand("status", "runs"),
        takes_group=True,
    ),
    Operation(
        "cancel_run",
        "POST /runs/{run_id}/cancel",
        "runs",
        "The run is cancelled, or will be after its current step",
        TerminalCommand("cancel", "runs", "cancel a run that has not ended; its checkpoints stay", "mt cancel RUN"),
        ChatCommand("cancel", "runs"),
        Role.OWNER,
        states=UNFINISHED_STATES,
        takes_group=True,
    ),
    Operation(
        "resume_run",
        "POST /runs/{run_id}/resume",
        "runs",
        terminal=TerminalCommand(
            "resume",
            "runs",
            "resume a paused, failed or cancelled run from its last checkpoint, or follow an unfinished one",
            "mt resume RUN",
        ),
        chat=ChatCommand("resume", "runs"),
        role=Role.OWNER,
        states=RESUMABLE_STATES,
        follows="get_run",
    ),
    Operation(
        "delete_run",
        "DELETE /runs/{run_id}",
        "runs",
        "The run is deleted",
        TerminalCommand("delete", "runs", "delete runs that have ended, with all their files", "mt delete RUN"),
        role=Role.OWNER,
        states=_ENDED,
    ),
    Operation(
        "annotate_run",
        "POST /runs/{run_id}/annotations",
        "runs",
        "The status of the run",
        TerminalCommand(
            "annotate", "runs", "change the name, the note and the tags of a run", "mt annotate RUN --tags pilot"
        ),
        ChatCommand("annotate", "runs"),
        role=Role.OWNER,
        example={"note": "diverged at once", "tags": ["pilot"]},
    ),
    Operation(
        "unlock",
        "POST /unlock",
        "runs",
        "The runs with their losses on the test split, as far as they are measured",
        TerminalCommand(
            "unlock",
            "looks",
            "read the test split once for the named runs; who, when and which is written down",
            "mt unlock RUN OTHER",
        ),
        ChatCommand("unlock", "looks"),
        Role.OWNER,
        states=_COMPLETED,
        takes_group=True,
        example={"runs": [RUN]},
        query_example={"wait": "60"},
        work="looks",
    ),
    Operation("get_manifest", "GET /runs/{run_id}/manifest", "runs", "The manifest"),
    Operation(
        "get_files",
        "GET /runs/{run_id}/files",
        "runs",
        "The files",
        TerminalCommand(
            "files", "runs", "list the files and checkpoints of a run, with sizes and hashes", "mt files RUN"
        ),
        takes_model=True,
    ),
    Operation(
        "get_logs",
        "GET /runs/{run_id}/logs",
        "runs",
        "The last lines",
        TerminalCommand("logs", "runs", "show the log of a run", "mt logs RUN --follow"),
        ChatCommand("logs", "runs"),
        Role.OWNER,
        content="text/plain",
    ),
    Operation(
        "stream_logs", "GET /runs/{run_id}/logs/stream", "runs", _STREAM, role=Role.OWNER, content="text/event-stream"
    ),
    Operation("stream_events", "GET /runs/{run_id}/events", "runs", _STREAM, content="text/event-stream"),
    Operation(
        "get_config",
        "GET /runs/{run_id}/config.yaml",
        "runs",
        "The experiment file",
        TerminalCommand(
            "config", "runs", "print the settings of a run as an experiment file", "mt config RUN > again.yaml"
        ),
        content="application/yaml",
    ),
    Operation(
        "compare_runs",
        "GET /compare",
        "runs",
        "The comparison",
        TerminalCommand(
            "compare",
            "comparison",
            "compare metrics and settings of a run with those of others",
            "mt compare RUN OTHER",
        ),
        ChatCommand("compare", is_public=True),
        states=_COMPLETED,
        takes_group=True,
        query_example={"runs": f"{RUN},{OTHER_RUN}"},
    ),
    Operation(
        "report_comparison",
        "GET /compare/report",
        "runs",
        "The comparison for people",
        states=_COMPLETED,
        takes_group=True,
        query_example={"runs": f"{RUN},{OTHER_RUN}"},
    ),
    Operation("report_run", "GET /runs/{run_id}/report", "runs", "The status of the run, and its report for people"),
    Operation("get_curve", "GET /runs/{run_id}/curve", "runs", "The curves"),
    Operation("get_request", "GET /runs/{run_id}/request", "runs", "The request", work="run_records"),
    Operation("get_samples", "GET /runs/{run_id}/samples", "runs", "The samples", role=Role.OWNER, work="run_records"),
    Operation(
        "verify_run",
        "POST /runs/{run_id}/verify",
        "runs",
        "The status: at the end, or after the time to wait",
        TerminalCommand("verify", "runs", "check every file of a run against its recorded hash", "mt verify RUN"),
        limit="requests",
        query_example={"wait": "60"},
        work="run_records",
    ),
    *_jobs("verifications"),
    Operation("get_group", "GET /groups/{group_id}", "runs", "The group", work="groups"),
    Operation("report_group", "GET /groups/{group_id}/report", "runs", "The group for people", work="groups"),
    Operation("get_group_curve", "GET /groups/{group_id}/curve", "runs", "The bands", work="groups"),
    Operation(
        "cancel_group",
        "POST /groups/{group_id}/cancel",
        "runs",
        "The runs are cancelled, or will be after their current steps",
        role=Role.OWNER,
        states=UNFINISHED_STATES,
        work="groups",
    ),
    Operation(
        "queue",
        terminal=TerminalCommand("queue", "listing", "list the running, waiting and paused runs", "mt queue"),
        chat=ChatCommand("queue"),
    ),
    Operation("watch", chat=ChatCommand("watch", "runs"), takes_group=True),
    Operation("unwatch", chat=ChatCommand("unwatch", "runs"), states=UNFINISHED_STATES, takes_group=True),
)
_EXPORTS = (
    Operation(
        "export_run",
        "POST /runs/{run_id}/export",
        "exports",
        terminal=TerminalCommand(
            "export",
            "export",
            "export a run for other programs, or as one file for another machine",
            "mt export RUN --format hf --out my-model",
        ),
        chat=ChatCommand("export"),
        role=Role.WEIGHTS,
        limit="requests",
        takes_model=True,
        follows="get_export",
        example={"format": "csv"},
    ),
    *_jobs("exports"),
)


def _inference(
    kind: str,
    result: str,
    summary: str,
    example: Mapping[str, object],
    terminal: TerminalCommand | None = None,
    chat: ChatCommand | None = None,
    *,
    generates: bool = False,
) -> Iterator[Operation]:
    """Yield the operations of an inference kind: submit a request, read its result, and delete it."""
    route, noun = f"/runs/{{run_id}}/{kind}", result.partition(" ")[2]
    name = "chat_answer" if kind == "chat" else noun.replace(" ", "_")
    yield Operation(
        kind,
        f"POST {route}",
        "inference",
        terminal=terminal,
        chat=chat,
        limit="requests",
        states=_COMPLETED,
        takes_model=True,
        takes_default=True,
        generates=generates,
        follows=f"get_{name}",
        work="inference:submit",
        summary=summary,
        example=example,
    )
    if kind != "chat":  # its answers are below their chat
        yield Operation(
            f"get_{name}",
            f"GET {route}/{{request_id}}",
            "inference",
            work="inference:read_result",
            summary=f"Read {result}.",
        )
        yield Operation(
            f"delete_{name}",
            f"DELETE {route}/{{request_id}}",
            "inference",
            f"The {noun} is deleted",
            work="inference:delete_result",
            summary=f"Delete {result}, or withdraw the request for it.",
        )


_INFERENCE = (
    *_inference(
        "score",
        "a score",
        "Score a text, or a corpus by its name.",
        {"text": "the sun was shining on the sea", "detail_level": "per_char"},
        TerminalCommand(
            "score",
            "scores",
            "measure how surprising a text is to a model",
            'mt score RUN "a text" --detail-level per_word',
        ),
        ChatCommand("score", noun="completed run"),
    ),
    *_inference(
        "sequences",
        "a sequence score",
        "Score sequences in parts, each given a context.",
        {"sequences": [{"context": "the sun", "parts": [" was", " shining"]}]},
    ),
    *_inference(
        "items",
        "an item table",
        "Score a table of items; its columns come back beside the scores.",
        {
            "table": {"item": [1, 2], "sentence": ["the sun was shining", "the sea was shining"]},
            "text_column": "sentence",
            "per": "word",
        },
    ),
    *_inference(
        "segment",
        "a segmentation",
        "Find the word boundaries of a text whose spaces are removed, by surprisal and entropy.",
        {"text": "the sun was shining on the sea\nshining with all his might\n" * 10},
        TerminalCommand(
            "segment",
            "inference",
            "find word boundaries without spaces by surprisal and entropy",
            "mt segment RUN --data FILE",
        ),
        ChatCommand("mt-reading segment", "readings", noun=_GENERATING),
        generates=True,
    ),
    *_inference(
        "generate",
        "a generation",
        "Continue a prompt.",
        {"prompt_text": "the sun", "max_new_tokens": 20, "seed": 1},
        TerminalCommand(
            "generate", "inference", "continue a prompt", 'mt generate RUN "once upon" --max-new-tokens 100'
        ),
        ChatCommand("generate", is_public=True, noun=_GENERATING),
        generates=True,
    ),
    *_inference(
        "predict",
        "a prediction",
        "Predict the next token of a text.",
        {"text": "the sun", "k": 5},
        TerminalCommand(
            "predict", "inference", "list the likeliest next tokens of a text", 'mt predict RUN "once upon" --k 10'
        ),
        ChatCommand("predict", "inference", noun=_GENERATING),
        generates=True,
    ),
    *_inference(
        "chat",
        "a chat",
        "Send a message of a chat; without a session id it starts a new one.",
        {"message": "the sun was", "max_new_tokens": 20},
        TerminalCommand("chat", "inference", "chat with a model: one line of input, one line of answer", "mt chat RUN"),
        ChatCommand("chat", noun=_GENERATING),
        generates=True,
    ),
    *_inference(
        "evaluate",
        "an evaluation",
        "Evaluate a run on one of its splits, or on a corpus by its name.",
        {"split": "validation"},
        TerminalCommand(
            "eval",
            "inference",
            "measure the loss of a model on one of its splits, or on another corpus",
            "mt eval RUN --split test",
        ),
        ChatCommand("eval", "evaluation:evaluate", noun="completed run"),
    ),
    Operation(
        "predict_with_newest",
        "POST /predict",
        "inference",
        limit="requests",
        generates=True,
        follows="get_prediction",
        example={"text": "the sun", "k": 5},
    ),
    Operation("get_chat_answer", "GET /runs/{run_id}/chat/{session_id}/{request_id}", "inference"),
    Operation("get_chat", "GET /runs/{run_id}/chat/{session_id}", "inference", "The turns, the oldest first"),
    Operation("delete_chat", "DELETE /runs/{run_id}/chat/{session_id}", "inference", "The chat is deleted"),
    Operation("get_latest_evaluation", "GET /runs/{run_id}/eval", "inference", "The metrics"),
    Operation("score_characters", chat=ChatCommand("score detail:per_char"), role=Role.ADMIN, limit="requests"),
)
_COMPLETIONS = (
    Operation("list_models", "GET /v1/models", "completions", "The models"),
    Operation("get_model", "GET /v1/models/{model}", "completions", "The model"),
    Operation(
        "complete",
        "POST /v1/completions",
        "completions",
        "The completions; with `stream`, server-sent events of them",
        limit="requests",
        example={"model": RUN, "prompt": "the sun", "max_tokens": 8, "logprobs": 1, "echo": True, "seed": 1},
    ),
)
_CORPORA = (
    Operation(
        "list_corpora",
        "GET /corpora",
        "corpora",
        "The corpora",
        TerminalCommand("corpus list", "corpora", "list the corpora", "mt corpus list"),
        ChatCommand("corpus list", "corpora"),
    ),
    Operation(
        "report_corpus",
        "GET /corpora/{corpus}/report",
        "corpora",
        "The corpus for people",
        TerminalCommand("corpus show", "corpora", "show the characters of a corpus", "mt corpus show demo"),
        ChatCommand("corpus show", "corpora"),
    ),
    Operation(
        "delete_corpus",
        "DELETE /corpora/{corpus}",
        "corpora",
        "The corpus is deleted",
        TerminalCommand(
            "corpus delete", "corpora", "delete a corpus that no run or other job needs", "mt corpus delete kazakh"
        ),
        ChatCommand("corpus delete", "corpora"),
        role=Role.OWNER,
    ),
    Operation(
        "lock_corpus",
        "POST /corpora/{corpus}/lock",
        "corpora",
        "The test split of each later run on the text is locked",
        TerminalCommand(
            "corpus lock",
            "corpora",
            "lock the test split of each later run on a corpus, until an unlock",
            "mt corpus lock kazakh",
        ),
        ChatCommand("mt-admin lock-corpus", "admin:mt_admin"),
        role=Role.ADMIN,
        work="looks",
    ),
    *_jobs("corpus_builds"),
    Operation(
        "start_upload",
        "POST /corpora",
        "corpora",
        "The corpus is stored already, and nothing is to be sent",
        TerminalCommand(
            "corpus add",
            "corpora",
            "store a text as a corpus that everybody here, or on the server of MT_URL, can train on",
            "mt corpus add kazakh.txt --language kk",
        ),
        ChatCommand("corpus add", "corpora"),
        follows="get_upload",
        example={"name": "hello", "files": [{"name": "hello.txt", "bytes": 6, "sha256": _SHA256}]},
    ),
    Operation(
        "add_corpus",
        "POST /corpora/texts",
        "corpora",
        "The stored corpus",
        example={"name": "greetings", "text": "hello\nworld\n"},
    ),
    Operation("get_upload", "GET /corpora/uploads/{upload_id}", "corpora", "The state of the upload"),
    Operation(
        "send_portion",
        "PATCH /corpora/uploads/{upload_id}",
        "corpora",
        "The state of the upload after the portion",
        body_type="application/octet-stream",
        query_example={"offset": "0"},
    ),
    Operation("delete_upload", "DELETE /corpora/uploads/{upload_id}", "corpora", "The upload is deleted"),
    _here(
        "check_corpus",
        "corpus check",
        "corpora",
        "split and encode a corpus as a training would, and show the results",
        "mt corpus check demo --tokenizer word",
    ),
    Operation(
        "build_corpora",
        terminal=TerminalCommand(
            "corpus build",
            "corpora",
            "build IPA corpora of equal size, one per language, or download WikiText-2",
            "mt corpus build --source culturax --langs kk,ky --threshold 0.9",
        ),
        chat=ChatCommand("mt-admin build-corpora", "admin:mt_admin"),
        role=Role.ADMIN,
    ),
)
_TOKENIZERS = (
    *_jobs("tokenizers", has_group=True, chat=("list", "get")),
    Operation("report_tokenizer", "GET /tokenizers/{tokenizer_id}/report", "tokenizers", "The tokenizer for people"),
    Operation(
        "train_tokenizer",
        "POST /tokenizers/train",
        "tokenizers",
        terminal=TerminalCommand(
            "tokenizer train",
            "tokenizers",
            "train a tokenizer that several runs can share",
            "mt tokenizer train --method bpe --corpus demo --set vocab_size=1000",
        ),
        chat=ChatCommand("tokenizer train", "tokenizers"),
        follows="get_tokenizer",
        example={"method": "bpe", "corpora": ["demo"], "vocab_size": 300},
    ),
)
_EXPERIMENTS = (
    *_jobs("experiments", has_group=True, chat=("list", "get", "cancel", "export"), public=("get",)),
    Operation(
        "start_experiment",
        "POST /experiments",
        "experiments",
        terminal=TerminalCommand(
            "experiment run",
            "experiments",
            "train a model per language and let each score every language: one job, which continues when given again",
            "mt experiment run smoke",
        ),
        chat=ChatCommand("mt-experiment start", "experiments"),
        role=Role.ADMIN,
        follows="get_experiment",
        example={
            "name": "try",
            "languages": {"kk": {}, "tr": {}},
            "corpora": "udhr_ipa",
            "models": {"lstm": {"train": _TINY_MODEL}},
            "seeds": [1],
            "modes": ["skip"],
        },
    ),
    _here(
        "recompute_experiment",
        "experiment recompute",
        "experiments",
        "compute the tables of an experiment again from its section scores",
        "mt experiment recompute sections.json",
    ),
)
_STUDIES = (
    *_jobs("studies", has_group=True, chat=("list", "get", "cancel")),
    Operation(
        "start_study",
        "POST /studies",
        "studies",
        terminal=TerminalCommand(
            "study run",
            "studies",
            "compare settings on validation, and read the test split once for the winner: one job, which continues",
            "mt study run study.yaml",
        ),
        chat=ChatCommand("mt-study start", "studies"),
        follows="get_study",
        example={
            "name": "rates",
            "train": {"corpus": "demo", **_TINY_MODEL},
            "settings": {"low": {"learning_rate": 0.001}, "high": {"learning_rate": 0.01}},
            "seeds": 1,
            "test_seeds": 2,
        },
    ),
)
_BATTERIES = (
    *_jobs("batteries", has_group=True, chat=("list", "get", "cancel")),
    Operation(
        "start_battery",
        "POST /batteries",
        "batteries",
        terminal=TerminalCommand(
            "battery run",
            "batteries",
            "test what runs know by minimal pairs, test suites or items of your own",
            "mt battery run RUN pairs.tsv",
        ),
        chat=ChatCommand("mt-battery start", "batteries"),
        limit="requests",
        follows="get_battery",
        example={"runs": [RUN], "files": [_PAIRS]},
    ),
    _here(
        "recompute_battery",
        "battery recompute",
        "batteries",
        "compute the results of a battery again from the scores of its items",
        "mt battery recompute FOLDER",
    ),
    _here(
        "develop",
        "develop",
        "batteries",
        "measure the checkpoints that a run has kept: batteries, a loss, the ages of words",
        "mt develop RUN --battery pairs.tsv --eval test --words",
    ),
)
_READINGS = (
    *_jobs("readings", chat=("list", "get", "cancel")),
    Operation(
        "start_reading",
        "POST /readings",
        "readings",
        terminal=TerminalCommand(
            "reading",
            "readings",
            "explain reading times by the surprisals of runs",
            "mt reading RUN --data times.csv",
        ),
        chat=ChatCommand("mt-reading start", "readings"),
        limit="requests",
        follows="get_reading",
        example={"runs": [RUN], "file": _TIMES, "baseline": ["length"], "spillover": 0},
    ),
)
_ARTIFACTS = (
    Operation("list_files", "GET /artifacts/{kind}/{item_id}", "artifacts", "The files", role=Role.OWNER),
    Operation(
        "download_file",
        "GET /artifacts/{kind}/{item_id}/download",
        "artifacts",
        "The file",
        role=Role.OWNER,
        query_example={"path": "manifest.json"},
        content="application/octet-stream",
    ),
)
_JOBS = (
    _here("list_jobs", "job list", "jobs", "list the jobs of another kind, such as exports", "mt job list exports"),
    _here("show_job", "job show", "jobs", "show the status of such a job", "mt job show verifications last"),
    _here("wait_job", "job wait", "jobs", "follow such a job to its end", "mt job wait corpus_builds last"),
    _here("cancel_job", "job cancel", "jobs", "cancel such a job that has not ended", "mt job cancel exports ID"),
    _here("delete_job", "job delete", "jobs", "delete such a job that has ended", "mt job delete exports ID"),
    _here("export_job", "job export", "jobs", "copy the files of such a job", "mt job export exports ID FOLDER"),
)
_HERE = (
    _here("demo", "demo", "start", "show the complete program on this machine, checked step by step", "mt demo"),
    _here("up", "up", "start", "start the Discord bot and its services", "mt up"),
    _here("work", "worker", "start", "start a worker, which trains queued runs and answers requests", "mt worker"),
    _here(
        "serve_agents",
        "mcp",
        "mcp",
        "offer this installation, or the server of MT_URL, to an agent as tools (MCP over stdio)",
        "mt mcp",
    ),
    _here(
        "print_completion",
        "completion",
        "start",
        "print the script for shell completion",
        'eval "$(mt completion bash)"',
    ),
    _here(
        "collect_garbage",
        "gc",
        "doctor",
        "remove files that no run, experiment or request needs any more",
        "mt gc --dry-run",
    ),
    _here("import_archive", "import", "export", "restore a run from an archive", "mt import run.tar"),
    _here(
        "push",
        "push",
        "hub",
        "send a run to the Hugging Face hub, with a revision for each checkpoint",
        "mt push RUN ana/kazakh-gru --license mit",
        Role.OWNER,
    ),
    _here(
        "pull",
        "pull",
        "hub",
        "bring a run to this machine: from the server of MT_URL, or from a repository that `mt push` has sent",
        "mt pull RUN",
        Role.OWNER,
    ),
    Operation(
        "doctor",
        terminal=TerminalCommand("doctor", "doctor", "check this installation and suggest fixes", "mt doctor"),
        chat=ChatCommand("mt-admin doctor", "admin:mt_admin"),
        role=Role.ADMIN,
    ),
    _here(
        "selftest",
        "selftest",
        "doctor",
        "overfit one small batch (a quick check that training works)",
        "mt selftest --model gpt2 --tokenizer bpe",
    ),
)
_IN_CHAT = (
    Operation("change_settings", chat=ChatCommand("settings")),
    Operation("help", chat=ChatCommand("help", "help:help_command")),
    Operation("show_jobs", chat=ChatCommand("mt-admin jobs", "admin:mt_admin"), role=Role.ADMIN),
    Operation("change_access", chat=ChatCommand("mt-admin access", "admin:mt_admin"), role=Role.ADMIN),
    Operation(
        "delete_any_run",
        chat=ChatCommand("mt-admin delete", "admin:mt_admin"),
        role=Role.ADMIN,
        states=_ENDED,
    ),
)
OPERATIONS: tuple[Operation, ...] = (
    *_SERVICE,
    *_RUNS,
    *_EXPORTS,
    *_INFERENCE,
    *_COMPLETIONS,
    *_CORPORA,
    *_TOKENIZERS,
    *_EXPERIMENTS,
    *_STUDIES,
    *_BATTERIES,
    *_READINGS,
    *_ARTIFACTS,
    *_JOBS,
    *_HERE,
    *_IN_CHAT,
)
BY_NAME: Mapping[str, Operation] = {one.name: one for one in OPERATIONS}
_SECTIONS: Mapping[Section, str] = {
    "Start": "demo|up|worker|workers|mcp|completion",
    "Train": "train",
    "Runs": "runs|queue|status|annotate|logs|cancel|delete|resume|config|files|gc|compare|unlock|"
    "job list|job show|job wait|job cancel|job delete|job export",
    "Use a model": "score|generate|predict|chat|eval|export|import|push|pull",
    "Batteries": "battery run|develop|battery list|battery show|battery wait|battery cancel|battery delete|"
    "battery export|battery recompute",
    "Reading times": "reading|segment",
    "Experiments": "experiment run|experiment list|experiment show|experiment wait|experiment cancel|"
    "experiment delete|experiment export|experiment recompute",
    "Studies": "study run|study list|study show|study wait|study cancel|study delete|study export",
    "Data and tokenizers": "corpus add|corpus list|corpus show|corpus check|corpus build|corpus lock|"
    "corpus delete|tokenizer train|tokenizer list|tokenizer show|tokenizer wait|tokenizer cancel|tokenizer delete|"
    "tokenizer export",
    "Check": "doctor|selftest|validate|verify",
}
SECTIONS: Mapping[Section, Sequence[str]] = {section: names.split("|") for section, names in _SECTIONS.items()}
"""The commands in each section of `mt --help`, in their order."""
_CHAT_ORDER = (
    "train|status|runs|compare|unlock|watch|unwatch|cancel|resume|annotate|logs|generate|chat|score|"
    "score detail:per_char|predict|eval|export|queue|settings|corpus list|corpus show|corpus add|corpus delete|"
    "tokenizer train|tokenizer list|tokenizer show|mt-battery start|mt-battery list|mt-battery show|"
    "mt-battery cancel|mt-experiment start|mt-experiment list|mt-experiment show|mt-experiment export|"
    "mt-experiment cancel|"
    "mt-reading start|mt-reading list|mt-reading show|mt-reading cancel|mt-reading segment|"
    "mt-study start|mt-study list|mt-study show|mt-study cancel|"
    "help|mt-admin workers|mt-admin jobs|mt-admin access|mt-admin delete|mt-admin build-corpora|"
    "mt-admin lock-corpus|mt-admin doctor"
).split("|")
_COMMANDS: Mapping[str, TerminalCommand] = {one.terminal.command: one.terminal for one in OPERATIONS if one.terminal}
COMMANDS: Mapping[str, TerminalCommand] = {name: _COMMANDS[name] for names in SECTIONS.values() for name in names}
"""The commands of `mt`, in the order of its help."""
_CHATS: Mapping[str, Operation] = {one.chat.command: one for one in OPERATIONS if one.chat}
CHAT_COMMANDS: Mapping[str, Operation] = {name: _CHATS[name] for name in _CHAT_ORDER}
"""The operation of each command of the bot, and of an option that has a rule of its own, as `name:value`, in the order
of the help."""
