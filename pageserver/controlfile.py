"""The control file of a Postgres cluster, as a base backup carries it."""

import struct
from dataclasses import dataclass

from pageserver.errors import BootstrapFailed
from walcore._native import crc32c
from walproxy.wire.lsn import Lsn

# pg_control_version -> offset of the checksum. 15 and 16 share a version number and a layout.
_CRC_AT = {1300: 288, 1700: 288, 1800: 292}
# catalog_version_no -> major; the control file does not tell 15 from 16 otherwise.
_MAJORS = {202209061: 15, 202307071: 16, 202406281: 17, 202506291: 18}
_BLOCK_BYTES = 8192
_SEGMENT_MIN, _SEGMENT_MAX = 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class ControlFile:
    """What of ``pg_control`` the pageserver goes by."""

    system_id: int
    major: int
    catalog_version: int
    checkpoint_lsn: Lsn
    redo_lsn: Lsn
    tli: int
    full_page_writes: bool
    wal_level: int
    wal_log_hints: bool
    data_checksums: bool
    segment_size: int

    @property
    def hint_bits_logged(self) -> bool:
        """Whether setting a hint bit may write WAL, so that visibility-map changes carry an LSN."""
        return self.data_checksums or self.wal_log_hints


def parse_control_file(data: bytes) -> ControlFile:
    """Read ``global/pg_control``.

    Raises:
        BootstrapFailed: cut short, damaged, of a major we do not know, or built with other constants.

    Source:
        ``ControlFileData`` in ``src/include/catalog/pg_control.h``, 15 to 18.
    """
    if len(data) < 296:
        raise BootstrapFailed("control file is cut short", bytes=len(data))
    system_id, control_version, catalog_version = struct.unpack_from("<QII", data, 0)
    crc_at = _CRC_AT.get(control_version)
    major = _MAJORS.get(catalog_version)
    if crc_at is None or major is None:
        raise BootstrapFailed(
            "not a control file of PostgreSQL 15 to 18",
            control_version=control_version,
            catalog_version=catalog_version,
        )
    (stored,) = struct.unpack_from("<I", data, crc_at)
    if (found := crc32c(data[:crc_at])) != stored:
        raise BootstrapFailed("control file is damaged", stored_crc=f"{stored:08x}", found_crc=f"{found:08x}")
    (checkpoint_lsn,) = struct.unpack_from("<Q", data, 32)
    redo_lsn, tli, _prev_tli, full_page_writes = struct.unpack_from("<QIIB", data, 40)
    wal_level, wal_log_hints = struct.unpack_from("<IB", data, 172)
    blcksz, relseg_size, xlog_blcksz, segment_size = struct.unpack_from("<IIII", data, 216)
    (data_checksum_version,) = struct.unpack_from("<I", data, 252)
    if (blcksz, relseg_size, xlog_blcksz) != (_BLOCK_BYTES, 131072, _BLOCK_BYTES):
        raise BootstrapFailed(
            "the cluster was built with other block sizes than PostgreSQL's defaults",
            blcksz=blcksz,
            relseg_size=relseg_size,
            xlog_blcksz=xlog_blcksz,
        )
    if not _SEGMENT_MIN <= segment_size <= _SEGMENT_MAX or segment_size & (segment_size - 1):
        raise BootstrapFailed("control file names an impossible wal segment size", segment_size=segment_size)
    return ControlFile(
        system_id=system_id,
        major=major,
        catalog_version=catalog_version,
        checkpoint_lsn=Lsn(checkpoint_lsn),
        redo_lsn=Lsn(redo_lsn),
        tli=tli,
        full_page_writes=bool(full_page_writes),
        wal_level=wal_level,
        wal_log_hints=bool(wal_log_hints),
        data_checksums=data_checksum_version != 0,
        segment_size=segment_size,
    )
