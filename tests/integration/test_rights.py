"""Rights: every operation, tried by everybody on what each owner has, over HTTP, in Discord and by `mt`."""

import json
import re
import shlex
import shutil
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

import pytest
from aiohttp import ClientSession
from pydantic import SecretStr, TypeAdapter

from bot.app import BUTTONS
from bot.session.client import Bot
from local_discord import LocalDiscord, Upload
from local_discord.client import OptionValue
from local_discord.state import Guild, User
from tests.support import ROOT, environment_in
from tests.support.batteries import battery_record
from tests.support.bot import discord_alone, is_allowed, running_bot, settings, with_buttons
from tests.support.groups import group_record
from tests.support.markers import slow_except
from tests.support.readings import reading_record, times_table
from tests.support.runs import ended
from tests.support.stored_jobs import waiting_experiment
from tests.support.stories import Story, run_record
from tests.support.studies import study_record
from trainer.artifacts.batteries import BatteryStore
from trainer.artifacts.command_jobs import ExportRecord, ExportStore, VerificationRecord, VerificationStore
from trainer.artifacts.corpus_builds import BuildRecord, BuildStore
from trainer.artifacts.readings import ReadingStore
from trainer.artifacts.run_groups import member
from trainer.artifacts.studies import StudyStore
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.settings import HttpSettings, SecuritySettings
from trainer.contracts.base import HttpOrigin, changed, now
from trainer.contracts.corpora import BuildRequest
from trainer.contracts.exports import ExportRequest
from trainer.contracts.operations import COMMANDS, JOB_ROWS, OPERATIONS, Operation, Role
from trainer.contracts.runs import RunRecord
from trainer.contracts.tokenizer_jobs import TokenizerRecord, TokenizerTrainRequest
from trainer.lab.permissions import typed_command

_OWNERS = (
    "annotate_run cancel_run resume_run delete_run get_logs stream_logs get_samples cancel_group push pull"
    " list_files download_file get_export cancel_export delete_export cancel_verification delete_verification"
    " cancel_tokenizer delete_tokenizer export_tokenizer cancel_battery delete_battery export_battery unlock"
    " delete_corpus"
    " cancel_study delete_study cancel_reading delete_reading"
)
_ADMINS = (
    "order_workers doctor show_jobs change_access delete_any_run score_characters lock_corpus"
    " build_corpora list_builds get_build cancel_build delete_build start_experiment cancel_experiment"
    " delete_experiment"
)
ROLES = dict.fromkeys(_OWNERS.split(), Role.OWNER) | dict.fromkeys(_ADMINS.split(), Role.ADMIN)
ROLES["export_run"] = Role.WEIGHTS
"""The people who may, as a person has decided; users may do everything else, and everybody what is open."""
OPEN = {"get_healthz", "get_health", "get_readyz"}
ON_MACHINE = set(
    "doctor selftest collect_garbage import_archive check_corpus build_corpora recompute_experiment recompute_battery"
    " demo up work serve_agents print_completion".split()
)
"""What `mt` does with the files of those who type it: there is nobody to refuse it."""
ANA, BOB, NOBODY, ALL, UNUSED = "ana", "bob", "nobody", "all", "unused"
"""Owners: a Discord user, an API key, nobody (the command line), all (of what has no owner), and nobody any more: a
tokenizer whose runs have been deleted."""
BODIES: dict[str, object] = {
    **{
        name: {"corpus": "demo", "model_family": "lstm", "init_from_run_id": "RUN"}
        for name in ("train", "check_training")
    },
    "start_study": {"name": "x", "train": {"corpus": "demo", "model_family": "lstm", "init_from_run_id": "RUN"}},
    "score": {"text": "abc"},
    "items": {"table": {"text": ["abc"]}, "text_column": "text"},
    "complete": {"model": "RUN", "prompt": "abc", "max_tokens": 1},
}
"""Bodies in place of the examples: about a run, and without surprisals of words, which have a rule of their own."""
QUERIES = {"predict_with_newest": "wait=0&run_id=RUN", "compare_runs": "runs=RUN,RUN", "verify_run": "wait=0"}
NO_TEXT = {"corpus": "no_such_text"}
OPTIONS: dict[str, dict[str, str]] = {
    **{name: {} for name in ("runs", "help", "queue", "settings", "mt-admin workers", "mt-admin doctor")},
    **{f"{kind} list": {} for kind in ("corpus", "tokenizer", "mt-battery", "mt-experiment", "mt-study")},
    "train": {"corpus": "demo", "init_from": "RUN"},
    **{f"corpus {action}": NO_TEXT for action in ("show", "delete")},
    **{name: {"run": "RUN", "text": "abc"} for name in ("score", "predict")},
    **{f"mt-experiment {action}": {"experiment": "EXPERIMENT"} for action in ("show", "export", "cancel")},
    "mt-battery start": {"run": "RUN", "battery": "nothing"},
    **{f"mt-battery {action}": {"battery": "BATTERY"} for action in ("show", "cancel")},
    "mt-reading start": {"run": "RUN", "data": "TABLE"},
    "mt-reading list": {},
    **{f"mt-reading {action}": {"reading": "READING"} for action in ("show", "cancel")},
    "compare": {"a": "RUN", "b": "RUN"},
    "chat": {"run": "RUN", "message": "abc"},
    "corpus add": {"file": "FILE", "name": "empty"},
    "mt-admin build-corpora": {"source": "local", "languages": "xx"},
    "tokenizer train": {"corpora": "no_such_text"},
    "tokenizer show": {"tokenizer": "TOKENIZER"},
    "mt-experiment start": {"languages": "xx"},
    **{f"mt-study {action}": {"study": "STUDY"} for action in ("show", "cancel")},
    "mt-reading segment": {"run": "RUN", "file": "FILE"},
    "mt-study start": {"corpus": "no_such_text"},
    "mt-admin access": {"member": "MEMBER", "level": "user"},
    "mt-admin jobs": {"kind": "exports"},
    "mt-admin delete-corpus": NO_TEXT,
    "mt-admin lock-corpus": NO_TEXT,
}
"""Options of commands besides the run."""
_OF_RUN = "--corpus demo --model lstm --init-from RUN"
WORDS = {
    "list_workers": "workers",
    "order_workers": "workers resume",
    "train": f"train {_OF_RUN}",
    "check_training": f"validate {_OF_RUN}",
    "develop": "develop RUN --eval test",  # without words, which have a rule of their own
    "delete_run": "delete RUN --yes",
    "get_logs": "logs RUN",
    "get_config": "config RUN",
    "compare_runs": "compare RUN GROUP",
    "delete_corpus": "corpus delete no_such_text --yes",
    "lock_corpus": "corpus lock no_such_text",
    "start_upload": "corpus add FILE",
    "unlock": "unlock RUN",
    "train_tokenizer": "tokenizer train --method char --corpus no_such_text",
    "start_experiment": "experiment run smoke --set corpora=no_such_text",
    "start_study": "study run STUDY_FILE",
    "start_reading": "reading RUN --data TIMES_FILE",
    "push": "push DONE ana/model",
    "pull": "pull DONE",
}
"""Commands of `mt` in place of the examples: on what there is, or for a text that is missing, so that no job starts."""
_TYPIST = """
import json, os, signal, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from trainer.commands.arguments import run_command
class Output(StringIO):
    def write(self, text):
        if text.startswith("mt: No worker is running."):
            signal.raise_signal(signal.SIGINT)
        return super().write(text)
for line in sys.stdin:
    environment, words = json.loads(line)
    os.environ.update(environment)
    with redirect_stdout(Output()) as out, redirect_stderr(out):
        run_command(words)
    print(json.dumps(out.getvalue()), flush=True)
"""
"""A program that reads an environment and the words of a command a line, and writes what the command writes.

It interrupts a command that waits for a worker.
"""
_REFUSED = re.compile('"code":"(UNAUTHORIZED|FORBIDDEN)"|^mt: (Send a valid API key|Only the owner of)', re.MULTILINE)
"""In JSON, or of `mt chat` in words."""
_options: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])
_typed: TypeAdapter[str] = TypeAdapter(str)
_ITEMS = {"models": "RUN", **{row.kind: row.word.upper() for row in JOB_ROWS.values()}}
_THING = re.compile(rf"\b(GROUP|STARTED|DONE|{'|'.join(_ITEMS.values())})\b")
"""STARTED is a tokenizer that its owner has started; others are of runs, or for all. DONE is a completed run."""
_OF_FILES = dict.fromkeys(
    ("batteries", "readings", "experiments", "studies", "verifications", "tokenizers"), Role.USER
) | {"corpus_builds": Role.ADMIN, "models": Role.WEIGHTS}
"""The people who may read files of a kind; those of exports are for owners."""
_FILES_OF = {"battery": "batteries", "tokenizer": "tokenizers"}
"""The kinds of the files that a command of a group exports."""
Things = dict[str, str]
"""Ids in place of the words for them."""


class Person(NamedTuple):
    """Somebody with an API key, with Discord, or with both."""

    name: str
    key: str | None
    user: User | None = None
    rank: Role | None = Role.USER
    """None: a stranger."""


class Installation(NamedTuple):
    """A bot with its HTTP API, and what people own there."""

    root: Path
    url: str
    discord: LocalDiscord
    guild: Guild
    bot: Bot
    newcomer: User
    people: list[Person]
    owned: dict[str, Things]


def may(person: Person, role: Role, owner: str, *, private: bool) -> bool:
    """The rule: admins do all, owners what they like with their own; others use it as long as runs are not private."""
    if person.rank is None:
        return False
    if person.rank is Role.ADMIN or role is Role.ADMIN or owner == UNUSED:
        return person.rank is Role.ADMIN
    return owner in (ALL, person.name) or (role in (Role.USER, Role.WEIGHTS) and not private)


def owned_things(root: Path, owner: str, user_id: int | None) -> Things:
    """Write what somebody owns: runs and groups that have failed, wait or are done, a job of each kind, a tokenizer."""
    artifacts, http = root / "artifacts", HttpOrigin(api_key=BOB) if owner == BOB else None
    tokenizer = f"char-{len(list(artifacts.glob('tokenizers/*'))):016}"
    source = next((ROOT / "tests" / "fixtures" / "tokenizers").glob("char-*"))
    shutil.copytree(source, artifacts / "tokenizers" / tokenizer)
    for name in ("manifest.json", "request.json"):
        described = (source / name).read_text("utf-8").replace(source.name, tokenizer)
        (artifacts / "tokenizers" / tokenizer / name).write_text(described, encoding="utf-8")
    things = {
        "TOKENIZER": tokenizer,
        "BATTERY": f"battery-{owner}",
        "READING": f"reading-{owner}",
        "EXPERIMENT": "experiment-1",
        "STUDY": f"study-{owner}",
        "BUILD": "build-1",
    }

    def accepted(record: RunRecord) -> Story:
        effective = changed(record.effective, tokenizer_id=tokenizer)
        return Story(artifacts, changed(record, created_at=now(), http=http, effective=effective))

    if owner == ALL:  # a run of somebody uses what is shared
        accepted(run_record("lstm-shared", user_id=user_id)).start().fail()
        return things
    described_by = artifacts / "tokenizers" / tokenizer / "request.json"
    trained_alone = TokenizerRecord.model_validate_json(described_by.read_bytes())
    of_run = changed(trained_alone, source="0" * 64)
    described_by.write_text(of_run.model_dump_json(), encoding="utf-8")
    if owner == UNUSED:
        return things

    for prefix, has_failed in (("", True), ("QUEUED ", False)):
        state = "failed" if has_failed else "queued"
        things[f"{prefix}RUN"], things[f"{prefix}GROUP"] = f"lstm-{owner}-{state}", f"group-{owner}-{state}"
        stories = [accepted(run_record(things[f"{prefix}RUN"], user_id=user_id))]
        group = group_record((1, 2), things[f"{prefix}GROUP"], user_id)
        stories += [accepted(member(group, seed)) for seed in (1, 2)]
        stories[1].run.close_group()
        for story in stories:
            if has_failed:
                story.start().fail()
    things["DONE"] = f"lstm-{owner}-done"
    ended(accepted(run_record(things["DONE"], user_id=user_id)).run, "completed")
    by: dict[str, object] = {"created_at": now(), "user_id": user_id, "http": http}
    things |= {name: f"{name.lower()}-{owner}" for name in ("EXPORT", "VERIFICATION", "STARTED")}
    battery, items = battery_record(things["BATTERY"], things["RUN"])
    BatteryStore(artifacts).create(changed(battery, **by), items)
    explained, times = reading_record(things["READING"], things["RUN"])
    ReadingStore(artifacts).create(changed(explained, **by), times)
    StudyStore(artifacts).create(changed(study_record(things["STUDY"]), **by))
    export = ExportRecord(created_at=now(), model=things["RUN"], request=ExportRequest(format="csv"))
    ExportStore(artifacts).create(things["EXPORT"], changed(export, **by))
    verification = VerificationRecord(created_at=now(), run_id=things["RUN"])
    VerificationStore(artifacts).create(things["VERIFICATION"], changed(verification, **by))
    request = TokenizerTrainRequest(method="char", corpora=("demo",))
    started = TokenizerRecord(tokenizer_id=things["STARTED"], created_at=now(), request=request, corpora=())
    TokenizerStore(artifacts).create(changed(started, **by))
    return things


@asynccontextmanager
async def installation(root: Path, *, private: bool) -> AsyncIterator[Installation]:
    async with discord_alone() as server:
        ana, carl, root_user, eve, newcomer = map(server.add_user, (ANA, "carl", "root", "eve", "newcomer"))
        people = [
            Person("without a key", None, rank=None),
            Person("stranger", "wrong-key-0123456789", eve, None),
            Person("carl", "carl-key-0123456789", carl),
            Person(BOB, "bob-key-0123456789"),
            Person(ANA, "ana-key-0123456789", ana),
            Person("root", "root-key-0123456789", root_user, Role.ADMIN),
        ]
        clients = ("carl:user", f"{BOB}:user", f"{ana.id}:user", "root:admin")
        names = ",".join(f"{client}:{one.key}" for client, one in zip(clients, people[2:], strict=True))
        chosen = changed(
            settings(root, server, owner_id=root_user.id, allowed_user_ids=(ana.id, carl.id), private_runs=private),
            http=HttpSettings(port=0),
            security=SecuritySettings(api_keys=SecretStr(names)),
        )
        users = ((ANA, ana.id), (BOB, None), (NOBODY, None), (ALL, ana.id), (UNUSED, None))
        owned = {owner: owned_things(root, owner, user_id) for owner, user_id in users}
        waiting_experiment(root / "artifacts", owned[ALL]["EXPERIMENT"])
        build = BuildRecord(created_at=now(), request=BuildRequest(source="local", languages=("kk",)))
        BuildStore(root / "artifacts").create_or_continue(owned[ALL]["BUILD"], build)
        (root / "study.yaml").write_text("name: x\ntrain: {corpus: no_such_text}\n", encoding="utf-8")
        (root / "times.csv").write_text(times_table(), encoding="utf-8")
        guild = server.add_guild("lab", [ana, carl, root_user, eve, newcomer])
        async with running_bot(chosen, server) as bot:
            url = f"http://127.0.0.1:{bot.backend.port}"
            yield Installation(root, url, server, guild, bot, newcomer, people, owned)


def requests_of(row: Operation) -> Iterator[str]:
    """Yield the requests of an operation over HTTP, with words for ids: method, address and body."""
    if not row.route:
        return
    example = BODIES.get(row.name, row.example)
    body = "" if example is None else json.dumps(example)
    query = QUERIES.get(row.name) or "&".join(f"{name}={value}" for name, value in row.query_example.items())
    words = {f"{word.lower()}_id": word for word in ("GROUP", *_ITEMS.values())}
    words |= {"model": "RUN", "request_id": "none", "session_id": "none", "upload_id": "none", "corpus": "none"}
    if row.name in ("cancel_tokenizer", "delete_tokenizer"):
        words["tokenizer_id"] = "STARTED"
    for kind, item in _ITEMS.items() if "{kind}" in row.path else [("", "")]:
        yield f"{row.method} {row.path.format(**words, kind=kind, item_id=item)}?{query} {body}"
    if row.name == "compare_runs":
        yield "GET /compare?runs=GROUP,GROUP "


async def is_answered(url: str, person: Person, request: str) -> bool:
    method, address, body = request.split(" ", 2)
    headers = {} if person.key is None else {"X-Api-Key": person.key}
    kind = {"Content-Type": "application/octet-stream" if method == "PATCH" else "application/json"}
    async with (
        ClientSession() as session,
        session.request(method, url + address, data=body or None, headers=headers | (kind if body else {})) as answer,
    ):
        assert answer.status != 500, (request, await answer.text())
        return answer.status not in (401, 403)


def uses_of(row: Operation) -> Iterator[str]:
    """Yield the commands of an operation in Discord, as their options, and the buttons that are named after it."""
    if row.name in BUTTONS and row.kind is not None:
        word, is_list = JOB_ROWS[row.kind].word, row.name.startswith("list_")
        thing = "STARTED" if row.kind == "tokenizers" and not row.name.startswith("get_") else word.upper()
        yield f"mt:{row.name}:list:0" if is_list else f"mt:{row.name}:{thing}:sure"
    if row.chat is not None and ":" not in row.chat.command:
        options = OPTIONS.get(row.chat.command, {"run": "RUN"})
        yield json.dumps(options)
        if row.takes_group and row.name != "compare_runs":  # another's private group is not found, as if it were none
            yield json.dumps(options).replace("RUN", "GROUP")


async def is_answered_in_discord(here: Installation, user: User, row: Operation, request: str) -> bool:
    if request.startswith("mt:"):
        message = await with_buttons(here.discord, here.bot, here.discord.dm_channel(user), request)
        return await is_allowed(await here.discord.click(user, message, request))
    assert row.chat is not None
    special: dict[str, OptionValue] = {
        "MEMBER": here.newcomer,
        "FILE": Upload("a.txt", b""),
        "TABLE": Upload("a.csv", times_table().encode()),
    }
    options = {name: special.get(value, value) for name, value in _options.validate_json(request).items()}
    typed = typed_command(row.chat.command).removeprefix("/")
    guild = here.guild if typed.startswith("mt-admin") else None
    return await is_allowed(await here.discord.slash(user, typed, options, guild=guild))


def commands_of(row: Operation) -> Iterator[str]:
    """Yield the commands of `mt` for an operation; one that waits for a job reads the same as one that shows it."""
    if row.kind is not None and not row.name.startswith("wait_"):
        word, action = JOB_ROWS[row.kind].word, row.name.partition("_")[0].replace("get", "show")
        thing = "STARTED" if row.name in ("cancel_tokenizer", "delete_tokenizer") else word.upper()
        group = f"{word} {action}" if f"{word} list" in COMMANDS else f"job {action} {row.kind}"
        yield group + {"list": "", "delete": f" {thing} --yes", "export": f" {thing} OUT"}.get(action, f" {thing}")
    elif row.name == "export_job":
        yield from (f"job export {kind} {_ITEMS[kind]} OUT" for kind in ("exports", "verifications", "corpus_builds"))
    elif row.name in WORDS or (row.terminal and row.terminal.module != "jobs" and row.name not in ON_MACHINE):
        words = WORDS.get(row.name) or ("" if row.terminal is None else row.terminal.example.removeprefix("mt "))
        yield words
        if row.takes_group and "GROUP" not in words:
            yield words.replace("RUN", "GROUP")


@asynccontextmanager
async def typist(root: Path) -> AsyncIterator[Process]:
    """Start a process that types commands of `mt`, one after the other."""
    words, environment = (sys.executable, "-c", _TYPIST), environment_in(root, QUEUE__EMBEDDED_WORKERS="0")
    process = await create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE, cwd=root, env=environment)
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def is_answered_in_terminal(process: Process, here: Installation, person: Person, request: str) -> bool:
    """Type a command, on another machine for the server of MT_URL; the operator types it on the machine itself."""
    place = str(here.root / ("other" if person.key else "artifacts"))
    environment = {"MT_URL": here.url if person.key else "", "MT_KEY": person.key or "", "APP__ARTIFACTS_ROOT": place}
    things = {"OUT": str(here.root / "copies" / token_hex()), "FILE": str(ROOT / "LICENSE")}
    things |= {"STUDY_FILE": str(here.root / "study.yaml"), "TIMES_FILE": str(here.root / "times.csv")}
    words = [things.get(word, word) for word in shlex.split(request)]
    words += [] if words[0] == "chat" else ["--json"]
    line: list[object] = [environment, words]
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(line).encode() + b"\n")
    return _REFUSED.search(_typed.validate_json(await process.stdout.readline())) is None


def state(root: Path) -> dict[Path, bytes]:
    """All that is stored, but for what the bot remembers of its messages and of commands that it is to answer."""
    paths = (path for path in (root / "artifacts").rglob("*") if path.parent.name != "deferred" and path.is_file())
    return {path: path.read_bytes() for path in paths if not path.name.startswith(".") and path.name != "dm.json"}


TEMPLATES: dict[str, Callable[[Operation], Iterator[str]]] = {
    "HTTP": requests_of,
    "Discord": uses_of,
    "mt": commands_of,
}


def owners_of(row: Operation, template: str) -> tuple[str, ...]:
    """Return whose things an operation is tried on."""
    if row.tag == "experiments" or re.search("EXPERIMENT|BUILD", template):
        return (NOBODY,)  # an experiment shows many runs
    owners = (ANA, BOB, NOBODY) if _THING.search(template) else (ALL,)
    return (*owners, ALL, UNUSED) if "TOKENIZER" in template else owners


def with_ids(template: str, row: Operation, things: Things) -> str:
    """Put ids in place of words: of runs that wait for what needs them, else of runs that have failed."""
    prefix = "QUEUED " if "queued" in row.states else ""
    words: list[str] = _THING.split(template)
    return "".join(things.get(prefix + word) or things.get(word) or word for word in words)


def _turn(row: Operation) -> tuple[bool, bool]:
    """What ends a run is tried at last."""
    return row.name.startswith("cancel_"), row.name in ("delete_run", "delete_any_run")


def test_table__has_the_roles_that_a_person_has_decided() -> None:
    assert {row.name: row.role for row in OPERATIONS if row.role is not Role.USER} == ROLES
    assert {row.name for row in OPERATIONS if row.is_open} == OPEN


@pytest.mark.parametrize("private", slow_except([False, True], True))
@pytest.mark.parametrize("face", slow_except(TEMPLATES, "HTTP"))
async def test_operation__is_allowed_as_the_rule_says(face: str, private: bool, tmp_path: Path) -> None:
    """Those who may not are refused and change nothing; those who may get another answer, if only a conflict."""
    wrong: list[tuple[str, ...]] = []
    async with installation(tmp_path, private=private) as here, typist(tmp_path) as process:
        people = [one for one in here.people if face == "HTTP" or one.user is not None]
        if face == "mt":
            people = [*(one for one in here.people if one.key), Person("operator", None, rank=Role.ADMIN)]
        for row in sorted(OPERATIONS, key=_turn):
            for template in TEMPLATES[face](row):
                of_kind = re.search("/artifacts/([a-z_]+)|job export ([a-z_]+)|^(battery|tokenizer) export", template)
                role = ROLES.get(row.name, Role.USER)
                if of_kind is not None:
                    role = _OF_FILES.get(of_kind[1] or of_kind[2] or _FILES_OF[of_kind[3]], Role.OWNER)
                tries = [
                    (row.name in OPEN or may(one, role, owner, private=private), owner, one)
                    for owner in owners_of(row, template)
                    for one in people
                ]
                for expected in (False, True):
                    before = state(tmp_path)
                    for _, owner, person in (one for one in tries if one[0] is expected):
                        request = with_ids(template, row, here.owned[owner])
                        if face == "HTTP":
                            allowed = await is_answered(here.url, person, request)
                        elif face == "mt":
                            allowed = await is_answered_in_terminal(process, here, person, request)
                        else:
                            assert person.user is not None
                            allowed = await is_answered_in_discord(here, person.user, row, request)
                        if allowed is not expected:
                            wrong.append((row.name, template, owner, person.name))
                    assert expected or state(tmp_path) == before, (row.name, template)
    assert wrong == []
