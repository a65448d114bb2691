"""Exports over HTTP: started, followed to the end, downloaded without a key, refused."""

import zipfile
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from tests.support import tiny_request
from tests.support.checkpoints import keep_checkpoint
from tests.support.http import ANA, BOB, Site, lab_site
from tests.support.lab import Lab
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.errors import ErrorCode
from trainer.contracts.exports import ExportStatus
from trainer.contracts.runs import RunStatus
from trainer.export.archive import import_archive
from trainer.export.folders import load_export


async def started(here: Site, name: str, **body: object) -> str:
    """The address of a new export; a worker may have begun it, or ended it, before the answer is written."""
    answer = await here.post(f"/runs/{name}/export", body)
    assert (answer.status, answer.record(ExportStatus).run_id) == (202, name), answer.body
    return answer.location


async def ended(here: Site, address: str) -> ExportStatus:
    status = (await here.get(f"{address}?wait=60")).record(ExportStatus)
    assert status.has_ended
    return status


async def downloaded(here: Site, name: str, **body: object) -> bytes:
    """The file of a new export, without a key, after a look at its size and hash."""
    status = await ended(here, await started(here, name, **body))
    assert (status.status, status.run_id, status.error) == ("completed", name, None) and status.file is not None
    got = await here.get(status.file.url, key=None)
    assert (got.status, len(got.body), sha256(got.body).hexdigest()) == (200, status.file.bytes, status.file.sha256)
    return got.body


async def test_export__gives_a_file_that_other_programs_read(here: Site, copied: RunDirectory, tmp_path: Path) -> None:
    keep_checkpoint(copied, 5)
    for name in (copied.run_id, f"{copied.run_id}@5"):
        with zipfile.ZipFile(BytesIO(await downloaded(here, name, format="hf", license="mit"))) as packed:
            packed.extractall(tmp_path)
        record, _, _ = load_export(tmp_path / f"{name}-hf")
        assert record.run_id == copied.run_id
        assert "license: mit" in (tmp_path / f"{name}-hf" / "README.md").read_text(encoding="utf-8")
    with zipfile.ZipFile(BytesIO(await downloaded(here, copied.run_id, format="csv"))) as packed:
        assert f"{copied.run_id}-csv/curve.csv" in packed.namelist()


async def test_export__is_for_the_owner_of_the_run_and_admins(here: Site, tmp_path: Path) -> None:
    body: dict[str, object] = tiny_request(max_steps=1).model_dump(mode="json", exclude_unset=True)
    run = (await here.post("/runs/train?wait=60", body, key=ANA)).record(RunStatus)
    path, form = f"/runs/{run.run_id}/export", {"format": "archive"}
    address = (await here.post(path, form, key=ANA)).location
    status = (await here.get(f"{address}?wait=60", key=ANA)).record(ExportStatus)
    assert status.file is not None and status.file.name == f"{run.run_id}.tar"
    archive = tmp_path / status.file.name
    archive.write_bytes((await here.get(status.file.url, key=BOB)).body)
    assert import_archive(archive, tmp_path / "other").run_id == run.run_id


async def test_export__that_cannot_succeed_is_refused_or_fails_with_its_reason(
    here: Site, copied: RunDirectory, lab: Lab
) -> None:
    async with lab.worker_busy(here.queue) as running:
        for name, form, outcome in (
            (running, "hf", (409, "RUN_NOT_READY")),
            (f"{copied.run_id}@77", "hf", (404, "DATA_NOT_FOUND")),
            (f"{copied.run_id}@5", "archive", (422, "INVALID_INPUT")),
            (f"{copied.run_id}@5", "csv", (422, "INVALID_INPUT")),
            (copied.run_id, "gguf", (422, "INVALID_INPUT")),
        ):
            assert (await here.post(f"/runs/{name}/export", {"format": form})).outcome == outcome, form
    (copied.path / "model.safetensors").write_bytes(b"damaged")
    failed = await ended(here, await started(here, copied.run_id, format="hf"))
    assert (failed.status, failed.file) == ("failed", None) and failed.error is not None
    assert failed.error.code is ErrorCode.MODEL_LOAD_FAILED and "/" not in failed.error.message


async def test_export__goes_on_while_the_server_restarts(lab: Lab, run: RunDirectory) -> None:
    async with lab_site(lab) as here:
        address = await started(here, run.run_id, format="hf")
    async with lab_site(lab) as here:
        status = await ended(here, address)
    assert (status.status, status.error) == ("completed", None)
