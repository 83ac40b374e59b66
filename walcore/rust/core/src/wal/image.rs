//! Full-page images and their restoration.

use super::WalError;
use crate::Lsn;
use crate::page::{BLCKSZ, PageBuf};

/// How the bytes of an image are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Stored as they are.
    None,
    /// Postgres' own LZ, without a header.
    Pglz,
    /// One raw LZ4 block.
    Lz4,
    /// One zstd frame.
    Zstd,
}

impl Compression {
    /// The name that `pg_waldump` prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pglz => "pglz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// A full-page image as it stands in a record.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// The image, compressed or not, without its hole.
    pub bytes: &'a [u8],
    /// Where the hole starts; 0 without a hole.
    pub hole_offset: u16,
    /// How many zero bytes were left out.
    pub hole_length: u16,
    /// `bimg_info` as stored.
    pub info: u8,
}

/// `BKPIMAGE_*` of 15 to 19.
pub(crate) mod bits {
    pub const HAS_HOLE: u8 = 0x01;
    pub const APPLY: u8 = 0x02;
    pub const COMPRESS_PGLZ: u8 = 0x04;
    pub const COMPRESS_LZ4: u8 = 0x08;
    pub const COMPRESS_ZSTD: u8 = 0x10;
    pub const COMPRESS: u8 = COMPRESS_PGLZ | COMPRESS_LZ4 | COMPRESS_ZSTD;
}

impl Image<'_> {
    /// Whether redo replaces the page with it; otherwise it only shows the expected result.
    pub fn apply(&self) -> bool {
        self.info & bits::APPLY != 0
    }

    /// How the bytes are compressed.
    pub fn compression(&self) -> Compression {
        match self.info & bits::COMPRESS {
            0 => Compression::None,
            bits::COMPRESS_PGLZ => Compression::Pglz,
            bits::COMPRESS_LZ4 => Compression::Lz4,
            _ => Compression::Zstd,
        }
    }

    /// Rebuilds the page; the hole is zeros, the LSN whatever the image had.
    ///
    /// # Errors
    /// `BadImage` if image and hole do not add up to a page.
    ///
    /// Source: `RestoreBlockImage` in `src/backend/access/transam/xlogreader.c`.
    pub fn restore(&self, at: Lsn, block: u8) -> Result<PageBuf, WalError> {
        let bad = |reason| WalError::BadImage { at, block, reason };
        let hole = usize::from(self.hole_length);
        let raw_len = BLCKSZ.checked_sub(hole).ok_or_else(|| bad("hole larger than a page"))?;
        let mut raw = [0u8; BLCKSZ];
        let out = raw.get_mut(..raw_len).ok_or_else(|| bad("hole larger than a page"))?;
        match self.compression() {
            Compression::None => {
                if self.bytes.len() != raw_len {
                    return Err(bad("image and hole are not a page"));
                }
                out.copy_from_slice(self.bytes);
            }
            Compression::Pglz => super::pglz::decompress(self.bytes, out).ok_or_else(|| bad("pglz"))?,
            Compression::Lz4 => {
                let n = lz4_flex::block::decompress_into(self.bytes, out).map_err(|_| bad("lz4"))?;
                if n != raw_len {
                    return Err(bad("lz4 length"));
                }
            }
            Compression::Zstd => {
                let n = zstd::bulk::decompress_to_buffer(self.bytes, out).map_err(|_| bad("zstd"))?;
                if n != raw_len {
                    return Err(bad("zstd length"));
                }
            }
        }
        let start = usize::from(self.hole_offset);
        let (head, tail) = out.split_at_checked(start).ok_or_else(|| bad("hole offset"))?;
        let mut page = PageBuf::zeroed();
        let bytes = page.bytes_mut();
        bytes.get_mut(..start).ok_or_else(|| bad("hole offset"))?.copy_from_slice(head);
        bytes.get_mut(start + hole..).ok_or_else(|| bad("hole offset"))?.copy_from_slice(tail);
        Ok(page)
    }
}
