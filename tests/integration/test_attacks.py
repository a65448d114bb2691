"""Attacks with two keys: nothing of what one has sent is in any answer to the other."""

import json
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

from pydantic import TypeAdapter

from tests.support import ended, tiny_request, wait_for_status
from tests.support.batteries import PAIRS
from tests.support.http import ADMIN, ANA, BOB, Got, Site, lab_site
from tests.support.lab import Lab
from tests.support.readings import times_table
from trainer.contracts.http_answers import CheckedTraining

MARKERS = ("Kowalczyk", "Weinstein", "Brzezinski", "Oyelaran")
"""Words of what one has sent: of the text, of the corpus with a name, and of items."""
TEXT = "".join(f"Kowalczyk met Weinstein {'at the sea ' * (day % 5)}on day {day}\n" for day in range(60))
NAMED_TEXT = "".join(f"Brzezinski wrote {'to the moon ' * (year % 5)}in year {year}\n" for year in range(60))
NAMED = "their_letters"
ITEMS = PAIRS.replace("the sun", "the Oyelaran").replace("sun the", "Oyelaran the")
HASH, UNKNOWN = (sha256(text.encode()).hexdigest() for text in (TEXT, "nobody has sent this"))
TINY: dict[str, object] = tiny_request(max_steps=1).model_dump(mode="json", exclude_unset=True)
SHARED: dict[str, object] = {name: value for name, value in TINY.items() if name != "num_epochs"}
FILES = {"name": "a.csv", "content": PAIRS}
TIMES = {"name": "a.csv", "content": times_table()}


_object: TypeAdapter[object] = TypeAdapter(object)


class Sent(NamedTuple):
    """A request, with the words HASH, RUN (of one), OWN (of the other) and TOKENIZER for things."""

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
    Sent("POST", "/runs/RUN/score", {"text": "abc", "detail_level": "per_word"}),
    Sent("POST", "/runs/RUN/score", {"path": NAMED, "detail_level": "per_char"}),
    Sent("POST", "/runs/OWN/score", {"path": NAMED, "detail_level": "per_word"}),
    Sent("POST", "/runs/OWN/score", {"path": f"./{NAMED}", "detail_level": "per_char"}),
    Sent("POST", "/runs/OWN/score", {"path": NAMED[:-2], "detail_level": "per_char"}),
    Sent("POST", "/runs/OWN/generate", {"prompt_path": NAMED}),
    Sent("POST", "/runs/OWN/evaluate", {"path_override": NAMED, "sample_prompts": "held_out"}),
    Sent("POST", "/runs/OWN/evaluate", {"path_override": "text", "sample_prompts": "held_out"}),
    Sent("POST", "/runs/RUN/evaluate", {"has_counts": True}),
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
    Sent("POST", "/batteries", {"runs": ["RUN"], "development": {"has_words": True, "has_loss": False}}),
    Sent("POST", "/batteries", {"runs": ["RUN"], "files": [FILES], "has_counts": True}),
    Sent("POST", "/readings", {"runs": ["RUN"], "file": TIMES, "baseline": ["length", "ngram"]}),
    Sent("POST", "/v1/completions", {"model": "RUN", "prompt": "abc", "max_tokens": 0, "echo": True, "logprobs": 1}),
    Sent("POST", "/predict?run_id=RUN", {"text": "abc", "k": 100}),
)
READABLE = (
    *(Sent("GET", f"/runs/RUN{one}") for one in ("", "/report", "/manifest", "/files", "/config.yaml", "/request")),
    *(Sent("GET", f"/runs/RUN{one}") for one in ("/curve", "/eval", "/events")),
    *(Sent("GET", one) for one in ("/runs", "/tokenizers", "/batteries", "/corpora", "/runs?corpus=HASH", "/exports")),
    Sent("GET", "/compare?runs=RUN,OWN"),
    Sent("GET", "/batteries/BATTERY"),
    Sent("GET", "/artifacts/batteries/BATTERY"),
    Sent("POST", "/runs/RUN/evaluate?wait=30", {}),
    Sent("POST", "/runs/OWN/score?wait=30", {"path": NAMED, "detail_level": "per_line"}),
    Sent("POST", "/runs/OWN/evaluate?wait=30", {"path_override": NAMED}),
    Sent("GET", f"/corpora/{NAMED}/report"),
)
"""Requests that are answered, without a word of what one has sent."""


class Attacker:
    """The other key, which writes down each request whose answer has a word of what one has sent."""

    def __init__(self, here: Site, things: Mapping[str, str]) -> None:
        self._here = here
        self._things = things
        self.count = 0
        self.leaks: list[Sent] = []

    async def sends(self, sent: Sent, **things: str) -> Got:
        self.count += 1
        method, path, body = sent.of({**self._things, **things})
        got = await self._here.ask(method, path, body, key=BOB)
        if any(word in f"{got.headers}{got.text}" for word in MARKERS):
            self.leaks.append(sent)
        return got

    async def finds_nothing(self, sent: Sent) -> list[object]:
        """Return both answers if the one about the text differs from that about a hash that nobody has sent."""
        answers = [
            await self.sends(sent, HASH=one, CAPITALS=one.upper(), BEGINNING=one[:20], MOST=one[:63])
            for one in (HASH, UNKNOWN)
        ]
        told = [
            (got.status, re.sub(r"[0-9a-fA-F]{20,}|(?<=request_id\":\")\w+", "", got.text), *sorted(got.headers.keys()))
            for got in answers
        ]
        return [] if told[0] == told[1] and answers[0].status != 500 else [sent, *told]


def _paths(listed: str) -> set[str]:
    found: list[str] = re.findall(r'"path":"([^"]+)"', listed)
    return set(found)


async def _started(here: Site, path: str, body: object, name: str, key: str = ANA) -> str:
    answer = await here.post(path, body, key=key)
    assert answer.status < 300, answer.text
    return str(answer.fields[name])


async def test_two_keys__share_nothing_of_a_text_that_one_has_sent(lab: Lab) -> None:
    async with lab_site(lab, limits={"requests_per_minute": 10_000, "runs_per_user": 100}) as here:
        sent = {"files": [{"name": "a.txt", "bytes": len(TEXT.encode())}]}
        upload = await _started(here, "/corpora", sent, "upload_id")
        kind = {"Content-Type": "application/octet-stream"}
        portion = await here.ask("PATCH", f"/corpora/uploads/{upload}?offset=0", TEXT.encode(), key=ANA, headers=kind)
        assert HASH in portion.text
        await _started(here, "/corpora/texts", {"name": NAMED, "text": NAMED_TEXT}, "name")
        words = {**TINY, "model_family": "lstm", "tokenizer": {"method": "word"}}
        keyed = {"Idempotency-Key": "the-key-of-one"}
        begun = await here.post("/runs/train", {**words, "corpus": HASH}, key=ANA, headers=keyed)
        run, own = str(begun.fields["run_id"]), await _started(here, "/runs/train", TINY, "run_id", BOB)
        for run_id in (run, own):
            assert (await wait_for_status(here.queue, run_id, ended)).status == "completed"
        asked = {"method": "word", "corpora": [HASH]}
        tokenizer = await _started(here, "/tokenizers/train?wait=60", asked, "tokenizer_id")
        files = [{"name": "items.csv", "content": ITEMS}]
        battery = await _started(here, "/batteries", {"runs": [run], "files": files}, "battery_id")
        things = {"RUN": run, "OWN": own, "HASH": HASH, "TOKENIZER": tokenizer, "BATTERY": battery}
        done = await here.get(f"/batteries/{battery}?wait=60", key=ANA)
        assert done.fields["status"] == "completed", done.text

        bob, wrong = Attacker(here, things), list[object]()
        for name in NAMES:
            for one in requests_with(name):
                wrong += await bob.finds_nothing(one)
        for one in SIBLINGS:
            wrong += await bob.finds_nothing(one)
        for one in REFUSED:
            got = await bob.sends(one)
            wrong += [] if got.status == 403 else [(one, got.status, got.text)]
        for one in READABLE:
            got = await bob.sends(one)
            wrong += [] if got.status == 200 else [(one, got.status, got.text)]
        listed = (await bob.sends(Sent("GET", "/artifacts/batteries/BATTERY"))).text
        shared, everything = _paths(listed), _paths((await here.get(f"/artifacts/batteries/{battery}", key=ANA)).text)
        for path in sorted(shared):
            got = await bob.sends(Sent("GET", f"/artifacts/batteries/BATTERY/download?path={path}"))
            wrong += [] if got.status == 200 else [(path, got.status)]
        for path in sorted(everything - shared):
            got = await bob.sends(Sent("GET", f"/artifacts/batteries/BATTERY/download?path={path}"))
            wrong += [] if got.status == 404 else [(path, got.status)]
        retried = await here.post("/runs/train", {**words, "corpus": HASH}, key=BOB, headers=keyed)
        assert retried.status == 404
        checked = await bob.sends(Sent("POST", "/runs/check", {**TINY, "corpus": NAMED, "sample_prompts": "held_out"}))
        assert checked.record(CheckedTraining).effective.sample_prompts == "none"
        for key in (ANA, ADMIN):  # who get what they ask for
            scored = await here.post(f"/runs/{run}/score?wait=30", {"path": HASH, "detail_level": "per_word"}, key=key)
            assert scored.status == 200 and "Kowalczyk" in scored.text
    assert (wrong, bob.leaks) == ([], [])
    assert bob.count > 300
