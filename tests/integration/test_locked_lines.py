"""The lines of test texts, wherever they are read: each way is refused if the text is locked, and counted if not."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import NamedTuple
from unicodedata import normalize

import pytest

import trainer
from tests.support import add_corpus, tiny_request
from tests.support.agents import agent_of
from tests.support.http import ADMIN, ANA, Got, Site, lab_site
from tests.support.inference_bot import place, said
from tests.support.lab import Lab
from tests.support.readings import times_table
from tests.support.refusals import refused
from tests.support.run_shell import TINY, enter
from tests.support.worker_runs import LONG
from trainer.artifacts.looks import LookLedger
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.errors import ErrorCode
from trainer.contracts.http_answers import CheckedTraining
from trainer.contracts.looks import LookCount, Unlocked
from trainer.contracts.runs import RunStatus

FILES: Mapping[str, Callable[[list[str]], str]] = {
    "CRLF": "\r\n".join,
    "no newline at the end": "\n".join,
    "a newline at the end": lambda lines: "\n".join([*lines, ""]),
    "a byte order mark": lambda lines: "\ufeff" + "\n".join(lines),
    "a blank line": lambda lines: "\n".join([*lines[:3], "", *lines[3:]]),
    "spaces at the ends": "  \n".join,
    "shuffled": lambda lines: "\n".join(Random(1).sample(lines, len(lines))),
    "capitals": lambda lines: "\n".join(lines).upper(),
    "decomposed": lambda lines: normalize("NFD", "\n".join(lines)),
    "half of the lines": lambda lines: "\n".join(lines[::2]),
    "among other lines": lambda lines: "\n".join([*lines, *lines_of("unrelated", 200)]),
}
"""Texts with the same lines, as somebody has them without meaning any harm."""


class Way(NamedTuple):
    """A request over HTTP that reads losses of a model on a text."""

    path: str
    body: object


def lines_of(word: str, count: int) -> list[str]:
    """Lines that no other word has, all of them different."""
    random = Random(word)
    return [f"{word} é " + "".join(random.choices("abcde ", k=30)) + f" {number}" for number in range(count)]


def ways(lines: list[str], model: str, prefix: str) -> Iterator[tuple[str, Way]]:
    """Yield the ways of a text to its losses; corpora with its lines have these names and the prefix."""
    of_run, pairs = f"/runs/{model}", "".join(f"{line},{line[::-1]}\n" for line in lines)
    times, text = times_table(lines=lines), "\n".join(lines)
    for name, written in FILES.items():
        yield f"score {name}", Way(f"{of_run}/score", {"text": written(lines)})
    for number, name in enumerate(FILES):
        yield f"evaluate {name}", Way(f"{of_run}/evaluate", {"path_override": f"{prefix}_{number}"})
    yield "score by name", Way(f"{of_run}/score", {"path": f"{prefix}_0"})
    yield "sequences", Way(f"{of_run}/sequences", {"sequences": [{"parts": [line[:9], line[9:]]} for line in lines]})
    yield "items", Way(f"{of_run}/items", {"table": {"sentence": lines}, "text_column": "sentence"})
    yield "segment", Way(f"{of_run}/segment", {"text": text})
    yield "generate", Way(f"{of_run}/generate", {"prompt_text": text, "max_new_tokens": 1})
    yield "generate by name", Way(f"{of_run}/generate", {"prompt_path": f"{prefix}_0", "max_new_tokens": 1})
    yield "predict", Way(f"{of_run}/predict", {"text": text})
    yield "chat", Way(f"{of_run}/chat", {"message": text, "max_new_tokens": 1})
    echo = {"model": model, "prompt": text, "max_tokens": 0, "echo": True, "logprobs": 1}
    yield "completion", Way("/v1/completions", echo)
    files = [{"name": f"{prefix}.csv", "content": f"good,bad\n{pairs}"}]
    yield "battery", Way("/batteries", {"runs": [model], "files": files})
    reading = {"runs": [model], "file": {"name": f"{prefix}.csv", "content": times}, "baseline": ["length"]}
    yield "reading", Way("/readings", reading)
    train = train_fields(validation_corpus=f"{prefix}_0", test_fraction=0, label=f"{prefix}-v")
    yield "validation", Way("/runs/train", train)
    test = train_fields(test_corpus=f"{prefix}_4", test="open", label=f"{prefix}-t")
    yield "test with a blank line", Way("/runs/train", test)
    shared = {name: value for name, value in train.items() if name not in ("num_epochs", "label", "test_fraction")}
    tried = {"train": {**shared, "max_steps": 1}, "settings": {"a": {}, "b": {"learning_rate": 0.1}}}
    yield "study", Way("/studies", {"name": prefix.replace("_", "-"), **tried})


def train_fields(**fields: object) -> dict[str, object]:
    asked = tiny_request(**{"corpus": "lines_train"} | fields)
    given: dict[str, object] = asked.model_dump(mode="json", exclude_unset=True)
    return given


def add_files(lab: Lab, lines: list[str], prefix: str) -> None:
    for number, written in enumerate(FILES.values()):
        path = lab.folder / "data" / "corpus" / f"{prefix}_{number}.txt"
        path.write_bytes(written(lines).encode())


async def trained(here: Site, **fields: object) -> RunDirectory:
    run_id = str((await here.post("/runs/train", train_fields(**fields))).fields["run_id"])
    while not (status := (await here.get(f"/runs/{run_id}?wait=60")).record(RunStatus)).has_ended:
        pass
    assert status.status == "completed", status.error
    return here.queue.runs.get(run_id)


async def finished(here: Site, answer: Got) -> None:
    """Wait for the end of a job or a request, whatever it is."""
    assert answer.status in (200, 202), answer.text
    location = answer.location if "Location" in answer.headers else None
    while location is not None and (await here.get(f"{location}?wait=60")).fields["status"] in ("queued", "running"):
        pass


async def test_locked_text__is_refused_in_every_file_by_every_way(lab: Lab) -> None:
    add_corpus(lab.folder, "\n".join(lines_of("training", 60)), "lines_train")
    lines = lines_of("locked", 40)
    add_files(lab, lines, "locked_lines")
    async with lab_site(lab) as here:
        model = await trained(here, seed=21)
        effective, ledger = model.record().effective, LookLedger.of(lab.settings)
        before = ledger.count(effective)
        assert (await here.post("/corpora/locked_lines_2/lock", key=ADMIN)).status == 200
        answers = {name: await here.post(*way) for name, way in ways(lines, model.run_id, "locked_lines")}
        open_ways = {name: answer.text for name, answer in answers.items() if answer.status != 403}
        assert open_ways == {}
        assert {answer.outcome for answer in answers.values()} == {(403, "TEST_LOCKED")}
        sentences = {answer.error.message for answer in answers.values()}
        assert not any(name in sentence for sentence in sentences for name in ("locked_lines", "root", model.run_id))
        assert ledger.count(effective) == before, "no refusal is a look"
        assert (await here.post(f"/runs/{model.run_id}/score", {"text": "\n".join(lines[:4])})).status == 202
        spelled = "\n".join(line.replace("locked", "lokked") for line in lines)
        assert (await here.post(f"/runs/{model.run_id}/score", {"text": spelled})).status == 202, "as the page says"


async def test_locked_split__of_a_run_is_refused_by_its_lines_to_its_own_models_only(lab: Lab) -> None:
    add_corpus(lab.folder, "\n".join(lines_of("training", 60)), "lines_train")
    lines = lines_of("own", 40)
    add_files(lab, lines, "own_lines")
    async with lab_site(lab) as here:
        locked = await trained(here, test_corpus="own_lines_2", test="locked", seed=22)
        tested = locked.record().effective
        training = {"validation", "test with a blank line", "study"}  # of other runs, which the lock is not on
        own = [(name, way) for name, way in ways(lines, locked.run_id, "own_lines") if name not in training]
        answers = {name: await here.post(*way) for name, way in own}
        assert {name: answer.text for name, answer in answers.items() if answer.status != 403} == {}
        assert {answer.error.message.partition(":")[0] for answer in answers.values()} == {
            "The test split of this run is locked"
        }
        other, ledger = await trained(here, seed=23), LookLedger.of(lab.settings)
        assert ledger.count(tested) == LookCount(test_id=str(tested.test_id), looks=0, runs=1)
        scored = await here.post(f"/runs/{other.run_id}/score", {"text": "\n".join(lines[::-1])})
        assert scored.status == 202 and ledger.count(tested) == LookCount(test_id=str(tested.test_id), looks=1, runs=1)
        given = train_fields(init_from_run_id=locked.run_id, test_corpus="own_lines_0")
        child = (await here.post("/runs/check", given)).record(CheckedTraining)
        assert child.effective.test == "locked" and child.effective.test_id != tested.test_id
        validated = await here.post("/runs/check", given | {"test_fraction": 0, "validation_corpus": "own_lines_4"})
        assert validated.outcome == (403, "TEST_LOCKED"), "validation of a child"
        itself = await here.post(
            "/runs/train", train_fields(test_corpus="own_lines_2", validation_corpus="own_lines_6", test="locked")
        )
        status = (await here.get(f"/runs/{itself.fields['run_id']}?wait=60")).record(RunStatus)
        assert status.error is not None and status.error.code is ErrorCode.TEST_LOCKED
        unlocked = await here.post("/unlock?wait=60", {"runs": [locked.run_id]})
        assert unlocked.record(Unlocked).looks == (LookCount(test_id=str(tested.test_id), looks=2, runs=1),)
        read = await here.post(f"/runs/{locked.run_id}/evaluate?wait=60", {"path_override": "own_lines_6"})
        assert read.status == 200


async def test_lock__of_a_parent_holds_for_any_share_of_its_text_and_after_a_resume(lab: Lab) -> None:
    add_corpus(lab.folder, "\n".join(lines_of("parent", 90)), "parent_lines")
    async with lab_site(lab) as here:
        parent = await trained(here, corpus="parent_lines", test="locked", seed=24)
        for fields in ({"test_fraction": 0.3}, {"split_seed": 9}, {"test_fraction": 0.3, "holdout_fraction": 0.2}):
            given = train_fields(corpus="parent_lines", init_from_run_id=parent.run_id, **fields)
            checked = (await here.post("/runs/check", given)).record(CheckedTraining)
            assert checked.effective.test == "locked" and checked.effective.test_id != parent.record().effective.test_id
            assert "stays locked, because that of its parent" in checked.notes[-1]
            opened = await here.post("/runs/check", given | {"test": "open"})
            assert opened.outcome == (403, "TEST_LOCKED")
        long = train_fields(
            **LONG | {"corpus": "parent_lines", "init_from_run_id": parent.run_id, "test_fraction": 0.3, "model": None}
        )
        run_id = str((await here.post("/runs/train", long)).fields["run_id"])
        run = here.queue.runs.get(run_id)
        while not any(run.checkpoints.glob("*")):
            await asyncio.sleep(0.05)
        await here.post(f"/runs/{run_id}/cancel")
        while not (await here.get(f"/runs/{run_id}?wait=60")).record(RunStatus).has_ended:
            pass
        resumed = here.queue.runs.get(str((await here.post(f"/runs/{run_id}/resume")).fields["run_id"]))
        assert resumed.record().effective.test == "locked"


async def test_open_text__is_counted_in_every_file_by_every_way(lab: Lab) -> None:
    add_corpus(lab.folder, "\n".join(lines_of("training", 60)), "lines_train")
    lines = lines_of("counted", 40)
    add_files(lab, lines, "counted_lines")
    async with lab_site(lab) as here:
        first = await trained(here, test_corpus="counted_lines_2", seed=25)
        model, ledger, tested = await trained(here, seed=26), LookLedger.of(lab.settings), first.record().effective
        start = LookCount(test_id=str(tested.test_id), looks=1, runs=1)
        folder = lab.settings.app.artifacts_root / "looks" / str(tested.test_id)
        unseen: list[str] = []
        for name, way in ways(lines, model.run_id, "counted_lines"):
            assert ledger.count(tested) == start
            await finished(here, await here.post(*way))
            found = ledger.count(tested)
            assert found is not None
            if found.looks == 1:
                unseen.append(name)
            for look in [*folder.glob("*.json")]:  # each way begins anew
                if not look.name.startswith(first.run_id):
                    look.unlink()
        assert unseen == []


async def test_lines__are_known_to_discord_and_to_agents(lab: Lab) -> None:
    lines = lines_of("faces", 40)
    add_files(lab, lines, "faces_lines")
    add_corpus(lab.folder, "\n".join(lines_of("training", 60)), "lines_train")
    async with lab_site(lab) as web, place(lab.folder) as here, here.bot(workers=0), agent_of(web, ANA) as ana:
        model = await trained(web, seed=27)
        await web.post("/corpora/faces_lines_2/lock", key=ADMIN)
        text = "\n".join(lines[::-1])
        assert "This text has lines of a locked test split" in said(
            await here.ask(here.ana, "score", run=model.run_id, text=text)
        )
        called = await ana.call("score", run_id=model.run_id, text=text)
        assert called.error.code is ErrorCode.TEST_LOCKED


@pytest.mark.process
def test_locked_text__is_refused_by_every_command_and_in_python(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell, lines = enter(monkeypatch, capsys, tmp_path, lab.folder), lines_of("typed", 40)
    text = "\n".join(lines)
    add_corpus(lab.folder, "\n".join(lines_of("training", 60)), "lines_train")
    add_corpus(lab.folder, text, "typed_lines")
    files: dict[str, str | bytes] = {
        "crlf.txt": "\r\n".join(lines),
        "table.csv": "text\n" + text,
        "lines.jsonl": "\n".join(f'"{line}"' for line in lines),
        "pairs.csv": "good,bad\n" + "".join(f"{line},{line[::-1]}\n" for line in lines),
        "times.csv": times_table(lines=lines),
        "folder/text.txt": "\n".join(lines[::-1]),
    }
    for name, content in files.items():
        shell.write(name, content)
    run = shell.train("--corpus", "lines_train", "--set", "checkpoint_schedule=[2]", "--seed", "28").run_id
    shell.type("corpus", "lock", "typed_lines")
    ways: list[list[str]] = [
        *(["eval", run, "--path", path] for path in ("crlf.txt", "table.csv", "lines.jsonl", "folder")),
        *(["score", run, "--path", path] for path in ("crlf.txt", "table.csv", "lines.jsonl")),
        ["score", f"{run}@2", "--path", "crlf.txt", "--format", "jsonl"],
        ["segment", run, "--data", "crlf.txt"],
        ["battery", "run", run, "pairs.csv"],
        ["reading", run, "--data", "times.csv"],
        ["train", *TINY, "--corpus", "lines_train", "--set", f"validation_corpus={tmp_path / 'crlf.txt'}"],
        ["train", *TINY, "--corpus", "lines_train", "--set", "test_corpus=table.csv", "--set", "test=open"],
        ["train", *TINY, "--corpus", "crlf.txt", "--set", "test=open"],
    ]
    codes = {" ".join(words): shell.error(*words) for words in ways}
    assert {way: code for way, code in codes.items() if code.code is not ErrorCode.TEST_LOCKED} == {}
    items = shell.refuse("score", run, "--items", "table.csv", "--text-column", "text")
    assert "This text has lines of a locked test split" in items
    with refused(ErrorCode.TEST_LOCKED, "This text has lines of a locked test split"):
        trainer.load(run).score("\n".join(lines[::-1]))
    assert trainer.load(run).score(lines[0]).nats is not None
