"""The installation of this machine, without services."""

import shutil
from pathlib import Path

from tests.support import settings_in
from tests.support.job_kinds import KINDS
from tests.support.refusals import refused
from trainer.contracts.errors import ErrorCode
from trainer.contracts.parameters import ExportPath
from trainer.lab.calls import EXPORTS
from trainer.lab.here import Here


async def test_job__that_is_deleted_while_it_is_followed_is_not_there(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    job = KINDS["exports"].create(settings.app.artifacts_root, 1)
    here = Here(settings)
    seen: list[str] = []
    with refused(ErrorCode.DATA_NOT_FOUND, job.job_id):
        async for status in here.follow(EXPORTS.get, ExportPath(export_id=job.job_id)):
            seen.append(status.status)
            shutil.rmtree(job.path)
    assert seen == ["queued"]
    await here.close()


async def test_queue__of_a_command_that_has_not_connected_is_not_available(tmp_path: Path) -> None:
    here = Here(settings_in(tmp_path))
    with refused(ErrorCode.SERVICE_UNAVAILABLE, "No worker is running"):
        await here.lab.queue.close()
    await here.close()
