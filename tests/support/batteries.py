"""Batteries for tests."""

from hashlib import sha256

from trainer.batteries.reading import Battery, battery_of
from trainer.contracts.base import now
from trainer.contracts.batteries import BatteryItem, BatteryOptions, BatteryRecord
from trainer.contracts.runs import RunModel
from trainer.data.rows import TextFile

PAIRS = """paradigm,good,bad,context
order,the sun was shining,sun the was shining,
order,he did his very best,best he did his very,
order,the sun,the sun,
letters,shining,shinnig,the sun was
"""
"""Pairs of which one has two equal sentences, and one a context."""


def pairs(content: str = PAIRS) -> Battery:
    return battery_of("pairs", [TextFile("pairs.csv", content.encode())], BatteryOptions())


def battery_record(battery_id: str, *run_ids: str) -> tuple[BatteryRecord, tuple[BatteryItem, ...]]:
    """A job as it is accepted, with its items."""
    battery = pairs()
    hashed = sha256(battery_id.encode()).hexdigest()
    record = BatteryRecord(
        battery_id=battery_id,
        created_at=now(),
        options=BatteryOptions(),
        runs=tuple(RunModel(run_id=run_id, seed=1) for run_id in run_ids or ("lstm-1",)),
        batteries=(battery.info,),
        items_sha256=hashed,
        request_hash=hashed,
    )
    return record, battery.items
