//! Headers of WAL pages.

use super::WalError;
use crate::Lsn;
use crate::reader::Reader;
use crate::version::Major;

/// Bytes of a WAL page (`XLOG_BLCKSZ`).
pub const PAGE_LEN: u64 = 8192;

/// The header at the start of every WAL page; the first page of a segment has the long form.
///
/// ```text
/// offset  0       2      4     8           16        20    24       32         36             40
///         | magic | info | tli | page addr | rem len | pad | sysid  | seg size | xlog blcksz |
///         `---------------- short, 24 bytes ---------------'------- long, 40 bytes ----------'
/// ```
///
/// Little-endian. Source: `XLogPageHeaderData` in `src/include/access/xlog_internal.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    /// The major version that writes this magic.
    pub major: Major,
    /// `XLP_*` flags.
    pub info: u16,
    /// Timeline of the page.
    pub tli: u32,
    /// Position of the page's first byte.
    pub page_addr: Lsn,
    /// Bytes of a record begun on an earlier page that are still to come, from this page on.
    pub rem_len: u32,
    /// The long form's fields.
    pub long: Option<LongFields>,
}

/// What only a long page header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongFields {
    /// The cluster's system identifier.
    pub system_id: u64,
    /// Bytes of a segment file.
    pub seg_size: u32,
    /// Bytes of a WAL page.
    pub block_size: u32,
}

const FIRST_IS_CONTRECORD: u16 = 0x0001;
const LONG_HEADER: u16 = 0x0002;
// 0x0004, BKP_REMOVABLE, says that no base backup runs; nothing here depends on it.
const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;
const ALL_FLAGS: u16 = 0x000F;

impl PageHeader {
    /// Length of the short form.
    pub const SHORT_LEN: usize = 24;
    /// Length of the long form.
    pub const LONG_LEN: usize = 40;

    /// Length of the header whose first bytes these are; `None` while they are too few to tell.
    pub fn len_of(bytes: &[u8]) -> Option<usize> {
        let mut r = Reader(bytes);
        r.skip(2)?;
        Some(if r.u16()? & LONG_HEADER == 0 { Self::SHORT_LEN } else { Self::LONG_LEN })
    }

    /// Length of the header of the page at `at`, in a stream whose segments are `seg_size` long.
    pub fn len_at(at: Lsn, seg_size: u64) -> u64 {
        if at.0 % seg_size == 0 { Self::LONG_LEN as u64 } else { Self::SHORT_LEN as u64 }
    }

    /// Reads the header of the page at `at`; checks the magic, the flags and the address.
    ///
    /// # Errors
    /// `Truncated`, `BadField` or `Mismatch`.
    ///
    /// Source: `XLogReaderValidatePageHeader` in `src/backend/access/transam/xlogreader.c`.
    pub fn decode(at: Lsn, bytes: &[u8]) -> Result<Self, WalError> {
        let truncated = WalError::Truncated { at, what: "page header" };
        let mut r = Reader(bytes);
        let magic = r.u16().ok_or(truncated.clone())?;
        let major = Major::from_wal_magic(magic).ok_or(WalError::BadField {
            at,
            field: "xlp_magic",
            value: magic.into(),
        })?;
        let info = r.u16().ok_or(truncated.clone())?;
        if info & !ALL_FLAGS != 0 {
            return Err(WalError::BadField { at, field: "xlp_info", value: info.into() });
        }
        let header = Self::read(r, major, info).ok_or(truncated)?;
        if header.page_addr != at {
            let (expected, found) = (at.0, header.page_addr.0);
            return Err(WalError::Mismatch { at, field: "xlp_pageaddr", expected, found });
        }
        Ok(header)
    }

    fn read(mut r: Reader<'_>, major: Major, info: u16) -> Option<Self> {
        let (tli, page_addr, rem_len) = (r.u32()?, Lsn(r.u64()?), r.u32()?);
        let long = if info & LONG_HEADER == 0 {
            None
        } else {
            r.skip(4)?;
            Some(LongFields { system_id: r.u64()?, seg_size: r.u32()?, block_size: r.u32()? })
        };
        Some(Self { major, info, tli, page_addr, rem_len, long })
    }

    /// Checks what the position in the stream demands: a long header at the start of a segment, and its fields.
    ///
    /// # Errors
    /// `BadField` or `Mismatch`.
    pub fn check(&self, seg_size: u64, system_id: Option<u64>) -> Result<(), WalError> {
        let at = self.page_addr;
        let Some(long) = self.long else {
            if at.0 % seg_size == 0 {
                return Err(WalError::BadField { at, field: "xlp_info", value: self.info.into() });
            }
            return Ok(());
        };
        let demands = [
            ("xlp_sysid", system_id.unwrap_or(long.system_id), long.system_id),
            ("xlp_seg_size", seg_size, long.seg_size.into()),
            ("xlp_xlog_blcksz", PAGE_LEN, long.block_size.into()),
        ];
        match demands.into_iter().find(|(_, expected, found)| expected != found) {
            Some((field, expected, found)) => Err(WalError::Mismatch { at, field, expected, found }),
            None => Ok(()),
        }
    }

    /// Length of the form that this header has.
    pub fn own_len(&self) -> usize {
        if self.long.is_some() { Self::LONG_LEN } else { Self::SHORT_LEN }
    }

    /// Whether the page starts with the rest of a record begun before it.
    pub fn is_continuation(&self) -> bool {
        self.info & FIRST_IS_CONTRECORD != 0
    }

    /// Whether the rest of a record that should be here was lost in a crash, and other records follow instead.
    pub fn overwrites_continuation(&self) -> bool {
        self.info & FIRST_IS_OVERWRITE_CONTRECORD != 0
    }
}
