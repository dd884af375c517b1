"""Small simulated devices and loads for tests."""

from rapidctl.bench.trace import shape_trace
from rapidctl.wire import Slo
from rapidd.partition.table import PartitionTable
from rapidd.simulate.load import Item, load_of
from rapidd.simulate.machine import Machine, Run, Setup, Watch
from support.h100 import SPLITS, TOTAL, calibration

BLOCK_TOKENS = 64


def setup(itl_s: float = 0.025, **changed: object) -> Setup:
    fields: dict[str, object] = {
        "table": PartitionTable(units_total=TOTAL, unit_name="SM", splits=SPLITS),
        "slo": Slo(itl_s=itl_s, ttft_floor_s=0.25, ttft_per_1k_s=1.0),
        "kv_blocks": 7000,
        "block_tokens": BLOCK_TOKENS,
        "max_running": 96,
        "max_model_len": 24_576,
        "max_chunk_s": 0.1,
        "max_chunk_tokens": 2048,
    }
    return Setup(**fields | changed)  # type: ignore[arg-type]


def load(shape: str, count: int, seed: int = 0) -> list[Item]:
    return load_of(shape_trace(shape, seed=seed, count=count), BLOCK_TOKENS)


def serve(policy: str, items: list[Item], made: Setup | None = None, watch: Watch | None = None) -> Run:
    machine = Machine(calibration(), policy, made or setup())
    run = machine.run(items, watch)
    machine.scheduler.check()
    return run
