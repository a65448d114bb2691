"""The cancellation of a group: of the runs that have not ended, whatever ends meanwhile."""

from pathlib import Path

from tests.support.groups import GROUP, group_stories
from tests.support.refusals import refused
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.groups import GroupStatus, group_status
from trainer.lab.groups import cancel_unfinished


async def test_cancelling__ends_the_unfinished_runs_and_passes_errors_on(tmp_path: Path) -> None:
    stories = group_stories(tmp_path, (1, 2, 3, 4))
    stories[0].start().complete()
    group: GroupStatus = group_status(GROUP, (story.follower().status for story in stories))
    cancelled: list[str] = []

    async def cancel(run_id: str) -> bool:
        if run_id.endswith("s3"):
            raise AppError(ErrorCode.RUN_FINISHED, "It has ended in the meantime.")
        cancelled.append(run_id)
        return True

    async def fail(run_id: str) -> bool:
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, f"{run_id} is locked.")

    await cancel_unfinished(group, cancel)
    assert cancelled == [f"{GROUP}-s2", f"{GROUP}-s4"]
    with refused(ErrorCode.SERVICE_UNAVAILABLE, "is locked"):
        await cancel_unfinished(group, fail)
    ended: GroupStatus = group_status(GROUP, [stories[0].follower().status])
    with refused(ErrorCode.RUN_FINISHED, "All runs of the group"):
        await cancel_unfinished(ended, cancel)
