"""The contract of the native module; one section a file of `walcore/rust/binding/src`.

LSNs cross as plain integers; bytes as `bytes`. Every call that works through bytes runs without the GIL.
"""

from typing import Any, Final, final

__version__: Final[str]

# --- lib.rs -----------------------------------------------------------------------------------------------

def crc32c(data: bytes, before: int = 0) -> int:
    """CRC-32C (Castagnoli) of `data`, going on from the checksum of what came before it."""

# --- wal.rs -----------------------------------------------------------------------------------------------

@final
class WalScanner:
    """Follows a stream of WAL, checks every record, and says where the last whole one ends.

    Args:
        start_lsn: where the first byte fed stands. A record start, or a WAL page boundary; at a page boundary the rest
            of a record that began before it is skipped.
        segment_size: bytes of a segment file.
        system_id: what long page headers must say; 0 accepts the first one seen.
        prev_lsn: start of the record before `start_lsn`, checked against the first record's `xl_prev`; 0 if not known.
        major: the only major version to accept; 0 accepts the first one seen.
        events: keep them for `take_events`; without, they are checked and forgotten.
    Raises:
        ValueError: no record can start at `start_lsn`, or an argument is impossible.
    """

    def __new__(
        cls,
        start_lsn: int,
        *,
        segment_size: int,
        system_id: int = 0,
        prev_lsn: int = 0,
        major: int = 0,
        events: bool = False,
    ) -> WalScanner: ...
    def feed(self, wal: bytes) -> None:
        """Take the next bytes of the stream.

        Raises:
            WalCorrupt: the first byte that is not the WAL it should be; positions stay at the last good record and the
                scanner takes no more.
        """
    def feed_to_end(self, wal: bytes) -> str | None:
        """As `feed`, for WAL read from files: damage is the end of WAL and comes back as the reason, not raised."""
    @property
    def received_lsn(self) -> int:
        """End of what was fed."""
    @property
    def record_end_lsn(self) -> int:
        """End of the last whole, CRC-checked record; `start_lsn` before the first."""
    @property
    def last_record_lsn(self) -> int:
        """Start of that record; 0 before the first."""
    @property
    def major(self) -> int:
        """Major version of Postgres by the page magic, or as given; 0 until a page header was seen."""
    @property
    def system_id(self) -> int:
        """From the last long page header, or as given."""
    @property
    def tli(self) -> int:
        """Postgres timeline of the last page header seen; 0 until one was."""
    def take_counts(self) -> dict[str, int]:
        """Since the last call: `records`, `commits`, `record_bytes` (images included), `fpi_count`, `fpi_bytes`."""
    def take_events(self) -> list[dict[str, Any]]:
        """Since the last call: the records that change the state of the server, decoded in full.

        Each has `lsn` (start), `end_lsn`, `kind` and the fields of that kind: `fpw_change` (`full_page_writes`),
        `checkpoint` (`redo_lsn`, `tli`, `prev_tli`, `full_page_writes`, `next_xid`, …, `online`),
        `parameter_change` (`wal_level`, `wal_log_hints`, …), `end_of_recovery` (`tli`, `prev_tli`), `switch`,
        `overwrite_contrecord` (`overwritten_lsn`), `backup_end` (`start_lsn`).
        """

# --- inspect.rs -------------------------------------------------------------------------------------------

def rmgr_names() -> list[str]:
    """Names of the built-in resource managers, as pg_waldump prints them; a name's place is its number."""

def record_types(major: int) -> list[tuple[str, str]]:
    """Resource manager and name of every kind of record that ``major`` has, in order of their numbers.

    Raises:
        ValueError: no supported major.
    """

@final
class WalInspector:
    """Reads WAL for people: checks all of it, and renders or counts the records asked for.

    Args:
        start_lsn: where the first byte fed stands: a WAL page boundary.
        system_id: what long page headers must say; 0 accepts the first one seen.
        rmgrs: numbers of resource managers; None: all.
        xid: transaction.
        relation: tablespace, database, relfilenode; with `fork` and `block` asked of one and the same block reference.
        fork: fork number.
        full_page: only records with a full-page image.
        from_lsn: records that start before it are not asked for.
        until_lsn: records that do not end by it (padding excluded) are not asked for; nothing behind it is looked at.
        limit: how many records at most.
        zone: the reader's time zone, ascending: from this second since 1970 on, seconds east of UTC, abbreviation.
    Raises:
        ValueError: an argument is impossible.
    """

    def __new__(
        cls,
        start_lsn: int,
        *,
        segment_size: int,
        system_id: int = 0,
        rmgrs: list[int] | None = None,
        xid: int | None = None,
        relation: tuple[int, int, int] | None = None,
        fork: int | None = None,
        block: int | None = None,
        full_page: bool = False,
        from_lsn: int = 0,
        until_lsn: int | None = None,
        limit: int | None = None,
        zone: list[tuple[int, int, str]] = [],
    ) -> WalInspector: ...
    def json(self, wal: bytes, *, last: bool = False) -> bytes:
        """Take the next bytes; one line of JSON for each record asked for that they complete.

        Never raises for what is in the WAL: see `stopped`. `last`: nothing follows these bytes.
        """
    def waldump(self, wal: bytes, *, last: bool = False, block_details: bool = False) -> bytes:
        """As `json`, in the text that pg_waldump of the WAL's major prints, or prints with --bkp-details."""
    def images(
        self, wal: bytes, *, last: bool = False
    ) -> list[tuple[int, tuple[int, int, int], str, int, bytes]]:
        """As `json`; their full-page images: LSN, (tablespace, database, relfilenode), fork name, block, page."""
    def count(self, wal: bytes, *, last: bool = False) -> None:
        """Take the next bytes and add the records asked for to `stats`."""
    def stats(self) -> list[tuple[str, str, int, int, int]]:
        """For each kind of record counted, by number: rmgr, record, count, bytes without images, bytes of images."""
    @property
    def stopped(self) -> str | None:
        """Why nothing more is read: what follows `record_end_lsn` is not WAL. None while all is well."""
    @property
    def done(self) -> bool:
        """Nothing that may follow is asked for."""
    @property
    def shown(self) -> int:
        """How many records were rendered or counted."""
    @property
    def first_shown_lsn(self) -> int:
        """Start of the first of them; 0 if there was none."""
    @property
    def last_shown_end_lsn(self) -> int:
        """End of the last of them; 0 if there was none."""
    @property
    def received_lsn(self) -> int:
        """End of what was fed; where damage was noticed once stopped."""
    @property
    def record_end_lsn(self) -> int: ...
    @property
    def last_record_lsn(self) -> int: ...
    @property
    def major(self) -> int: ...
    @property
    def system_id(self) -> int: ...
    @property
    def tli(self) -> int: ...

@final
class WalDump:
    """Reads segments as pg_waldump does, in parallel: text, totals or page images of the records asked for.

    Which records: as `WalInspector`. Each must follow the one before it: a damaged or stale one ends the reading.

    Args:
        start_lsn: the first record that starts here or behind it is the first one read.
        until_lsn: as for `WalInspector`.
        limit: how many records at most; then they are read one span after the other.
        text: write each record as pg_waldump of its major does; `block_details` as with --bkp-details.
        totals: add up records by kind.
        images: keep full-page images until `images` is called.
    Raises:
        ValueError: an argument is impossible.
    """

    def __new__(
        cls,
        start_lsn: int,
        *,
        segment_size: int,
        until_lsn: int | None = None,
        limit: int | None = None,
        rmgrs: list[int] | None = None,
        xid: int | None = None,
        relation: tuple[int, int, int] | None = None,
        fork: int | None = None,
        block: int | None = None,
        full_page: bool = False,
        text: bool = False,
        block_details: bool = False,
        totals: bool = False,
        images: bool = False,
        zone: list[tuple[int, int, str]] = [],
    ) -> WalDump: ...
    def read(
        self, start_lsn: int, segments: list[str | bytes], *, length: int, to_stdout: bool = False
    ) -> bytes:
        """Read on for about ``length`` bytes, or to the end of what is there, on all cores.

        Args:
            start_lsn: start of the first segment, which holds `next_lsn`.
            segments: paths of plain files, or the bytes of segments; each follows the one before.
            to_stdout: write text to the process's standard output rather than return it.
        Raises:
            OSError: a file cannot be opened, or the output not written.
        """
    def retry(self) -> None:
        """Forget why reading stopped: the bytes may have changed."""
    def totals(self) -> list[tuple[str, str, int, int, int]]:
        """As `WalInspector.stats`."""
    def images(self) -> list[tuple[int, tuple[int, int, int], str, int, bytes]]:
        """Those since the last call. As `WalInspector.images`."""
    @property
    def next_lsn(self) -> int:
        """Where the next record is looked for."""
    @property
    def first_lsn(self) -> int:
        """Start of the first record read, asked for or not; 0 before."""
    @property
    def last_lsn(self) -> int:
        """Start of the last record read, asked for or not; 0 before."""
    @property
    def shown(self) -> int: ...
    @property
    def shown_start_lsn(self) -> int:
        """Start of the first record asked for; 0 before."""
    @property
    def shown_end_lsn(self) -> int: ...
    @property
    def stopped(self) -> str | None:
        """Why the record at `next_lsn` is none. None while all is well, and where WAL merely ends."""
    @property
    def done(self) -> bool: ...

# --- explain.rs -------------------------------------------------------------------------------------------

def record_kinds(major: int) -> list[str]:
    """Names of the records of a major; a name's place is 16 times the resource manager's number plus `xl_info >> 4`.

    Raises:
        ValueError: no such major.
    """

@final
class WalColumns:
    """Gathers records as columns in Arrow's memory layout: little-endian; truth and validity as bits, lowest first."""

    def __new__(cls) -> WalColumns: ...
    def feed(self, inspector: WalInspector, wal: bytes, *, last: bool = False) -> None:
        """Give the inspector the next bytes, and keep the records it passes on."""
    def __len__(self) -> int:
        """Records held."""
    @property
    def is_full(self) -> bool:
        """Enough for a batch: 65536 records or 32 MB."""
    def take(self) -> dict[str, Any]:
        """All that is held; nothing is then.

        `len` and `blocks_len` (rows), `records` and `blocks` (bytes by the name of the column), `relations`
        (tablespace, database, relfilenode; the column `relation` of blocks has places in it). Columns named
        `…_ends` are 32-bit offsets without the first, 0. `kind` is a place in `record_kinds`. Numbers stand for what
        has a name: `rmgr`, `fork`, `compression` (none, pglz, lz4, zstd). `time` is microseconds since 1970.
        """

@final
class WalUsage:
    """Adds up what fills the WAL.

    Args:
        pack: try on images what each method of `wal_compression` makes of them: on the first 16384, on every second
            of twice as many, and so on.
    """

    def __new__(cls, *, pack: bool) -> WalUsage: ...
    def feed(self, inspector: WalInspector, wal: bytes, *, last: bool = False) -> None:
        """Give the inspector the next bytes, and add up the records it passes on."""
    def volumes(self) -> list[tuple[tuple[int, int, int] | None, str, int, int, int, int]]:
        """Relation (None: none), resource manager, records, bytes without images, images, bytes of images.

        An image counts for its own relation, the rest of a record for that of its first block reference.
        """
    def images(self) -> list[tuple[str, int, int, int]]:
        """Why images are there (full_page_writes, forced, wal_consistency_checking), how many, bytes, header bytes."""
    def data_instead(self) -> int:
        """An estimate: bytes of data that would be logged without the images for full_page_writes."""
    def packed(self) -> tuple[int, float, list[tuple[str, float]]]:
        """Images packed, bytes stored of the images that these stand for, and by method what they would take."""

@final
class WalTransactions:
    """Follows transactions to their ends; holds those that have not ended."""

    def __new__(cls) -> WalTransactions: ...
    def feed(self, inspector: WalInspector, wal: bytes, *, last: bool = False) -> list[dict[str, Any]]:
        """Give the inspector the next bytes; the transactions that ended in them.

        Each has `xid`, `state` (committed, aborted, lost in a crash), `time_us` (since 2000-01-01, or None),
        `first_lsn`, `end_lsn`, `records`, `bytes`, `image_bytes`, `subxids`, and `changes` by relation: (tablespace,
        database, relfilenode), records, bytes, bytes of images, heap tuples inserted, updated, deleted.
        """
    def unfinished(self) -> list[dict[str, Any]]:
        """Those that have not ended: in progress, or prepared."""

def page_history(
    inspector: WalInspector, wal: bytes, page: tuple[int, int, int, int, int], *, last: bool = False
) -> list[tuple[str, bytes]]:
    """Give the inspector the next bytes; the records among those it passes on that touch a page.

    Args:
        page: tablespace, database, relfilenode, fork number, block.
    Returns:
        What each did (image, init, change, implied, reference, create, truncate, drop, copy), and its line of JSON.
    """

# --- redo.rs ----------------------------------------------------------------------------------------------

def redo_page(
    page: bytes | None,
    records: list[tuple[int, int, bytes]],
    key: tuple[int, int, int, int, int],
    *,
    major: int,
    hint_bits_logged: bool,
) -> bytes:
    """Apply records, oldest first, to one page.

    Args:
        page: 8192 bytes, or None for a page that does not exist yet.
        records: (start_lsn, end_lsn, bytes of the whole record).
        key: tablespace, database, relfilenode, fork number, block.
        hint_bits_logged: data checksums or wal_log_hints are on.
    Raises:
        RedoFailed: names rmgr, record and LSN.
        PageUnreadable: an rmgr without redo here touched the page.
    """

def mask_page(page: bytes, *, access_method: str, blkno: int) -> bytes:
    """Zero what WAL does not decide, as Postgres' own mask functions do.

    Args:
        access_method: heap, btree, hash, gin, gist, spgist, brin, sequence, generic, vm.
        blkno: block number within the fork.
    """

# --- check.rs ---------------------------------------------------------------------------------------------

@final
class WalChecker:
    """Redoes WAL on pages it keeps, and compares each with the image that Postgres put into the record.

    The WAL must be written with `wal_consistency_checking = all`. Pages begin with their first image.

    Args:
        start_lsn: where the first byte fed stands, as for `WalScanner`.
        segment_size: bytes of a segment file.
    """

    def __new__(cls, start_lsn: int, *, segment_size: int) -> WalChecker: ...
    def feed_to_end(self, wal: bytes) -> str | None:
        """Take the next bytes; damage is the end of WAL and comes back as the reason."""
    @property
    def record_end_lsn(self) -> int:
        """End of the last whole record."""
    @property
    def major(self) -> int:
        """Major version of Postgres by the page magic; 0 until a page header was seen."""
    def counts(self) -> list[dict[str, Any]]:
        """By record type: `rmgr`, `record`, `seen`, `compared`, `different`, `unsupported` (no redo)."""
    def differences(self) -> list[dict[str, Any]]:
        """The first of each record type that has one: `lsn`, `rmgr`, `record`, `page` (or None), `what`."""

# --- layer.rs ---------------------------------------------------------------------------------------------

@final
class Ingest:
    """The write side of a timeline: scans WAL and indexes it, per page, into an open layer.

    Bytes of records are not copied: the index points into the WAL's own segment files.

    Args:
        start_lsn: where to begin; a record start or a page boundary.
        state: what was known as of `start_lsn`, as `state()` or `BaseWriter.finish` gave it.
    Raises:
        ValueError: no record can start at `start_lsn`, or `major` or `segment_size` is none.
        LayerCorrupt: `state` is not what was given out.
    """

    def __new__(
        cls, start_lsn: int, *, segment_size: int, system_id: int, major: int, state: bytes
    ) -> Ingest: ...
    def feed(self, wal: bytes) -> None:
        """Index the next bytes of the stream.

        Raises:
            WalCorrupt: as `WalScanner.feed`. What came before the damage is indexed.
        """
    @property
    def received_lsn(self) -> int:
        """End of what was fed."""
    @property
    def ingested_lsn(self) -> int:
        """End of the last whole record that is indexed. Pages can be read at any LSN up to it."""
    @property
    def tli(self) -> int:
        """Postgres timeline of the last page header seen; 0 until one was."""
    @property
    def open_bytes(self) -> int:
        """Memory held by the open layer, roughly."""
    def take_counts(self) -> dict[str, int]:
        """As `WalScanner.take_counts`."""
    def take_events(self) -> list[dict[str, Any]]:
        """As `WalScanner.take_events`."""
    def open_layer(self) -> Layer:
        """A live view of the open layer, for `Reader`. `freeze` ends it: it grows no more then."""
    def freeze(self) -> Layer:
        """Close the open layer at `ingested_lsn`, begin a new one. The old one stays readable in memory."""
    def state(self) -> bytes:
        """Sizes, counters and settings as of `ingested_lsn`, to be kept beside the layers."""

@final
class Layer:
    """A sorted run over (key, LSN): in memory (open or frozen) or a file."""

    @staticmethod
    def open(path: str) -> Layer:
        """Map a layer file and check its header, index and footer; blocks are checked when they are read.

        The file must not be written to or truncated while it is mapped; it may be renamed or removed.

        Raises:
            LayerCorrupt: it is not what was written.
            OSError: it cannot be read.
        """
    @staticmethod
    def merge(layers: list[Layer], path: str) -> None:
        """Write all entries of some layer files, oldest first, as one new file, synced when it returns.

        Raises:
            LayerCorrupt: an input is damaged.
            ValueError: an input is not a file.
        """
    @property
    def start_lsn(self) -> int: ...
    @property
    def end_lsn(self) -> int:
        """The last LSN covered. Grows while the layer is open."""
    @property
    def entries(self) -> int: ...
    @property
    def system_id(self) -> int: ...
    def write(self, path: str) -> None:
        """Write to a new file, synced when it returns. The caller renames it and syncs the directory.

        Raises:
            FileExistsError: there is a file already.
            ValueError: the layer is a file.
        """
    def check(self) -> None:
        """Read all of a layer file. Raises LayerCorrupt."""

@final
class BaseWriter:
    """Builds the first layer, of page images, from the files of a base backup.

    Pages that are all zeros get no image: their fork's size says that they exist.

    Args:
        path: the layer file to write; there must be none.
        lsn: where redo starts: the images are taken to be as of then.
    """

    def __new__(cls, path: str, *, lsn: int, system_id: int) -> BaseWriter: ...
    def add_relation(self, spc: int, db: int, rel: int, fork: int, files: list[str]) -> int:
        """Add every page of one fork, its 1 GiB files in order; forks ascending by (spc, db, rel, fork).

        Returns the number of pages. A free space map is left out: 0.
        """
    def add_slru(self, kind: str, files: list[tuple[int, str]]) -> int:
        """Add pages of an SLRU, after all relations, each kind once.

        Args:
            kind: `pg_xact`, `pg_multixact/offsets`, `pg_multixact/members` or `pg_commit_ts`, in this order.
            files: (segment number, path), ascending.
        Returns:
            The number of pages.
        """
    def add_control(self, control_file: bytes, origins: list[tuple[int, int]], major: int) -> None:
        """Add counters and settings. Without them they are not followed, nor are commit timestamps.

        Args:
            control_file: `global/pg_control`, its checksum checked.
            origins: replication origins: (number, position on it).
        """
    def add_relation_map(self, spc: int, db: int, content: bytes) -> None:
        """Add a `pg_filenode.map`; the shared one is of tablespace 1664, database 0."""
    def add_database(self, spc: int, db: int) -> None:
        """Add a database's part in a tablespace."""
    def add_tablespace(self, spc: int, path: bytes) -> None:
        """Add a tablespace and where it is linked to; empty: in place."""
    def add_prepared(self, xid: int, state: bytes) -> None:
        """Add a file of `pg_twophase`, after `add_control`. Files of transactions that had ended do no harm."""
    def finish(self) -> bytes:
        """Sync the file and return the state for `Ingest`."""

@final
class Reader:
    """The read side of a timeline: layers newest last, and the WAL they point into.

    Cheap to make; make a new one when the set of layers changes. The last is usually `Ingest.open_layer()`.

    Args:
        wal_dir: directory of plain segment files, whole or `.partial`. While a Reader lives, a segment may be
            appended to, written into beyond `ingested_lsn`, renamed or removed, but never truncated.
        tli: Postgres timeline in the names of the segment files.
        hint_bits_logged: data checksums or wal_log_hints are on: (from_lsn, bool) steps, ascending.
    Raises:
        ValueError: there is a gap between layers, or they are of several clusters.
    """

    def __new__(
        cls,
        layers: list[Layer],
        *,
        wal_dir: str,
        tli: int,
        segment_size: int,
        major: int,
        hint_bits_logged: list[tuple[int, bool]],
    ) -> Reader: ...
    def pages(self, keys: list[tuple[int, int, int, int, int]], lsns: list[int]) -> list[bytes | Exception]:
        """Rebuild pages, on all cores.

        Args:
            keys: tablespace, database, relfilenode, fork number, block.
            lsns: one a key, or one for all. A page includes every record that ends at or before its LSN.
        Returns:
            One entry a key: the 8192 bytes, or the error that this page alone has: NoSuchRelation,
            NoSuchBlock, LsnNotCovered, PageUnreadable, LayerCorrupt.
        """
    def write_files(
        self, forks: list[tuple[int, int, int, int, str]], lsn: int, *, checksums: bool, sync: bool
    ) -> tuple[int, list[tuple[tuple[int, int, int, int, int], Exception]]]:
        """Write whole forks as of an LSN as files of a data directory, on all cores.

        Files are made or overwritten, and cut to what the fork has; those of later gigabytes are `path.1`, …

        Args:
            forks: tablespace, database, relfilenode, fork number, path of the first file.
            checksums: stamp the pages as a cluster with data checksums wants them on disk.
            sync: the files are durable when it returns; the entries of their folders are not.
        Returns:
            The number of pages, and those that could not be rebuilt, with the error: zeros stand in their place.
        Raises:
            NoSuchRelation, LsnNotCovered, LayerCorrupt: a fork cannot be read at all.
            OSError: a file cannot be written.
        """
    def size(self, spc: int, db: int, rel: int, fork: int, lsn: int) -> int | None:
        """Blocks of a fork at an LSN; None if it does not exist then. Raises LsnNotCovered."""
    def relations(self, lsn: int, *, db: int | None = None) -> list[tuple[int, int, int, int, int]]:
        """(spc, db, rel, fork, blocks) of every fork at an LSN, ascending. Raises LsnNotCovered."""
    def slru_page(self, kind: str, pageno: int, lsn: int) -> bytes | None:
        """One SLRU page at an LSN; None if it does not exist then.

        Args:
            kind: `pg_xact`, `pg_multixact/offsets`, `pg_multixact/members`, `pg_commit_ts`.
        Raises:
            LsnNotCovered, LayerCorrupt.
            PageUnreadable: also of `pg_commit_ts`, if ingest was not told the settings it began with.
        """
    def control(self, lsn: int) -> dict[str, Any]:
        """Counters, settings and origins at an LSN, as crash recovery that ends there has them.

        `checkpoint_lsn` (start of the last checkpoint record), `checkpoint` (what it says: `redo_lsn`, `next_xid`, …),
        `now` (the same fields here; `redo_lsn`, `time`, `oldest_active_xid` are the checkpoint's, `next_oid` is the
        first not yet set aside), `parameters` (as in `parameter_change` of `take_events`), `origins` (number:
        position).

        Raises:
            LsnNotCovered, LayerCorrupt.
            PageUnreadable: ingest was not told what it began with, or WAL is missing.
        """
    def relation_map(self, spc: int, db: int, lsn: int) -> bytes | None:
        """A `pg_filenode.map` at an LSN; None if there is none. Raises LsnNotCovered, LayerCorrupt."""
    def prepared(self, lsn: int) -> list[tuple[int, bytes]]:
        """Transactions prepared and not ended at an LSN: full id, state file. Raises as `slru_page`."""
    def databases(self, lsn: int) -> list[tuple[int, int]]:
        """(tablespace, database) of every database's part at an LSN. Raises LsnNotCovered, LayerCorrupt.

        Parts that were begun by a relation alone are only in `relations`.
        """
    def tablespaces(self, lsn: int) -> list[tuple[int, bytes]]:
        """Tablespaces at an LSN and where they are linked to; empty: in place. Raises LsnNotCovered, LayerCorrupt."""
    def chain(self, key: tuple[int, int, int, int, int], lsn: int) -> list[dict[str, Any]]:
        """What a read of this page would use, oldest first.

        Each has `lsn` (end of the record, or what the image is as of), `kind` (image, wal) and `bytes`; those
        of kind wal also `start_lsn`, `rmgr`, `will_init`, `has_image`.
        """
    def delta_counts(self, key: tuple[int, int, int, int, int]) -> tuple[int, int]:
        """Number and bytes of deltas since the page's last image, will-init record or base."""

# --- lane/ ------------------------------------------------------------------------------------------------

def judge_append(
    log_generation: int,
    log_term: int,
    elected_term: int,
    log_tli: int,
    write_lsn: int,
    room_end_lsn: int,
    generation: int,
    term: int,
    tli: int,
    start_lsn: int,
    wal_bytes: int,
    /,
) -> str:
    """What an acceptor does with an Append: the first six are of its log, the others of the message.

    Gives `take`, or why not: `generation`, `past`, `not elected`, `elsewhere`, `timeline`, `room`.
    Source: docs/quorum.md rules 1, 11, 17 and 18.
    """

def held_lsn(flush_lsns: list[int], majority: int, /) -> int:
    """The largest LSN that at least `majority` of these members have flushed; 0 if there are not so many."""

@final
class FollowLane:
    """An acceptor's steady state: takes Appends off a socket, writes and syncs their WAL, and answers.

    Descriptors are duplicated; the caller keeps its own, and does not read or write through them during `run`.
    Calls do not overlap.

    Args:
        event_loop: a descriptor that is readable when the caller has other work.
        socket: where the proposer speaks; must not block.
        begun: the bytes of a message that is not whole, read before.
        file, file_start_lsn: the segment file to write to, and the LSN of its first byte.
        scanner: has been fed up to `write_lsn`.
        version: of the protocol; messages of another are left to the caller.
        room_end_lsn: takes nothing that ends beyond.
        needs: an AppendReply after its positions.
    Raises:
        OSError: a descriptor is not open.
    """

    def __new__(
        cls,
        *,
        event_loop: int,
        socket: int,
        begun: bytes,
        file: int,
        file_start_lsn: int,
        scanner: WalScanner,
        version: int,
        generation: int,
        term: int,
        tli: int,
        write_lsn: int,
        flush_lsn: int,
        room_end_lsn: int,
        commit_lsn: int,
        needs: bytes,
    ) -> FollowLane: ...
    def run(self, timeout_s: float | None, wakes_at_commit: bool, /) -> bool:
        """Take what comes, without the GIL. All that was taken is durable and answered when it returns.

        Gives True when the event loop has work, the time is over, a sync was slow or, if asked for, a later commit LSN
        came; False when something comes that is not for it, or the answer does not fit the socket: `rest`, `unsent`.

        Raises:
            OSError: a write or sync failed. Nothing was answered since, and nothing must be.
        """
    def set_needs(self, needs: bytes, /) -> None: ...
    def rest(self) -> bytes:
        """What was read off the socket and not taken."""
    def unsent(self) -> bytes:
        """What the socket did not take."""
    @property
    def is_slow(self) -> bool:
        """The last sync took so long that it must not hold up the event loop again."""
    @property
    def damage(self) -> str | None:
        """Why the WAL that `rest` begins with is none; the scanner takes no more."""
    @property
    def heard(self) -> int:
        """Appends ever taken."""
    @property
    def positions(self) -> tuple[int, int, int, int, int]:
        """End of the log; of its whole records, which are durable; start of the last that was taken, 0 if none was;
        commit LSN and horizon as last told."""

@final
class LeadLane:
    """A proposer's steady state: the primary's WAL goes to the peers and into the log; what a majority has flushed is
    committed, and the primary told.

    Descriptors are duplicated; the caller keeps its own, and does not read or write through them. Streams are numbered:
    0 is the primary's, then come the peers'. Calls do not overlap.

    Args:
        event_loop: a descriptor that is readable when the caller has other work.
        primary, begun: the primary's socket, which must not block, and the bytes of a message read before.
        peers: socket, bytes begun, whether it votes; next, write, flush LSN and the commit LSN that it was told.
        file, file_start_lsn: the segment file to write to, and the LSN of its first byte.
        before: descriptor and first LSN of the segment before, for peers that still lack some of it.
        scanner: has been fed up to `write_lsn`.
        room_end_lsn: takes nothing that ends beyond.
        term_start_lsn: commits nothing below.
        reported_lsn: what the primary was told last.
        majority: of the voters: the caller, `peers` that vote, and those that hold `others`.
        others: what the voters that are not here have flushed.
        window_bytes: of WAL under way to a peer.
        commit_delay_s: after so long peers are told of a commit that no WAL carries.
    Raises:
        OSError: a descriptor is not open.
    """

    def __new__(
        cls,
        *,
        event_loop: int,
        primary: int,
        begun: bytes,
        peers: list[tuple[int, bytes, bool, int, int, int, int]],
        file: int,
        file_start_lsn: int,
        before: tuple[int, int] | None,
        scanner: WalScanner,
        version: int,
        generation: int,
        term: int,
        tli: int,
        write_lsn: int,
        flush_lsn: int,
        room_end_lsn: int,
        term_start_lsn: int,
        commit_lsn: int,
        horizon_lsn: int,
        reported_lsn: int,
        primary_end_lsn: int,
        majority: int,
        others: list[int],
        window_bytes: int,
        commit_delay_s: float,
    ) -> LeadLane: ...
    def run(self, timeout_s: float | None, wakes_at_commit: bool, /) -> bool:
        """Go on, without the GIL. All that was taken is durable here and counted when it returns.

        Gives True when the event loop has work, the time is over, a sync was slow or, if asked for, the commit LSN
        moved; False when something comes that is not for it: `rest` of that stream begins with it.

        Raises:
            OSError: a write or sync failed. Nothing was counted since, and nothing must be.
        """
    def set_known(self, horizon_lsn: int, commit_lsn: int, reported_lsn: int, others: list[int], /) -> None:
        """What was counted, reported and heard elsewhere since. Neither LSN goes back by it."""
    def send(self, stream: int, payload: bytes, /) -> None:
        """Send a CopyData, after all that waits already."""
    def rest(self, stream: int, /) -> bytes:
        """What was read off that socket and not taken."""
    def unsent(self, stream: int, /) -> bytes:
        """What that socket did not take yet."""
    def peers(self) -> list[tuple[int, int, int, int, float | None, float | None, bytes | None]]:
        """Of each peer: next, write, flush LSN, told commit LSN; seconds since something was heard, and sent, None if
        not since the last call; and what its replies end with (`reply_needs`), if that is new."""
    @property
    def has_room(self) -> bool:
        """A majority follows closely enough to take more of the primary."""
    @property
    def is_slow(self) -> bool:
        """The last sync took so long that it must not hold up the event loop again."""
    @property
    def damage(self) -> str | None:
        """Why the WAL that `rest` of the primary begins with is none; the scanner takes no more."""
    @property
    def appends(self) -> int:
        """Appends ever made of the primary's WAL."""
    @property
    def positions(self) -> tuple[int, int, int, int]:
        """End of the log; of its whole records, which are durable here; start of the last that was taken, 0 if none
        was; commit LSN."""
    @property
    def primary(self) -> tuple[int, int, int]:
        """End of what the primary has; messages ever taken of it; what it was told last is committed."""
