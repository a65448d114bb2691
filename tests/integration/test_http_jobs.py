"""Jobs of every kind over HTTP: listed by pages, cancelled while a worker does them, deleted unless needed."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import TypeAdapter

from tests.support import add_corpus, processes, some_text, tiny_request
from tests.support.cleanups import settings_of
from tests.support.cross_language import experiment_record
from tests.support.http import ADMIN, ANA, Got, Site
from tests.support.job_kinds import KINDS
from tests.support.lab import Lab
from tests.support.markers import slow_except
from tests.support.readings import times_table
from tests.support.stored_jobs import is_free, waiting_battery
from tests.support.studies import TRAIN, study_request
from tests.support.waiting import until
from trainer.artifacts.cleanup import clean_up
from trainer.artifacts.corpus_builds import BuildRecord, BuildStore
from trainer.artifacts.deletion import delete_job
from trainer.artifacts.kinds import BATTERIES, BUILDS, STATUS_KINDS
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import KindName, now
from trainer.contracts.corpora import BuildRequest
from trainer.contracts.experiments import CellBattery
from trainer.contracts.operations import JOB_ROWS
from trainer.contracts.runs import RunStatus

Start = Callable[[Lab, Site, RunDirectory], Awaitable[Got | str]]
_jobs: TypeAdapter[list[dict[str, object]]] = TypeAdapter(list[dict[str, object]])


class Long(NamedTuple):
    """A job of a kind that takes longer than a test: how it starts, and the key of its owner."""

    start: Start
    key: str = ANA


async def tokenizer(lab: Lab, here: Site, run: RunDirectory) -> Got:
    add_corpus(lab.folder, "\n".join(f"{some_text(40)}\n{number}" for number in range(60_000)), "long")
    return await here.post("/tokenizers/train", {"method": "bpe", "corpora": ["long"], "vocab_size": 4000}, key=ANA)


async def experiment(lab: Lab, here: Site, run: RunDirectory) -> Got:
    train: dict[str, object] = {"model_family": "lstm", "tokenizer": {"method": "char"}, "num_epochs": 1000}
    train |= {"model": {"embedding_size": 8, "hidden_size": 8, "num_layers": 1}, "threads": 1, "split_by": "position"}
    plan = {"name": "long", "languages": {"kk": {}, "tr": {}}, "corpora": "udhr_ipa", "seeds": [1], "modes": ["skip"]}
    return await here.post("/experiments", {**plan, "models": {"lstm": {"train": train}}})


async def study(lab: Lab, here: Site, run: RunDirectory) -> Got:
    train: dict[str, object] = {**TRAIN, "max_steps": 1_000_000}
    asked: dict[str, object] = study_request(name="long", train=train).model_dump(mode="json", exclude_unset=True)
    return await here.post("/studies", asked, key=ANA)


async def battery(lab: Lab, here: Site, run: RunDirectory) -> Got:
    row = f"{'abc ' * 200},{'cab ' * 200}\n"
    pairs = {"name": "long.csv", "content": "good,bad\n" + row * 2000}
    return await here.post("/batteries", {"runs": [run.run_id], "files": [pairs]}, key=ANA)


async def reading(lab: Lab, here: Site, run: RunDirectory) -> Got:
    line = " ".join(["abc" * 100] * 20)
    times = {"name": "long.csv", "content": times_table(lines=[f"{line} {text}" for text in range(500)])}
    return await here.post("/readings", {"runs": [run.run_id], "file": times}, key=ANA)


async def export(lab: Lab, here: Site, run: RunDirectory) -> Got:
    return await here.post(f"/runs/{run.run_id}/export", {"format": "onnx"})


async def verification(lab: Lab, here: Site, run: RunDirectory) -> str:
    answer = await here.post(f"/runs/{run.run_id}/verify", key=ANA)
    return f"/verifications/{answer.fields['verification_id']}"


async def build(lab: Lab, here: Site, run: RunDirectory) -> str:
    texts = lab.folder / "data" / "corpus" / "local"
    texts.mkdir(parents=True, exist_ok=True)
    (texts / "kk.txt").write_text("бәрі де жақсы болды\n" * 300_000, encoding="utf-8")
    store = BuildStore(lab.settings.app.artifacts_root)
    request = BuildRequest(source="local", languages=("kk",), threshold=0.0)
    wanted = BuildRecord(created_at=now(), request=request)
    return f"/corpus_builds/{(await here.queue.jobs.accept(BUILDS, lambda: store.create(wanted))).job_id}"


LONG: dict[KindName, Long] = {
    "tokenizers": Long(tokenizer),
    "experiments": Long(experiment, ADMIN),
    "studies": Long(study),
    "batteries": Long(battery),
    "readings": Long(reading),
    "exports": Long(export, ADMIN),
    "verifications": Long(verification),
    "corpus_builds": Long(build, ADMIN),
}
EACH = pytest.mark.parametrize("kind", LONG)


def test_table__has_each_kind() -> None:
    assert [*LONG] == [*JOB_ROWS] == [*STATUS_KINDS]
    for row in JOB_ROWS.values():
        folder_type = STATUS_KINDS[row.kind].store(Path()).folder_type
        assert folder_type.word == row.word
        assert {"id": row.id_field, "state": "status"}.items() <= dict(row.columns).items()


@pytest.mark.parametrize("kind", slow_except(LONG, "exports", "tokenizers"))
async def test_job__is_cancelled_while_a_worker_does_it_and_then_deleted(
    lab: Lab, here: Site, run: RunDirectory, kind: KindName
) -> None:
    """Its process ends, and no result appears."""
    row, (start, key) = JOB_ROWS[kind], LONG[kind]
    answer = await start(lab, here, run)
    address = answer if isinstance(answer, str) else answer.location
    job = STATUS_KINDS[kind].store(lab.settings.app.artifacts_root).get(address.rpartition("/")[2])
    await until(lambda: job.state() == "running" and bool(job.has_begun()))
    assert (await here.ask("DELETE", address, key=key)).outcome == (409, "CONFLICT"), "it has not ended"
    once = {"Idempotency-Key": f"cancel-{kind}"}
    ends = [await here.post(f"{address}/cancel", key=key, headers=once) for _ in range(2)]
    assert [(end.status, end.fields["status"]) for end in ends] == [(200, "cancelled")] * 2
    assert (await here.post(f"{address}/cancel", key=key)).outcome == (409, "CONFLICT")
    await until(lambda: is_free(job))
    assert [one for one in processes(lab.folder) if job.job_id in one.command] == []
    assert (job.state(), job.failure()) == ("cancelled", None)
    status = (await here.get(address, key=key)).fields
    assert (status[row.id_field], status["status"]) == (job.job_id, "cancelled")
    assert (await here.ask("DELETE", address[:-1], key=key)).outcome == (422, "INVALID_INPUT"), "half an id"
    assert (await here.ask("DELETE", address, key=key)).status == 204
    assert not job.path.exists()
    for method, path in (("GET", address), ("DELETE", address), ("POST", f"{address}/cancel")):
        assert (await here.ask(method, path, key=key)).status == 404
    listed = (await here.get(f"/{kind}?limit=1000", key=ADMIN)).fields
    assert job.job_id not in [one[row.id_field] for one in _jobs.validate_python(listed[row.words])]


@EACH
async def test_list__comes_in_pages_newest_first(lab: Lab, here: Site, kind: KindName) -> None:
    row, root, new = JOB_ROWS[kind], lab.settings.app.artifacts_root, list[str]()
    for number in range(3):
        new.insert(0, KINDS[kind].create(root, 1000 + number).job_id)
        KINDS[kind].end(root, new[0])
    ids, page = list[object](), dict[str, object]()
    offset: object = 0
    while offset is not None:
        page = (await here.get(f"/{kind}?limit=2&offset={offset}")).fields
        ids += [one[row.id_field] for one in _jobs.validate_python(page[row.words])]
        offset = page["next_offset"]
        assert page["total"] == len(STATUS_KINDS[kind].store(root).ids())
    assert ids[:3] == new and len(ids) == len({*ids}) == page["total"]
    assert (await here.get(f"/{kind}?offset=9999")).fields[row.words] == []
    for query in ("limit=0", "limit=1001", "offset=-1", "limit=x"):
        assert (await here.get(f"/{kind}?{query}")).outcome == (422, "INVALID_INPUT")
    for job_id in new:
        assert (await here.ask("DELETE", f"/{kind}/{job_id}")).status == 204


async def test_what_others_need__stays_and_they_are_named(lab: Lab, here: Site, tmp_path: Path) -> None:
    root = lab.settings.app.artifacts_root
    text = tmp_path / "needed.txt"
    text.write_text(some_text(70), encoding="utf-8")
    here.queue.corpora.add("needed", text)
    tokenizer = (await here.post("/tokenizers/train?wait=60", {"method": "char", "corpora": ["needed"]})).fields
    unused = (await here.post("/tokenizers/train?wait=60", {"method": "byte", "corpora": ["needed"]})).fields
    name = tokenizer["tokenizer_id"]
    body = tiny_request(corpus="needed", tokenizer=None, tokenizer_id=name, max_steps=1)
    fields: dict[str, object] = body.model_dump(mode="json", exclude_unset=True)
    run_id = (await here.post("/runs/train?wait=60", fields)).record(RunStatus).run_id
    experiment = here.queue.experiments.create(experiment_record("needs"))
    needed = waiting_battery(root, "needed-battery", run_id)
    experiment.write_runs([], [CellBattery(model="lstm", seed=1, battery_id=needed.battery_id, is_reused=True)])
    for job in (experiment, needed):
        job.request_cancel()
    by = f"/experiments/{experiment.experiment_id}"
    for path, user in (
        (f"/tokenizers/{name}", run_id),
        ("/corpora/needed", run_id),
        (f"/batteries/{needed.battery_id}", experiment.experiment_id),
    ):
        refused = await here.ask("DELETE", path)
        assert refused.outcome == (409, "CONFLICT") and f"'{user}'" in refused.error.message, path
        assert (await here.get(path if "corpora" not in path else "/corpora")).status == 200
    paths = (f"/tokenizers/{unused['tokenizer_id']}", f"/runs/{run_id}", by)
    later = (f"/tokenizers/{name}", "/corpora/needed", f"/batteries/{needed.battery_id}")
    for path in (*paths, *later):
        assert (await here.ask("DELETE", path)).status == 204, path
    assert not here.queue.corpora.has("needed")
    for path, outcome in (("demo", (409, "CONFLICT")), ("dem", (404, "DATA_NOT_FOUND"))):
        assert (await here.ask("DELETE", f"/corpora/{path}")).outcome == outcome


@pytest.mark.process
async def test_killed_deletion__leaves_no_half_of_a_job(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    root = settings.app.artifacts_root
    job = waiting_battery(root, "battery-1")
    job.request_cancel()
    for number in range(5000):
        (job.path / f"{number}.csv").touch()
    program = (
        "import sys; from pathlib import Path; from trainer.artifacts.deletion import delete_job;"
        " from trainer.artifacts.kinds import BATTERIES; delete_job(BATTERIES, Path(sys.argv[1]), 'battery-1')"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(root))
    await until(lambda: not job.exists())
    process.kill()
    await process.wait()
    assert not job.path.exists() and STATUS_KINDS["batteries"].store(root).ids() == []
    clean_up(settings)
    assert not (root / ".removed").exists()
    waiting_battery(root, "battery-1").request_cancel()
    delete_job(BATTERIES, root, "battery-1")
    assert STATUS_KINDS["batteries"].store(root).ids() == []
