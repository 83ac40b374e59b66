//! Masks: zeroing what WAL does not decide, before two pages are compared.

use crate::page::{ALL_VISIBLE, BLCKSZ, HAS_FREE_LINES, HEADER_LEN, ItemId, PAGE_FULL, PageBuf, maxalign};
use crate::redo::tuple;
use crate::rmgr;

/// Whose page it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessMethod {
    /// A table.
    Heap,
    /// A btree index.
    Btree,
    /// A hash index.
    Hash,
    /// A GIN index.
    Gin,
    /// A GiST index.
    Gist,
    /// An SP-GiST index.
    Spgist,
    /// A BRIN index.
    Brin,
    /// A sequence.
    Sequence,
    /// An index whose access method logs generic records.
    Generic,
    /// A page of the visibility map, compared bit by bit; Postgres masks all of it.
    Vm,
}

impl AccessMethod {
    /// By the name that Python uses.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "heap" => Self::Heap,
            "btree" => Self::Btree,
            "hash" => Self::Hash,
            "gin" => Self::Gin,
            "gist" => Self::Gist,
            "spgist" => Self::Spgist,
            "brin" => Self::Brin,
            "sequence" => Self::Sequence,
            "generic" => Self::Generic,
            "vm" => Self::Vm,
            _ => return None,
        })
    }

    /// By the resource manager whose record changed the page, as Postgres chooses the mask. `None` if it has none.
    pub fn from_rmid(rmid: u8) -> Option<Self> {
        Some(match rmid {
            rmgr::HEAP | rmgr::HEAP2 => Self::Heap,
            rmgr::BTREE => Self::Btree,
            rmgr::HASH => Self::Hash,
            rmgr::GIN => Self::Gin,
            rmgr::GIST => Self::Gist,
            rmgr::SEQ => Self::Sequence,
            rmgr::SPGIST => Self::Spgist,
            rmgr::BRIN => Self::Brin,
            rmgr::GENERIC => Self::Generic,
            _ => return None,
        })
    }
}

/// Masks a page. What a damaged page does not let us find stays, and shows as a difference.
///
/// Source: the `rm_mask` functions, and `src/backend/access/common/bufmask.c`.
pub fn mask(page: &mut PageBuf, method: AccessMethod, blkno: u32) {
    page.set_lsn(crate::Lsn::INVALID);
    page.set_checksum(0);
    if !matches!(method, AccessMethod::Sequence | AccessMethod::Generic) {
        page.set_prune_xid(0);
        page.set_flags(page.flags() & !(PAGE_FULL | HAS_FREE_LINES | ALL_VISIBLE));
    }
    match method {
        AccessMethod::Vm => {}
        AccessMethod::Sequence | AccessMethod::Generic => hole(page),
        AccessMethod::Heap => heap(page, blkno),
        AccessMethod::Btree => btree(page),
        AccessMethod::Hash => hash(page),
        AccessMethod::Gin => gin(page),
        AccessMethod::Gist => gist(page),
        AccessMethod::Spgist => {
            if usize::from(page.lower()) >= HEADER_LEN {
                hole(page);
            }
        }
        AccessMethod::Brin => brin(page),
    }
}

fn hole(page: &mut PageBuf) {
    if let Ok(bounds) = page.bounds() {
        fill(page, bounds.lower, bounds.upper);
    }
}

fn fill(page: &mut PageBuf, start: usize, end: usize) {
    if let Ok(bytes) = page.slice_mut(start, end) {
        bytes.fill(0);
    }
}

/// The content, and the bounds that lie in the header.
fn content(page: &mut PageBuf) {
    fill(page, HEADER_LEN, BLCKSZ);
    page.set_lower(0);
    page.set_upper(0);
}

fn line_flags(page: &mut PageBuf) {
    page.each_item_id(|id| ItemId::new(id.offset(), ItemId::UNUSED, id.len()));
}

/// Clears and sets bits of a 2-byte field of the special space.
fn special_bits(page: &mut PageBuf, at: usize, clear: u16, set: u16) {
    let bits = special_u16(page, at) & !clear | set;
    let at = usize::from(page.special()) + at;
    if let Ok(field) = page.slice_mut(at, at + 2) {
        field.copy_from_slice(&bits.to_le_bytes());
    }
}

fn special_u16(page: &PageBuf, at: usize) -> u16 {
    page.u16_at(usize::from(page.special()) + at).unwrap_or(0)
}

fn heap(page: &mut PageBuf, blkno: u32) {
    hole(page);
    for number in 1..=page.max_offset() {
        let Ok(id) = page.item_id(number) else { return };
        if id.is_normal() {
            let item = page.item_mut(id).and_then(tuple::Tuple::new);
            if let Ok(mut tuple) = item {
                let mask = tuple.infomask();
                // Hint bits are set without WAL; those of a frozen xmin are not hints.
                let hints = if mask & tuple::XMIN_FROZEN == tuple::XMIN_FROZEN {
                    tuple::XMAX_COMMITTED | tuple::XMAX_INVALID
                } else {
                    tuple::XACT_MASK
                };
                tuple.set_infomask(mask & !hints);
                tuple.set_field3(0);
                if tuple.is_speculative() {
                    tuple.set_ctid(blkno, number);
                }
            }
        }
        let (end, padded) = (id.offset() + id.len(), id.offset() + maxalign(id.len()));
        if !id.is_empty() && padded <= BLCKSZ {
            fill(page, end, padded);
        }
    }
}

fn btree(page: &mut PageBuf) {
    const LEAF: u16 = 0x01;
    const HAS_GARBAGE: u16 = 0x40;
    const SPLIT_END: u16 = 0x20;
    hole(page);
    if special_u16(page, 12) & LEAF != 0 {
        line_flags(page);
    }
    special_bits(page, 12, HAS_GARBAGE | SPLIT_END, 0);
    special_bits(page, 14, u16::MAX, 0);
}

fn hash(page: &mut PageBuf) {
    const PAGE_TYPE: u16 = 0x0F;
    const UNUSED: u16 = 0;
    const OVERFLOW: u16 = 1;
    const BUCKET: u16 = 2;
    const HAS_DEAD_TUPLES: u16 = 0x80;
    hole(page);
    match special_u16(page, 12) & PAGE_TYPE {
        UNUSED => content(page),
        OVERFLOW | BUCKET => line_flags(page),
        _ => {}
    }
    special_bits(page, 12, HAS_DEAD_TUPLES, 0);
}

fn gin(page: &mut PageBuf) {
    const DELETED: u16 = 0x04;
    if special_u16(page, 6) & DELETED != 0 {
        content(page);
    } else if usize::from(page.lower()) > HEADER_LEN {
        hole(page);
    }
}

fn gist(page: &mut PageBuf) {
    const LEAF: u16 = 0x01;
    // Set by redo and primary up to 15.19, 16.15, 17.11 and 18.6, by neither after: nothing reads it.
    const TUPLES_DELETED: u16 = 0x04;
    const FOLLOW_RIGHT: u16 = 0x08;
    const HAS_GARBAGE: u16 = 0x10;
    hole(page);
    let special = usize::from(page.special());
    fill(page, special, special + 8);
    if special_u16(page, 12) & LEAF != 0 {
        line_flags(page);
    }
    special_bits(page, 12, HAS_GARBAGE | TUPLES_DELETED, FOLLOW_RIGHT);
}

fn brin(page: &mut PageBuf) {
    const META: u16 = 0xF091;
    const REGULAR: u16 = 0xF093;
    const EVACUATE: u16 = 1;
    match special_u16(page, 6) {
        REGULAR => hole(page),
        META if usize::from(page.lower()) > HEADER_LEN => hole(page),
        _ => {}
    }
    special_bits(page, 4, EVACUATE, 0);
}
