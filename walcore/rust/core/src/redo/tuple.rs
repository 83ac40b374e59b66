//! The header of a heap tuple.

use crate::page::Misfit;

/// Length of the fixed part.
pub const HEADER_LEN: usize = 23;

pub const XMAX_KEYSHR_LOCK: u16 = 0x0010;
pub const COMBOCID: u16 = 0x0020;
pub const XMAX_EXCL_LOCK: u16 = 0x0040;
pub const XMAX_LOCK_ONLY: u16 = 0x0080;
/// `HEAP_XMIN_FROZEN`: both hint bits of xmin.
pub const XMIN_FROZEN: u16 = 0x0300;
pub const XMAX_COMMITTED: u16 = 0x0400;
pub const XMAX_INVALID: u16 = 0x0800;
pub const XMAX_IS_MULTI: u16 = 0x1000;
/// `HEAP_XACT_MASK`: everything about who can see the tuple.
pub const XACT_MASK: u16 = 0xFFF0;
/// Offset of `ctid` that says that the insertion may be taken back; the block is a token.
const SPECULATIVE: u16 = 0xFFFE;
/// `HEAP_XMAX_BITS | HEAP_MOVED`.
const XMAX_BITS_AND_MOVED: u16 = 0x1CD0 | 0xC000;
/// `infomask2`.
const KEYS_UPDATED: u16 = 0x2000;
/// `infomask2`.
const HOT_UPDATED: u16 = 0x4000;

/// `XLHL_*`: the bits of `infomask` and `infomask2` that records carry.
mod infobits {
    pub const IS_MULTI: u8 = 0x01;
    pub const LOCK_ONLY: u8 = 0x02;
    pub const EXCL_LOCK: u8 = 0x04;
    pub const KEYSHR_LOCK: u8 = 0x08;
    pub const KEYS_UPDATED: u8 = 0x10;
}

/// A tuple on a page, to change.
///
/// ```text
/// offset  0      4      8        12     18          20         22     23
///         | xmin | xmax | field3 | ctid | infomask2 | infomask | hoff | bitmap, padding, data …
/// ```
///
/// Little-endian. Source: `HeapTupleHeaderData` in `src/include/access/htup_details.h`.
pub struct Tuple<'a>(&'a mut [u8; HEADER_LEN]);

impl<'a> Tuple<'a> {
    /// The header of the tuple in these bytes.
    pub fn new(item: &'a mut [u8]) -> Result<Self, Misfit> {
        item.first_chunk_mut().map(Self).ok_or("tuple is shorter than its header")
    }

    pub fn set_xmin(&mut self, xid: u32) {
        [self.0[0], self.0[1], self.0[2], self.0[3]] = xid.to_le_bytes();
    }

    pub fn set_xmax(&mut self, xid: u32) {
        [self.0[4], self.0[5], self.0[6], self.0[7]] = xid.to_le_bytes();
    }

    /// The field of command ids, or of old-style vacuum's xid.
    pub fn set_field3(&mut self, value: u32) {
        [self.0[8], self.0[9], self.0[10], self.0[11]] = value.to_le_bytes();
    }

    /// Command id 0, not a combination: what redo stores.
    pub fn reset_command(&mut self) {
        self.set_field3(0);
        self.set_infomask(self.infomask() & !COMBOCID);
    }

    /// Where the next version is; itself if there is none. The block number is stored high half first.
    pub fn set_ctid(&mut self, blkno: u32, offset: u16) {
        [self.0[12], self.0[13], self.0[14], self.0[15]] = blkno.rotate_left(16).to_le_bytes();
        [self.0[16], self.0[17]] = offset.to_le_bytes();
    }

    /// Whether the insertion may still be taken back.
    pub fn is_speculative(&self) -> bool {
        u16::from_le_bytes([self.0[16], self.0[17]]) == SPECULATIVE
    }

    pub fn infomask2(&self) -> u16 {
        u16::from_le_bytes([self.0[18], self.0[19]])
    }

    pub fn set_infomask2(&mut self, mask: u16) {
        [self.0[18], self.0[19]] = mask.to_le_bytes();
    }

    pub fn infomask(&self) -> u16 {
        u16::from_le_bytes([self.0[20], self.0[21]])
    }

    pub fn set_infomask(&mut self, mask: u16) {
        [self.0[20], self.0[21]] = mask.to_le_bytes();
    }

    pub fn hoff(&self) -> u8 {
        self.0[22]
    }

    pub fn set_hoff(&mut self, hoff: u8) {
        self.0[22] = hoff;
    }

    pub fn set_hot_updated(&mut self, is_hot: bool) {
        let mask = self.infomask2();
        self.set_infomask2(if is_hot { mask | HOT_UPDATED } else { mask & !HOT_UPDATED });
    }

    /// Forgets who deleted or locked the tuple, and takes the bits that the record says.
    ///
    /// Source: `fix_infomask_from_infobits` and its callers in `src/backend/access/heap/heapam_xlog.c`.
    pub fn replace_xmax_bits(&mut self, bits: u8) {
        let mut mask = self.infomask() & !XMAX_BITS_AND_MOVED;
        let mut mask2 = self.infomask2() & !KEYS_UPDATED;
        for (bit, flag) in [
            (infobits::IS_MULTI, XMAX_IS_MULTI),
            (infobits::LOCK_ONLY, XMAX_LOCK_ONLY),
            (infobits::EXCL_LOCK, XMAX_EXCL_LOCK),
            (infobits::KEYSHR_LOCK, XMAX_KEYSHR_LOCK),
        ] {
            if bits & bit != 0 {
                mask |= flag;
            }
        }
        if bits & infobits::KEYS_UPDATED != 0 {
            mask2 |= KEYS_UPDATED;
        }
        self.set_infomask(mask);
        self.set_infomask2(mask2);
    }

    /// Whether xmax only locks (`HEAP_XMAX_IS_LOCKED_ONLY`).
    pub fn is_locked_only(&self) -> bool {
        let mask = self.infomask();
        mask & XMAX_LOCK_ONLY != 0
            || mask & (XMAX_IS_MULTI | XMAX_EXCL_LOCK | XMAX_KEYSHR_LOCK) == XMAX_EXCL_LOCK
    }
}
