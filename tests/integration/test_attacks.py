"""Attacks with two keys: nothing of what one has sent is in any answer to the other."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, unquote

import pytest
from pydantic import TypeAdapter

from tests.support import ended, settings_in, tiny_request, wait_for_status
from tests.support.batteries import PAIRS
from tests.support.cross_language import TINY as BY_LANGUAGE
from tests.support.finished_runs import finished_run
from tests.support.http import ADMIN, ANA, BOB, STATUSES, Got, Site, lab_site, site, with_api
from tests.support.lab import Lab
from tests.support.markers import slow_except
from tests.support.readings import times_table
from trainer.contracts.evaluations import EvalMetrics, EvalResponse
from trainer.contracts.http_answers import CheckedTraining
from trainer.contracts.installation import BUNDLED_CORPORA
from trainer.contracts.operations import OPERATIONS
from trainer.mcp.tools import tools

MARKERS = ("Kowalczyk", "Weinstein", "Brzezinski", "Oyelaran", "Matsumoto")
"""Words of what one has sent: of the text, of the corpus with a name, of items and of reading times."""
TEXT = "".join(f"Kowalczyk met Weinstein {'at the sea ' * (day % 5)}on day {day}\n" for day in range(60))
NAMED_TEXT = "".join(f"Brzezinski wrote {'to the moon ' * (year % 5)}in year {year}\n" for year in range(60))
ITEMS = PAIRS.replace("the sun", "the Oyelaran").replace("sun the", "Oyelaran the")
READ = {"name": "times.csv", "content": times_table(lines=[*TEXT.splitlines()[:20], "Matsumoto wrote at the sea"])}
TINY: dict[str, object] = tiny_request(max_steps=1).model_dump(mode="json", exclude_unset=True)
WORDS = {**TINY, "model_family": "lstm", "tokenizer": {"method": "word"}, "checkpoint_schedule": [1]}
SHARED: dict[str, object] = {name: value for name, value in TINY.items() if name != "num_epochs"}
FILES = {"name": "a.csv", "content": PAIRS}
TIMES = {"name": "a.csv", "content": times_table()}


_object: TypeAdapter[object] = TypeAdapter(object)
_body: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])


class Sent(NamedTuple):
    """A request, with words in capitals for things: HASH, RUN (of one), OWN (of the other), TOKENIZER, BATTERY …"""

    method: str
    path: str
    body: object = None

    def of(self, things: Mapping[str, str]) -> "Sent":
        body = None if self.body is None else _object.validate_json(_with(json.dumps(self.body), things))
        return Sent(self.method, _with(self.path, things), body)


def _with(text: str, things: Mapping[str, str]) -> str:
    def id_of(word: re.Match[str]) -> str:
        return things.get(word[0], word[0])

    return re.sub(r"[A-Z]{3,}", id_of, text)


def requests_with(text: str) -> Iterator[Sent]:
    """Yield a request for each field that names a text, with a name in it."""
    yield Sent("POST", "/runs/OWN/score?wait=30", {"path": text, "detail_level": "per_word"})
    yield Sent("POST", "/runs/OWN/score?wait=30", {"path": text})
    yield Sent("POST", "/runs/OWN/evaluate?wait=30", {"path_override": text})
    yield Sent("POST", "/runs/OWN/generate?wait=30", {"prompt_path": text, "max_new_tokens": 4})
    yield Sent("POST", "/runs/check", {**TINY, "corpus": text})
    yield Sent("POST", "/runs/train", {**TINY, "corpus": text})
    yield Sent("POST", "/tokenizers/train", {"method": "word", "corpora": [text]})


NAMES = (
    *("HASH", "./HASH", "HASH/", "HASH/.", "x/../HASH", "HASH/part.txt", "HASH/a.txt", "/HASH", "//HASH"),
    *("CAPITALS", "BEGINNING", "MOST", "HASH.txt", "HASH.json", "../corpora/HASH", "HASH/../HASH", " HASH", "HASH\n"),
)
"""Other ways to write a hash."""
SIBLINGS = (
    Sent("GET", "/corpora/HASH/report"),
    Sent("GET", "/corpora/HASH%2F/report"),
    Sent("GET", "/corpora/.%2FHASH/report"),
    Sent("GET", "/corpora/x%2F..%2FHASH/report"),
    Sent("DELETE", "/corpora/HASH"),
    Sent("POST", "/corpora/HASH/lock"),
    Sent("POST", "/runs/train", {**TINY, "validation_corpus": "HASH"}),
    Sent("POST", "/runs/train", {**TINY, "test_corpus": "HASH"}),
    Sent("POST", "/runs/train", {**TINY, "requested_paths": ["HASH"]}),
    Sent("POST", "/tokenizers/train", {"method": "char", "corpora": ["text", "HASH"]}),
    Sent("POST", "/studies", {"name": "x", "train": {**SHARED, "corpus": "HASH"}}),
    Sent("POST", "/studies", {"name": "x", "train": SHARED, "settings": {"a": {"corpus": "HASH"}, "b": {}}}),
    Sent("POST", "/studies", {"name": "x", "train": SHARED, "space": {"corpus": ["text", "HASH"]}}),
    Sent("POST", "/corpora", {"files": [{"name": "a.txt", "bytes": len(TEXT.encode()), "sha256": "HASH"}]}),
    Sent("POST", "/corpora", {"files": [{"name": "a.csv", "bytes": len(TEXT.encode()), "sha256": "HASH"}]}),
    Sent("POST", "/corpora", {"name": "mine", "files": [{"name": "a.txt", "bytes": 9, "sha256": "HASH"}]}),
    Sent("POST", "/corpora", {"name": "HASH", "files": [{"name": "a.txt", "bytes": 9}]}),
    Sent("POST", "/corpora/texts", {"name": "HASH", "text": "a b\nc d\n"}),
)
"""Requests whose answers are those for a hash that nobody has sent."""
REFUSED = (
    Sent("POST", "/runs/check", {**TINY, "init_from_run_id": "RUN"}),
    Sent("POST", "/runs/check", {**TINY, "init_from_run_id": "RUN@best"}),
    Sent("POST", "/runs/check", {**TINY, "tokenizer_id": "TOKENIZER"}),
    Sent("POST", "/studies", {"name": "x", "train": {**SHARED, "init_from_run_id": "RUN"}}),
    Sent("POST", "/studies", {"name": "x", "train": SHARED, "space": {"tokenizer_id": ["TOKENIZER", None]}}),
    Sent("POST", "/runs/RUN/export", {"format": "hf"}),
    Sent("POST", "/runs/RUN/export", {"format": "archive"}),
    Sent("POST", "/runs/RUN/resume"),
    Sent("GET", "/artifacts/models/RUN"),
    Sent("GET", "/artifacts/models/RUN/download?path=model.safetensors"),
    Sent("GET", "/artifacts/tokenizers/TOKENIZER"),
    Sent("GET", "/artifacts/tokenizers/TOKENIZER/download?path=tokenizer.json"),
    Sent("GET", "/tokenizers/TOKENIZER/report"),
    Sent("GET", "/runs/RUN/samples"),
    Sent("GET", "/runs/RUN/logs"),
    Sent("GET", "/runs/RUN/logs/stream"),
    *(
        Sent("POST", "/v1/completions", {"model": "RUN", "prompt": prompt, **options})
        for prompt in ([5], [[5], [6], [7]])
        for options in ({"max_tokens": 0, "echo": True}, {"max_tokens": 1}, {"max_tokens": 1, "stream": True})
    ),
    Sent("POST", "/v1/completions", {"model": "RUN@best", "prompt": [[5]], "max_tokens": 0, "echo": True}),
    *(
        Sent("POST", path, {**text, **picked})
        for path, text in (("/runs/RUN/generate", {"prompt_text": "a"}), ("/runs/RUN/chat", {"message": "a"}))
        for picked in ({"banned_tokens": ["zzz"]}, {"alphabet": "Kowalczyk"})
    ),
)
"""Requests that are refused."""
OF_WORDS = (
    Sent("POST", "/runs/RUN/score", {"text": "abc", "detail_level": "per_word"}),
    Sent("POST", "/runs/RUN/score", {"path": "NAMED", "detail_level": "per_char"}),
    Sent("POST", "/runs/OWN/score", {"path": "NAMED", "detail_level": "per_word"}),
    Sent("POST", "/runs/OWN/score", {"path": "./NAMED", "detail_level": "per_char"}),
    Sent("POST", "/runs/OWN/score", {"path": "NAME", "detail_level": "per_char"}),
    Sent("POST", "/runs/OWN/generate", {"prompt_path": "NAMED"}),
    Sent("POST", "/runs/OWN/evaluate", {"path_override": "NAMED", "sample_prompts": "held_out"}),
    Sent("POST", "/runs/OWN/evaluate", {"path_override": "text", "sample_prompts": "held_out"}),
    Sent("POST", "/runs/RUN/evaluate", {"has_counts": True}),
    *(
        Sent("POST", f"/runs/{run}/evaluate?wait=30", {"split": split, "sample_prompts": "held_out"})
        for run in ("LETTERS", "OWN")
        for split in ("validation", "test")
    ),
    Sent("POST", "/batteries", {"runs": ["LETTERS"], "development": {"split": "validation", "has_words": True}}),
    Sent("POST", "/batteries", {"runs": ["LETTERS"], "development": {"has_words": True, "has_loss": False}}),
    Sent("POST", "/batteries", {"runs": ["RUN"], "development": {"has_words": True, "has_loss": False}}),
    Sent("POST", "/batteries", {"runs": ["RUN"], "files": [FILES], "has_counts": True}),
    Sent("POST", "/readings", {"runs": ["RUN"], "file": TIMES, "baseline": ["length", "ngram"]}),
    Sent("POST", "/v1/completions", {"model": "RUN", "prompt": "abc", "max_tokens": 0, "echo": True, "logprobs": 1}),
    Sent("POST", "/predict?run_id=RUN", {"text": "abc", "k": 100}),
)
"""Requests for words, tokens and counts, which `SECURITY__SURPRISALS=all` opens."""
OF_OWN_RUN = (
    *(Sent("GET", f"/runs/LETTERS/{one}") for one in ("report", "samples", "logs", "eval")),
    Sent("POST", "/runs/LETTERS/evaluate?wait=30", {}),
    Sent("GET", "/artifacts/models/LETTERS/download?path=eval/samples.jsonl"),
    Sent("POST", "/runs/LETTERS/evaluate?wait=30", {"split": "test"}),
    Sent("GET", "/artifacts/models/LETTERS/download?path=eval/samples.jsonl"),
)
"""Requests about a run of the other on the named text of one, whose lines begin samples where words are open."""
OF_WEIGHTS = (
    Sent("POST", "/runs/check", {**TINY, "init_from_run_id": "SHOWN"}),
    Sent("POST", "/runs/SHOWN/export", {"format": "hf"}),
    Sent("GET", "/artifacts/models/SHOWN"),
    Sent("GET", "/artifacts/models/SHOWN/download?path=config.json"),
)
"""Requests for the weights of a run on a text with a name."""
OF_RUNS = (
    *(Sent("GET", f"/runs/RUN{one}") for one in ("", "/report", "/manifest", "/files", "/config.yaml", "/request")),
    *(Sent("GET", f"/runs/RUN{one}") for one in ("/curve", "/eval", "/events")),
    *(Sent("GET", one) for one in ("/compare?runs=RUN,OWN", "/batteries/BATTERY")),
    *(Sent("GET", one) for one in ("/readings/READING", "/studies/STUDY", "/experiments/EXPERIMENT", "/experiments")),
    Sent("POST", "/runs/RUN/evaluate?wait=30", {}),
)
"""Requests that are answered where runs are for all."""
READABLE = (
    *(Sent("GET", one) for one in ("/runs", "/tokenizers", "/batteries", "/corpora", "/runs?corpus=HASH", "/exports")),
    *(Sent("GET", one) for one in ("/readings", "/studies")),
    Sent("POST", "/runs/OWN/score?wait=30", {"path": "NAMED", "detail_level": "per_line"}),
    Sent("POST", "/runs/OWN/evaluate?wait=30", {"path_override": "NAMED"}),
    Sent("GET", "/corpora/NAMED/report"),
    Sent("POST", "/v1/completions", {"model": "OWN", "prompt": [[5], [6]], "max_tokens": 0, "echo": True}),
    Sent("POST", "/runs/OWN/generate?wait=30", {"prompt_text": "a", "alphabet": "ab"}),
)
"""Requests that are answered, without a word of what one has sent."""
MISSING = (
    Sent("POST", "/runs/OWN/score", {"path": "no_such_text"}),
    Sent("POST", "/runs/OWN/score", {"path": "no_such_text", "detail_level": "per_word"}),
    Sent("POST", "/runs/OWN/score", {"path": "no_such_text/", "detail_level": "per_char"}),
    Sent("POST", "/runs/OWN/generate", {"prompt_path": "no_such_text"}),
    Sent("POST", "/runs/OWN/evaluate", {"path_override": "no_such_text", "sample_prompts": "held_out"}),
)
"""Requests for words of a corpus that does not exist, which are answered as that."""
JOBS = {"batteries": "BATTERY", "readings": "READING", "studies": "STUDY", "experiments": "EXPERIMENT"}
"""The jobs of one, and an experiment of an admin on the text of one, by kind."""


class Options(NamedTuple):
    """Settings that rights depend on."""

    private_runs: bool = False
    surprisals: Literal["owner", "all"] = "owner"
    open_weights: bool = True


SETTINGS: Mapping[str, Options] = {
    "default": Options(),
    "private": Options(private_runs=True),
    "words": Options(surprisals="all"),
    "weights": Options(open_weights=False),
}
EXPECTED: tuple[tuple[Sequence[Sent], int, Mapping[str, int]], ...] = (
    (REFUSED, 403, {}),
    (OF_WORDS, 403, {"words": 200}),
    (OF_WEIGHTS, 200, {"weights": 403, "private": 403}),
    (OF_RUNS, 200, {"private": 403}),
    (OF_OWN_RUN, 200, {}),
    (READABLE, 200, {}),
    (MISSING, 404, {}),
)
"""Requests with the status of their answers, and with settings that change it; 200 is any status below 300."""


class Answer(NamedTuple):
    """An answer over HTTP, or of a tool; the status of a tool's error is that of its code."""

    status: int
    text: str
    headers: tuple[str, ...] = ()
    """Their names."""


class Attacker:
    """The other key, which writes down each request whose answer has a word of what one has sent."""

    def __init__(self, here: Site, things: Mapping[str, str]) -> None:
        self._here = here
        self._things = things
        self.count = 0
        self.leaks: list[Sent] = []

    async def sends(self, sent: Sent, *, by_tool: bool = True, may_quote: bool = False, **things: str) -> list[Answer]:
        """Send a request over HTTP, and as a call of a tool where there is one."""
        one = sent.of({**self._things, **things})
        got = await self._here.ask(*one, key=BOB)
        text, call = got.body.decode(errors="replace"), call_of(one)
        answers = [Answer(got.status, f"{got.headers}{text}", tuple(sorted(got.headers)))]
        if call is not None and by_tool:
            answers.append(await self._calls(call))
        self.count += len(answers)
        if not may_quote and any(word in answer.text for answer in answers for word in MARKERS):
            self.leaks.append(sent)
        return answers

    async def _calls(self, call: Mapping[str, object]) -> Answer:
        got = await self._here.post("/mcp", {"jsonrpc": "2.0", "id": 1, **call}, key=BOB)
        is_error = '"isError":true' in got.text or "error" in got.fields
        if not is_error:
            return Answer(200, got.text)
        words: list[str] = re.findall(r"[A-Z_]{5,}", got.text)
        return Answer(next(int(STATUSES[word][:3]) for word in words if word in STATUSES), got.text)

    async def finds_nothing(self, sent: Sent, *, by_tool: bool = True) -> list[object]:
        """Return the answers if one about the text differs from that about a hash that nobody has sent."""
        about_text, about_none = [
            await self.sends(sent, by_tool=by_tool, HASH=one, CAPITALS=one.upper(), BEGINNING=one[:20], MOST=one[:63])
            for one in (self._things["HASH"], self._things["UNKNOWN"])
        ]
        told = [(told_by(one), told_by(none)) for one, none in zip(about_text, about_none, strict=True)]
        return [(sent, *pair) for pair in told if pair[0] != pair[1] or pair[0].status == 500]

    async def gets(self, sent: Sent, status: int, *, may_quote: bool = False) -> list[object]:
        """Return the answers with another status; 200 is any below 300."""
        answers = await self.sends(sent, may_quote=may_quote)
        return [(sent, one) for one in answers if (200 if one.status < 300 else one.status) != status]


def told_by(answer: Answer) -> Answer:
    """Return an answer without what differs between any two."""
    text = re.sub(r"[0-9a-fA-F]{20,}|(?<=request_id\":\")\w+|'(Date|X-Request-ID)': '[^']*'", "", answer.text)
    return answer._replace(text=text)


def call_of(sent: Sent) -> Mapping[str, object] | None:
    """Return the message by which an agent sends a request; None if no tool and no resource is for it."""
    path, _, query = sent.path.partition("?")
    given: dict[str, object] = {**dict(parse_qsl(query))}
    given |= {} if sent.body is None else _body.validate_python(sent.body)
    for row in OPERATIONS:
        found = re.fullmatch(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", row.path), path)
        if found is not None and row.method == sent.method:
            names: dict[str, str] = found.groupdict()
            named = {name: unquote(value) for name, value in names.items()}
            if row.name == "download_file":
                place = "/".join((named["kind"], named["item_id"], str(given["path"])))
                return {"method": "resources/read", "params": {"uri": f"artifact://{place}"}}
            if row.name in tools():
                return {"method": "tools/call", "params": {"name": row.name, "arguments": {**given, **named}}}
    return None


async def _both(here: Site, name: str, job: tuple[str, object], seconds: float) -> tuple[int, int]:
    """Start a job on a new corpus, and delete the corpus after some seconds; return both statuses."""
    text = NAMED_TEXT.replace("moon", name)
    assert (await here.post("/corpora/texts", {"name": name, "text": text})).status == 200

    async def deleted() -> Got:
        await asyncio.sleep(seconds)
        return await here.ask("DELETE", f"/corpora/{name}")

    started, gone = await asyncio.gather(here.post(*job), deleted())
    return started.status, gone.status


async def test_job__on_a_corpus_that_is_deleted_at_the_same_time_is_refused_or_keeps_it(tmp_path: Path) -> None:
    outcomes: dict[tuple[int, int], list[str]] = {}
    tried = {"learning_rate": [0.1, 0.2]}
    async with site(with_api(settings_in(tmp_path, embedded_workers=0))) as here:
        for number in range(24):
            name = f"race-{number}"
            jobs: tuple[tuple[str, object], ...] = (
                ("/runs/train", {**TINY, "corpus": name}),
                ("/tokenizers/train", {"method": "char", "corpora": [name]}),
                ("/studies", {"name": name, "train": {**SHARED, "max_steps": 8, "corpus": name}, "space": tried}),
            )
            job = jobs[number % len(jobs)]
            found = await _both(here, name, job, 0.01 * (number // len(jobs)))
            outcomes.setdefault(found, []).append(job[0])
    refused = {(404, 204), (404, 409), (422, 204)}  # 422: a study, which reads its text for each setting
    assert {*outcomes} <= {(202, 409), *refused}, outcomes


async def test_equal_jobs__of_two_people_are_theirs(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "lstm", corpus=BUNDLED_CORPORA / "demo.txt", run_id="lstm-1")
    body: dict[str, object] = {"runs": [run.run_id], "has_counts": False, "files": [FILES]}
    kinds = {"batteries": body, "readings": {"runs": [run.run_id], "has_counts": False, "file": TIMES}}
    async with site(with_api(settings_in(tmp_path, embedded_workers=0))) as here:
        for (kind, asked), field in zip(kinds.items(), ("battery_id", "reading_id"), strict=True):
            ids = {key: await _started(here, f"/{kind}", asked, field, key) for key in (BOB, ANA)}
            assert ids[BOB] != ids[ANA]
            assert (await here.post(f"/{kind}/{ids[BOB]}/cancel", key=ANA)).status == 403
            assert (await here.post(f"/{kind}/{ids[BOB]}/cancel", key=BOB)).status == 200
            assert (await here.ask("DELETE", f"/{kind}/{ids[BOB]}", key=BOB)).status == 204
            assert await _started(here, f"/{kind}", asked, field, ANA) == ids[ANA]
            assert (await here.post(f"/{kind}/{ids[ANA]}/cancel", key=ANA)).status == 200


async def test_frequencies__are_counted_in_a_text_of_the_client_and_in_none_of_others(lab: Lab) -> None:
    async with lab_site(lab) as here:
        runs = [await _started(here, "/runs/train", {**TINY, "corpus": "text"}, "run_id", key) for key in (BOB, ANA)]
        for run_id in runs:
            assert (await wait_for_status(here.queue, run_id, ended)).status == "completed"
        own, other = runs
        asked = {"runs": [other], "file": READ, "frequencies": own}
        reading = here.queue.stores.readings.get(await _started(here, "/readings", asked, "reading_id", BOB))
        options = reading.record().options
        assert (options.frequencies, options.has_counts) == (own, False) and "log_frequency" in options.baseline
        refused = await here.post("/readings", {**asked, "frequencies": other}, key=BOB)
        assert refused.outcome == (403, "FORBIDDEN") and "`frequencies` must be a run of yours" in refused.error.message


def _paths(listed: str) -> set[str]:
    found: list[str] = re.findall(r'"path":"([^"]+)"', listed)
    return set(found)


async def _started(here: Site, path: str, body: object, name: str, key: str = ANA) -> str:
    answer = await here.post(path, body, key=key)
    assert answer.status < 300, answer.text
    return str(answer.fields[name])


async def things_of_one(here: Site, settings: str) -> dict[str, str]:
    """Send texts as one, train on them and start a job of each kind; return the ids by the words for them."""
    number = 60 + [*SETTINGS].index(settings)  # a text for each, as others see all that was started before
    text, named = TEXT.replace("day 59", f"day {number}"), f"letters_of_{settings}"
    content = sha256(text.encode()).hexdigest()
    sent = {"files": [{"name": f"{settings}.txt", "bytes": len(text.encode())}]}
    upload = await _started(here, "/corpora", sent, "upload_id")
    kind = {"Content-Type": "application/octet-stream"}
    portion = await here.ask("PATCH", f"/corpora/uploads/{upload}?offset=0", text.encode(), key=ANA, headers=kind)
    assert content in portion.text
    named_text = NAMED_TEXT.replace("year 59", f"year {number}")
    await _started(here, "/corpora/texts", {"name": named, "text": named_text}, "name")
    keyed = {"Idempotency-Key": f"key-of-{settings}"}
    begun = await here.post("/runs/train", {**WORDS, "corpus": content}, key=ANA, headers=keyed)
    run, own = str(begun.fields["run_id"]), await _started(here, "/runs/train", TINY, "run_id", BOB)
    shown = await _started(here, "/runs/train", {**TINY, "corpus": named}, "run_id")
    on_letters = {
        **TINY,
        "corpus": named,
        "sample_prompts": "held_out",
        "sample_every_steps": 1,
        "checkpoint_schedule": [1],
    }
    letters = await _started(here, "/runs/train", on_letters, "run_id", BOB)
    for run_id in (run, own, shown, letters):
        assert (await wait_for_status(here.queue, run_id, ended)).status == "completed"
    small: dict[str, object] = {"finalists": 1, "seeds": 1, "test_seeds": 1, "halving": False}
    train = {name: value for name, value in WORDS.items() if name != "num_epochs"} | {"corpus": content}
    study = {"name": settings, "train": train, "settings": {"a": {"learning_rate": 0.1}, "b": {}}, **small}
    plan = {
        **{"name": settings, "languages": {"aa": {"corpus": content}, "bb": {"corpus": "text"}}},
        **{"models": {"lstm": {"train": BY_LANGUAGE}}, "seeds": [1], "modes": ["skip"]},
    }
    asked = {"method": "word", "corpora": [content]}
    items, counted = [{"name": "items.csv", "content": ITEMS}], ["length", "log_frequency", "ngram"]
    things = {
        "UNKNOWN": sha256(f"nobody has sent this, {settings}".encode()).hexdigest(),
        **{
            "RUN": run,
            "OWN": own,
            "SHOWN": shown,
            "LETTERS": letters,
            "HASH": content,
            "NAMED": named,
            "NAME": named[:-2],
        },
        "TOKENIZER": await _started(here, "/tokenizers/train?wait=60", asked, "tokenizer_id"),
        "BATTERY": await _started(here, "/batteries", {"runs": [run], "files": items}, "battery_id"),
        "READING": await _started(here, "/readings", {"runs": [run], "file": READ, "baseline": counted}, "reading_id"),
        "STUDY": await _started(here, "/studies", study, "study_id"),
        "EXPERIMENT": await _started(here, "/experiments", plan, "experiment_id", ADMIN),
    }
    for jobs, word in JOBS.items():
        done = await here.get(f"/{jobs}/{things[word]}?wait=60")
        assert done.fields["status"] == "completed", done.text
    return things


@pytest.mark.parametrize("settings", slow_except(SETTINGS, "default"))
async def test_two_keys__share_nothing_of_a_text_that_one_has_sent(settings: str, lab: Lab) -> None:
    private_runs, surprisals, open_weights = SETTINGS[settings]
    async with lab_site(
        lab,
        limits={"requests_per_minute": 100_000, "runs_per_user": 100},
        private_runs=private_runs,
        surprisals=surprisals,
        open_weights=open_weights,
    ) as here:
        things = await things_of_one(here, settings)
        bob, wrong = Attacker(here, things), list[object]()
        for name in NAMES:
            for one in requests_with(name):
                wrong += await bob.finds_nothing(one, by_tool=name in ("HASH", "./HASH"))
        for one in SIBLINGS:
            wrong += await bob.finds_nothing(one)
        for requests, status, differing in EXPECTED:
            for one in requests:
                is_open = requests in (OF_WORDS, OF_OWN_RUN) and surprisals == "all"
                wrong += await bob.gets(one, differing.get(settings, status), may_quote=is_open)
        for kind, word in JOBS.items():
            place = f"/artifacts/{kind}/{word}"
            listed = (await bob.sends(Sent("GET", place)))[0]
            everything = _paths((await here.get(f"/artifacts/{kind}/{things[word]}")).text)
            shared = _paths(listed.text)
            wrong += [] if private_runs is not bool(shared) and shared <= everything else [(kind, listed)]
            for path in sorted(everything):
                status = 403 if private_runs else 200 if path in shared else 404
                wrong += await bob.gets(Sent("GET", f"{place}/download?path={path}"), status)
        retried = Sent("POST", "/runs/train", {**WORDS, "corpus": "HASH"}).of(things)
        keyed = {"Idempotency-Key": f"key-of-{settings}"}
        assert (await here.post(retried.path, retried.body, key=BOB, headers=keyed)).status == 404
        body = {**TINY, "corpus": things["NAMED"], "sample_prompts": "held_out"}
        checked = (await here.post("/runs/check", body, key=BOB)).record(CheckedTraining)
        assert checked.effective.sample_prompts == ("held_out" if surprisals == "all" else "none")
        for key in (ANA, ADMIN):  # who get what they ask for
            asked = {"path": things["HASH"], "detail_level": "per_word"}
            scored = await here.post(f"/runs/{things['RUN']}/score?wait=30", asked, key=key)
            assert scored.status == 200 and "Kowalczyk" in scored.text
    assert (wrong, bob.leaks) == ([], [])
    assert bob.count > 500


async def _uploaded(here: Site, text: str, key: str) -> str:
    """Send a text without a name; return its hash."""
    upload = await _started(here, "/corpora", {"files": [{"name": "a.txt", "bytes": len(text)}]}, "upload_id", key)
    kind = {"Content-Type": "application/octet-stream"}
    await here.ask("PATCH", f"/corpora/uploads/{upload}?offset=0", text.encode(), key=key, headers=kind)
    return sha256(text.encode()).hexdigest()


async def test_evaluation_of_somebody_elses_run__is_in_the_answer_only(lab: Lab) -> None:
    async with lab_site(lab, limits={"requests_per_minute": 10_000, "runs_per_user": 100}) as here:
        run_id = await _started(here, "/runs/train", TINY, "run_id")
        assert (await wait_for_status(here.queue, run_id, ended)).status == "completed"
        run = here.queue.runs.get(run_id)
        texts = {key: await _uploaded(here, f"{key[:4]} {TEXT}", key) for key in (ANA, BOB, ADMIN)}

        def content() -> dict[str, bytes]:
            paths = (run.metrics, run.samples, run.path / "manifest.json", run.path / "SHA256SUMS")
            return {path.name: path.read_bytes() for path in paths}

        async def evaluated(key: str, **body: object) -> bool:
            """Evaluate the run; return whether the evaluation has changed it."""
            before = content()
            answer = await here.post(f"/runs/{run_id}/evaluate?wait=60", body, key=key)
            metrics = answer.record(EvalResponse).measured()
            asked = body.get("path_override", "text"), body.get("split", "validation")
            assert (metrics.run_id, metrics.dataset, metrics.split) == (run_id, *asked)
            is_changed = content() != before
            latest = (await here.get(f"/runs/{run_id}/eval", key=BOB)).record(EvalMetrics)
            assert (latest == metrics) == is_changed == ("eval/samples.jsonl" in metrics.artifacts)
            return is_changed

        for body in ({"split": "validation", "sample_prompts": "none"}, {"split": "test"}, {"path_override": "text"}):
            assert not await evaluated(BOB, **body)
            assert not await evaluated(BOB, **body, is_stored=True), "which is not for him to say"
        for key in (BOB, ADMIN):
            assert not await evaluated(key, path_override=texts[key])
            assert texts[key].encode() not in b"".join(content().values())
        assert await evaluated(ADMIN, split="validation"), "admins act for the lab"
        assert not await evaluated(ANA, split="test", is_stored=False)
        assert await evaluated(ANA, path_override=texts[ANA])
        assert texts[ANA].encode() in content()["manifest.json"]
