//! Index tuples, as bytes.

use crate::page::Misfit;
use crate::reader::Reader;

/// Length of the fixed part.
pub const HEADER_LEN: usize = 8;
/// Length of a heap tuple's address.
pub const TID_LEN: usize = 6;
/// `INDEX_SIZE_MASK` of `t_info`.
const SIZE_MASK: u16 = 0x1FFF;
/// `INDEX_AM_RESERVED_BIT` of `t_info`; btree: the address is something else.
const AM_BIT: u16 = 0x2000;

const SHORT: Misfit = "index tuple is shorter than its header";

/// The fixed part of an index tuple.
///
/// ```text
/// offset  0          2          4        6        8
///         | block hi | block lo | offset | t_info | data …
/// ```
///
/// Little-endian. Source: `IndexTupleData` in `src/include/access/itup.h`.
#[derive(Clone, Copy)]
pub struct Header {
    /// Block of the address: a heap block, or a downlink.
    pub blkno: u32,
    /// Line pointer number of the address.
    pub offset: u16,
    /// Length and bits.
    pub info: u16,
}

impl Header {
    pub fn new(blkno: u32, offset: u16, len: usize) -> Self {
        Self { blkno, offset, info: len as u16 & SIZE_MASK }
    }

    pub fn read(tuple: &[u8]) -> Result<Self, Misfit> {
        let mut r = Reader(tuple);
        let (blkno, offset) = r.u32().zip(r.u16()).ok_or(SHORT)?;
        Ok(Self { blkno: blkno.rotate_left(16), offset, info: r.u16().ok_or(SHORT)? })
    }

    pub fn write(self, tuple: &mut [u8]) -> Result<(), Misfit> {
        let head: &mut [u8; HEADER_LEN] = tuple.first_chunk_mut().ok_or(SHORT)?;
        *head = self.bytes();
        Ok(())
    }

    pub fn bytes(self) -> [u8; HEADER_LEN] {
        let (offset, info) = (u64::from(self.offset) << 32, u64::from(self.info) << 48);
        (u64::from(self.blkno.rotate_left(16)) | offset | info).to_le_bytes()
    }

    /// Length of the whole tuple.
    pub fn len(self) -> usize {
        usize::from(self.info & SIZE_MASK)
    }

    pub fn has_am_bit(self) -> bool {
        self.info & AM_BIT != 0
    }

    pub fn with_am_bit(mut self, is_set: bool) -> Self {
        self.info = if is_set { self.info | AM_BIT } else { self.info & !AM_BIT };
        self
    }

    pub fn with_len(mut self, len: usize) -> Self {
        self.info = self.info & !SIZE_MASK | len as u16 & SIZE_MASK;
        self
    }
}

/// Takes the next tuple, which has no padding behind it.
pub fn take<'a>(from: &mut Reader<'a>) -> Result<&'a [u8], Misfit> {
    let len = Header::read(from.0)?.len();
    if len < HEADER_LEN {
        return Err(SHORT);
    }
    from.bytes(len).ok_or("index tuple runs past the data")
}

/// Splits the first tuple off, with its padding.
pub fn split_aligned(data: &[u8]) -> Result<(&[u8], &[u8]), Misfit> {
    let len = Header::read(data)?.len();
    if len < HEADER_LEN {
        return Err(SHORT);
    }
    data.split_at_checked(len.next_multiple_of(8)).ok_or("index tuple runs past the data")
}
