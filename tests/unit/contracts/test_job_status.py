"""Pages of jobs."""

from trainer.contracts.base import now
from trainer.contracts.exports import ExportList, ExportStatus
from trainer.contracts.parameters import JobsQuery
from trainer.lab.waits import all_pages


async def test_pages_of_jobs__become_one() -> None:
    jobs = tuple(
        ExportStatus(status="queued", created_at=now(), export_id=f"export-{number}", run_id="lstm-1", format="hf")
        for number in range(5)
    )

    async def read(query: JobsQuery) -> ExportList:
        end = query.offset + 2
        return ExportList(total=5, next_offset=end if end < 5 else None, exports=jobs[query.offset : end])

    page = await all_pages(read)
    assert page == ExportList(total=5, exports=jobs) and page.jobs == jobs
