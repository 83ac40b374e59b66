//! Redo of sequences.

use super::{Effect, On, Redone};
use crate::page::{BLCKSZ, PageBuf};

/// `SEQ_MAGIC`, in the special space.
const MAGIC: u32 = 0x1717;
const LOG: u8 = 0x00;
/// The relation, before the tuple.
const REL_LEN: usize = 12;

/// Every record carries the whole tuple.
///
/// Source: `seq_redo` in `src/backend/commands/sequence.c`.
pub(super) fn redo(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    if on.record.header.rmgr_info() != LOG {
        return Err(super::NO_SUCH_RECORD);
    }
    let tuple = on.record.main_data.get(REL_LEN..).ok_or(super::DATA_SHORT)?;
    page.init(size_of::<u32>());
    page.put(BLCKSZ - 8, &MAGIC.to_le_bytes())?;
    page.insert_item(tuple, 1)?;
    Ok(Effect::Changed)
}
