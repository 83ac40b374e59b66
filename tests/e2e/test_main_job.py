"""The main job: pgbench through a quorum, and every page of the database rebuilt from its WAL."""

import itertools
import random

import pytest

from tests.fix_results import Keep
from tests.fix_stack import NewStack
from tools.ledger import Ledger
from tools.server import Setting
from tools.stack import Stack

COMPRESSIONS = ("off", "pglz", "lz4", "zstd")
# full_page_writes, wal_compression: both change with a reload.
SETTINGS = list(itertools.product((True, False), COMPRESSIONS))


def make_stack(new_stack: NewStack, *, checksums: bool) -> Stack:
    # Checkpoints in mid-run: where full-page images come from.
    tuned = {"autovacuum_naptime": "2s", "checkpoint_timeout": "30s"}
    return new_stack(primary={"checksums": checksums} | tuned).start()


def run_main_job(
    stack: Stack, ledger: Ledger, keep: Keep, setting: tuple[bool, str], *, scale: int, duration_s: float
) -> None:
    full_page_writes, compression = setting
    shown: dict[str, Setting] = {"full_page_writes": full_page_writes, "wal_compression": compression}
    print(shown)
    stack.primary.reload(**shown)
    # The checkpointer logs the switch when it hears of the reload.
    stack.primary.query("checkpoint")
    before = len(ledger.commits())

    assert ledger.start(clients=4, duration_s=duration_s).wait(deadline_s=duration_s + 60) == 0

    report = stack.verify()
    found = {key: report[key] for key in ("pages", "different", "elapsed_s")}
    keep(**shown, seconds=duration_s, commits=len(ledger.commits()) - before, **found)
    assert report["differences"] == []
    assert report["not_checked"] == []
    assert report["exit_code"] == 0
    assert report["pages"] > scale * 1000
    assert stack.pageserver.status()["full_page_writes"] == ("on" if full_page_writes else "off")
    assert ledger.missing_from(stack.primary) == set()


@pytest.mark.slow
@pytest.mark.pg_features("lz4", "zstd")
def test_every_page_is_rebuilt_under_drawn_settings(
    new_stack: NewStack, draw: random.Random, keep: Keep
) -> None:
    stack = make_stack(new_stack, checksums=draw.choice((True, False)))
    ledger = Ledger(stack.primary, scale=2)
    ledger.create()

    for setting in draw.sample(SETTINGS, 2):
        run_main_job(stack, ledger, keep, setting, scale=2, duration_s=6)

    stack.stop()


@pytest.mark.matrix
@pytest.mark.pg_features("lz4", "zstd")
@pytest.mark.parametrize("checksums", [True, False], ids=["checksums", "no-checksums"])
def test_every_page_is_rebuilt(
    new_stack: NewStack, draw: random.Random, keep: Keep, *, checksums: bool
) -> None:
    stack = make_stack(new_stack, checksums=checksums)
    ledger = Ledger(stack.primary, scale=20)
    ledger.create()

    for setting in draw.sample(SETTINGS, len(SETTINGS)):
        run_main_job(stack, ledger, keep, setting, scale=20, duration_s=60)

    stack.stop()
