"""A locked test split: no operation shows its losses before an unlock, which counts as one look, and shows them all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import exp, log
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import BaseModel
from pydantic_core import to_json

import trainer
from tests.support import add_corpus, some_text, tiny_request
from tests.support.agents import agent_of
from tests.support.http import ANA, BOB, Site, lab_site
from tests.support.inference_bot import answer, place, said
from tests.support.lab import Lab
from tests.support.refusals import refused as raising
from tests.support.run_shell import TINY, enter
from trainer.artifacts.looks import LookLedger
from trainer.artifacts.runs import RunDirectory
from trainer.client.remote import Remote
from trainer.config.settings import ClientSettings
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.exports import ExportStatus
from trainer.contracts.http_answers import CheckedTraining, RunPage
from trainer.contracts.looks import TextLock, Unlocked
from trainer.contracts.runs import RunManifest, RunStatus
from trainer.export.verification import verify_run
from trainer.http.operations import HttpOperation
from trainer.http.routes import OPERATIONS
from trainer.mcp.tools import CALLS_OF_TOOLS
from trainer.reports.comparison import Comparison

CORPUS = "locked_text"
_TAGS = ("runs", "artifacts", "inference")
TELLING = set(
    "get_run report_run get_manifest stream_events get_logs stream_logs list_runs compare_runs report_comparison"
    " get_latest_evaluation download_file".split()
)
"""The operations that show the test loss of an open run; a file is its manifest."""
STREAMS = ("stream_logs", "stream_events")
SHOWN_DIGITS = 9
REQUEST: dict[str, object] = {"corpus": CORPUS, "checkpoint_schedule": [2, 4], "seed": 7}


class Twins(NamedTuple):
    """Two runs with equal requests, whose weights are equal to the last bit; only one may read its test split."""

    opened: RunDirectory
    locked: RunDirectory
    metrics: EvalMetrics
    """The evaluation of the open one on its test split."""

    def is_told_by(self, content: bytes) -> bool:
        """Whether the first digits of something that tells the test loss are in a content."""
        loss, bits = self.metrics.loss, self.metrics.bits_per_char or 0.0
        numbers = (loss, loss / log(2), exp(loss), bits, bits * log(2))
        return any(f"{number!r}"[:SHOWN_DIGITS].encode() in content for number in numbers)


def other_text(word: str, lines: int) -> str:
    """Lines that are in no other text."""
    return some_text(lines).replace("abc", f"été {word}")


def request(**fields: object) -> dict[str, object]:
    """The fields of a train request, as a client sends them."""
    sent: dict[str, object] = tiny_request(**REQUEST | fields).model_dump(mode="json", exclude_unset=True)
    return sent


async def trained(here: Site, key: str = ANA, **fields: object) -> RunDirectory:
    """Train a run to its end."""
    accepted = (await here.post("/runs/train", request(**fields), key=key)).fields
    run_id = str(accepted["run_id"])
    while not (status := (await here.get(f"/runs/{run_id}?wait=60")).record(RunStatus)).has_ended:
        pass
    assert status.status == "completed", status.error
    return here.queue.runs.get(run_id)


@asynccontextmanager
async def twins_of(lab: Lab) -> AsyncIterator[tuple[Site, Twins]]:
    add_corpus(lab.folder, some_text(90), CORPUS)
    async with lab_site(lab) as here:
        opened, locked = await trained(here), await trained(here, test="locked")
        metrics = opened.evaluation()
        assert metrics.split == "test" and opened.weights.read_bytes() == locked.weights.read_bytes()
        yield here, Twins(opened, locked, metrics)


async def read(here: Site, one: HttpOperation, run_id: str, other: str) -> bytes | None:
    """The answer of an operation that reads something of a run; None for one that is about something else."""
    given = {*one.path_model.model_fields, *one.row.query_example}
    is_of_runs = given <= {"run_id", "kind", "item_id", "runs", "path"} and one.row.tag in (
        "runs",
        "artifacts",
        "inference",
    )
    if one.row.method != "GET" or not is_of_runs:
        return None
    names = dict.fromkeys(one.path_model.model_fields, run_id) | {"kind": "models"}
    query = "&".join(f"{name}={value}" for name, value in one.row.query_example.items())
    address = one.row.path.format(**names) + f"?{query.replace('OTHER_RUN', other).replace('RUN', run_id)}"
    if one.row.name in STREAMS:
        return "".join(event.data for event in await here.events(address)).encode()
    answer = await here.get(address)
    assert answer.status == 200, (one.row.name, answer.text)
    return answer.body


async def test_locked_split__is_shown_by_no_operation(lab: Lab) -> None:
    async with twins_of(lab) as (here, twins):
        run_id = twins.locked.run_id
        both: list[dict[str, bytes]] = [
            {one.row.name: body for one in OPERATIONS if (body := await read(here, one, name, other)) is not None}
            for name, other in (
                (twins.opened.run_id, (await trained(here, seed=8)).run_id),
                (run_id, (await trained(here, test="locked", seed=8)).run_id),
            )
        ]
        of_open, of_locked = both
        telling: set[str] = {name for name, body in of_open.items() if twins.is_told_by(body)}
        assert telling == TELLING, "the walk finds the loss where it is shown"
        leaks = [name for name, body in of_locked.items() if twins.is_told_by(body)]
        assert leaks == ["list_runs"], "which has the open twin too"
        listed = (await here.get("/runs?status=completed&limit=200")).record(RunPage).runs
        assert [one.test_loss for one in listed if one.run_id == run_id] == [None]
        stored = [path for path in twins.locked.path.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
        assert [path.name for path in stored if twins.is_told_by(path.read_bytes())] == [], "downloads and archives"
        assert twins.locked.evaluation().split == "validation"
        exported: dict[str, list[bool]] = {}
        for run in (twins.opened, twins.locked):
            for form in ("csv", "archive"):
                answer = await here.post(f"/runs/{run.run_id}/export?wait=60", {"format": form})
                status = answer.record(ExportStatus)
                assert status.status == "completed", status.error
                folder = lab.settings.app.artifacts_root / "exports" / status.export_id
                contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
                exported.setdefault(run.run_id, []).append(any(map(twins.is_told_by, contents)))
        assert exported == {twins.opened.run_id: [False, True], run_id: [False, False]}, "curves have no test loss"


REFUSED: list[tuple[str, str, object]] = [
    ("POST", "/runs/RUN/evaluate", {"split": "test"}),
    ("POST", "/runs/RUN@4/evaluate", {"split": "test"}),
    ("POST", "/runs/RUN/evaluate", {"path_override": CORPUS}),
    ("POST", "/runs/RUN/score", {"path": CORPUS}),
    ("GET", "/compare?runs=RUN,OPEN&split=test", None),
    ("GET", "/compare/report?runs=RUN,OPEN&split=test", None),
    ("POST", "/batteries", {"runs": ["RUN"], "development": {"split": "test"}}),
    ("POST", "/batteries", {"runs": ["RUN"], "development": {"has_loss": False, "has_words": True}}),
    ("POST", "/runs/train", request(init_from_run_id="RUN", test="open")),
]
"""Requests that would tell a loss on the locked split."""


async def test_locked_split__is_refused_in_a_sentence_that_says_what_would_be_right(lab: Lab) -> None:
    async with twins_of(lab) as (here, twins):
        effective, ledger = twins.locked.record().effective, LookLedger.of(lab.settings)
        before, names = ledger.count(effective), {"RUN": twins.locked.run_id, "OPEN": twins.opened.run_id}
        for method, path, body in REFUSED:
            address, sent = path, to_json(body).decode()
            for name, run_id in names.items():
                address, sent = address.replace(name, run_id), sent.replace(f'"{name}"', f'"{run_id}"')
            refused = await here.ask(method, address, None if body is None else sent.encode())
            assert refused.outcome == (403, "TEST_LOCKED"), (path, refused.text)
            assert "unlock" in refused.error.message
        client: dict[str, object] = {"url": f"http://127.0.0.1:{here.port}", "key": ANA}
        remote, file = Remote(ClientSettings.model_validate(client)), lab.folder / "sent in portions.txt"
        file.write_text(some_text(90), encoding="utf-8")
        with raising(ErrorCode.TEST_LOCKED, "locked"):
            await remote.check_text(twins.locked.run_id, file)
        assert (await remote.check_text(twins.opened.run_id, file)).test == "open"
        await remote.close()
        assert ledger.count(effective) == before, "no refusal is a look"
        child = await trained(here, init_from_run_id=twins.locked.run_id)
        assert child.record().effective.test == "locked" and "stays locked, because" in child.record().notes[-1]
        compared = (await here.get(f"/compare?runs={twins.locked.run_id},{child.run_id}")).record(Comparison)
        assert compared.split == "validation" and "is locked" in compared.notes[0].template


async def test_unlock__reads_the_split_once_and_shows_it_everywhere(lab: Lab) -> None:
    async with twins_of(lab) as (here, twins):
        run_id, effective, ledger = twins.locked.run_id, twins.locked.record().effective, LookLedger.of(lab.settings)
        earlier = ledger.count(effective)
        assert earlier is not None
        stranger = await here.post("/unlock", {"runs": [run_id]}, key=BOB)
        assert stranger.outcome == (403, "FORBIDDEN") and ledger.count(effective) == earlier
        first, again = [
            (await here.post("/unlock?wait=60", {"runs": [run_id]}, key=ANA)).record(Unlocked) for _ in range(2)
        ]
        assert first == again and first.has_ended
        [run], [looks] = first.runs, first.looks
        assert (run.status, run.test_loss) == ("completed", twins.metrics.loss), "that of its twin, to the last bit"
        assert looks == changed(earlier, looks=earlier.looks + 1) == ledger.count(effective)
        status = (await here.get(f"/runs/{run_id}")).record(RunStatus)
        manifest = (await here.get(f"/runs/{run_id}/manifest")).record(RunManifest)
        assert (status.test_loss, status.bits_per_char) == (twins.metrics.loss, twins.metrics.bits_per_char)
        assert status.test_looks == manifest.test_looks == looks and status.baseline == manifest.baselines["test"]
        assert manifest.baselines["test"] == twins.opened.completed_manifest().baselines["test"]
        listed = (await here.get(f"/runs?where=test_loss<={twins.metrics.loss}")).record(RunPage).runs
        assert {run_id, twins.opened.run_id} <= {one.run_id for one in listed}
        verified = await asyncio.to_thread(verify_run, twins.locked, lab.settings)
        assert [check for check in verified.checks if not check.ok] == []
        evaluated = await here.post(f"/runs/{run_id}/evaluate?wait=60", {"split": "test"}, key=ANA)
        assert evaluated.status == 200 and ledger.count(effective) == looks, "the same number again is no new look"
        await here.ask("DELETE", f"/runs/{run_id}", key=ANA)
        assert ledger.count(effective) == looks, "no deletion takes a look back"


async def test_unlock__of_several_runs_is_one_look_and_needs_runs_with_a_test_split(lab: Lab) -> None:
    async with twins_of(lab) as (here, twins):
        other, without = await trained(here, test="locked", seed=9), await trained(here, test_fraction=0.0)
        effective, ledger = other.record().effective, LookLedger.of(lab.settings)
        before = ledger.count(effective)
        refused = await here.post("/unlock", {"runs": [other.run_id, without.run_id]})
        assert refused.outcome == (422, "INVALID_INPUT") and "has no test split" in refused.error.message
        assert ledger.count(effective) == before
        unlocked = (await here.post("/unlock?wait=60", {"runs": [twins.locked.run_id, other.run_id]})).record(Unlocked)
        assert [one.status for one in unlocked.runs] == ["completed", "completed"]
        assert before is not None and unlocked.looks == (changed(before, looks=before.looks + 1),)


async def test_unlock__that_has_failed_is_tried_again_by_the_next_request(lab: Lab) -> None:
    async with twins_of(lab) as (here, twins):
        text, gone = lab.folder / "data" / "corpus" / f"{CORPUS}.txt", lab.folder / "gone"
        text.rename(gone)
        sent = {"runs": [twins.locked.run_id]}
        failed = (await here.post("/unlock?wait=60", sent, key=ANA)).record(Unlocked)
        gone.rename(text)
        again = (await here.post("/unlock?wait=60", sent, key=ANA)).record(Unlocked)
    [before], [after] = failed.runs, again.runs
    assert (before.status, before.test_loss) == ("failed", None) and before.error is not None
    assert (after.status, after.test_loss) == ("completed", twins.metrics.loss)
    assert again.looks == failed.looks, "one look, whatever failed"


async def test_corpus_lock__holds_for_later_runs_on_the_text_by_any_name(lab: Lab) -> None:
    text = other_text("early", 40)
    add_corpus(lab.folder, text, "first_name")
    add_corpus(lab.folder, text, "other_name")
    async with lab_site(lab) as here:
        assert (await here.post("/corpora/first_name/lock", key=ANA)).outcome == (403, "FORBIDDEN")
        first, again = [(await here.post("/corpora/first_name/lock")).record(TextLock) for _ in range(2)]
        assert first == again and first.by == "root"
        opened = await here.post("/runs/check", request(corpus="other_name", test="open"))
        assert opened.outcome == (403, "TEST_LOCKED") and opened.error.message.startswith("`test` is 'open', but")
        checked = (await here.post("/runs/check", request(corpus="other_name"))).record(CheckedTraining)
        assert checked.effective.test == "locked" and "locked for every run" in checked.notes[-1]
        run = await lab.finished_run(here.queue)
        scored = await here.post(f"/runs/{run.run_id}/score", {"path": "other_name"})
        assert scored.outcome == (403, "TEST_LOCKED"), "its text has the locked lines"
        sent = await here.post(f"/runs/{run.run_id}/score", {"text": text})
        assert sent.outcome == (403, "TEST_LOCKED"), "whoever sends it"


async def test_locked_split__is_unlocked_in_discord_by_its_owner_who_confirms(lab: Lab) -> None:
    async with twins_of(lab) as (web, twins), place(lab.folder) as here, here.bot(workers=0):
        run_id, loss = twins.locked.run_id, f"{twins.metrics.loss / log(2):.3f}"
        ledger, effective = LookLedger.of(lab.settings), twins.locked.record().effective
        status = said(await here.ask(here.ana, "status", run=run_id))
        assert "The test split is locked" in status and loss not in status
        assert f"Test **{loss}**" in said(await here.ask(here.ana, "status", run=twins.opened.run_id))
        before = ledger.count(effective)
        assert "is only for the run's owner and admins" in said(await here.ask(here.bob, "unlock", run=run_id))
        question = await here.ask(here.ana, "unlock", run=run_id)
        assert "counts as a look at it" in said(question) and ledger.count(effective) == before
        call = await here.press(here.ana, question, "Read it")
        await call.answered()
        shown = await call.reply()
        await call.changes.until(lambda: loss in said(shown), 60, "The test loss")
        assert f"Test **{loss}**" in said(await here.ask(here.ana, "status", run=run_id))
        after = ledger.count(effective)
        assert before is not None and after == changed(before, looks=before.looks + 1)
        assert f"{after.looks} looks at this test text; {after.runs} runs trained on its corpus" in said(
            await here.ask(here.ana, "compare", a=run_id, b=twins.opened.run_id)
        )
        add_corpus(lab.folder, other_text("late", 30), "by_chat")
        locked = await here.discord.slash(here.ana, "mt-admin lock-corpus", {"corpus": "by_chat"})
        assert "Locked: by\\_chat" in said(await answer(locked))
        checked = (await web.post("/runs/check", request(corpus="by_chat"))).record(CheckedTraining)
        assert checked.effective.test == "locked"


@pytest.mark.process
def test_locked_split__is_read_by_a_command_that_names_the_runs(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = enter(monkeypatch, capsys, tmp_path, lab.folder)
    add_corpus(lab.folder, other_text("typed in", 70), "by_command")
    runs = [
        shell.train("--corpus", "by_command", "--model", "lstm", "--seed", seed, "--set", "test=locked")
        for seed in ("1", "2")
    ]
    names = [run.run_id for run in runs]
    scored = ["score", names[0], "--path", "by_command", "--format", "jsonl"]  # in portions
    compared, developed = ["compare", *names, "--split", "test"], ["develop", names[0]]
    for words in (["eval", names[0], "--split", "test"], scored, compared, developed):
        assert shell.error(*words).code is ErrorCode.TEST_LOCKED
    assert "is locked: the runs are compared on validation" in " ".join(shell.type("compare", *names).split())
    assert "Test" not in [line.split()[0] for line in shell.type("status", names[0]).splitlines() if line.split()]
    loaded = trainer.load(names[0])
    assert loaded.run_id == names[0] and not [name for name in dir(loaded) if "test" in name]
    unlocked = shell.read(Unlocked, "unlock", *names)
    assert [one.status for one in unlocked.runs] == ["completed", "completed"]
    assert [(one.looks, one.runs) for one in unlocked.looks] == [(1, 2)]
    assert "1 look at this test text; 2 runs trained on its corpus" in " ".join(shell.type("compare", *names).split())
    measured = shell.read(EvalMetrics, "eval", names[0], "--split", "test")
    assert (measured.loss, measured.split) == (unlocked.runs[0].test_loss, "test")
    assert "`mt unlock` reads it" in shell.type("corpus", "lock", "by_command")
    assert shell.error("train", *TINY, "--corpus", "by_command", "--set", "test=open").code is ErrorCode.TEST_LOCKED


def _required(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if field.is_required()]


async def test_locked_split__is_told_by_no_tool_of_an_agent_before_its_unlock(lab: Lab) -> None:
    async with twins_of(lab) as (here, twins), agent_of(here, ANA) as ana, agent_of(here, BOB) as bob:
        run_id = twins.locked.run_id
        other = (await trained(here, test="locked", seed=8)).run_id
        given = {"run_id": run_id, "item_id": run_id, "kind": "models", "runs": f"{run_id},{other}"}
        told: dict[str, bool] = {}
        for name, call in CALLS_OF_TOOLS.items():
            needed = [field for model in (call.path, call.query) for field in _required(model)]
            if call.operation.method == "GET" and given.keys() >= {*needed}:
                found = await ana.call(name, **{field: given[field] for field in needed})
                told[name] = twins.is_told_by(found.text.encode() + to_json(found.fields))
        assert {"get_run", "report_run", "get_manifest", "compare_runs", "get_latest_evaluation"} <= told.keys()
        assert [name for name, is_told in told.items() if is_told] == ["list_runs"], "which has the open twin too"
        assert not twins.is_told_by((await ana.read(f"run://{run_id}/card")).encode())
        assert (await ana.call("evaluate", run_id=run_id, split="test")).error.code is ErrorCode.TEST_LOCKED
        assert (await bob.call("unlock", runs=[run_id])).error.code is ErrorCode.FORBIDDEN
        waits = await ana.call("unlock", runs=[run_id])
        assert "It has not ended. Call it again with the same arguments and wait " in waits.text
        answer_of_tool = await ana.call("unlock", runs=[run_id], wait=30)
        [unlocked] = answer_of_tool.record(Unlocked).runs
        assert unlocked.test_loss == twins.metrics.loss
        assert answer_of_tool.data.startswith("Test splits that were read\n")
        assert f"{twins.metrics.perplexity:.2f}" in answer_of_tool.text
        assert "look" in (await ana.call("report_run", run_id=run_id)).text
