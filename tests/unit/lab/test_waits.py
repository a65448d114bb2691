"""What is read in pages, and what is asked until it ends."""

from tests.support.messages import tokenizer
from trainer.contracts.parameters import JobsQuery
from trainer.contracts.tokenizer_jobs import TokenizerList, TokenizerStatus
from trainer.lab.waits import all_pages, asked_to_end


async def test_all_pages__are_one_page_with_every_job_in_order() -> None:
    known = tuple(tokenizer(f"label {number}", "completed") for number in range(2001))

    async def read(query: JobsQuery) -> TokenizerList:
        end = query.offset + query.limit
        following = end if end < len(known) else None
        return TokenizerList(total=len(known), next_offset=following, tokenizers=known[query.offset : end])

    found = await all_pages(read)
    assert (found.tokenizers, found.next_offset) == (known, None)


async def test_job__is_asked_for_until_it_has_ended() -> None:
    answers = [tokenizer("one", state) for state in ("queued", "running", "failed", "completed")]

    async def ask() -> TokenizerStatus:
        return answers.pop(0)

    assert (await asked_to_end(ask)).status == "failed"
    assert [one.status for one in answers] == ["completed"]
