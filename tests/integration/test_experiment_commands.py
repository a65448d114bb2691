"""`/mt-experiment start`, `list`, `show`, `export` and `cancel` with the real bot."""

import os
from io import BytesIO
from math import log
from pathlib import Path
from zipfile import ZipFile

import pytest

from local_discord import Upload
from local_discord.state import StoredMessage
from local_discord.wire import Json, rows, text
from tests.support import ROOT, add_corpus
from tests.support.bot import AMBER, components, labels, place, read
from tests.support.experiment_results import section_scores, with_batteries
from tests.support.waiting import until
from trainer.artifacts.experiments import ExperimentDirectory, ExperimentStore
from trainer.contracts.base import changed
from trainer.experiments.report import write_report

SMOKE = (ROOT / "configs" / "experiment_smoke.yaml").read_bytes()


def named(experiment: ExperimentDirectory) -> dict[str, str]:
    return {"experiment": experiment.experiment_id}


def options_of(message: StoredMessage) -> list[Json]:
    """The options of the first list of a message."""
    return rows(components(message)[0]["options"])


@pytest.mark.slow
async def test_completed_experiment__has_its_tables_figures_and_files(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        started = {"recipe": "smoke", "languages": "kk,tr"}
        await here.ask(here.ana, "mt-experiment start", started)
        [experiment] = ExperimentStore(tmp_path / "artifacts").all()
        experiment_id, folder, options = experiment.experiment_id, experiment.path, named(experiment)
        # a report as a worker would write it, of seven languages
        write_report(folder, changed(with_batteries(), experiment_id=experiment_id), section_scores())
        call = await here.discord.slash(here.bob, "mt-experiment show", options)
        surprisal = await read(call)
        assert f"az  {0.44 / log(2):.3f}  0.000" in surprisal.text and not surprisal.is_ephemeral
        message = await call.reply()
        assert labels(message) == ["Table", "CSV", "LaTeX", "ZIP"]
        files = {text(one["filename"]): here.discord.read(one) for one in message.attachments}
        stored = {name: (folder / name).read_bytes() for name in ("heat_map.png", "tree.png", "batteries.png")}
        assert [files[name] == data for name, data in stored.items()] == [False, False, True], "they are in nats"
        assert files.keys() == stored.keys() and all(data.startswith(b"\x89PNG") for data in files.values())
        tables = {text(one["label"]): text(one["value"]) for one in options_of(message)}
        for title, figures in (
            # exp(1.82) of kk by its own model; of ky, one place later, exp(1.86 + 0.36 - 0.02)
            ("Perplexity: lstm on the passages, positions whose character every model knows", ["6.17", "9.03"]),
            ("Asymmetry, bits per character", [f"{0.38 / log(2):.3f}"]),
        ):
            shown = await here.click(here.bob, message, f"mt:jobtable:{experiment_id}:experiment", [tables[title]])
            assert title in shown.text and all(figure in shown.text for figure in figures)
        assert f"✅ `{experiment_id}` · completed" in (await here.ask(here.bob, "mt-experiment list")).text
        [suggested] = await here.suggested(here.bob, "mt-experiment show", "experiment", "smo")
        assert suggested.value == experiment_id
        export = await here.reply(here.bob, "mt-experiment export", options)
        await until(lambda: bool(export.attachments))
        [zipped] = export.attachments
        with ZipFile(BytesIO(here.discord.read(zipped))) as archive:
            assert {"report.html", "matrix.csv", "table.tex", "tree.pdf", "batteries.csv"} <= {*archive.namelist()}
            assert archive.read("report.html") == (folder / "report.html").read_bytes()
        assert text(zipped["filename"]) == f"{experiment_id}.zip"
        for action, name in (("expcsv", "matrix.csv"), ("exptex", "table.tex")):
            pressed = await here.discord.click(here.bob, message, f"mt:{action}:{experiment_id}")
            assert (await read(pressed)).is_ephemeral
            [attachment] = (await pressed.reply()).attachments
            assert here.discord.read(attachment) == (folder / name).read_bytes()
        again = (await here.ask(here.ana, "mt-experiment start", started)).text
        assert "Completed" in again and "A card in" not in again


async def test_report_above_the_limit_of_discord__is_refused(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        await here.ask(here.ana, "mt-experiment start", {"recipe": "smoke"})
        [experiment] = ExperimentStore(tmp_path / "artifacts").all()
        experiment.result.write_bytes(b"{}")
        (experiment.path / "noise.csv").write_bytes(os.urandom(10 << 20))
        answer = await here.ask(here.bob, "mt-experiment export", named(experiment))
    assert "larger than Discord accepts" in answer.text and answer.colour == AMBER


async def test_experiment__is_cancelled_and_started_again_by_buttons(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        options: dict[str, str | int] = {"recipe": "smoke", "languages": " tr, kk,", "seeds": 2}
        call = await here.discord.slash(here.ana, "mt-experiment start", {**options})
        started, message = await read(call), await call.reply()
        assert "⏳ Queued: experiment smoke" in started.text and "No worker is running" in started.text
        assert labels(message) == ["Refresh", "Cancel", "Watch"]
        [experiment] = ExperimentStore(tmp_path / "artifacts").all()
        request, name = experiment.record().request, experiment.experiment_id
        assert (list(request.languages), request.seeds) == (["tr", "kk"], (1, 2))
        running = await here.reply(here.ana, "mt-experiment show", named(experiment))
        await until(lambda: bool(running.components))
        await here.discord.click(here.ana, running, f"mt:get_experiment:{name}:again")
        await until(lambda: len(running.versions) > 2)
        assert "has no results yet" in (await here.ask(here.bob, "mt-experiment export", named(experiment))).text
        cancelling = await here.discord.click(here.ana, message, f"mt:cancel_experiment:{name}")
        assert "⏹ Cancelled: experiment smoke" in (await read(cancelling)).text and experiment.cancel_requested()
        # as of an experiment that has completed before it began again
        with_csv = await here.message_with(here.ana, f"mt:expcsv:{name}")
        assert "has no results yet" in (await here.click(here.ana, with_csv, f"mt:expcsv:{name}")).text
        again = await here.click(here.ana, await cancelling.reply(), f"mt:exprerun:{name}")
        assert "⏳ Queued: experiment smoke" in again.text
        for said in ("⏹ Cancelled", "has already ended"):
            assert said in (await here.ask(here.ana, "mt-experiment cancel", named(experiment))).text
    assert len(ExperimentStore(tmp_path / "artifacts").all()) == 1


async def test_start__takes_a_plan_and_built_corpora(tmp_path: Path) -> None:
    lines = "\n".join(f"ɑb kedt mnb {number:b}" for number in range(200))
    for name in ("oscar_kk_ipa", "oscar_tr_ipa"):
        add_corpus(tmp_path, f"{name}\n{lines}", name)
    plan = SMOKE.replace(b"corpora: udhr_ipa\n", b"").replace(b"name: smoke", b"name: own")
    async with place(tmp_path) as here:
        limit = here.bot.settings.limits.attachment_bytes
        started = await here.ask(here.ana, "mt-experiment start", {"config": Upload("plan.yml", plan)})
    [experiment] = ExperimentStore(tmp_path / "artifacts").all()
    assert len(plan) < limit and "⏳ Queued: experiment own" in started.text
    languages = experiment.record().request.languages
    assert [options.corpus for options in languages.values()] == ["oscar_kk_ipa", "oscar_tr_ipa"]
