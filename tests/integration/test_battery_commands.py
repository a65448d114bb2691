"""`/mt-battery start`, `list`, `show` and `cancel` with the real bot."""

from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

from local_discord import Upload
from local_discord.wire import text
from tests.support import add_corpus, some_text
from tests.support.batteries import PAIRS
from tests.support.bot import labels, place, read
from tests.support.checkpoints import keep_checkpoint
from tests.support.development_results import NO_ITEMS, development_of
from tests.support.finished_runs import finished_run
from tests.support.waiting import until
from trainer.api import Model
from trainer.artifacts.batteries import BatteryDirectory, BatteryStore
from trainer.batteries.controls import variants
from trainer.batteries.results import summarize
from trainer.batteries.scoring import portions, scores_of
from trainer.config.settings import LimitSettings, SecuritySettings
from trainer.contracts.base import changed
from trainer.contracts.batteries import BatterySummary, DevelopmentOptions
from trainer.reports.battery_report import battery_report
from trainer.reports.battery_tables import report_files
from trainer.reports.development_report import development_report

PNG = b"\x89PNG\r\n\x1a\n"
ITEMS = Upload("pairs.csv", PAIRS.encode())
OPEN = {"security": SecuritySettings(surprisals="all")}
"""Settings with which everybody gets words and counts of the runs, which nobody owns."""


def complete(battery: BatteryDirectory, root: Path) -> None:
    """Write the results as a worker would."""
    record, items = battery.record(), battery.items()
    for run in record.runs:
        model = Model.load(root / "artifacts" / "models" / run.run_id)
        for variant in variants(record.options):
            for portion, request in portions(variant, items, record.options, run.seed):
                battery.add_scores(run.run_id, variant, scores_of(portion, model.ask(request)))
    summary = summarize(battery, {})
    scores = {run.run_id: battery.scores(run.run_id, "trained") for run in record.runs}
    battery.write_result(summary, report_files(summary, battery_report(summary), items, scores, {}), "0")


async def test_battery__is_started_shown_and_downloaded(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, family).run_id for family in ("lstm", "gpt2")]
    async with place(tmp_path, groups=OPEN) as here:
        call = await here.discord.slash(here.bob, "mt-battery start", {"items": ITEMS, "run": ", ".join(runs)})
        started, message = await read(call), await call.reply()
        assert "⏳ Queued: battery pairs" in started.text and "No worker is running" in started.text
        assert labels(message) == ["Refresh", "Cancel", "Watch"]
        [battery] = BatteryStore(tmp_path / "artifacts").all()
        battery_id, options = battery.battery_id, {"battery": battery.battery_id}
        assert battery.record().user_id == here.bob.id
        complete(battery, tmp_path)
        shown = await here.discord.slash(here.bob, "mt-battery show", options)
        answer, message = await read(shown), await shown.reply()
        assert "Completed: battery pairs" in answer.text and answer.is_ephemeral
        assert runs[0] in answer.text and "order" in answer.text and "untrained" in answer.text
        assert labels(message) == ["Table", "Page", "CSV", "LaTeX", "ZIP", "Delete…"]
        assert f"✅ `{battery_id}` · pairs · 2 runs · completed" in (await here.ask(here.bob, "mt-battery list")).text
        [suggested] = await here.suggested(here.bob, "mt-battery show", "battery", "pai")
        assert suggested.value == battery_id
        pressed = await here.discord.click(here.bob, message, f"mt:jobfiles:{battery_id}:battery")
        export = await pressed.reply()
        await until(lambda: bool(export.attachments))
        with ZipFile(BytesIO(here.discord.read(export.attachments[0]))) as archive:
            assert {"report.html", "accuracy.csv", "table.tex", "result.json"} <= {*archive.namelist()}
        for action, name in (("batpage", "report.html"), ("batcsv", "accuracy.csv"), ("battex", "table.tex")):
            pressed = await here.discord.click(here.bob, message, f"mt:{action}:{battery_id}")
            assert (await read(pressed)).is_ephemeral
            [attachment] = (await pressed.reply()).attachments
            assert here.discord.read(attachment) == (battery.path / name).read_bytes()
        again = await here.ask(here.ana, "mt-battery start", {"items": ITEMS, "run": ",".join(runs)})
        assert "Completed" in again.text and "A card in" not in again.text


async def test_development__of_a_run_has_its_curves_in_its_card(tmp_path: Path) -> None:
    counted, run = finished_run(tmp_path, "ngram"), finished_run(tmp_path, "lstm")
    async with place(tmp_path, groups=OPEN) as here:
        refused = await here.ask(here.bob, "mt-battery start", {"develop": True, "run": counted.run_id})
        assert "is an n-gram model, which is counted at once" in refused.text
        refused = await here.ask(here.bob, "mt-battery start", {"develop": True})
        assert "has kept no checkpoints" in refused.text
        for step in (1, 2, 4):
            keep_checkpoint(run, step)
        assert "Give either `battery` or `items`" in (await here.ask(here.bob, "mt-battery start", {})).text
        started = await here.ask(here.bob, "mt-battery start", {"develop": True, "run": run.run_id})
        assert f"⏳ Queued: battery development of {run.run_id}" in started.text
        [battery] = BatteryStore(tmp_path / "artifacts").all()
        assert battery.record().options.development == DevelopmentOptions(has_words=True)
        every: list[list[str]] = [["accuracy", "loss", "words"], []]
        for pictures in every:
            battery.write_result(
                BatterySummary(measure="sum", batteries=(), runs=()),
                {
                    "development.csv": "step\n",
                    "report.json": development_report(development_of(), NO_ITEMS).model_dump_json(),
                    **{f"{name}.png": PNG for name in pictures},
                },
                "0",
                development_of(),
            )
            call = await here.discord.slash(here.bob, "mt-battery show", {"battery": battery.battery_id})
            answer, message = await read(call), await call.reply()
            assert f"Completed: battery development of {run.run_id}" in answer.text
            assert "3 of 4 words have an age of acquisition, at" in answer.text and "early   10" in answer.text
            assert labels(message) == ["Table", "Page", "CSV", "LaTeX", "ZIP", "Delete…"]
            assert [text(one["filename"]) for one in message.attachments] == [f"{name}.png" for name in pictures[:1]]
            pressed = await here.discord.click(here.bob, message, f"mt:batcurves:{battery.battery_id}")
            assert here.discord.read((await pressed.reply()).attachments[0]) == b"step\n"
            for name in pictures:
                (battery.path / f"{name}.png").unlink()


async def test_development__of_somebody_elses_run_leaves_out_its_words(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "lstm")
    keep_checkpoint(run, 1)
    async with place(tmp_path) as here:
        for user, has_words in ((here.bob, False), (here.ana, True)):
            await here.ask(user, "mt-battery start", {"develop": True, "run": run.run_id})
            [battery] = [one for one in BatteryStore(tmp_path / "artifacts").all() if one.record().user_id == user.id]
            assert battery.record().options.development == DevelopmentOptions(has_words=has_words)


async def test_development__of_ones_own_run_on_somebody_elses_corpus_lists_none_of_its_words(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    run = finished_run(tmp_path, "lstm")
    keep_checkpoint(run, 1)
    async with place(tmp_path) as here:
        record = changed(run.record(), user_id=here.bob.id)
        (run.path / "request.json").write_text(record.model_dump_json(), encoding="utf-8")
        await here.ask(here.bob, "mt-battery start", {"develop": True, "run": run.run_id})
        [battery] = BatteryStore(tmp_path / "artifacts").all()
        assert battery.record().options.development == DevelopmentOptions(has_words=False)


async def test_battery__of_one_run_has_its_intervals_and_is_cancelled_by_its_owner(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "lstm").run_id
    folder = tmp_path / "data" / "batteries"
    folder.mkdir(parents=True)
    (folder / "mine.csv").write_text(PAIRS, encoding="utf-8")
    once = {**OPEN, "limits": LimitSettings(requests_per_minute=1)}  # a start counts as one request
    async with place(tmp_path, groups=once) as here:
        [named] = await here.suggested(here.bob, "mt-battery start", "battery", "mine")
        [first, *_] = await here.suggested(here.bob, "mt-battery start", "run", "lst")
        assert (named.value, first.value) == ("mine", run)
        assert await here.suggested(here.bob, "mt-battery start", "run", f"{run},lst") == []
        message = await here.reply(here.bob, "mt-battery start", {"battery": "mine", "measure": "char"})
        await until(lambda: bool(message.components))
        [battery] = BatteryStore(tmp_path / "artifacts").all()
        await here.discord.click(here.bob, message, f"mt:get_battery:{battery.battery_id}:again")
        await until(lambda: len(message.versions) > 2)
        cancelling = await here.discord.click(here.bob, message, f"mt:cancel_battery:{battery.battery_id}")
        assert "⏹ Cancelled: battery mine" in (await read(cancelling)).text and battery.cancel_requested()
        again = await here.ask(here.ana, "mt-battery start", {"battery": "mine", "run": run, "measure": "char"})
        assert "⏳ Queued: battery mine" in again.text
        not_hers = await here.ask(here.bob, "mt-battery cancel", {"battery": battery.battery_id})
        assert "is only for the run's owner and admins" in not_hers.text
        complete(battery, tmp_path)
        shown = (await here.ask(here.bob, "mt-battery show", {"battery": battery.battery_id})).text
        assert "95 % interval" in shown and "% to " in shown
