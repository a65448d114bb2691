"""Runs over HTTP: train, list, wait, cancel, resume, and read what is known of one."""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from tests.support import tiny_request
from tests.support.http import ADMIN, BOB, Site, inside, with_api
from tests.support.redis_servers import embedded
from tests.support.stories import BEGIN, Story, run_record
from tests.support.worker_runs import events_of
from trainer.artifacts.runs import RunDirectory, RunStore, manifest_of
from trainer.contracts.base import HttpOrigin, changed
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.events import MetricsProgress
from trainer.contracts.http_answers import CheckedTraining, Curve, RunPage
from trainer.contracts.runs import Accepted, AnnotationChange, RunManifest, RunStatus
from trainer.contracts.seeds import RunGroup
from trainer.training.progress import CurveRow


@pytest.fixture(name="idle")
async def idle_fixture(tmp_path: Path) -> AsyncIterator[Site]:
    """A site of which no worker knows, so that runs are what the test writes."""
    async with embedded(tmp_path) as (settings, queue, _), inside(queue, with_api(settings)) as (site, _):
        yield site


def story(root: Path, number: int, family: str = "char_lstm", label: str | None = None, **fields: object) -> Story:
    """A queued run, younger than those of smaller numbers; two numbers have the same moment."""
    record, created_at = run_record(f"{family}-{number}", label=label), BEGIN + timedelta(minutes=number // 2)
    effective = changed(record.effective, model_family=family)
    return Story(root / "artifacts", changed(record, created_at=created_at, effective=effective, **fields))


async def listed(site: Site, query: str = "") -> list[str]:
    return [run.run_id for run in (await site.get(f"/runs?{query}")).record(RunPage).runs]


async def test_list__is_filtered_by_state_family_and_words(idle: Site, tmp_path: Path) -> None:
    story(tmp_path, 1, label="Kazakh small")
    story(tmp_path, 2, label="kazakh LARGE").start()
    story(tmp_path, 3, family="gpt2", label="turkish").start().step(1, 2.0).complete()
    story(tmp_path, 4, family="gpt2").fail()
    found = {
        "status=queued": ["char_lstm-1"],
        "status=running": ["char_lstm-2"],
        "status=completed": ["gpt2-3"],
        "status=failed&family=gpt2": ["gpt2-4"],
        "status=cancelled": [],
        "family=char_lstm": ["char_lstm-2", "char_lstm-1"],
        "search=KAZAKH": ["char_lstm-2", "char_lstm-1"],
        "search=small%20kaz": ["char_lstm-1"],
        "search=gpt2-4": ["gpt2-4"],
        "search=kk_ipa&limit=2": ["gpt2-4", "gpt2-3"],
        "search=%20": ["gpt2-4", "gpt2-3", "char_lstm-2", "char_lstm-1"],
        "search=none": [],
    }
    assert {query: await listed(idle, query) for query in found} == found


async def test_list__has_the_runs_that_started_from_a_run_or_a_group(idle: Site, tmp_path: Path) -> None:
    group = RunGroup(group_id="lstm-group", seeds=(1, 2))
    for number in (1, 2):
        story(tmp_path, number, family="lstm", group=group)
    child = run_record("gru-3")
    effective = changed(child.effective, model_family="gru", init_from_run_id="lstm-1@20")
    Story(tmp_path / "artifacts", changed(child, effective=effective))
    story(tmp_path, 4, family="lstm", group=group, resumed_from_run_id="lstm-2")
    story(tmp_path, 5, family="lstm", resumed_from_run_id="gru-3")
    found = {
        "parent=lstm-1": ["gru-3"],
        "parent=lstm-2": ["lstm-4"],
        "parent=lstm-group": ["lstm-4", "gru-3"],
        "parent=lstm-group&family=gru": ["gru-3"],
        "parent=gru-3": ["lstm-5"],
        "parent=lstm-4": [],
        "parent=none": [],
    }
    assert {query: await listed(idle, query) for query in found} == found


async def test_pages__have_each_run_once_while_runs_start_and_end(idle: Site, tmp_path: Path) -> None:
    stories = [story(tmp_path, number).start() for number in range(1, 8)]
    found: list[str] = []
    address: str | None = "/runs?status=running&limit=2"
    while address is not None:
        page = (await idle.get(address)).record(RunPage)
        found += [run.run_id for run in page.runs]
        address = page.next_cursor and f"/runs?status=running&limit=2&cursor={page.next_cursor}"
        story(tmp_path, 20 + len(found)).start()
        next(one for one in stories if one.run.run_id == page.runs[-1].run_id).fail()
    assert found == [f"char_lstm-{number}" for number in (7, 6, 5, 4, 3, 2, 1)]


GROUP = RunGroup(group_id="char_lstm-group", seeds=(1, 2, 3))
LABELS = (None, "Beta", "alpha", "beta", None, "Gamma 2")
OWNERS: tuple[dict[str, object], ...] = (
    {"user_id": None},
    {"user_id": None, "http": HttpOrigin(api_key="Ana")},
    {"user_id": 7},
)
NUMBERS = ("train_loss", "val_loss", "best_val_loss", "best_val_bits_per_char", "test_loss", "bits_per_char", "params")


def many(root: Path) -> list[Story]:
    """Write runs of all states with ties and unknown numbers; three of them, of two states, are a group."""
    stories = [story(root, n, ("gpt2", "char_lstm")[n % 2], LABELS[n % 6], **OWNERS[n % 3]) for n in range(12)]
    stories += [story(root, n, label="of seeds", group=GROUP) for n in (20, 3 + 20, 26)]
    for number, one in enumerate(stories):
        if number % 4:
            one.start().step(10 * (number % 3) + 10, 1 + number % 5, None if number % 2 else 2 + number % 3)
        if number % 4 > 1:
            one.complete(train_loss=(number % 7) / 2 or None)
        elif number % 8 == 1:
            one.fail()
    return stories


async def all_runs(site: Site, query: str, **pages: int) -> tuple[list[RunStatus], set[int]]:
    """Return the runs of all pages of a list, and the totals that the pages name."""
    runs, totals, more = list[RunStatus](), set[int](), ""
    while True:
        page = (await site.get(f"/runs?{query}&limit={pages.get('limit', 200)}{more}")).record(RunPage)
        runs += page.runs
        totals.add(page.total)
        if page.next_cursor is None:
            return runs, totals
        more = f"&cursor={page.next_cursor}"


def value(run: RunStatus, field: str) -> tuple[float, str] | None:
    """What a run is sorted by."""
    fields: dict[str, object] = run.model_dump()
    fields |= {"label": (run.label or run.run_id).casefold(), "created_at": 0.0}
    if field == "status":
        return ("running", "queued", "paused", "completed", "failed", "cancelled").index(run.status), ""
    match fields[field]:
        case None:
            return None
        case str(text):
            return 0.0, text
        case number:
            return TypeAdapter(float).validate_python(number), ""


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_list__is_sorted_by_each_field_with_unknown_values_last(idle: Site, tmp_path: Path, order: str) -> None:
    many(tmp_path)
    by_age = (await all_runs(idle, "sort=created_at&order=asc"))[0]
    ages = [(run.created_at, run.run_id) for run in by_age]
    assert ages == sorted(ages)
    for field in ("created_at", "label", "model_family", "status", "owner", "progress", *NUMBERS):
        valued = [(key, run.created_at, run.run_id) for run in by_age if (key := value(run, field)) is not None]
        known: list[str] = [entry[2] for entry in sorted(valued, reverse=order == "desc")]
        unknown = [run.run_id for run in by_age if value(run, field) is None]
        expected: list[str] = known + (unknown if order == "asc" else unknown[::-1])
        for limit in (4, 200):
            found, totals = await all_runs(idle, f"sort={field}&order={order}", limit=limit)
            assert ([run.run_id for run in found], totals) == (expected, {15}), field
        assert await listed(idle, f"sort={field}&order={order}&offset=5&limit=3") == expected[5:8]


async def test_groups__are_one_row_at_the_mean_of_their_completed_runs(idle: Site, tmp_path: Path) -> None:
    many(tmp_path)
    members = ["char_lstm-26", "char_lstm-23", "char_lstm-20"]
    runs, _ = await all_runs(idle, "")
    for field, states in (("test_loss", {"completed"}), ("train_loss", {"completed"}), ("progress", None)):
        rows: dict[str, list[RunStatus]] = {}
        for run in runs:
            rows.setdefault(run.group.group_id if run.group else run.run_id, []).append(run)
        keys: list[tuple[bool, float, float, str]] = []
        for name, row in rows.items():
            counted = [run for run in row if name != GROUP.group_id or states is None or run.status in states]
            known = [number[0] for run in counted if (number := value(run, field)) is not None]
            newest = max(run.created_at for run in row).timestamp()
            keys.append((not known, sum(known) / len(known) if known else 0.0, newest, name))
        expected = [run.run_id for key in sorted(keys) for run in rows[key[3]]]
        for limit in (1, 5):
            found, totals = await all_runs(idle, f"sort={field}&order=asc&by_group=true", limit=limit)
            assert ([run.run_id for run in found], totals) == (expected, {13}), field
    assert await listed(idle, "search=seeds&by_group=true&status=completed&limit=1") == members
    assert await listed(idle, f"group={GROUP.group_id}") == members
    assert await listed(idle, "group=char_lstm-1") == []


async def test_list__is_filtered_by_parts_of_names_and_by_numbers(idle: Site, tmp_path: Path) -> None:
    many(tmp_path)
    attached = run_record("char_lstm-30", label="attached")
    corpus = changed(attached.effective.corpus, name="c" * 64)
    Story(tmp_path / "artifacts", changed(attached, effective=changed(attached.effective, corpus=corpus)))
    runs, _ = await all_runs(idle, "")
    expected: dict[str, Callable[[RunStatus], bool]] = {
        "corpus=K_IP": lambda run: run.run_id != "char_lstm-30",
        "corpus=ccc": lambda run: False,
        "owner=Ana": lambda run: run.owner == "Ana",
        "owner=7&label=GAM": lambda run: run.owner == "7" and run.label == "Gamma 2",
        "label=eta": lambda run: run.label in ("Beta", "beta"),
        "where=progress%3E=30": lambda run: run.progress >= 30,
        "where=progress%3E30,val_loss%3C3": lambda run: (
            run.progress > 30 and run.val_loss is not None and run.val_loss < 3
        ),
        "where=train_loss%3C=1.5e0": lambda run: run.train_loss is not None and run.train_loss <= 1.5,
        "where=params=1000": lambda run: run.params == 1000,
        "where=bits_per_char%3E-1": lambda run: run.bits_per_char is not None,
    }
    found = {query: await listed(idle, f"{query}&limit=200") for query in expected}
    assert found == {query: [run.run_id for run in runs if holds(run)] for query, holds in expected.items()}
    assert all(0 < len(ids) < 15 for query, ids in found.items() if not query.startswith("corpus"))


async def test_list__is_filtered_and_sorted_by_settings_and_has_their_values(idle: Site, tmp_path: Path) -> None:
    rates: dict[int, tuple[float, tuple[str, ...]]] = {0: (0.1, ("big",)), 1: (0.02, ()), 2: (0.02, ("big", "bigger"))}
    for number, (rate, tags) in rates.items():
        record = run_record(f"char_lstm-{number}", label=f"set {number}")
        effective = changed(record.effective, learning_rate=rate, tags=tags)
        dated = changed(record, effective=effective, created_at=BEGIN + timedelta(hours=number))
        Story(tmp_path / "artifacts", dated).start().step(1, 3.0).step(2, 2.0 + number).complete(2.0 + number)
    names = {
        "where=learning_rate=0.02": [2, 1],
        "where=learning_rate%3E=0.1": [0],
        "where=learning_rate=0.02,%20tags=big": [2],
        "where=tags=bigge": [],
        "where=optimizer.name=muon": [2, 1, 0],
        "where=batch_size%3C1": [],
        "search=bigger": [2],
        "sort=learning_rate": [0, 2, 1],
        "sort=learning_rate&order=asc": [1, 2, 0],
        "sort=optimizer.name": [2, 1, 0],
    }
    found = {query: await listed(idle, query) for query in names}
    assert found == {query: [f"char_lstm-{number}" for number in numbers] for query, numbers in names.items()}
    first = (await idle.get("/runs?sort=learning_rate&limit=1&settings=tags,learning_rate,unknown")).record(RunPage)
    assert first.settings == {"char_lstm-0": {"tags": '["big"]', "learning_rate": "0.1"}}
    assert first.varied_settings == ("learning_rate", "tags")
    rest = await idle.get(f"/runs?sort=learning_rate&cursor={first.next_cursor}")
    assert [run.run_id for run in rest.record(RunPage).runs] == ["char_lstm-2", "char_lstm-1"]


async def test_grouped_list__has_the_totals_of_all_runs_with_a_value_of_its_page(idle: Site, tmp_path: Path) -> None:
    for number, rate in enumerate((0.1, 0.02, 0.02, 0.02)):
        record = run_record(f"char_lstm-{number}")
        effective = changed(record.effective, learning_rate=rate)
        created = BEGIN + timedelta(hours=number)
        story = Story(tmp_path / "artifacts", changed(record, effective=effective, created_at=created)).start()
        if number != 3:
            story.step(100, 2.0).complete(float(number))
    query = "/runs?sort=learning_rate&order=asc&totals=true&limit=1"
    [low] = (await idle.get(f"{query}&offset=1")).record(RunPage).totals
    [high] = (await idle.get(f"{query}&offset=3")).record(RunPage).totals
    losses = low.numbers["train_loss"]
    assert (low.value, low.n_runs, low.n_completed) == ("0.02", 3, 2)
    assert (losses.n, losses.mean, losses.deviation) == (2, 1.5, math.sqrt(0.5))
    assert low.numbers["progress"].n == 3
    assert (high.value, high.n_runs, high.numbers["progress"].mean) == ("0.1", 1, 100.0)
    for without in ("sort=label&totals=true", "sort=learning_rate&totals=true&offset=9"):
        assert (await idle.get(f"/runs?{without}")).record(RunPage).totals == ()


async def test_annotations__replace_the_tags_of_the_request_in_lists(idle: Site, tmp_path: Path) -> None:
    runs = RunStore(tmp_path / "artifacts")
    for number in range(2):
        record = run_record(f"char_lstm-{number}")
        effective = changed(record.effective, tags=("big",))
        created = BEGIN + timedelta(hours=number)
        Story(tmp_path / "artifacts", changed(record, effective=effective, created_at=created)).start().complete()
    assert await listed(idle, "where=tags=big") == ["char_lstm-1", "char_lstm-0"]
    path = "/runs/char_lstm-0/annotations"
    sent = (await idle.post(path, {"note": "diverged at once", "tags": ["pilot", "new"]})).record(RunStatus)
    assert (sent.note, sent.tags) == ("diverged at once", ("pilot", "new"))
    runs.annotate(runs.get("char_lstm-1"), AnnotationChange(note="of another process"))
    names = {
        "where=tags=big": [1],
        "where=tags=pilot": [0],
        "where=note=diverged%20at%20once": [0],
        "search=new": [0],
        "search=another": [1],
    }
    found = {query: await listed(idle, query) for query in names}
    assert found == {query: [f"char_lstm-{number}" for number in numbers] for query, numbers in names.items()}
    emptied = (await idle.post(path, {"tags": []})).record(RunStatus)
    assert (emptied.note, emptied.tags) == ("diverged at once", ())
    assert (await idle.post(path, {"note": ""})).record(RunStatus).note is None
    for order in ("asc", "desc"):
        assert await listed(idle, f"sort=note&order={order}") == ["char_lstm-1", "char_lstm-0"], "without a note: last"
    assert runs.get("char_lstm-0").record().effective.tags == ("big",)
    refused = await idle.post(path, {"note": "two\nlines"})
    assert refused.outcome == (422, "INVALID_INPUT") and "printable" in refused.text


async def test_name__is_given_again_at_any_time(idle: Site, tmp_path: Path) -> None:
    runs = RunStore(tmp_path / "artifacts")
    Story(tmp_path / "artifacts", run_record("char_lstm-0", label="old")).start()
    ended = Story(tmp_path / "artifacts", run_record("char_lstm-1", label="ended")).start().complete()
    ended.run.write_manifest(manifest_of(ended.record, "completed"))
    for run_id, name in (("char_lstm-0", "new"), ("char_lstm-1", "newer")):
        stored = (runs.get(run_id).path / "request.json").read_bytes()
        sent = (await idle.post(f"/runs/{run_id}/annotations", {"label": name})).record(RunStatus)
        assert (sent.label, sent.note) == (name, None)
        assert (await idle.get(f"/runs/{name}")).record(RunStatus).run_id == run_id, "commands find the run by it"
        assert run_id in await listed(idle, f"label={name}")
        assert (runs.get(run_id).path / "request.json").read_bytes() == stored, "what was asked for stays"
    assert (await idle.get("/runs/old")).status == 404
    assert {one.label for one in runs.named()} == {"new", "newer"}
    manifest = runs.get("char_lstm-1").manifest()
    assert manifest is not None and manifest.effective.label == "newer"
    for label, reason in (("last", "newest"), ("newer", "another run is called 'newer'")):
        refused = await idle.post("/runs/char_lstm-0/annotations", {"label": label})
        assert refused.outcome == (422, "INVALID_INPUT") and reason in refused.text
    group = RunGroup(group_id="gru-1", seeds=(1, 2))
    Story(tmp_path / "artifacts", changed(run_record("gru-1-s1", label="pair"), group=group)).start()
    refused = await idle.post("/runs/gru-1-s1/annotations", {"label": "alone"})
    assert refused.outcome == (422, "INVALID_INPUT") and "one of a group" in refused.text


async def test_list__refuses_what_it_does_not_know(idle: Site, tmp_path: Path) -> None:
    for number in range(3):
        story(tmp_path, number)
    other = (await idle.get("/runs?limit=1&sort=label")).record(RunPage).next_cursor
    refusals = {
        "where=loss%3C3": ("where", "names `loss`"),
        "where=params=1,test_loss%3Cabc,foo=1": ("where", "'test_loss<abc' is none"),
        "where=test_loss": ("where", "test_loss<3.2"),
        "where=test_loss%3C3,": ("where", "test_loss<3.2"),
        "sort=loss": ("sort", "test_loss"),
        "sort=Loss": ("sort", "sort"),
        "settings=Loss": ("settings", "settings"),
        "order=up": ("order", "desc"),
        "offset=-1": ("offset", "0"),
        "by_group=yes": ("by_group", "true or false"),
        "cursor=char_lstm-99": ("cursor", "same `sort`"),
        "cursor=eyJ9": ("cursor", "same `sort`"),
        f"cursor={other}": ("cursor", "same `sort`"),
        f"sort=label&order=asc&cursor={other}": ("cursor", "same `sort`"),
    }
    for query, (path, part) in refusals.items():
        refused = await idle.get(f"/runs?{query}")
        assert refused.outcome == (422, "INVALID_INPUT"), query
        assert [problem.path for problem in refused.error.details] == [path]
        assert part in refused.error.details[0].message
    wrong = [f"limit={limit}" for limit in ("0", "201", "1.5", "%201", "1_0", "1&limit=2")]
    for query in (*wrong, "status=done", "no=1", "cursor=A", "cursor=none", f"search={'x' * 201}", "family=no_such"):
        assert (await idle.get(f"/runs?{query}")).outcome == (422, "INVALID_INPUT"), query
    assert await listed(idle, "search=%ff") == [], "this is no UTF-8"


async def test_training__is_accepted_and_its_status_moves_to_its_end(here: Site) -> None:
    accepted = await here.post("/runs/train", tiny_request(num_epochs=3, label="moving"))
    run_id = accepted.record(Accepted).run_id
    assert accepted.status == 202
    assert accepted.location == f"/runs/{run_id}"
    assert accepted.record(Accepted) == Accepted(run_id=run_id, job_id=run_id, status="queued")
    seen: list[RunStatus] = []
    while not seen or not seen[-1].has_ended:
        seen.append((await here.get(accepted.location)).record(RunStatus))
        await asyncio.sleep(0.01)
    assert [status.progress for status in seen] == sorted(status.progress for status in seen)
    assert [status.step for status in seen] == sorted(status.step for status in seen)
    assert (seen[-1].status, seen[-1].progress, seen[-1].epoch, seen[-1].label) == ("completed", 100, 3, "moving")
    assert seen[-1].test_loss is not None and seen[-1].finished_at is not None
    looks = seen[-1].test_looks
    assert looks is not None and looks.looks >= 1 and looks.runs >= 1
    assert seen[-1] == changed(await here.queue.states.status(run_id), test_looks=looks)


async def test_training__with_wait_is_answered_with_its_end_and_its_losses(here: Site) -> None:
    answer = await here.post("/runs/train?wait=60", tiny_request(max_steps=1, batch_size=1))
    short = answer.record(RunStatus)
    assert re.fullmatch(r"text-char_lstm(-\d+)?", short.label or ""), "with a number where others have this"
    assert short.owner == "root", "the name of the key"
    assert (answer.status, short.status, answer.location) == (200, "completed", f"/runs/{short.run_id}")
    assert (await here.get(f"/runs/{short.run_id}?wait=60")).record(RunStatus) == short
    complete = (await here.post("/runs/train?wait=60", tiny_request(num_epochs=2, seed=7))).record(RunStatus)
    manifests = [here.queue.runs.get(status.run_id).completed_manifest() for status in (short, complete)]
    lines = here.queue.runs.get(complete.run_id).loss_curve.read_text(encoding="utf-8").splitlines()
    rows = [CurveRow.model_validate_json(line) for line in lines]
    epochs = [row.epoch_train_loss for row in rows if row.epoch_train_loss is not None]
    assert (short.step, short.train_loss, short.train_bits_per_char, short.auc) == (1, None, None, None)
    assert (manifests[0].metrics.train, manifests[0].metrics.auc) == (None, None)
    train = manifests[1].data
    assert train is not None and len(epochs) == 2
    assert complete.train_loss == manifests[1].metrics.train == epochs[-1]
    bits = epochs[-1] / math.log(2) * train.train.tokens / train.train.chars
    assert complete.train_bits_per_char == pytest.approx(bits, rel=1e-12)


async def test_label_of_another_run__is_told_before_a_training_starts(here: Site) -> None:
    await here.post("/runs/train?wait=60", tiny_request(label="taken"))
    body = {"corpus": "text", "model_family": "gru", "model_size": "tiny", "tokenizer": {"method": "char"}}
    told = "Another run is called 'taken' as well, so commands will ask for an id in place of this name."
    for fields, is_told in (({"label": "taken"}, True), ({"label": "taken", "resume": True}, False), ({}, False)):
        checked = (await here.post("/runs/check", body | fields)).record(CheckedTraining)
        assert (told in checked.notes) is is_told
    status = (await here.post("/runs/train?wait=60", tiny_request(label="taken", seed=2))).record(RunStatus)
    assert told in status.notes


async def test_beginning_of_the_name_of_a_corpus__names_it_in_a_request(here: Site, run: RunDirectory) -> None:
    body = {"corpus": "tex", "model_family": "gru", "model_size": "tiny", "tokenizer": {"method": "char"}}
    checked = (await here.post("/runs/check", body)).record(CheckedTraining)
    assert checked.effective.corpus.name == "text" and "'tex' names the corpus 'text'." in checked.notes
    for kind, field in (("evaluate", "path_override"), ("generate", "prompt_path")):
        answer = await here.post(f"/runs/{run.run_id}/{kind}?wait=60", {field: "tex"})
        assert (answer.status, answer.fields["status"]) == (200, "completed"), kind


async def test_wait__returns_when_its_time_is_up_or_the_run_ends(idle: Site, tmp_path: Path) -> None:
    running = story(tmp_path, 1).start()
    assert (await idle.get(f"/runs/{running.run.run_id}?wait=0.3")).record(RunStatus).status == "running"
    waiting = [asyncio.create_task(idle.get(f"/runs/{running.run.run_id}?wait=60")) for _ in range(5)]
    await asyncio.sleep(0)
    running.fail("It broke.")
    assert {(await one).record(RunStatus).message for one in waiting} == {"It broke."}


REFUSED: list[tuple[dict[str, object], int, str]] = [
    ({"device": "cuda:99"}, 422, "CUDA_NOT_AVAILABLE"),
    ({"model_family": "t5"}, 400, "UNSUPPORTED_BACKEND"),
    ({"model_size": "huge"}, 400, "INVALID_MODEL_SIZE"),
    ({"corpus": "../text"}, 400, "INVALID_INPUT"),
    ({"corpus": "no-such-text"}, 404, "DATA_NOT_FOUND"),
    ({"init_from_run_id": "no-such-run"}, 404, "RUN_NOT_FOUND"),
    ({"max_seq_len": 7}, 422, "INVALID_INPUT"),
]


async def test_training__that_is_refused_leaves_no_run(here: Site, run: RunDirectory) -> None:
    before = await listed(here)
    of_parent: tuple[dict[str, object], int, str] = ({"init_from_run_id": run.run_id}, 422, "MODEL_INCOMPATIBLE")
    for fields, status, code in (*REFUSED, of_parent):
        body = {"corpus": "text", "model_family": "gru", **fields}
        assert (await here.post("/runs/train", body)).outcome == (status, code), fields
    assert await listed(here) == before


async def test_manifest__has_last_lines_for_who_may_read_the_log(here: Site, copied: RunDirectory) -> None:
    copied.write_manifest(changed(copied.completed_manifest(), last_lines=("a line of the log",)))
    answers = [await here.get(f"/runs/{copied.run_id}/manifest", key=key) for key in (ADMIN, BOB)]
    assert [answer.record(RunManifest).last_lines for answer in answers] == [("a line of the log",), ()]


async def test_curve_and_evaluation__are_those_of_the_run(here: Site, run: RunDirectory) -> None:
    events = [event for event in events_of(here.queue, run.run_id) if isinstance(event, MetricsProgress)]
    curve = (await here.get(f"/runs/{run.run_id}/curve")).record(Curve)
    rows = TypeAdapter(list[dict[str, float | None]]).validate_json(
        f"[{','.join(run.loss_curve.read_text().splitlines())}]"
    )
    losses = [
        [(row["step"], row[name]) for row in rows if row.get(name) is not None] for name in ("train_loss", "val_loss")
    ]
    assert [[*curve.train], [*curve.validation]] == losses and curve.seconds
    assert len(losses[0]) == curve.total_points and curve.last_event_id >= events[-1].seq
    assert curve.tokens == tuple((event.step, float(event.tokens or 0)) for event in events)
    assert [words for _, words in curve.words] == [event.words for event in events]
    assert (await here.get(f"/runs/{run.run_id}/eval")).record(EvalMetrics) == run.evaluation()


async def test_curve__is_thinned_to_a_number_of_points_within_steps(idle: Site, tmp_path: Path) -> None:
    one = story(tmp_path, 1).start()
    losses = [(step, 1 + (step * 7 % 10) / 10) for step in range(1, 41)]
    for step, loss in losses:
        one.step(step, loss)
    path = f"/runs/{one.run.run_id}/curve"
    thinned = (await idle.get(f"{path}?points=4")).record(Curve)
    assert {losses[0], losses[-1]} < {*thinned.train} <= {*losses} and len(thinned.train) <= 6
    assert thinned.total_points == 40
    assert (await idle.get(f"{path}?from_step=5&to_step=7")).record(Curve).train == tuple(losses[4:7])
    refused = await idle.get(f"{path}?from_step=5&to_step=4")
    assert refused.status == 422 and "`to_step` must not be lower than `from_step`" in refused.body.decode()
