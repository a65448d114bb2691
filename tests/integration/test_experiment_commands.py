"""`/mt experiment start`, `list`, `show`, `export` and `cancel` with the real bot."""

import os
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest

from bot.messages.buttons import button, button_row
from local_discord import Upload
from local_discord.driver import shown_text
from local_discord.state import StoredMessage
from local_discord.wire import items, mapping, text
from tests.support import ROOT, add_corpus
from tests.support.bot import AMBER, Place, place, read
from tests.support.experiment_results import finished_experiment, section_scores
from tests.support.waiting import until
from trainer.artifacts.experiments import ExperimentDirectory
from trainer.contracts.base import changed
from trainer.experiments.report import write_report

SMOKE = (ROOT / "configs" / "experiment_smoke.yaml").read_bytes()


def experiments(root: Path) -> list[ExperimentDirectory]:
    return [ExperimentDirectory(path) for path in sorted((root / "artifacts" / "experiments").glob("*-*"))]


async def completed(here: Place, languages: str = "kk,tr") -> str:
    """Start a plan, and write a report as a worker would, of seven languages."""
    await here.ask(here.ana, "experiment start", {"recipe": "smoke", "languages": languages})
    experiment = experiments(here.root)[-1]
    result = changed(finished_experiment(), experiment_id=experiment.experiment_id)
    write_report(experiment.path, result, section_scores())
    return experiment.experiment_id


def named(experiment: ExperimentDirectory) -> dict[str, str]:
    return {"experiment": experiment.experiment_id}


def csv_of(experiment: ExperimentDirectory) -> str:
    return f"mt:expcsv:{experiment.experiment_id}"


async def with_csv(here: Place, experiment: ExperimentDirectory) -> StoredMessage:
    """A message with the button CSV, as of an experiment that has completed before it began again."""
    channel = here.discord.dm_channel(here.ana)
    view = button_row(button("expcsv", experiment.experiment_id, "CSV"))
    sent = await here.bot.get_partial_messageable(channel.id).send("Look!", view=view)
    return next(one for one in here.discord.messages(channel) if one.id == sent.id)


def labels(message: StoredMessage) -> list[str]:
    """The buttons and lists of a message, by what stands on them."""
    found = (mapping(one) for row in message.components for one in items(row.get("components")))
    return [text(one.get("label") or one["placeholder"]) for one in found]


async def test_completed_experiment__has_its_metrics_figures_and_files(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        experiment_id = await completed(here)
        options = {"experiment": experiment_id}
        call = await here.discord.slash(here.bob, "mt experiment show", options)
        surprisal = await read(call)
        message = await call.reply()
        files = {text(one["filename"]): here.discord.read(one) for one in message.attachments}
        metrics = {
            metric: (await here.ask(here.bob, "experiment show", options | {"metric": metric})).text
            for metric in ("perplexity", "auc", "asymmetry")
        }
        listed = await here.ask(here.bob, "experiment list")
        export = await (await here.discord.slash(here.bob, "mt experiment export", options)).reply()
        await until(lambda: bool(export.attachments))
        [suggested] = await here.suggested(here.bob, "experiment show", "experiment", "smo")
        [zipped] = export.attachments
        with ZipFile(BytesIO(here.discord.read(zipped))) as archive:
            names = archive.namelist()
            page = archive.read("report.html")
        chosen = await read(await here.discord.click(here.bob, message, f"mt:expmetric:{experiment_id}", ["auc"]))
        csv = await answered_file(here, message, f"mt:expcsv:{experiment_id}")
        latex = await answered_file(here, message, f"mt:exptex:{experiment_id}")
        folder = experiments(tmp_path)[0].path
        assert labels(message) == ["Metric", "CSV", "LaTeX"]
        assert suggested.value == experiment_id
        assert "0.34±0.01" in surprisal.text and not surprisal.is_ephemeral
        assert files == {name: (folder / name).read_bytes() for name in ("heat_map.png", "tree.png")}
        # exp(1.82) of kk by its own model; of ky, one place later, exp(1.86 + 0.36 - 0.02)
        assert [line.split()[3:5] for line in metrics["perplexity"].splitlines() if line.startswith("kk ")] == [
            ["6.17", "9.03"]
        ]
        assert [line.split()[3:5] for line in metrics["asymmetry"].splitlines() if line.startswith("kk ")] == [
            ["–", "-0.04"]
        ]
        # 0.3 above the best validation loss: 1.82 + 0.01 and 1.82 + 0.02; the standard deviation of two is 0.01/√2
        assert "kk  2.135±0.007" in metrics["auc"]
        assert chosen.text.split(" · request")[0] == metrics["auc"].split(" · request")[0]
        assert f"✅ `{experiment_id}` · completed" in listed.text
        assert {"report.html", "matrix.csv", "table.tex", "tree.pdf"} <= {*names}
        assert page == (folder / "report.html").read_bytes() and text(zipped["filename"]) == f"{experiment_id}.zip"
        assert csv == (folder / "matrix.csv").read_bytes() and latex == (folder / "table.tex").read_bytes()


async def answered_file(here: Place, message: StoredMessage, custom_id: str) -> bytes:
    call = await here.discord.click(here.bob, message, custom_id)
    answer = await read(call)
    [attachment] = (await call.reply()).attachments
    assert answer.is_ephemeral
    return here.discord.read(attachment)


async def test_report_above_the_limit_of_discord__is_refused(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        await here.ask(here.ana, "experiment start", {"recipe": "smoke"})
        [experiment] = experiments(tmp_path)
        experiment.result.write_bytes(b"{}")
        (experiment.path / "noise.csv").write_bytes(os.urandom(10 << 20))
        answer = await here.ask(here.bob, "experiment export", named(experiment))
    assert "larger than Discord accepts" in answer.text and answer.colour == AMBER


async def test_experiment__is_cancelled_and_started_again_by_buttons(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        options: dict[str, str | int] = {"recipe": "smoke", "languages": " tr, kk,", "seeds": 2}
        call = await here.discord.slash(here.ana, "mt experiment start", {**options})
        started = await read(call)
        message = await call.reply()
        [experiment] = experiments(tmp_path)
        request = experiment.record().request
        running = await (await here.discord.slash(here.ana, "mt experiment show", named(experiment))).reply()
        await until(lambda: bool(running.components))
        await here.discord.click(here.ana, running, f"mt:experiment:{experiment.experiment_id}:again")
        await until(lambda: len(running.versions) > 2)
        early = await here.ask(here.bob, "experiment export", named(experiment))
        cancelled_call = await here.discord.click(here.ana, message, f"mt:expcancel:{experiment.experiment_id}")
        cancelled = await read(cancelled_call)
        was_cancelled = experiment.cancel_requested()
        no_file = await read(await here.discord.click(here.ana, await with_csv(here, experiment), csv_of(experiment)))
        again = await read(
            await here.discord.click(here.ana, await cancelled_call.reply(), f"mt:exprerun:{experiment.experiment_id}")
        )
        last = await here.ask(here.ana, "experiment cancel", named(experiment))
        ended = await here.ask(here.ana, "experiment cancel", named(experiment))
    assert (list(request.languages), request.seeds) == (["tr", "kk"], (1, 2))
    assert "⏳ Queued: experiment smoke" in started.text and "No worker is running" in started.text
    assert labels(message) == ["Refresh", "Cancel"]
    assert "⏹ Cancelled: experiment smoke" in cancelled.text and was_cancelled
    assert "has no report yet" in early.text and "has no report yet" in no_file.text
    assert "⏳ Queued: experiment smoke" in again.text
    assert "⏹ Cancelled" in last.text and "has already ended" in ended.text
    assert len(experiments(tmp_path)) == 1


MISTAKES: list[tuple[dict[str, str | int | Upload], str]] = [
    ({"recipe": "smoke", "config": Upload("plan.yaml", SMOKE)}, "Give `recipe` or `config`, not both."),
    ({"config": Upload("plan.yaml", b"name: x\n")}, "`languages` is required"),
    ({"config": Upload("plan.txt", SMOKE)}, "`config` must be a YAML file"),
    ({"recipe": "smoke", "languages": "KK!, tr"}, "`languages"),
    ({"recipe": "smoke", "languages": "kk"}, "`languages` must name at least two languages"),
    ({"languages": "kk,tr"}, "Several corpora are of 'kk': a_kk_ipa, b_kk_ipa. Name one in a `config`."),
    ({"languages": "ug,tr"}, "There is no corpus 'ug'"),
]


@pytest.mark.parametrize(("options", "expected"), MISTAKES)
async def test_start__refuses_and_stores_nothing(
    tmp_path: Path, options: dict[str, str | int | Upload], expected: str
) -> None:
    for name in ("a_kk_ipa", "b_kk_ipa"):
        add_corpus(tmp_path, "ɑb\n" * 20, name)
    async with place(tmp_path) as here:
        answer = await here.ask(here.ana, "experiment start", options)
    assert expected in answer.text and answer.colour == AMBER
    assert experiments(tmp_path) == []


async def test_start__takes_a_plan_and_built_corpora(tmp_path: Path) -> None:
    lines = "\n".join(f"ɑb kedt mnb {number:b}" for number in range(200))
    for name in ("oscar_kk_ipa", "oscar_tr_ipa"):
        add_corpus(tmp_path, f"{name}\n{lines}", name)
    plan = SMOKE.replace(b"corpora: udhr_ipa\n", b"").replace(b"name: smoke", b"name: own")
    async with place(tmp_path) as here:
        limit = here.bot.settings.limits.attachment_bytes
        started = await here.ask(here.ana, "experiment start", {"config": Upload("plan.yml", plan)})
    [experiment] = experiments(tmp_path)
    assert len(plan) < limit and "⏳ Queued: experiment own" in started.text
    languages = experiment.record().request.languages
    assert [options.corpus for options in languages.values()] == ["oscar_kk_ipa", "oscar_tr_ipa"]


async def test_private_runs__hide_experiments_from_users(tmp_path: Path) -> None:
    async with place(tmp_path, private_runs=True) as here:
        await here.ask(here.ana, "experiment start", {"recipe": "smoke"})
        [experiment] = experiments(tmp_path)
        refusals = [
            await here.ask(here.bob, "experiment list"),
            await here.ask(here.bob, "experiment show", named(experiment)),
            await here.ask(here.bob, "experiment export", named(experiment)),
        ]
        suggested = await here.suggested(here.bob, "experiment show", "experiment")
        listed = await here.ask(here.ana, "experiment list")
    assert ["only admins may see experiments" in refusal.text for refusal in refusals] == [True] * 3
    assert suggested == [] and experiment.experiment_id in listed.text


async def test_experiments__are_started_and_cancelled_by_admins_only(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        empty = await here.ask(here.bob, "experiment list")
        started = await here.ask(here.bob, "experiment start", {"recipe": "smoke"})
        cancelled = await here.ask(here.bob, "experiment cancel", {"experiment": "smoke-00000000"})
    assert "No experiments yet." in empty.text
    assert f"`/mt experiment start` is only for admins. Ask <@{here.ana.id}>" in started.text
    assert "is only for admins" in cancelled.text and experiments(tmp_path) == []


async def test_completed_experiment__shows_its_result_if_it_is_started_again(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        await completed(here)
        again = await here.ask(here.ana, "experiment start", {"recipe": "smoke", "languages": "kk,tr"})
    assert "Completed" in again.text and "A card in" not in again.text


async def test_list__turns_its_pages(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for seeds in range(1, 12):
            await here.ask(here.ana, "experiment start", {"recipe": "smoke", "seeds": seeds})
        call = await here.discord.slash(here.bob, "mt experiment list")
        first = await read(call)
        message = await call.reply()
        await here.discord.click(here.bob, message, "mt:experiments:list:1")
        await until(lambda: "page 2 of 2" in shown_text(message.payload))
        opened = await here.discord.click(here.bob, message, "mt:experimentspage:list:1")
        await (await here.discord.submit_modal(opened, {"page": "1"})).reply()
        assert "page 1 of 2" in shown_text(message.payload)
    assert "11 experiments · page 1 of 2" in first.text and first.text.count("⏳") == 10
