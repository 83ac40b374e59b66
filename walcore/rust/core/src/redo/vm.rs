//! The visibility map: geometry, and the bits that heap records clear.

use super::touch::sets_vm;
use super::{Effect, On, Redone};
use crate::page::{BLCKSZ, HEADER_LEN, Misfit, PageBuf};
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

/// The bits that a heap record says it clears: of the old tuple's block, and of the new one's for an update.
///
/// `None` if the record is too short to tell.
fn flagged_clears(record: &Record<'_>) -> Option<[Option<Clear>; 2]> {
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
    if !old && !new {
        return Some([None, None]);
    }
    let new_block = record.block(0)?.tag;
    let old_block = record.block(1).filter(|_| is_update).map_or(new_block, |b| b.tag);
    let clear = |tag: BlockTag| Clear { rel: tag.rel, heap_blkno: tag.blkno, bits };
    Some([old.then(|| clear(old_block)), new.then(|| clear(new_block))])
}

/// The bits that a heap record clears on pages of the map that it does not register. At most two.
///
/// Before 17.11 and 18.5 no record registers them. Since then a record that has the flag but no reference to the map
/// found the bits clear already: clearing them again is what Postgres does, and harmless.
///
/// `None` if the record is too short to tell.
///
/// Source: `heap_xlog_vm_clear` and `heap_xlog_update` in `src/backend/access/heap/heapam_xlog.c` (18).
pub fn unregistered_clears(record: &Record<'_>) -> Option<[Option<Clear>; 2]> {
    let clears = flagged_clears(record)?;
    let is_registered = record.blocks.iter().any(|b| b.tag.fork == Fork::Vm);
    Some(if is_registered { [None, None] } else { clears })
}

/// Where the bits of a heap block are on its page of the map: byte of the page, shift within it.
fn place_of(heap_blkno: u32) -> (usize, u32) {
    let index = heap_blkno % HEAPBLOCKS_PER_PAGE;
    (HEADER_LEN + (index / 4) as usize, index % 4 * 2)
}

/// Clears bits; says whether any was set.
fn clear(page: &mut PageBuf, heap_blkno: u32, bits: u8) -> bool {
    let (at, shift) = place_of(heap_blkno);
    page.bytes_mut().get_mut(at).is_some_and(|byte| {
        let was_set = *byte & bits << shift != 0;
        *byte &= !(bits << shift);
        was_set
    })
}

/// Applies a heap record to a page of the map that it registered.
pub(super) fn redo(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    if sets_vm(on.record, on.block.id) {
        return set(page, on);
    }
    let mut any = false;
    for change in registered_clears(on).ok_or("record is too short")?.into_iter().flatten() {
        if change.page() == on.block.tag {
            any |= clear(page, change.heap_blkno, change.bits);
        }
    }
    Ok(if any { Effect::Changed } else { Effect::LsnKept })
}

/// The bits that a heap record clears on the page of the map that it registers as this block.
///
/// An update that registers the new block's page of the map clears the old block's bits there too, if they are on it;
/// the old block's page, registered apart, has only the old block's.
fn registered_clears(on: &On<'_, '_>) -> Option<[Option<Clear>; 2]> {
    const UPDATE_VM_OLD: u8 = 3;
    let [old, new] = flagged_clears(on.record)?;
    Some([old, new.filter(|_| on.block.id != UPDATE_VM_OLD)])
}

fn set(page: &mut PageBuf, on: &On<'_, '_>) -> Redone {
    let flags = *on.record.main_data.get(4).ok_or("record is too short")? & VALID_BITS;
    let heap_blkno = on.record.block(1).ok_or("heap block is missing")?.tag.blkno;
    if heap_blkno / HEAPBLOCKS_PER_PAGE != on.block.tag.blkno {
        return Err("heap block is not on this page of the map");
    }
    let (at, shift) = place_of(heap_blkno);
    let byte = page.bytes_mut().get_mut(at).ok_or("offset beyond the page")?;
    let is_same = *byte >> shift & VALID_BITS == flags;
    *byte |= flags << shift;
    Ok(if is_same { Effect::LsnKept } else { Effect::Changed })
}

/// Clears the bits that a heap record clears on a page of the map it does not register.
///
/// Neither looks at the page's LSN nor sets it, as in Postgres: order is the caller's.
pub(super) fn clear_unregistered(
    page: &mut Option<PageBuf>,
    record: &Record<'_>,
    tag: BlockTag,
) -> Result<(), Misfit> {
    let clears = unregistered_clears(record).ok_or("record is too short")?;
    let mut here = clears.into_iter().flatten().filter(|change| change.page() == tag).peekable();
    here.peek().ok_or("record does not touch the page")?;
    let page = page.get_or_insert_with(PageBuf::zeroed);
    if page.is_new() {
        page.init(0);
    }
    for change in here {
        clear(page, change.heap_blkno, change.bits);
    }
    Ok(())
}

/// Clears the bits of the heap blocks that a truncation cuts off, on the last page of the map that stays.
///
/// Source: `visibilitymap_prepare_truncate` in `src/backend/access/heap/visibilitymap.c`.
pub(super) fn truncate_tail(
    page: &mut Option<PageBuf>,
    record: &Record<'_>,
    tag: BlockTag,
) -> Result<(), Misfit> {
    let mut main = Reader(record.main_data);
    let heap_blocks = main.u32().ok_or("record is too short")?;
    let rel = rmgr::rel_tag(&mut main).ok_or("record is too short")?;
    if page_of(rel, heap_blocks) != tag {
        return Err("record does not touch the page");
    }
    let Some(page) = page.as_mut().filter(|page| !page.is_new()) else { return Ok(()) };
    let (at, shift) = place_of(heap_blocks);
    let (kept, cut) = page.bytes_mut().split_at_mut_checked(at + 1).ok_or("offset beyond the page")?;
    cut.fill(0);
    if let Some(last) = kept.last_mut() {
        *last &= (1 << shift) - 1;
    }
    Ok(())
}
