"""Where a page is asked for, and what follows from an answer."""

import itertools

import pytest

from pageserver.verify.rule import PAUSES_S, TRIES_MAX, Finding, Step, asked_lsn, decide, record_boundary
from walproxy.wire.lsn import Lsn

SEGMENT = 16 << 20


@pytest.mark.parametrize(
    ("insert_lsn", "boundary"),
    [
        (0x0300_0000 + 40, 0x0300_0000),
        (0x0300_0000 + 24, 0x0300_0000 + 24),
        (0x0300_2000 + 24, 0x0300_2000),
        (0x0300_2000 + 40, 0x0300_2000 + 40),
        (0x0300_2000, 0x0300_2000),
        (0x0300_2000 + 32, 0x0300_2000 + 32),
        (0x0300_1FF8, 0x0300_1FF8),
    ],
)
def test_an_insert_position_behind_a_page_header_is_the_boundary_before(
    insert_lsn: int, boundary: int
) -> None:
    assert record_boundary(insert_lsn, segment_size=SEGMENT) == boundary


def test_only_the_first_page_of_a_segment_has_a_long_header() -> None:
    assert record_boundary(0x0310_0000 + 40, segment_size=1 << 20) == 0x0310_0000
    assert record_boundary(0x0310_0000 + 24, segment_size=SEGMENT) == 0x0310_0000


def test_a_page_is_asked_for_at_its_own_lsn_if_that_is_later() -> None:
    assert asked_lsn(0x0300_2018, 0x0300_1000, segment_size=SEGMENT) == Lsn(0x0300_2000)
    assert asked_lsn(0x0300_2018, 0x0300_2000, segment_size=SEGMENT) == Lsn(0x0300_2000)
    assert asked_lsn(0x0300_2018, 0x0300_2048, segment_size=SEGMENT) == Lsn(0x0300_2048)


def test_every_finding_leads_to_one_step() -> None:
    accepted = {Finding.SAME, Finding.NEVER_LOGGED}
    provable = {Finding.LSN, Finding.VISIBILITY}

    for finding, tries, is_refuted in itertools.product(Finding, range(1, TRIES_MAX + 1), (False, True)):
        step = decide(finding, tries=tries, is_refuted=is_refuted)
        if finding in accepted:
            assert step is Step.ACCEPT
        elif finding in provable and not is_refuted:
            assert step is Step.PROVE
        else:
            assert step is (Step.READ_AGAIN if tries < TRIES_MAX else Step.REPORT)


def test_there_is_a_pause_before_each_further_try() -> None:
    assert len(PAUSES_S) == TRIES_MAX - 1
