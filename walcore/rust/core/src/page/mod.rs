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
        let [a, b, c, d, e, f, g, h, ..] = *self.0;
        let (high, low) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        Lsn(u64::from(high) << 32 | u64::from(low))
    }

    /// Sets `pd_lsn`.
    pub fn set_lsn(&mut self, lsn: Lsn) {
        let (high, low) = ((lsn.0 >> 32) as u32, lsn.0 as u32);
        let (head, _) = self.0.split_at_mut(8);
        head.copy_from_slice(&[high.to_le_bytes(), low.to_le_bytes()].concat());
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
