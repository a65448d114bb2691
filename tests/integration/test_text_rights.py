"""The table of rights, tried: each field of an operation, filled with each thing of a user, by everybody."""

import json
import re
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import pytest
from aiohttp import ClientSession
from pydantic import SecretStr, TypeAdapter
from yarl import URL

from bot.session.client import Bot
from local_discord import LocalDiscord
from local_discord.state import User
from tests.support import ROOT, tiny_request
from tests.support.batteries import PAIRS, battery_record, pairs
from tests.support.bot import discord_alone, read, running_bot, settings
from tests.support.finished_runs import finished_run
from tests.support.groups import group_record
from tests.support.markers import slow_except
from tests.support.readings import reading_record, times_table
from tests.support.rights import TABLE
from tests.support.runs import ended
from tests.support.stored_jobs import finish_battery, waiting_experiment
from tests.support.stories import Story
from tests.support.studies import study_record
from trainer.artifacts.batteries import BatteryStore
from trainer.artifacts.command_jobs import ExportRecord, ExportStore, VerificationRecord, VerificationStore
from trainer.artifacts.corpus_builds import BuildRecord, BuildStore
from trainer.artifacts.readings import ReadingStore
from trainer.artifacts.run_groups import member
from trainer.artifacts.studies import StudyStore
from trainer.config.settings import HttpSettings, LimitSettings, SecuritySettings
from trainer.contracts.base import changed, now
from trainer.contracts.corpora import BuildRequest
from trainer.contracts.exports import ExportRequest
from trainer.contracts.installation import BUNDLED_CORPORA
from trainer.contracts.operations import BY_NAME
from trainer.contracts.runs import CorpusRef
from trainer.contracts.tokenizer_jobs import TokenizerRecord
from trainer.lab.permissions import typed_command
from trainer.mcp.tools import tools

MARKERS = ("Kowalczyk", "Weinstein", "Brzezinski", "Oyelaran", "Matsumoto")
"""Words of what one has sent: of the text, of the corpus with a name, of items and of reading times."""
TEXT = "".join(f"Kowalczyk met Weinstein {'at the sea ' * (day % 5)}on day {day}\n" for day in range(60))
NAMED_TEXT = "".join(f"Brzezinski wrote {'to the moon ' * (year % 5)}in year {year}\n" for year in range(60))
ITEMS = PAIRS.replace("the sun", "the Oyelaran").replace("sun the", "Oyelaran the")
TIMES = times_table().replace(",1,", ",1,Matsumoto", 1)
HASH = sha256(TEXT.encode()).hexdigest()
UNKNOWN = sha256(b"nobody has sent this").hexdigest()
Outcome: TypeAlias = Literal["allowed", "refused", "missing", "no key"]
OUTCOMES: Mapping[int | str, Outcome] = {
    **{401: "no key", 403: "refused", 404: "missing"},
    **{"UNAUTHORIZED": "no key", "FORBIDDEN": "refused", "DATA_NOT_FOUND": "missing"},
}
Fields: TypeAlias = dict[str, object]
_fields: TypeAdapter[Fields] = TypeAdapter(Fields)
_filled: TypeAdapter[tuple[str, Fields, Fields, Fields]] = TypeAdapter(tuple[str, Fields, Fields, Fields])
TINY: Fields = tiny_request(corpus="demo").model_dump(mode="json", exclude_unset=True)
SHARED: Fields = {name: value for name, value in TINY.items() if name not in ("num_epochs", "early_stopping")}
BODIES: Mapping[str, Fields] = {
    **dict.fromkeys(("train", "check_training"), TINY),
    "start_study": {"name": "x", "train": {**SHARED, "max_steps": 8}},
    "score": {"text": "abc"},
    "items": {"table": {"text": ["abc"]}, "text_column": "text"},
    "complete": {"model": "MODEL", "prompt": "abc", "max_tokens": 1},
    "start_battery": {"runs": ["MODEL"], "files": [{"name": "a.csv", "content": PAIRS}], "has_counts": False},
    "start_reading": {"runs": ["MODEL"], "file": {"name": "a.csv", "content": times_table()}},
    "start_upload": {"files": [{"name": "a.txt", "bytes": len(TEXT.encode())}]},
}
"""Bodies in place of the examples; MODEL is a run of the caller."""
QUERIES: Mapping[str, Fields] = {
    "predict": {"wait": "0"},
    "predict_with_newest": {"wait": "0"},
    "verify_run": {"wait": "0"},
    "send_portion": {"offset": "0"},
    "download_file": {"path": "config.json"},
}
OF_FIELDS: Mapping[str, Mapping[str, Outcome]] = {
    "train": {
        "corpus HASH": "missing",
        "validation_corpus HASH": "missing",
        "corpus NAMED": "allowed",
        "init_from_run_id SECRET": "refused",
        "tokenizer_id TOKENIZER": "refused",
    },
    "item_id": {
        "models SECRET": "refused",
        "models PUBLIC": "allowed",
        "tokenizers TOKENIZER": "refused",
        "batteries BATTERY": "allowed",
        "exports EXPORT": "refused",
        "corpus_builds BUILD": "refused",
    },
    "run_id": {"SECRET": "allowed"},
    "model": {"SECRET": "allowed"},
    "runs": {"SECRET": "allowed"},
    "frequencies": {"SECRET": "refused"},
    "group": {"GROUP": "allowed"},
    "parent": {"PUBLIC": "allowed"},
    "batteries": {"ours": "allowed"},
    "sha256": {"HASH": "allowed"},
    "upload_id": {"UPLOAD": "missing"},
    "corpus": {"NAMED": "allowed"},
}
"""The things that a field is filled with, and what others than their owner may where runs are for all.

For fields that are not here: the thing that they are called after.
"""
OF_RULES: Mapping[str, Mapping[str, Outcome]] = {
    "text": {"HASH": "missing", "NAMED": "allowed"},
    "quotation": {"HASH": "missing", "NAMED": "refused"},
    "deletion": {"HASH": "missing", "NAMED": "refused"},
    "weights": {"SECRET": "refused", "PUBLIC": "allowed"},
    "tokenizer": {"TOKENIZER": "refused"},
    "request": {"MODEL": "missing", "PUBLIC": "missing"},
}
"""The same for all fields of a rule. Requests of one are looked for at each run, at one's own and at that of one."""
ASKED = ("score", "sequences", "items", "segment", "generate", "predict", "evaluate", "chat")
"""The kinds of requests to models; SCORE is the id of the score that one has asked for, and so on."""
HIDDEN = ("HASH", "SESSION", *map(str.upper, ASKED))
"""Ids of which others hear what they hear of ids that nobody has."""
PRIVATE = ("run", "group", "weights", "job", "experiment")
"""The rules by which others may nothing where runs are private."""
SETTINGS = ("training", "weights", "tokenizer")
"""The rules of requests that may be refused for other fields of a training, once its names are allowed."""
AGENTS = ("one", "other")
SAID: Mapping[str, str] = {
    "list_files.item_id": "no results yet",
    "download_file.item_id": "There is no such file|no results yet",
    "get_latest_evaluation.run_id": "EVAL_NOT_FOUND",
    "compare_runs.runs": "EVAL_NOT_FOUND",
    "report_comparison.runs": "EVAL_NOT_FOUND",
    "send_portion.upload_id": "continue there",
}
"""What those are told who may: of runs without evaluations, of an export that waits, of an upload that is complete."""


class Try(NamedTuple):
    """A request to an operation, and what others than the owner of the named thing get."""

    cell: str
    thing: str
    outcome: Outcome
    sent: str
    """Path, query and body in JSON, with words for things."""

    def of(self, things: Mapping[str, str]) -> tuple[str, Fields, Fields, Fields]:
        """Return the address, and the fields of path, query and body, with ids in place of words."""
        return _filled.validate_json(with_ids(self.sent, things))


def with_ids(text: str, things: Mapping[str, str]) -> str:
    """Put ids in place of words for things."""

    def id_of(word: re.Match[str]) -> str:
        return things.get(word[0], word[0])

    return re.sub(r"\b[A-Z]{3,}\b", id_of, text)


class Person(NamedTuple):
    name: str
    key: str | None
    model: str
    user: User | None = None


class Answer(NamedTuple):
    outcome: Outcome
    text: str
    """All that the caller got."""
    status: int = 200


def tries(*, private: bool) -> Iterator[Try]:
    """Yield the requests of the table."""
    for cell, rule in TABLE.items():
        name, _, field = cell.partition(".")
        last = "train" if rule == "training" else field.rpartition(".")[2]
        named: Mapping[str, Outcome] = {last.removesuffix("_id").upper(): "allowed"}
        for thing, public in OF_RULES.get(rule, OF_FIELDS.get(last, named)).items():
            is_hidden = rule in PRIVATE and not thing.startswith("corpus_builds")
            is_hidden = private and (is_hidden or (rule == "request" and thing == "PUBLIC"))
            outcome: Outcome = "refused" if rule in ("owner", "admin") or is_hidden else public
            yield Try(cell, thing, outcome, json.dumps(filled(name, field, thing)))


def filled(name: str, field: str, thing: str) -> tuple[str, Fields, Fields, Fields]:
    """Return the address of an operation, and its path, query and body with a thing in a field."""
    row = BY_NAME[name]
    parameters: list[str] = re.findall(r"{(\w+)}", row.path)
    path: Fields = dict.fromkeys(parameters, "MODEL")
    query: Fields = {**row.query_example}
    query = {**QUERIES[name]} if name in QUERIES else query
    example: Mapping[str, object] = BODIES.get(name) or row.example or {}
    body = _fields.validate_json(json.dumps(example))
    inner, _, value = thing.partition(" ")
    if TABLE[f"{name}.{field}"] == "request":
        asked = "CHAT" if "/chat" in row.path else row.path.split("/")[3].upper()
        ids: Fields = {"run_id": thing, "request_id": asked, "session_id": "SESSION"}
        path = {one: ids[one] for one in path}
        body |= {} if field in path else {field: ids[field]}
    elif "kind" in path:
        path |= {"kind": inner, "item_id": value}
    elif field in path:
        path[field] = thing
    elif row.method == "GET" or name == "predict_with_newest":
        query[field] = f"{thing},MODEL" if field == "runs" else thing
    elif name == "start_study":
        shared = {**SHARED, "max_steps": 8}
        chosen: Mapping[str, Fields] = {
            "train": {"train": {**shared, inner: value}},
            "settings": {"train": shared, "settings": {"a": {"learning_rate": 0.1}, "b": {inner: value}}},
            "space": {
                "train": shared,
                "space": {inner: [SHARED.get(inner), value], "learning_rate": [0.1, 0.2]},
            },
        }
        body |= chosen[field]
    elif field == "files.sha256":
        body["files"] = [{"name": "a.txt", "bytes": len(TEXT.encode()), "sha256": thing}]
    elif name != "start_experiment":  # refused whatever it names
        body[field] = [thing] if field in ("runs", "corpora", "batteries") else thing
        for other in {"path": ("text",), "prompt_path": ("prompt_text",)}.get(field, ()):
            body.pop(other, None)
    return f"{row.method} {row.path}", path, query, body


class House:
    """An installation with the things of one."""

    def __init__(self, server: LocalDiscord, bot: Bot, people: list[Person], things: dict[str, str]) -> None:
        self.discord = server
        self.bot = bot
        self.people = {one.name: one for one in people}
        self.things = things
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.bot.backend.port}"

    async def ask(self, key: str | None, method: str, address: str, body: object = None) -> Answer:
        """Send a request over HTTP; its answer has the headers, too."""
        self.requests += 1
        headers = {} if key is None else {"X-Api-Key": key}
        is_bytes = isinstance(body, bytes)
        headers |= {} if body is None else {"Content-Type": f"application/{'octet-stream' if is_bytes else 'json'}"}
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        async with (
            ClientSession() as session,
            session.request(method, URL(self.url + address, encoded=True), data=data, headers=headers) as answer,
        ):
            told = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
            text = (await answer.read()).decode(errors="replace")
            return Answer(OUTCOMES.get(answer.status, "allowed"), f"{told}\n\n{text}", answer.status)

    async def try_http(self, person: Person, one: Try, **changes: str) -> Answer:
        route, path, query, body = one.of({**self.things, "MODEL": person.model, **changes})
        method, _, address = route.partition(" ")
        given = URL(address.format(**path)).with_query({name: str(value) for name, value in query.items()})
        return await self.ask(person.key, method, str(given), b"x" if method == "PATCH" else body or None)

    async def try_agent(self, person: Person, one: Try, **changes: str) -> Answer:
        """Call the tool of an operation, as an agent with the key of a person."""
        _, path, query, body = one.of({**self.things, "MODEL": person.model, **changes})
        params = {"name": one.cell.partition(".")[0], "arguments": {**path, **query, **body}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        answer = await self.ask(person.key, "POST", "/mcp", message)
        if answer.outcome != "allowed" or '"isError":true' not in answer.text:
            return answer
        codes: list[str] = re.findall(r'"code":"([A-Z_]+)"', answer.text)
        code = codes[-1]
        return answer._replace(outcome="missing" if code.endswith("NOT_FOUND") else OUTCOMES.get(code, "allowed"))


def comparable(answer: Answer, words: Mapping[str, str]) -> str:
    """Return an answer without the ids that it is about, and without what differs between any two answers."""
    told = re.sub(r'((request|upload)_id"?:? ?"?|X-Request-ID: |Date: |uploads/)[^"\n]*', "", answer.text)
    return re.sub("|".join(words.values()), "", told)


@asynccontextmanager
async def house(root: Path, *, private: bool = False) -> AsyncIterator[House]:
    """A bot with its HTTP API, agents of one and of other, and no worker."""
    async with discord_alone() as server:
        one, other, root_user = map(server.add_user, ("one", "other", "root"))
        people = [
            Person("stranger", None, "PUBLIC"),
            Person("other", "other-key-0123456789", "OWN", other),
            Person("one", "one-key-0123456789", "PUBLIC", one),
            Person("boss", "boss-key-0123456789", "PUBLIC", root_user),
        ]
        names = f"{one.id}:user:{people[2].key},{other.id}:user:{people[1].key},boss:admin:{people[3].key}"
        chosen = changed(
            settings(root, server, owner_id=root_user.id, allowed_user_ids=(one.id, other.id), private_runs=private),
            http=HttpSettings(port=0),
            security=SecuritySettings(api_keys=SecretStr(names)),
            limits=LimitSettings(requests_per_minute=100_000, runs_per_user=10_000, max_active_runs=10_000),
        )
        things = stored_things(root, one.id, other.id)
        people = [one._replace(model=things[one.model]) for one in people]
        key, content = people[2].key, TEXT.encode()
        async with running_bot(chosen, server) as bot:
            here = House(server, bot, people, things)
            sent = await here.ask(key, "POST", "/corpora", {"files": [{"name": "a.txt", "bytes": len(content)}]})
            things["UPLOAD"] = str(_fields.validate_json(sent.text.partition("\n\n")[2])["upload_id"])
            sent = await here.ask(key, "PATCH", f"/corpora/uploads/{things['UPLOAD']}?offset=0", content)
            assert HASH in sent.text
            sent = await here.ask(key, "POST", "/corpora/texts", {"name": things["NAMED"], "text": NAMED_TEXT})
            assert sent.status == 200, sent
            asked: Fields = {}
            for kind in ASKED:
                body = _fields.validate_json(json.dumps(BY_NAME[kind].example).replace("the sun", "Kowalczyk"))
                sent = await here.ask(key, "POST", f"/runs/{things['PUBLIC']}/{kind}?wait=0", body)
                asked = _fields.validate_json(sent.text.partition("\n\n")[2])
                things[kind.upper()] = str(asked["request_id"])
            things["SESSION"] = str(asked["session_id"])  # of the chat
            yield here


def stored_things(root: Path, one: int, other: int) -> dict[str, str]:
    """Write completed runs, and jobs of one."""
    artifacts = root / "artifacts"
    by: Fields = {"user_id": one, "created_at": now()}
    text = CorpusRef(name=HASH, sha256=HASH, bytes=len(TEXT.encode()))
    for name, user_id, corpus in (("secret", one, text), ("public", one, None), ("own", other, None)):
        run = finished_run(root, "lstm", corpus=BUNDLED_CORPORA / "demo.txt", run_id=f"lstm-{name}")
        record = changed(run.record(), user_id=user_id)
        if corpus is not None:
            record = changed(record, effective=changed(record.effective, corpus=corpus))
        (run.path / "request.json").write_text(record.model_dump_json(), encoding="utf-8")
    group = group_record((1, 2), "group-1", one)
    stories = [Story(artifacts, member(group, seed)) for seed in (1, 2)]
    stories[0].run.close_group()
    for story in stories:
        ended(story.run, "failed")
    source = next((ROOT / "tests" / "fixtures" / "tokenizers").glob("char-*"))
    tokenizer = artifacts / "tokenizers" / "word-1"
    shutil.copytree(source, tokenizer)
    for name in ("manifest.json", "request.json"):
        described = (source / name).read_text("utf-8").replace(source.name, tokenizer.name)
        (tokenizer / name).write_text(described, encoding="utf-8")
    trained = TokenizerRecord.model_validate_json((tokenizer / "request.json").read_bytes())
    (tokenizer / "request.json").write_text(changed(trained, corpora=(text,), **by).model_dump_json(), "utf-8")
    battery, _ = battery_record("battery-1", "lstm-secret")
    job = BatteryStore(artifacts).create(changed(battery, **by), pairs(ITEMS).items)
    finish_battery(job)
    reading, _ = reading_record("reading-1", "lstm-secret")
    ReadingStore(artifacts).create(changed(reading, **by), TIMES.encode())
    StudyStore(artifacts).create(changed(study_record("study-1"), **by))
    export = ExportRecord(created_at=now(), model="lstm-secret", request=ExportRequest(format="csv"))
    ExportStore(artifacts).create("export-1", changed(export, **by))
    verification = VerificationRecord(created_at=now(), run_id="lstm-secret")
    VerificationStore(artifacts).create("verification-1", changed(verification, **by))
    waiting_experiment(artifacts, "experiment-1")
    build = BuildRecord(created_at=now(), request=BuildRequest(source="local", languages=("kk",)))
    BuildStore(artifacts).create_or_continue("build-1", build)
    batteries = root / "data" / "batteries"
    batteries.mkdir(parents=True)
    (batteries / "ours.csv").write_text(PAIRS, encoding="utf-8")
    jobs = ("BATTERY", "READING", "STUDY", "EXPORT", "VERIFICATION", "EXPERIMENT", "BUILD", "GROUP")
    runs = {"SECRET": "lstm-secret", "PUBLIC": "lstm-public", "OWN": "lstm-own"}
    return {
        **{word: f"{word.lower()}-1" for word in jobs},
        **runs,
        "HASH": HASH,
        "NAMED": "their_letters",
        "TOKENIZER": "word-1",
    }


def expected(one: Try, person: str, *, private: bool) -> Outcome | None:
    """Return what somebody gets; None for owners and admins of what ends or changes something, whom others try."""
    rule, name = TABLE[one.cell], one.cell.partition(".")[0]
    if person == "stranger":
        return "no key"
    if person == "other" or (person == "boss" and rule == "upload"):  # which is that of its client alone
        return None if one.outcome == "allowed" and name == "complete" else one.outcome
    is_for_admins = rule == "admin" or one.thing == "corpus_builds BUILD" or (rule == "experiment" and private)
    if person == "one" and is_for_admins:
        return "refused"
    ends = rule in ("owner", "admin") or name == "complete" or BY_NAME[name].method == "DELETE"  # a worker completes
    return None if ends else "allowed"


def is_as_expected(one: Try, outcome: Outcome, answer: Answer) -> bool:
    if outcome != "allowed" or answer.outcome == "no key":
        return answer.outcome == outcome
    is_setting = answer.status == 422 and TABLE[one.cell] in SETTINGS
    is_told = re.search(SAID.get(one.cell, "$^"), answer.text) is not None
    return is_setting or is_told or (answer.outcome == "allowed" and answer.status < 300)


@pytest.mark.parametrize("private", slow_except([False, True], True))
async def test_field__opens_nothing_of_others_but_what_its_rule_says(private: bool, tmp_path: Path) -> None:
    wrong: list[tuple[object, ...]] = []
    async with house(tmp_path, private=private) as here:
        for one in tries(private=private):
            is_tool = one.cell.partition(".")[0] in tools()
            for person in here.people.values():
                outcome = expected(one, person.name, private=private)
                if outcome is None:
                    continue
                faces = {"HTTP": here.try_http}
                if is_tool and person.name in AGENTS:
                    faces["MCP"] = here.try_agent
                for face, send in faces.items():
                    answer = await send(person, one)
                    if not is_as_expected(one, outcome, answer):
                        wrong.append((one, face, person.name, outcome, answer))
                    if person.name != "other":
                        continue
                    wrong += [(one, face, word) for word in MARKERS if word in answer.text]
                    if unknown := {word: UNKNOWN[: len(here.things[word])] for word in HIDDEN if word in one.sent}:
                        known = {word: here.things[word] for word in unknown}
                        other = await send(person, one, **unknown)
                        if comparable(answer, known) != comparable(other, unknown):
                            wrong.append((one, face, answer, other))
        n_requests = here.requests
    assert wrong == []
    assert n_requests > 700


SLASH: tuple[tuple[str, dict[str, str], str], ...] = (
    ("train", {"corpus": "HASH"}, "You have sent no text with this hash"),
    ("train", {"corpus": "./HASH"}, "There is no corpus"),
    ("tokenizer train", {"corpora": "HASH"}, "You have sent no text with this hash"),
    ("corpus show", {"corpus": "HASH"}, "You have sent no text with this hash"),
    ("mt-study start", {"corpus": "HASH"}, "You have sent no text with this hash"),
    ("eval", {"run": "OWN", "corpus": "HASH"}, ""),  # no worker runs
    ("train", {"corpus": "demo", "init_from": "SECRET"}, "Forbidden"),
    ("train", {"corpus": "demo", "tokenizer": "TOKENIZER"}, "Forbidden"),
    ("tokenizer show", {"tokenizer": "TOKENIZER"}, "Forbidden"),
    ("export", {"run": "SECRET"}, "Forbidden"),
)
"""Commands in Discord on what is not one's own, with words of the answer."""


async def test_command__says_no_more_of_a_text_of_others_than_of_an_unknown_one(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        told: dict[str, list[str]] = {}
        for person in ("other", "one"):
            user, told[person] = here.people[person].user, []
            assert user is not None
            for command, options, _ in SLASH:
                for words in ({}, {"HASH": UNKNOWN}):
                    ids = {**here.things, **words}
                    given = {name: with_ids(text, ids) for name, text in options.items()}
                    answer = await read(await here.discord.slash(user, typed_command(command)[1:], given))
                    told[person].append(re.sub(f"{ids['HASH']}|request [0-9a-f]{{8}}", "", answer.text))
        unknown = told["other"][1::2]
        assert told["other"][::2] == unknown
        assert [text for (_, _, words), text in zip(SLASH, unknown, strict=True) if words not in text] == []
        assert [word for word in MARKERS if word in "".join(told["other"])] == []
        assert told["one"][0] != unknown[0] and told["one"][6] != unknown[3], "one trains on the text and is shown it"


async def test_private_jobs__are_named_to_nobody_else(tmp_path: Path) -> None:
    """Neither where an id is typed, nor where one's own text stays because they need it."""
    shown, told = dict[str, list[str]](), dict[str, Answer]()
    commands = ("mt-battery show", "mt-battery cancel", "mt-reading show", "mt-study show")
    async with house(tmp_path, private=True) as here:
        asked = {**TINY, "corpus": here.things["NAMED"]}
        started = await here.ask(here.people["other"].key, "POST", "/runs/train", asked)
        run_id = str(_fields.validate_json(started.text.partition("\n\n")[2])["run_id"])
        await here.bot.lab.index.refresh()
        for person in ("other", "one", "boss"):
            user, shown[person] = here.people[person].user, []
            assert user is not None
            for command in commands:
                field = command.removeprefix("mt-").split()[0]
                shown[person] += [one.value for one in await here.discord.autocomplete(user, command, field, "")]
        for person in ("one", "boss"):
            told[person] = await here.ask(here.people[person].key, "DELETE", f"/corpora/{here.things['NAMED']}")
    everything = ["battery-1", "battery-1", "reading-1", "study-1"]
    assert shown == {"other": [], "one": everything, "boss": everything}
    assert {one.status for one in told.values()} == {409}
    assert run_id not in told["one"].text and "because others need it: a run of somebody else." in told["one"].text
    assert f"because others need it: the run '{run_id}'." in told["boss"].text
