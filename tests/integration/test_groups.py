"""Groups of runs over seeds, over HTTP and in the terminal: started, followed, cancelled, resumed and listed."""

import os
from math import log
from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.support import ended, some_text, tiny_request, wait_for_status
from tests.support.api_server import KEY, LabServer
from tests.support.faulty_runs import outcome
from tests.support.groups import GROUP, group_record, group_stories
from tests.support.http import ANA, BOB, Site
from tests.support.lab import Lab
from tests.support.run_shell import TINY, Shell, enter, sets
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from tests.support.worker_runs import LONG
from trainer.artifacts.checkpoint_files import checkpoint_steps
from trainer.artifacts.deletion import delete_run
from trainer.artifacts.runs import OPEN_GROUP_FILE, RunDirectory, manifest_of
from trainer.contracts.groups import GroupStatus
from trainer.contracts.http_answers import Curve, GroupCurve, RunPage
from trainer.contracts.runs import Accepted, RunStatus
from trainer.lab.groups import curve_band
from trainer.reports.comparison import Comparison
from trainer.worker.reconciler import reconcile


class Listed(BaseModel):
    """The object of `mt runs --json`."""

    runs: list[RunStatus]
    groups: list[GroupStatus]


async def start(here: Site, body: object, *, key: str = ANA, idempotency: str | None = None) -> Accepted:
    headers = {} if idempotency is None else {"Idempotency-Key": idempotency}
    answer = await here.post("/runs/train", body, key=key, headers=headers)
    accepted = answer.record(Accepted)
    assert answer.status == 202 and accepted.group is not None
    assert answer.location == f"/groups/{accepted.group.group_id}"
    return accepted


def group_of(accepted: Accepted) -> str:
    assert accepted.group is not None
    return accepted.group.group_id


async def test_group__trains_runs_with_the_weights_of_single_runs(here: Site) -> None:
    accepted = await start(here, tiny_request(seeds=[5, 3], label="both"))
    alone = (await here.post("/runs/train", tiny_request(seed=3, label="alone"), key=ANA)).record(Accepted).run_id
    group = (await here.get(f"/groups/{group_of(accepted)}?wait=60", key=ANA)).record(GroupStatus)
    assert [(run.run_id, run.seed, run.status) for run in group.members] == [
        (f"{group.group_id}-s5", 5, "completed"),
        (f"{group.group_id}-s3", 3, "completed"),
    ]
    assert (group.label, group.status, group.n_completed) == ("both", "completed", 2)
    losses = [run.test_loss for run in group.members if run.test_loss is not None]
    assert group.numbers["test_loss"].mean == pytest.approx(sum(losses) / 2)
    assert (await wait_for_status(here.queue, alone, ended)).status == "completed"
    curve = (await here.get(f"/groups/{group.group_id}/curve", key=ANA)).record(GroupCurve)
    curves = [(await here.get(f"/runs/{run.run_id}/curve", key=ANA)).record(Curve) for run in group.members]
    assert curve.validation == curve_band([one.validation for one in curves]), "the band of its runs"
    seconds = [step for step, _ in curve.seconds]
    assert seconds == [step for step, _ in curve.train.mean] and seconds
    thinned = (await here.get(f"/groups/{group.group_id}/curve?points=2&from_step=2", key=ANA)).record(GroupCurve)
    assert len(thinned.train.mean) <= 4 and thinned.train.mean[0][0] >= 2
    assert thinned.total_points == max(one.total_points for one in curves)
    member, single = (here.queue.runs.get(run_id) for run_id in (accepted.run_ids[1], alone))
    assert outcome(member) == outcome(single)
    assert member.record().request_hash == single.record().request_hash
    page = (await here.get("/runs", key=ANA)).record(RunPage)
    assert {run.run_id for run in page.runs if run.group == accepted.group} == {*accepted.run_ids}


async def test_repeated_request__makes_one_group_and_completes_an_interrupted_one(here: Site) -> None:
    body: dict[str, object] = tiny_request(**LONG, seeds=3).model_dump(exclude_unset=True)
    first = await start(here, body, idempotency="one")
    assert await start(here, body, idempotency="one") == first
    runs = here.queue.runs
    for run_id in first.run_ids:
        await here.queue.states.cancel(run_id)
        await wait_for_status(here.queue, run_id, ended)
    missing, marked = runs.get(first.run_ids[1]), runs.get(first.run_ids[0])
    delete_run(missing, missing.path.parents[1])
    (marked.path / OPEN_GROUP_FILE).touch()
    assert await start(here, body, idempotency="one") == first
    assert missing.exists() and not marked.has_open_group()
    other = await here.post("/runs/train", body | {"seeds": 2}, key=ANA, headers={"Idempotency-Key": "one"})
    assert other.outcome == (409, "CONFLICT")
    await here.queue.states.cancel(missing.run_id)


async def test_group__is_cancelled_once(here: Site) -> None:
    name = group_of(await start(here, tiny_request(**LONG, seeds=2)))
    address = f"/groups/{name}"
    assert (await here.get(f"{address}?wait=0.1", key=BOB)).record(GroupStatus).has_ended is False
    assert (await here.post(f"{address}/cancel", key=ANA, headers={"Idempotency-Key": "end"})).status == 200
    ends = (await here.get(f"{address}?wait=60", key=ANA)).record(GroupStatus)
    assert (ends.status, ends.message, ends.numbers) == ("cancelled", "2 runs: 2 cancelled.", {})
    assert (await here.post(f"{address}/cancel", key=ANA, headers={"Idempotency-Key": "end"})).status == 200
    assert (await here.post(f"{address}/cancel", key=ANA)).outcome == (409, "RUN_FINISHED")


async def test_group_whose_acceptance_was_interrupted__is_cancelled_with_the_runs_it_lacks(here: Site) -> None:
    accepted = await start(here, tiny_request(**LONG, seeds=3))
    for run_id in accepted.run_ids:
        await here.queue.states.cancel(run_id)
        await wait_for_status(here.queue, run_id, ended)
    runs = here.queue.runs
    delete_run(runs.get(accepted.run_ids[2]), runs.get(accepted.run_ids[2]).path.parents[1])
    (runs.get(accepted.run_ids[0]).path / OPEN_GROUP_FILE).touch()
    assert (await here.post(f"/groups/{group_of(accepted)}/cancel", key=ANA)).status == 200
    ends = (await here.get(f"/groups/{group_of(accepted)}?wait=60", key=ANA)).record(GroupStatus)
    assert ends.message == "3 runs: 3 cancelled." and not runs.get(accepted.run_ids[0]).has_open_group()


async def test_wait_and_ids_of_groups__are_refused_where_one_run_is_meant(here: Site) -> None:
    waiting = await here.post("/runs/train?wait=1", tiny_request(seeds=2), key=ANA)
    assert waiting.outcome == (422, "INVALID_INPUT") and "`wait` waits for one run" in waiting.text
    name = group_of(await start(here, tiny_request(seeds=2, max_steps=1)))
    one = await here.get(f"/runs/{name}", key=ANA)
    assert one.outcome == (404, "RUN_NOT_FOUND") and f"'{name}' is a group of 2 runs" in one.text
    assert (await here.get("/groups/none", key=ANA)).outcome == (404, "RUN_NOT_FOUND")
    await here.get(f"/groups/{name}?wait=60")


async def test_groups_and_runs__are_compared(here: Site) -> None:
    fast, slow = [group_of(await start(here, tiny_request(seeds=2, learning_rate=rate))) for rate in (0.01, 0.001)]
    alone = (await here.post("/runs/train?wait=60", tiny_request(seed=9))).record(RunStatus).run_id
    none = group_of(await start(here, tiny_request(**LONG, seeds=2)))
    for name in (fast, slow):
        assert (await here.get(f"/groups/{name}?wait=60")).record(GroupStatus).n_completed == 2
    [one, two] = (await here.get(f"/compare?runs={fast},{slow},{alone}")).record(Comparison).against
    assert one.over_seeds is not None and one.over_seeds.method == "paired" and one.run_id == slow
    assert two.over_seeds is not None and two.over_seeds.method == "single" and two.run_id == alone
    await here.post(f"/groups/{none}/cancel")
    await here.get(f"/groups/{none}?wait=60")
    assert (await here.get(f"/compare?runs={fast},{none}")).outcome == (409, "RUN_NOT_READY")
    assert (await here.get(f"/compare?runs={fast},{fast}-s42")).outcome == (422, "INVALID_INPUT")


async def test_pause__leaves_a_run_alone_that_has_ended(lab: Lab) -> None:
    """Ctrl-C pauses all runs of a group, of which some may have ended."""
    async with lab.queue() as queue:
        run = await lab.finished_run(queue)
        before = sorted(path.name for path in run.path.iterdir())
        await queue.states.pause(run.run_id)
    assert sorted(path.name for path in run.path.iterdir()) == before


async def test_interrupted_acceptance__is_completed_by_the_worker(lab: Lab) -> None:
    async with lab.queue() as queue, lab.store() as store:
        first = queue.runs.create(group_record((1, 2)))
        os.utime(first.path / OPEN_GROUP_FILE, (1, 1))
        await reconcile(lab.settings, store)
        other = await wait_for_status(queue, f"{GROUP}-s2", ended)
        assert other.error is not None, "the corpus of this request exists nowhere"
        await wait_for_status(queue, f"{GROUP}-s1", ended)
        assert not first.has_open_group()
        for run_id in (f"{GROUP}-s1", f"{GROUP}-s2"):
            await queue.states.delete(run_id)


def test_group__is_trained_listed_and_shown_in_the_terminal(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = enter(monkeypatch, capsys, tmp_path, lab.folder)
    monkeypatch.setenv("COLUMNS", "400")
    shell.write("two.yaml", "corpus: text\nmodel_family: char_lstm\nseed: 8\nseeds: 2\n")
    group = shell.read(GroupStatus, "train", "two.yaml", *TINY, "--name", "pair")
    assert (group.seeds, group.status, group.label) == ((8, 9), "completed", "pair")
    assert "Each of the 2 runs has" in shell.err
    name = group.group_id
    assert shell.read(GroupStatus, "status", name[:-1]) == group
    shown = shell.type("status", name)
    mean = group.numbers["test_loss"]
    assert "test, bits per token" in shown and f"{mean.mean / log(2):.3f}" in shown
    listed = shell.read(Listed, "runs", "--limit", "1")
    assert ({run.run_id for run in listed.runs}, listed.groups) == ({f"{name}-s8", f"{name}-s9"}, [group])
    row = next(line for line in shell.type("runs").splitlines() if line.startswith(name))
    best = group.numbers["best_val_loss"]
    assert best.deviation is not None
    numbers = [f"{nats / log(2):.3f}" for nats in (best.mean, best.deviation, best.minimum, best.maximum)]
    assert "{} ± {} ({}–{}) bits".format(*numbers) in row
    assert "completed, 2 of 2 runs" in row and row.endswith("pair")
    members = shell.type("runs", "--members", "--limit", "2")
    assert f"{name}-s8 " in members and f"{name}-s9 " in members and "±" not in members
    said = f"'{name}' is a group of 2 runs: name one of them, such as '{name}-s8'."
    assert said in shell.refuse("score", name, "abc")
    assert "have already ended" in shell.refuse("cancel", name)
    single = shell.train("--corpus", "text", "--model", "char_lstm", "--name", "alone").run_id
    unseen = "\n".join(some_text(90).splitlines()[60:])
    compared = shell.type("compare", name, single, "--path", str(shell.write("verse.txt", unseen)))
    assert compared.startswith("pair against alone")
    assert "2 runs against 1 (interval of one more run of the group)" in compared
    row = next(line for line in compared.splitlines() if line.startswith("pair  "))
    assert row.count("±") == 6, "losses per token and character, perplexity, both accuracies and the speed"


@pytest.mark.slow
@pytest.mark.parametrize("is_away", [False, True])
def test_group__is_cancelled_and_resumed_in_the_terminal(
    server: LabServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_away: bool,
) -> None:
    here, away = {"QUEUE__EMBEDDED_WORKERS": "0"}, {"MT_URL": server.url, "MT_KEY": KEY}
    settings, label = away if is_away else here, f"long-{is_away}"
    shell = enter(monkeypatch, capsys, tmp_path, server.lab.folder, **settings)
    words = ("train", "--corpus", "text", "--model", "char_lstm", "--name", label, "--seeds", "3,9", *TINY)
    started = shell.start(*words, *sets("num_epochs=40", "checkpoint_every_steps=5"), **settings)

    def members() -> list[RunDirectory]:
        return [run for run in shell.runs.all() if run.record().effective.label == label]

    wait_until(lambda: any(checkpoint_steps(run.checkpoints) for run in members()))
    begun = next(run for run in members() if checkpoint_steps(run.checkpoints)).run_id
    [name] = {group.group_id for run in members() if (group := run.record().group) is not None}
    cancelled = shell.type("cancel", name)
    assert f"{name}-s3 " in cancelled and f"{name}-s9 " in cancelled
    shown, _ = started.communicate(timeout=PATIENCE_SECONDS)
    assert (started.returncode, f"{label} ({name}): cancelled. 2 runs: 2 cancelled." in shown) == (1, True)
    assert f"next: mt compare {label} OTHER   ·   mt status {label}\n" in shown
    assert f"All runs of the group '{name}' have already ended." in shell.refuse("cancel", name)
    code, out, _ = shell.run("resume", name, "--json")
    resumed = GroupStatus.model_validate_json(out)
    [again] = [one for one in resumed.members if one.run_id.startswith(f"{begun}-")]
    assert again.status == "completed" and shell.runs.get(again.run_id).record().resumed_from_run_id == begun
    assert code == (0 if resumed.n_completed == 2 else 1), "the other one may not have begun"


def test_failed_run__does_not_spoil_its_group(shell: Shell) -> None:
    stories = group_stories(shell.artifacts)
    for story, loss in zip(stories[:2], (1.5, 1.7), strict=True):
        story.start().step(100, 2.0, loss).complete()
    stories[2].start().step(40, 2.0, 1.9).fail("Memory ran out.").run.write_manifest(
        manifest_of(stories[2].record, "failed")
    )
    shown = shell.type("status", GROUP)
    assert f"kk-ipa ({GROUP}): completed. 3 runs: 2 completed, 1 failed." in shown
    assert f"{1.6 / log(2):.3f}" in shown and f"{GROUP}-s3: Memory ran out." in shown
    assert "No run" in shell.type("runs", "--status", "paused")
    [row] = [line for line in shell.type("runs", "--status", "failed").splitlines() if line.startswith(GROUP)]
    assert "completed, 2 of 3 runs" in row
