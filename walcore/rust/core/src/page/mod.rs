//! Pages of relations: 8 KiB, a header, line pointers, items, special space.

mod checksum;
mod compact;
mod heap;
mod index;
mod item;

use crate::Lsn;

pub use item::ItemId;

/// Size of a page.
pub const BLCKSZ: usize = 8192;
/// Size of a page header.
pub const HEADER_LEN: usize = 24;
/// `pd_flags`: there may be unused line pointers.
pub const HAS_FREE_LINES: u16 = 1;
/// `pd_flags`: an update found no room.
pub const PAGE_FULL: u16 = 2;
/// `pd_flags`: every tuple is visible to everyone.
pub const ALL_VISIBLE: u16 = 4;
/// `pd_pagesize_version`: 8 KiB pages of layout version 4.
const SIZE_AND_VERSION: u16 = BLCKSZ as u16 | 4;

/// Why a page does not take a change. The record that brings it is added where the two meet.
pub type Misfit = &'static str;

/// One page, owned.
///
/// ```text
/// offset  0      8          10      12      14      16        18             20          24
///         | lsn  | checksum | flags | lower | upper | special | size,version | prune_xid | line pointers …
/// ```
///
/// Line pointers grow up to `lower`, items grow down to `upper`, the special space runs from `special` to the end.
/// `lsn` is stored high half first; everything else is little-endian.
#[derive(Clone, PartialEq, Eq)]
pub struct PageBuf(Box<[u8; BLCKSZ]>);

/// A checked set of the three bounds of a page: `HEADER_LEN <= lower <= upper <= special <= BLCKSZ`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub lower: usize,
    pub upper: usize,
    pub special: usize,
}

/// Rounds up to the alignment of items.
pub(crate) const fn maxalign(n: usize) -> usize {
    n.div_ceil(8) * 8
}

impl PageBuf {
    /// A page of zeros: what Postgres calls a new page.
    pub fn zeroed() -> Self {
        Self(Box::new([0; BLCKSZ]))
    }

    /// A copy of `bytes`; `None` unless they are a page long.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let page: &[u8; BLCKSZ] = bytes.try_into().ok()?;
        Some(Self(Box::new(*page)))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; BLCKSZ] {
        &self.0
    }

    /// The bytes, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8; BLCKSZ] {
        &mut self.0
    }

    /// `N` bytes of the header.
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        self.array_at(at).unwrap_or([0; N])
    }

    /// Sets `N` bytes of the header.
    fn set_field<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        if let Some(field) = self.0.get_mut(at..).and_then(|tail| tail.first_chunk_mut()) {
            *field = bytes;
        }
    }

    /// `pd_lsn`: stored high half first.
    pub fn lsn(&self) -> Lsn {
        Lsn(u64::from_le_bytes(self.field(0)).rotate_left(32))
    }

    /// Sets `pd_lsn`.
    pub fn set_lsn(&mut self, lsn: Lsn) {
        self.set_field(0, lsn.0.rotate_left(32).to_le_bytes());
    }

    /// Whether the page has never been initialised (`PageIsNew`: `pd_upper` is 0).
    pub fn is_new(&self) -> bool {
        self.upper() == 0
    }

    /// `pd_checksum`.
    pub fn checksum(&self) -> u16 {
        u16::from_le_bytes(self.field(8))
    }

    /// Sets `pd_checksum`.
    pub fn set_checksum(&mut self, checksum: u16) {
        self.set_field(8, checksum.to_le_bytes());
    }

    /// `pd_flags`.
    pub fn flags(&self) -> u16 {
        u16::from_le_bytes(self.field(10))
    }

    /// Sets `pd_flags`.
    pub fn set_flags(&mut self, flags: u16) {
        self.set_field(10, flags.to_le_bytes());
    }

    /// Sets or clears one bit of `pd_flags`.
    pub fn set_flag(&mut self, flag: u16, is_set: bool) {
        let flags = self.flags();
        self.set_flags(if is_set { flags | flag } else { flags & !flag });
    }

    /// `pd_lower`.
    pub fn lower(&self) -> u16 {
        u16::from_le_bytes(self.field(12))
    }

    /// Sets `pd_lower`. `at` is at most a page.
    pub(crate) fn set_lower(&mut self, at: usize) {
        self.set_field(12, (at as u16).to_le_bytes());
    }

    /// `pd_upper`.
    pub fn upper(&self) -> u16 {
        u16::from_le_bytes(self.field(14))
    }

    /// Sets `pd_upper`. `at` is at most a page.
    pub(crate) fn set_upper(&mut self, at: usize) {
        self.set_field(14, (at as u16).to_le_bytes());
    }

    /// `pd_special`.
    pub fn special(&self) -> u16 {
        u16::from_le_bytes(self.field(16))
    }

    /// `pd_prune_xid`.
    pub fn prune_xid(&self) -> u32 {
        u32::from_le_bytes(self.field(20))
    }

    /// Sets `pd_prune_xid`.
    pub fn set_prune_xid(&mut self, xid: u32) {
        self.set_field(20, xid.to_le_bytes());
    }

    /// Makes it an empty page with a special space of `special_len` bytes, at most a page less its header.
    ///
    /// Source: `PageInit` in `src/backend/storage/page/bufpage.c`.
    pub fn init(&mut self, special_len: usize) {
        self.0.fill(0);
        let special = BLCKSZ.saturating_sub(maxalign(special_len)).max(HEADER_LEN) as u16;
        self.set_field(12, (HEADER_LEN as u16).to_le_bytes());
        self.set_field(14, special.to_le_bytes());
        self.set_field(16, special.to_le_bytes());
        self.set_field(18, SIZE_AND_VERSION.to_le_bytes());
    }

    /// An empty page with the special space of this one, to be filled anew.
    ///
    /// Source: `PageGetTempPageCopySpecial` in `src/backend/storage/page/bufpage.c`.
    pub(crate) fn empty_copy(&self) -> Result<Self, Misfit> {
        let special = self.bounds()?.special;
        let mut copy = Self::zeroed();
        copy.init(BLCKSZ - special);
        let (from, to) = (self.slice(special, BLCKSZ)?, copy.slice_mut(special, BLCKSZ)?);
        to.copy_from_slice(from);
        Ok(copy)
    }

    /// The bounds, if they are in order.
    pub(crate) fn bounds(&self) -> Result<Bounds, Misfit> {
        let (lower, upper, special) = (self.lower().into(), self.upper().into(), self.special().into());
        if HEADER_LEN <= lower && lower <= upper && upper <= special && special <= BLCKSZ {
            Ok(Bounds { lower, upper, special })
        } else {
            Err("page header bounds are out of order")
        }
    }

    /// The bounds, if they are in order and the special space is aligned.
    pub(crate) fn aligned_bounds(&self) -> Result<Bounds, Misfit> {
        let bounds = self.bounds()?;
        if bounds.special % 8 == 0 { Ok(bounds) } else { Err("special space is not aligned") }
    }

    /// Remembers that a transaction has left something here that can be pruned once it is over.
    ///
    /// Source: `PageSetPrunable` in `src/include/storage/bufpage.h`.
    pub fn set_prunable(&mut self, xid: u32) {
        let oldest = self.prune_xid();
        if oldest == 0 || xid_precedes(xid, oldest) {
            self.set_prune_xid(xid);
        }
    }

    /// Bytes from `start` to `end`.
    pub(crate) fn slice(&self, start: usize, end: usize) -> Result<&[u8], Misfit> {
        self.0.get(start..end).ok_or("offset beyond the page")
    }

    /// Bytes from `start` to `end`, to change.
    pub(crate) fn slice_mut(&mut self, start: usize, end: usize) -> Result<&mut [u8], Misfit> {
        self.0.get_mut(start..end).ok_or("offset beyond the page")
    }

    /// `N` bytes at `at`.
    pub(crate) fn array_at<const N: usize>(&self, at: usize) -> Result<[u8; N], Misfit> {
        self.0.get(at..).and_then(|tail| tail.first_chunk().copied()).ok_or("offset beyond the page")
    }

    /// Copies `bytes` to `at`.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) -> Result<(), Misfit> {
        let room = self.0.get_mut(at..).and_then(|tail| tail.get_mut(..bytes.len()));
        room.ok_or("offset beyond the page")?.copy_from_slice(bytes);
        Ok(())
    }

    /// Two bytes at `at`, little-endian.
    pub(crate) fn u16_at(&self, at: usize) -> Result<u16, Misfit> {
        self.array_at(at).map(u16::from_le_bytes)
    }

    /// Four bytes at `at`, little-endian.
    pub(crate) fn u32_at(&self, at: usize) -> Result<u32, Misfit> {
        self.array_at(at).map(u32::from_le_bytes)
    }

    /// Moves the bytes from `start` to `end` so that they begin at `to`; the two may overlap.
    pub(crate) fn shift(&mut self, start: usize, end: usize, to: usize) -> Result<(), Misfit> {
        let len = end.checked_sub(start).ok_or("offset beyond the page")?;
        if end > BLCKSZ || to.checked_add(len).is_none_or(|end| end > BLCKSZ) {
            return Err("offset beyond the page");
        }
        self.0.copy_within(start..end, to);
        Ok(())
    }
}

impl std::fmt::Debug for PageBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageBuf(lsn={})", self.lsn())
    }
}

/// Whether one transaction id comes before another, round the clock; the three permanent ones come before all.
///
/// Source: `TransactionIdPrecedes` in `src/backend/access/transam/transam.c`.
pub fn xid_precedes(a: u32, b: u32) -> bool {
    const FIRST_NORMAL: u32 = 3;
    if a < FIRST_NORMAL || b < FIRST_NORMAL { a < b } else { a.wrapping_sub(b) > i32::MAX as u32 }
}
