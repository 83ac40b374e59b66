"""Records that the workloads of `make oracle` do not write, or hardly: each provoked, and redone."""

from pathlib import Path

import pytest

from tests.oracle import rare

PROVOKED = {
    ("XLOG", "SWITCH"),
    ("XLOG", "BACKUP_END"),
    ("XLOG", "PARAMETER_CHANGE"),
    ("XLOG", "RESTORE_POINT"),
    ("XLOG", "FPW_CHANGE"),
    ("XLOG", "END_OF_RECOVERY"),
    ("XLOG", "OVERWRITE_CONTRECORD"),
    ("CLOG", "TRUNCATE"),
    ("Tablespace", "DROP"),
    ("MultiXact", "ZERO_OFF_PAGE"),
    ("MultiXact", "TRUNCATE_ID"),
    ("Heap2", "REWRITE"),
    ("Btree", "REUSE_PAGE"),
    ("Gist", "PAGE_REUSE"),
    ("Gist", "ASSIGN_LSN"),
    ("CommitTs", "ZEROPAGE"),
    ("CommitTs", "TRUNCATE"),
    ("ReplicationOrigin", "SET"),
    ("ReplicationOrigin", "DROP"),
}
COMPARED = {
    ("XLOG", "FPI_FOR_HINT"),
    ("Heap2", "LOCK_UPDATED"),
    ("Heap", "HEAP_CONFIRM"),
    ("Hash", "MOVE_PAGE_CONTENTS"),
    ("Hash", "VACUUM_ONE_PAGE"),
    ("Gin", "DELETE_PAGE"),
    ("Gist", "DELETE"),
    ("Gist", "PAGE_DELETE"),
    ("SPGist", "VACUUM_ROOT"),
}


@pytest.mark.slow
def test_records_that_no_workload_writes_are_redone(folder: Path, bindir: Path) -> None:
    finding = rare.run(folder, bindir)

    assert finding.differences == []
    assert (finding.different, finding.unsupported) == (0, 0)
    figures = {(rmgr, record): row for rmgr, rows in finding.counts.items() for record, row in rows.items()}
    assert PROVOKED - set(figures) == set()
    assert {kind for kind in COMPARED if not figures.get(kind, [0, 0])[1]} == set()
