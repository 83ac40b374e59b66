//! One WAL record: header, fragment headers, payload.

use super::image::bits;
use super::{BlockRef, BlockTag, Fork, Image, RelTag, WalError};
use crate::Lsn;
use crate::page::BLCKSZ;
use crate::reader::Reader;

/// The fixed part at the start of every WAL record.
///
/// ```text
/// offset  0         4     8      16     17     18    20    24
///         | tot_len | xid | prev | info | rmid | pad | crc |
/// ```
///
/// Little-endian. Source: `XLogRecord` in `src/include/access/xlogrecord.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Length of the whole record, this header included, alignment padding excluded.
    pub tot_len: u32,
    /// Transaction, or 0.
    pub xid: u32,
    /// Start of the previous record.
    pub prev: Lsn,
    /// High nibble: the resource manager's; low nibble: `XLR_*` flags.
    pub info: u8,
    /// Resource manager.
    pub rmid: u8,
    /// CRC-32C of the body, then of the first 20 bytes of the header.
    pub crc: u32,
}

impl RecordHeader {
    /// Length in bytes.
    pub const LEN: usize = 24;
    /// `MaxAllocSize`: no server reads a longer one back. (16 and later do not write more than 1020 MiB.)
    pub const TOT_LEN_MAX: u32 = 0x3FFF_FFFF;

    /// Reads the header of the record that starts at `at`; checks its length only.
    ///
    /// # Errors
    /// `Truncated`, or `BadField` if the length is impossible.
    pub fn decode(at: Lsn, bytes: &[u8]) -> Result<Self, WalError> {
        let header = Self::read(Reader(bytes)).ok_or(WalError::Truncated { at, what: "XLogRecord" })?;
        if header.tot_len < Self::LEN as u32 || header.tot_len > Self::TOT_LEN_MAX {
            return Err(WalError::BadField { at, field: "xl_tot_len", value: header.tot_len.into() });
        }
        Ok(header)
    }

    fn read(mut r: Reader<'_>) -> Option<Self> {
        let (tot_len, xid, prev) = (r.u32()?, r.u32()?, Lsn(r.u64()?));
        let (info, rmid, [_, _], crc) = (r.u8()?, r.u8()?, r.array()?, r.u32()?);
        Some(Self { tot_len, xid, prev, info, rmid, crc })
    }

    /// The part of `info` that belongs to the resource manager.
    pub fn rmgr_info(&self) -> u8 {
        self.info & 0xF0
    }
}

/// A decoded record; borrows its bytes.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Where it starts (`ReadRecPtr`).
    pub start: Lsn,
    /// Where it ends (`EndRecPtr`): the `pd_lsn` of the pages it changes.
    pub end: Lsn,
    /// The fixed header.
    pub header: RecordHeader,
    /// Block references, ids ascending.
    pub blocks: Vec<BlockRef<'a>>,
    /// Replication origin, if logged.
    pub origin: Option<u16>,
    /// Top-level transaction, if logged (`wal_level = logical`).
    pub toplevel_xid: Option<u32>,
    /// The resource manager's own data; empty if none.
    pub main_data: &'a [u8],
}

const SAME_REL: u8 = 0x80;
const WILL_INIT: u8 = 0x40;
const HAS_DATA: u8 = 0x20;
const HAS_IMAGE: u8 = 0x10;
const FORK_MASK: u8 = 0x0F;
const BLOCK_ID_MAX: u8 = 32;
const ID_DATA_SHORT: u8 = 255;
const ID_DATA_LONG: u8 = 254;
const ID_ORIGIN: u8 = 253;
const ID_TOPLEVEL_XID: u8 = 252;

/// One header of a record's header section; its payload is not looked at.
#[derive(Clone, Copy, Debug)]
pub enum Fragment {
    /// A block reference.
    Block(BlockHeader),
    /// Replication origin.
    Origin(u16),
    /// Top-level transaction.
    ToplevelXid(u32),
}

/// Header of a block reference.
#[derive(Clone, Copy, Debug)]
pub struct BlockHeader {
    /// Its number in the record.
    pub id: u8,
    /// The page.
    pub tag: BlockTag,
    /// The redo function rebuilds the page from zeros.
    pub will_init: bool,
    /// Bytes of data logged with the block.
    pub data_len: u16,
    /// Header of the full-page image, if there is one.
    pub image: Option<ImageHeader>,
}

/// Header of a full-page image.
#[derive(Clone, Copy, Debug)]
pub struct ImageHeader {
    /// Bytes of the image as stored.
    pub len: u16,
    /// Where the hole starts; 0 without a hole.
    pub hole_offset: u16,
    /// Zero bytes left out.
    pub hole_length: u16,
    /// `bimg_info` as stored.
    pub info: u8,
}

/// Goes through the header section of a whole record and gives the payload and the length of the main data at its end.
/// Allocates nothing.
///
/// # Errors
/// `Truncated`, `BadField` or `Mismatch` naming the field.
///
/// Source: `DecodeXLogRecord` in `src/backend/access/transam/xlogreader.c`.
pub fn fragments(
    start: Lsn,
    bytes: &[u8],
    mut each: impl FnMut(Fragment),
) -> Result<(&[u8], usize), WalError> {
    let truncated = || WalError::Truncated { at: start, what: "record" };
    let mut r = Reader(bytes.get(RecordHeader::LEN..).ok_or_else(truncated)?);
    let mut last: Option<(u8, RelTag)> = None;
    let mut payload = 0usize;
    let mut main_len = 0usize;
    while r.left() > payload {
        let id = r.u8().ok_or_else(truncated)?;
        match id {
            ID_DATA_SHORT | ID_DATA_LONG => {
                let n = if id == ID_DATA_SHORT { r.u8().map(u32::from) } else { r.u32() };
                main_len = n.ok_or_else(truncated)? as usize;
                payload = payload.saturating_add(main_len);
                break;
            }
            ID_ORIGIN => each(Fragment::Origin(r.u16().ok_or_else(truncated)?)),
            ID_TOPLEVEL_XID => each(Fragment::ToplevelXid(r.u32().ok_or_else(truncated)?)),
            0..=BLOCK_ID_MAX => {
                let block = block_header(start, id, &mut r, last)?;
                last = Some((id, block.tag.rel));
                payload += usize::from(block.data_len) + block.image.map_or(0, |i| usize::from(i.len));
                each(Fragment::Block(block));
            }
            _ => return Err(WalError::BadField { at: start, field: "block_id", value: id.into() }),
        }
    }
    if r.left() == payload {
        return Ok((r.0, main_len));
    }
    let (expected, found) = (payload as u64, r.left() as u64);
    Err(WalError::Mismatch { at: start, field: "record length", expected, found })
}

/// Bytes of a record's full-page images: what [`fragments`] gives, sooner. Most of a reading for totals is here.
///
/// # Errors
/// As [`fragments`].
#[inline]
pub fn image_bytes(start: Lsn, bytes: &[u8]) -> Result<u32, WalError> {
    if let Some(len) = image_bytes_of_good(bytes.get(RecordHeader::LEN..).unwrap_or_default()) {
        return Ok(len);
    }
    let mut len = 0;
    fragments(start, bytes, |fragment| {
        if let Fragment::Block(BlockHeader { image: Some(image), .. }) = fragment {
            len += u32::from(image.len);
        }
    })?;
    Ok(len)
}

/// `None` where anything is out of the ordinary; the headers of images are left to [`fragments`].
fn image_bytes_of_good(mut rest: &[u8]) -> Option<u32> {
    let mut payload = 0;
    let mut next_id = 0;
    let mut has_rel = false;
    while rest.len() > payload {
        match *rest {
            [ID_DATA_SHORT, len, ..] => {
                return (rest.len() - 2 == payload + usize::from(len)).then_some(0);
            }
            [ID_DATA_LONG, a, b, c, d, ..] => {
                let len = u32::from_le_bytes([a, b, c, d]) as usize;
                return (rest.len() - 5 == payload + len).then_some(0);
            }
            [ID_ORIGIN, _, _, ref tail @ ..] | [ID_TOPLEVEL_XID, _, _, _, _, ref tail @ ..] => rest = tail,
            [id, flags, a, b, ref tail @ ..] if (next_id..=BLOCK_ID_MAX).contains(&id) => {
                let data_len = usize::from(u16::from_le_bytes([a, b]));
                let same_rel = flags & SAME_REL != 0;
                let is_good = flags & HAS_IMAGE == 0
                    && (flags & HAS_DATA != 0) == (data_len > 0)
                    && (has_rel || !same_rel)
                    && flags & FORK_MASK <= Fork::Init as u8;
                if !is_good {
                    return None;
                }
                has_rel = true;
                next_id = id + 1;
                payload += data_len;
                rest = tail.get(if same_rel { 4 } else { 16 }..)?;
            }
            _ => return None,
        }
    }
    (rest.len() == payload).then_some(0)
}

impl<'a> Record<'a> {
    /// Decodes a whole record; `bytes` is exactly `xl_tot_len` long. Does not check the CRC.
    ///
    /// # Errors
    /// `Truncated`, `BadField` or `Mismatch` naming the field.
    pub fn decode(start: Lsn, end: Lsn, bytes: &'a [u8]) -> Result<Self, WalError> {
        let header = RecordHeader::decode(start, bytes)?;
        let truncated = || WalError::Truncated { at: start, what: "record" };
        let bytes = bytes.get(..header.tot_len as usize).ok_or_else(truncated)?;
        let mut record =
            Self { start, end, header, blocks: Vec::new(), origin: None, toplevel_xid: None, main_data: &[] };
        let mut lengths = [(0u16, 0u16); BLOCK_ID_MAX as usize + 1];
        let mut slots = lengths.iter_mut();
        let (payload, main_len) = fragments(start, bytes, |fragment| match fragment {
            Fragment::Origin(origin) => record.origin = Some(origin),
            Fragment::ToplevelXid(xid) => record.toplevel_xid = Some(xid),
            Fragment::Block(BlockHeader { id, tag, will_init, data_len, image }) => {
                if let Some(slot) = slots.next() {
                    *slot = (image.map_or(0, |i| i.len), data_len);
                }
                let image = image.map(|i| Image {
                    bytes: &[],
                    hole_offset: i.hole_offset,
                    hole_length: i.hole_length,
                    info: i.info,
                });
                record.blocks.push(BlockRef { id, tag, will_init, data: &[], image });
            }
        })?;
        let mut r = Reader(payload);
        for (block, (image_len, data_len)) in record.blocks.iter_mut().zip(lengths) {
            if let Some(image) = &mut block.image {
                image.bytes = r.bytes(image_len.into()).ok_or_else(truncated)?;
            }
            block.data = r.bytes(data_len.into()).ok_or_else(truncated)?;
        }
        record.main_data = r.bytes(main_len).ok_or_else(truncated)?;
        Ok(record)
    }

    /// The block reference with this id.
    pub fn block(&self, id: u8) -> Option<&BlockRef<'a>> {
        self.blocks.iter().find(|b| b.id == id)
    }
}

fn block_header(
    at: Lsn,
    id: u8,
    r: &mut Reader<'_>,
    last: Option<(u8, RelTag)>,
) -> Result<BlockHeader, WalError> {
    let truncated = || WalError::Truncated { at, what: "block header" };
    let bad = |field, value: u64| WalError::BadField { at, field, value };
    if last.is_some_and(|(last_id, _)| last_id >= id) {
        return Err(bad("block_id", id.into()));
    }
    let flags = r.u8().ok_or_else(truncated)?;
    let data_len = r.u16().ok_or_else(truncated)?;
    if (flags & HAS_DATA != 0) != (data_len > 0) {
        return Err(bad("data_length", data_len.into()));
    }
    let image = if flags & HAS_IMAGE == 0 { None } else { Some(image_header(at, r)?) };
    let rel = if flags & SAME_REL == 0 {
        let mut field = || r.u32().ok_or_else(truncated);
        RelTag { spc: field()?, db: field()?, rel: field()? }
    } else {
        last.ok_or_else(|| bad("fork_flags", flags.into()))?.1
    };
    let fork = Fork::from_number(flags & FORK_MASK).ok_or_else(|| bad("fork_flags", flags.into()))?;
    let blkno = r.u32().ok_or_else(truncated)?;
    let tag = BlockTag { rel, fork, blkno };
    Ok(BlockHeader { id, tag, will_init: flags & WILL_INIT != 0, data_len, image })
}

fn image_header(at: Lsn, r: &mut Reader<'_>) -> Result<ImageHeader, WalError> {
    let truncated = || WalError::Truncated { at, what: "image header" };
    let bad = |field, value: u16| WalError::BadField { at, field, value: value.into() };
    let len = r.u16().ok_or_else(truncated)?;
    let hole_offset = r.u16().ok_or_else(truncated)?;
    let info = r.u8().ok_or_else(truncated)?;
    let (has_hole, compressed) = (info & bits::HAS_HOLE != 0, info & bits::COMPRESS != 0);
    if (info & bits::COMPRESS).count_ones() > 1 {
        return Err(bad("bimg_info", info.into()));
    }
    let hole_length = match (has_hole, compressed) {
        (true, true) => r.u16().ok_or_else(truncated)?,
        (true, false) => (BLCKSZ as u16).checked_sub(len).ok_or_else(|| bad("bimg_len", len))?,
        (false, _) => 0,
    };
    if has_hole && (hole_offset == 0 || hole_length == 0) || !has_hole && hole_offset != 0 {
        return Err(bad("hole_offset", hole_offset));
    }
    if usize::from(hole_offset) + usize::from(hole_length) > BLCKSZ {
        return Err(bad("hole_length", hole_length));
    }
    let len_fits =
        if has_hole || compressed { usize::from(len) < BLCKSZ } else { usize::from(len) == BLCKSZ };
    if !len_fits {
        return Err(bad("bimg_len", len));
    }
    Ok(ImageHeader { len, hole_offset, hole_length, info })
}
