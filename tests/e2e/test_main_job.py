"""The main job: pgbench through a quorum, and every page of the database rebuilt from its WAL."""

import itertools
import random

import pytest

from tests.fix_stack import NewStack
from tools.ledger import Ledger
from tools.server import Setting

COMPRESSIONS = ("off", "pglz", "lz4", "zstd")
COMBINATIONS = list(itertools.product((True, False), COMPRESSIONS, (True, False)))
NAMES = [
    f"fpw-{'on' if fpw else 'off'} compression-{compression} checksums-{'on' if checksums else 'off'}"
    for fpw, compression, checksums in COMBINATIONS
]

Combination = tuple[bool, str, bool]


def run_main_job(new_stack: NewStack, combination: Combination, *, scale: int, duration_s: float) -> None:
    full_page_writes, compression, checksums = combination
    print(f"full_page_writes={full_page_writes} wal_compression={compression} checksums={checksums}")
    settings: dict[str, Setting] = {
        "checksums": checksums,
        "wal_compression": compression,
        "full_page_writes": full_page_writes,
        "autovacuum_naptime": "2s",
        # Checkpoints in mid-run: where full-page images come from.
        "checkpoint_timeout": "30s",
    }
    stack = new_stack(primary=settings).start()
    ledger = Ledger(stack.primary, scale=scale)
    ledger.create()

    assert ledger.start(clients=4, duration_s=duration_s).wait(deadline_s=duration_s + 60) == 0

    report = stack.verify()
    assert report["differences"] == []
    assert report["not_checked"] == []
    assert report["exit_code"] == 0
    assert report["pages"] > scale * 1000
    assert ledger.missing_from(stack.primary) == set()
    stack.stop()


@pytest.mark.slow
@pytest.mark.pg_features("lz4", "zstd")
@pytest.mark.parametrize("number", [1, 2])
def test_every_page_is_rebuilt_under_drawn_settings(
    new_stack: NewStack, draw: random.Random, number: int
) -> None:
    drawn = draw.choice(COMBINATIONS)

    run_main_job(new_stack, drawn, scale=2, duration_s=8 + number)


@pytest.mark.matrix
@pytest.mark.pg_features("lz4", "zstd")
@pytest.mark.parametrize("combination", COMBINATIONS, ids=NAMES)
def test_every_page_is_rebuilt(new_stack: NewStack, combination: Combination) -> None:
    run_main_job(new_stack, combination, scale=20, duration_s=60)
