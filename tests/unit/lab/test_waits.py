"""What is read in pages."""

from tests.support.messages import tokenizer
from trainer.contracts.parameters import JobsQuery
from trainer.contracts.tokenizer_jobs import TokenizerList
from trainer.lab.waits import all_pages


async def test_all_pages__are_one_page_with_every_job_in_order() -> None:
    known = tuple(tokenizer(f"label {number}", "completed") for number in range(2001))

    async def read(query: JobsQuery) -> TokenizerList:
        end = query.offset + query.limit
        following = end if end < len(known) else None
        return TokenizerList(total=len(known), next_offset=following, tokenizers=known[query.offset : end])

    found = await all_pages(read)
    assert (found.tokenizers, found.next_offset) == (known, None)
