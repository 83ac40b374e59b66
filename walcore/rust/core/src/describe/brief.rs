//! What every rendering of a record says of it.

use super::text::put;
use crate::rmgr;
use crate::wal::Record;

/// Bytes of a record's full-page images, as stored.
pub(super) fn fpi_len(record: &Record<'_>) -> u32 {
    record.blocks.iter().filter_map(|block| block.image.as_ref()).map(|image| image.bytes.len() as u32).sum()
}

/// Appends the name of a resource manager as `pg_waldump` prints it.
pub(super) fn rmgr_name(out: &mut Vec<u8>, rmid: u8) {
    match rmgr::RMGRS.get(usize::from(rmid)) {
        Some((_, name)) => put!(out; *name),
        None => put!(out; rmgr::name(rmid)),
    }
}
