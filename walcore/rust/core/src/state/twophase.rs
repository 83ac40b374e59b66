//! Prepared transactions.

use crate::reader::Reader;
use crate::wal::Record;

/// `XLOG_XACT_PREPARE`.
const PREPARE: u8 = 0x10;
const OP_MASK: u8 = 0x70;
const HEADER_LEN: usize = 72;
const ALIGN: usize = 8;

/// What of a prepare record concerns other state than the transaction's own.
///
/// Source: `xl_xact_prepare` in `src/include/access/xact.h`, `ParsePrepareRecord` in
/// `src/backend/access/rmgrdesc/xactdesc.c`.
#[derive(Clone, Copy, Debug)]
pub struct Prepare<'a> {
    /// The transaction.
    pub xid: u32,
    /// Its position on its origin; 0 if it has none.
    pub origin_lsn: u64,
    subxids: &'a [u8],
}

impl<'a> Prepare<'a> {
    /// Reads a record of the transaction manager. `Some(None)` if it prepares nothing, `None` if it is too short.
    pub fn decode(record: &Record<'a>) -> Option<Option<Self>> {
        if record.header.rmgr_info() & OP_MASK != PREPARE {
            return Some(None);
        }
        let data = record.main_data;
        let field = |at: usize| Reader(data.get(at..)?).u32();
        let (xid, subxids) = (field(8)?, field(28)? as usize);
        let gid_len = Reader(data.get(54..)?).u16()?;
        let origin_lsn = Reader(data.get(56..)?).u64()?;
        let subxids_at = HEADER_LEN + usize::from(gid_len).next_multiple_of(ALIGN);
        let subxids = data.get(subxids_at..)?.get(..subxids.checked_mul(4)?)?;
        Some(Some(Self { xid, origin_lsn, subxids }))
    }

    /// Its subtransactions.
    pub fn subxids(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.subxids.chunks_exact(4).filter_map(|xid| Reader(xid).u32())
    }
}

/// The file below `pg_twophase` that a prepare record stands for: its data, and the checksum of them.
///
/// Source: `RecreateTwoPhaseFile` in `src/backend/access/transam/twophase.c`.
pub fn state_file(record: &Record<'_>) -> Vec<u8> {
    let mut file = record.main_data.to_vec();
    file.extend(crc32c::crc32c(record.main_data).to_le_bytes());
    file
}
