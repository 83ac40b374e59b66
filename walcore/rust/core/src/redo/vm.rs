//! The visibility map: geometry, and the bits that heap records clear.

use crate::page::{BLCKSZ, HEADER_LEN};
use crate::reader::Reader;
use crate::rmgr;
use crate::wal::{BlockTag, Fork, Record, RelTag};

/// Heap blocks whose two bits fit on one page of the map.
pub const HEAPBLOCKS_PER_PAGE: u32 = (BLCKSZ - HEADER_LEN) as u32 * 4;
/// Both bits of a heap block: all-visible and all-frozen.
pub const VALID_BITS: u8 = 3;
/// The all-frozen bit.
pub const ALL_FROZEN: u8 = 2;

/// The map's page that holds the bits of a heap block.
pub fn page_of(rel: RelTag, heap_blkno: u32) -> BlockTag {
    BlockTag { rel, fork: Fork::Vm, blkno: heap_blkno / HEAPBLOCKS_PER_PAGE }
}

/// Bits of one heap block that a record clears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clear {
    /// The relation.
    pub rel: RelTag,
    /// Its block.
    pub heap_blkno: u32,
    /// Which of the two bits.
    pub bits: u8,
}

impl Clear {
    /// The map's page that changes.
    pub fn page(&self) -> BlockTag {
        page_of(self.rel, self.heap_blkno)
    }
}

const HEAP_INSERT: u8 = 0x00;
const HEAP_DELETE: u8 = 0x10;
const HEAP_UPDATE: u8 = 0x20;
const HEAP_HOT_UPDATE: u8 = 0x40;
const HEAP_LOCK: u8 = 0x60;
const HEAP2_MULTI_INSERT: u8 = 0x50;
const HEAP2_LOCK_UPDATED: u8 = 0x60;
/// First flag of every one of these records: the page (the old one, for an update) was all-visible, or all-frozen.
const CLEARED: u8 = 0x01;
/// Second flag of an update: so was the new tuple's page.
const NEW_CLEARED: u8 = 0x02;

/// The bits that a heap record clears on pages of the map that it does not register. At most two.
///
/// Before 17.11 and 18.5 no record registers them. Since then a record that has the flag but no reference to the map
/// found the bits clear already: clearing them again is what Postgres does, and harmless.
///
/// `None` if the record is too short to tell.
///
/// Source: `heap_xlog_vm_clear` and `heap_xlog_update` in `src/backend/access/heap/heapam_xlog.c` (18).
pub fn unregistered_clears(record: &Record<'_>) -> Option<[Option<Clear>; 2]> {
    let mut main = Reader(record.main_data);
    let op = record.header.rmgr_info() & 0x70;
    let (flags, bits) = match (record.header.rmid, op) {
        (rmgr::HEAP, HEAP_INSERT) => (main.skip(2).and_then(|()| main.u8())?, VALID_BITS),
        (rmgr::HEAP, HEAP_DELETE | HEAP_UPDATE | HEAP_HOT_UPDATE) => {
            (main.skip(7).and_then(|()| main.u8())?, VALID_BITS)
        }
        (rmgr::HEAP, HEAP_LOCK) | (rmgr::HEAP2, HEAP2_LOCK_UPDATED) => {
            (main.skip(7).and_then(|()| main.u8())?, ALL_FROZEN)
        }
        (rmgr::HEAP2, HEAP2_MULTI_INSERT) => (main.u8()?, VALID_BITS),
        _ => return Some([None, None]),
    };
    let is_update = record.header.rmid == rmgr::HEAP && matches!(op, HEAP_UPDATE | HEAP_HOT_UPDATE);
    let (old, new) = (flags & CLEARED != 0, is_update && flags & NEW_CLEARED != 0);
    if !old && !new || record.blocks.iter().any(|b| b.tag.fork == Fork::Vm) {
        return Some([None, None]);
    }
    let new_block = record.block(0)?.tag;
    let old_block = record.block(1).filter(|_| is_update).map_or(new_block, |b| b.tag);
    let clear = |tag: BlockTag| Clear { rel: tag.rel, heap_blkno: tag.blkno, bits };
    Some([old.then(|| clear(old_block)), new.then(|| clear(new_block))])
}
