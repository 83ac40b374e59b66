"""The coverage table does not pass over a record type in silence."""

from dataclasses import replace

import pytest

from tests.oracle import coverage
from tests.oracle.finding import Finding, load


def without(findings: list[Finding], rmgr: str, record: str, *, figures: list[int] | None) -> list[Finding]:
    """The same findings, with one record type unseen, or with other figures."""
    changed = []
    for found in findings:
        kept = {name: figures for name, figures in found.counts.get(rmgr, {}).items() if name != record}
        if figures is not None:
            kept[record] = figures
        changed.append(replace(found, counts={**found.counts, rmgr: kept}))
    return changed


def test_every_record_type_is_in_the_table_with_a_comparison_or_a_reason() -> None:
    table = coverage.page(list(load()))

    assert table == coverage.PAGE.read_text()
    assert "different 0" not in table
    for rmgr, record in (("Btree", "SPLIT_R"), ("XLOG", "CHECKPOINT_REDO"), ("Heap2", "PRUNE_ON_ACCESS")):
        assert f"| {rmgr} | {record} |" in table


def test_a_record_type_that_nothing_wrote_is_refused() -> None:
    findings = without(list(load()), "Btree", "SPLIT_R", figures=None)

    with pytest.raises(coverage.Unexplained, match="Btree/SPLIT_R was not seen"):
        coverage.page(findings)


def test_a_record_type_that_was_never_compared_is_refused() -> None:
    findings = without(list(load()), "Btree", "SPLIT_R", figures=[1, 0, 0, 0])

    with pytest.raises(coverage.Unexplained, match="Btree/SPLIT_R was seen and never compared"):
        coverage.page(findings)


def test_a_difference_stands_in_the_table() -> None:
    findings = without(list(load()), "Btree", "SPLIT_R", figures=[1, 1, 1, 0])

    assert "**different" in coverage.page(findings)
