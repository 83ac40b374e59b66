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
    /// `XLogRecordMaxSize`: anything longer is damage.
    pub const TOT_LEN_MAX: u32 = 1020 * 1024 * 1024;

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

/// A block header whose payload has not been cut out yet.
struct Pending {
    id: u8,
    tag: BlockTag,
    will_init: bool,
    data_len: usize,
    image: Option<(usize, u16, u16, u8)>,
}

impl<'a> Record<'a> {
    /// Decodes a whole record; `bytes` is exactly `xl_tot_len` long. Does not check the CRC.
    ///
    /// # Errors
    /// `Truncated`, `BadField` or `Mismatch` naming the field.
    ///
    /// Source: `DecodeXLogRecord` in `src/backend/access/transam/xlogreader.c`.
    pub fn decode(start: Lsn, end: Lsn, bytes: &'a [u8]) -> Result<Self, WalError> {
        let header = RecordHeader::decode(start, bytes)?;
        let truncated = WalError::Truncated { at: start, what: "record" };
        let len = header.tot_len as usize;
        let body = bytes.get(RecordHeader::LEN..len).ok_or(truncated.clone())?;
        let mut record =
            Self { start, end, header, blocks: Vec::new(), origin: None, toplevel_xid: None, main_data: &[] };
        let mut r = Reader(body);
        let mut pending: Vec<Pending> = Vec::new();
        let mut payload = 0usize;
        let mut main_len = 0usize;
        while r.left() > payload {
            let id = r.u8().ok_or(truncated.clone())?;
            match id {
                ID_DATA_SHORT | ID_DATA_LONG => {
                    let n = if id == ID_DATA_SHORT { r.u8().map(u32::from) } else { r.u32() };
                    main_len = n.ok_or(truncated.clone())? as usize;
                    payload = payload.saturating_add(main_len);
                    break;
                }
                ID_ORIGIN => record.origin = Some(r.u16().ok_or(truncated.clone())?),
                ID_TOPLEVEL_XID => record.toplevel_xid = Some(r.u32().ok_or(truncated.clone())?),
                0..=BLOCK_ID_MAX => {
                    let block = block_header(start, id, &mut r, pending.last())?;
                    payload += block.data_len + block.image.map_or(0, |(n, ..)| n);
                    pending.push(block);
                }
                _ => return Err(WalError::BadField { at: start, field: "block_id", value: id.into() }),
            }
        }
        if r.left() != payload {
            let (expected, found) = (payload as u64, r.left() as u64);
            return Err(WalError::Mismatch { at: start, field: "record length", expected, found });
        }
        record.blocks.reserve_exact(pending.len());
        for p in pending {
            let image = match p.image {
                None => None,
                Some((n, hole_offset, hole_length, info)) => {
                    let bytes = r.bytes(n).ok_or(truncated.clone())?;
                    Some(Image { bytes, hole_offset, hole_length, info })
                }
            };
            let data = r.bytes(p.data_len).ok_or(truncated.clone())?;
            record.blocks.push(BlockRef { id: p.id, tag: p.tag, will_init: p.will_init, data, image });
        }
        record.main_data = r.bytes(main_len).ok_or(truncated)?;
        Ok(record)
    }

    /// The block reference with this id.
    pub fn block(&self, id: u8) -> Option<&BlockRef<'a>> {
        self.blocks.iter().find(|b| b.id == id)
    }
}

fn block_header(at: Lsn, id: u8, r: &mut Reader<'_>, last: Option<&Pending>) -> Result<Pending, WalError> {
    let truncated = || WalError::Truncated { at, what: "block header" };
    let bad = |field, value: u64| WalError::BadField { at, field, value };
    if last.is_some_and(|p| p.id >= id) {
        return Err(bad("block_id", id.into()));
    }
    let flags = r.u8().ok_or_else(truncated)?;
    let data_len = usize::from(r.u16().ok_or_else(truncated)?);
    if (flags & HAS_DATA != 0) != (data_len > 0) {
        return Err(bad("data_length", data_len as u64));
    }
    let image = if flags & HAS_IMAGE == 0 { None } else { Some(image_header(at, r)?) };
    let rel = if flags & SAME_REL == 0 {
        let mut field = || r.u32().ok_or_else(truncated);
        RelTag { spc: field()?, db: field()?, rel: field()? }
    } else {
        last.ok_or_else(|| bad("fork_flags", flags.into()))?.tag.rel
    };
    let fork = Fork::from_number(flags & FORK_MASK).ok_or_else(|| bad("fork_flags", flags.into()))?;
    let blkno = r.u32().ok_or_else(truncated)?;
    let tag = BlockTag { rel, fork, blkno };
    Ok(Pending { id, tag, will_init: flags & WILL_INIT != 0, data_len, image })
}

/// Length, hole offset, hole length and `bimg_info` of an image.
fn image_header(at: Lsn, r: &mut Reader<'_>) -> Result<(usize, u16, u16, u8), WalError> {
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
    Ok((usize::from(len), hole_offset, hole_length, info))
}
