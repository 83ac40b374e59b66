//! Pages of relations: 8 KiB, a header, line pointers, items, special space.

use crate::Lsn;

/// Size of a page.
pub const BLCKSZ: usize = 8192;
/// Size of a page header.
pub const HEADER_LEN: usize = 24;

/// One page, owned.
#[derive(Clone, PartialEq, Eq)]
pub struct PageBuf(Box<[u8; BLCKSZ]>);

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

    /// `pd_lsn`: stored high half first.
    pub fn lsn(&self) -> Lsn {
        let halves = self.0.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        Lsn(halves.rotate_left(32))
    }

    /// Sets `pd_lsn`.
    pub fn set_lsn(&mut self, lsn: Lsn) {
        if let Some(halves) = self.0.first_chunk_mut() {
            *halves = lsn.0.rotate_left(32).to_le_bytes();
        }
    }

    /// Whether the page has never been initialised (`PageIsNew`: `pd_upper` is 0).
    pub fn is_new(&self) -> bool {
        matches!(self.0.get(14..16), Some([0, 0]))
    }
}

impl std::fmt::Debug for PageBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageBuf(lsn={})", self.lsn())
    }
}
