//! What is kept under a key at an LSN.

use super::coding::{put_varint, take_varint, take_varint32};
use crate::Lsn;
use crate::page::{BLCKSZ, PageBuf};
use crate::reader::Reader;

/// Deltas since a page's last base, as far as one layer knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeltaCount {
    /// How many.
    pub deltas: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// Whether the base is in this layer; otherwise older layers go on counting.
    pub based: bool,
}

impl DeltaCount {
    /// Counts one more entry, newer than all before.
    pub fn push(&mut self, is_base: bool, bytes: u64) {
        if is_base {
            *self = Self { deltas: 0, bytes: 0, based: true };
        } else {
            self.deltas += 1;
            self.bytes = self.bytes.saturating_add(bytes);
        }
    }

    /// Adds what an older layer knows.
    pub fn extend(&mut self, older: &Self) {
        if !self.based {
            self.deltas = self.deltas.saturating_add(older.deltas);
            self.bytes = self.bytes.saturating_add(older.bytes);
            self.based = older.based;
        }
    }
}

/// What a record does to a page: enough to know where a chain ends without reading the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touch {
    /// Bytes from the record's start to its end, WAL page headers and padding included.
    pub distance: u32,
    /// It rebuilds the page from zeros.
    pub will_init: bool,
    /// It has an image that replaces the page.
    pub has_image: bool,
}

impl Touch {
    /// Whether nothing older is needed to rebuild the page.
    pub fn is_base(self) -> bool {
        self.will_init || self.has_image
    }
}

/// A value; borrows its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A record that touches the page, in the WAL. The newest entry of a key in a layer carries the layer's count.
    Wal(Touch, Option<DeltaCount>),
    /// The same, with the record's bytes beside it.
    Record(Touch, Option<DeltaCount>, &'a [u8]),
    /// The page itself, LZ4 or plain.
    Image(PageImage<'a>),
    /// How many blocks a fork has from here on.
    Size(Size),
    /// From here on the fork is a copy of another's state at this LSN (database made by file copy).
    Copied {
        /// Blocks of the copy.
        blocks: u32,
        /// Tablespace of the original.
        spc: u32,
        /// Database of the original.
        db: u32,
    },
    /// Some other state, whole.
    Blob(&'a [u8]),
    /// From here on it does not exist.
    Tombstone,
}

/// The size of a fork, and where its blocks began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Blocks.
    pub blocks: u32,
    /// The last time that the fork was shorter than it had been, or began to exist; 0 if never since the base.
    pub floor_lsn: Lsn,
    /// How many blocks it had then. A block at or above this number has no history at or below `floor_lsn`.
    pub floor_blocks: u32,
}

/// A page as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageImage<'a> {
    /// One LZ4 block.
    Lz4(&'a [u8]),
    /// 8192 bytes.
    Plain(&'a [u8]),
}

impl PageImage<'_> {
    /// The page; `None` if the bytes are not one.
    pub fn restore(&self) -> Option<PageBuf> {
        match self {
            Self::Plain(bytes) => PageBuf::from_bytes(bytes),
            Self::Lz4(bytes) => {
                let mut page = PageBuf::zeroed();
                let n = lz4_flex::block::decompress_into(bytes, page.bytes_mut()).ok()?;
                (n == BLCKSZ).then_some(page)
            }
        }
    }
}

const KIND: u8 = 0x07;
const WAL: u8 = 0;
const RECORD: u8 = 1;
const IMAGE: u8 = 2;
const SIZE: u8 = 3;
const COPIED: u8 = 4;
const BLOB: u8 = 5;
const TOMBSTONE: u8 = 6;

const WILL_INIT: u8 = 0x08;
const HAS_IMAGE: u8 = 0x10;
const COUNT: u8 = 0x20;
const COUNT_BASED: u8 = 0x40;
/// Of an image.
const PLAIN: u8 = 0x08;

impl<'a> Value<'a> {
    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Wal(touch, count) => put_touch(out, WAL, *touch, count.as_ref()),
            Self::Record(touch, count, bytes) => {
                put_touch(out, RECORD, *touch, count.as_ref());
                put_bytes(out, bytes);
            }
            Self::Image(PageImage::Lz4(bytes)) => {
                out.push(IMAGE);
                put_bytes(out, bytes);
            }
            Self::Image(PageImage::Plain(bytes)) => {
                out.push(IMAGE | PLAIN);
                put_bytes(out, bytes);
            }
            Self::Size(size) => {
                out.push(SIZE);
                put_varint(out, size.blocks.into());
                put_varint(out, size.floor_lsn.0);
                put_varint(out, size.floor_blocks.into());
            }
            Self::Copied { blocks, spc, db } => {
                out.push(COPIED);
                put_varint(out, (*blocks).into());
                put_varint(out, (*spc).into());
                put_varint(out, (*db).into());
            }
            Self::Blob(bytes) => {
                out.push(BLOB);
                put_bytes(out, bytes);
            }
            Self::Tombstone => out.push(TOMBSTONE),
        }
    }

    /// Takes one off the front; `None` if the bytes are not a value.
    pub fn decode(r: &mut Reader<'a>) -> Option<Self> {
        let tag = r.u8()?;
        let flags = tag & !KIND;
        match tag & KIND {
            WAL => {
                let (touch, count) = take_touch(r, flags)?;
                Some(Self::Wal(touch, count))
            }
            RECORD => {
                let (touch, count) = take_touch(r, flags)?;
                Some(Self::Record(touch, count, take_bytes(r)?))
            }
            IMAGE if flags == 0 => take_bytes(r).map(|b| Self::Image(PageImage::Lz4(b))),
            IMAGE if flags == PLAIN => take_bytes(r).map(|b| Self::Image(PageImage::Plain(b))),
            SIZE if flags == 0 => {
                let (blocks, floor_lsn) = (take_varint32(r)?, Lsn(take_varint(r)?));
                Some(Self::Size(Size { blocks, floor_lsn, floor_blocks: take_varint32(r)? }))
            }
            COPIED if flags == 0 => {
                let (blocks, spc) = (take_varint32(r)?, take_varint32(r)?);
                Some(Self::Copied { blocks, spc, db: take_varint32(r)? })
            }
            BLOB if flags == 0 => take_bytes(r).map(Self::Blob),
            TOMBSTONE if flags == 0 => Some(Self::Tombstone),
            _ => None,
        }
    }
}

fn put_touch(out: &mut Vec<u8>, kind: u8, touch: Touch, count: Option<&DeltaCount>) {
    let flags = [
        (touch.will_init, WILL_INIT),
        (touch.has_image, HAS_IMAGE),
        (count.is_some(), COUNT),
        (count.is_some_and(|count| count.based), COUNT_BASED),
    ];
    out.push(flags.into_iter().filter(|(is_set, _)| *is_set).fold(kind, |tag, (_, flag)| tag | flag));
    put_varint(out, touch.distance.into());
    if let Some(count) = count {
        put_varint(out, count.deltas);
        put_varint(out, count.bytes);
    }
}

fn take_touch(r: &mut Reader<'_>, flags: u8) -> Option<(Touch, Option<DeltaCount>)> {
    let is_set = |flag| flags & flag != 0;
    if is_set(0x80) || is_set(COUNT_BASED) && !is_set(COUNT) {
        return None;
    }
    let distance = take_varint32(r)?;
    let touch = Touch { distance, will_init: is_set(WILL_INIT), has_image: is_set(HAS_IMAGE) };
    if !is_set(COUNT) {
        return Some((touch, None));
    }
    let (deltas, bytes) = (take_varint(r)?, take_varint(r)?);
    Some((touch, Some(DeltaCount { deltas, bytes, based: is_set(COUNT_BASED) })))
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(r: &mut Reader<'a>) -> Option<&'a [u8]> {
    let n = take_varint32(r)? as usize;
    r.bytes(n)
}

/// Compresses a page for storage; plain if that does not make it smaller. `scratch` is overwritten.
pub fn page_image<'a>(page: &'a [u8; BLCKSZ], scratch: &'a mut Vec<u8>) -> PageImage<'a> {
    scratch.resize(lz4_flex::block::get_maximum_output_size(BLCKSZ), 0);
    match lz4_flex::block::compress_into(page, scratch) {
        Ok(n) if n < BLCKSZ => PageImage::Lz4(scratch.get(..n).unwrap_or_default()),
        _ => PageImage::Plain(page),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_comes_back_and_no_prefix_of_one_does() {
        let touch = Touch { distance: 300, will_init: true, has_image: false };
        let count = DeltaCount { deltas: 3, bytes: 1000, based: true };
        let values = [
            Value::Wal(touch, None),
            Value::Wal(Touch { distance: u32::MAX, will_init: false, has_image: true }, Some(count)),
            Value::Wal(Touch::default(), Some(DeltaCount { based: false, ..count })),
            Value::Record(touch, None, b"record"),
            Value::Record(touch, Some(count), b"record"),
            Value::Image(PageImage::Lz4(b"compressed")),
            Value::Image(PageImage::Plain(b"plain")),
            Value::Size(Size { blocks: 70_000, floor_lsn: Lsn(1 << 40), floor_blocks: 3 }),
            Value::Copied { blocks: 7, spc: 1663, db: 5 },
            Value::Blob(b"blob"),
            Value::Tombstone,
        ];
        for value in values {
            let mut out = Vec::new();
            value.encode(&mut out);
            let mut r = Reader(&out);
            assert_eq!((Value::decode(&mut r), r.left()), (Some(value), 0));
            for n in 0..out.len() {
                assert_eq!(Value::decode(&mut Reader(&out[..n])), None);
            }
        }
    }

    #[test]
    fn unknown_tags_are_refused() {
        for tag in [7u8, 0x0E, TOMBSTONE | 0x80, WAL | COUNT_BASED, WAL | 0x80, SIZE | 0x08] {
            assert_eq!(Value::decode(&mut Reader(&[tag, 1, 1, 1, 1, 1])), None, "tag {tag:x}");
        }
    }

    #[test]
    fn pages_compress_and_come_back() {
        let mut noise = PageBuf::zeroed();
        let mut x = 12345u64;
        for b in noise.bytes_mut() {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *b = (x >> 33) as u8;
        }
        for page in [PageBuf::zeroed(), noise] {
            let mut scratch = Vec::new();
            assert_eq!(page_image(page.bytes(), &mut scratch).restore(), Some(page));
        }
    }
}
