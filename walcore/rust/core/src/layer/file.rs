//! Layer files: reading.

use std::ops::ControlFlow;

use super::LayerError;
use super::block::{BlockIter, Entry, POSITION_LEN, encode_position};
use super::key::Key;
use super::run::Run;
use super::value::Value;
use crate::Lsn;
use crate::reader::Reader;

/// First bytes of a layer file.
pub const MAGIC: [u8; 8] = *b"PGSLAYER";
/// Last bytes before the last checksum.
pub const END_MAGIC: [u8; 8] = *b"REYALSGP";
/// The version written and read here.
pub const VERSION: u16 = 2;
/// Length of the header.
pub const HEADER_LEN: usize = 48;
/// Length of the footer.
pub const FOOTER_LEN: usize = 80;
/// Length of an index entry.
pub const INDEX_ENTRY_LEN: usize = POSITION_LEN + 12;
/// Length of a checksum.
pub const CRC_LEN: usize = 4;

/// What the first bytes of a layer file say.
///
/// ```text
/// offset  0       8         10      12      16       24          32        40      44    48
///         | magic | version | flags | spare | sysid  | start lsn | end lsn | spare | crc |
/// ```
///
/// Little-endian. `spare` is 0; so is `flags`, until one is defined: a file with an unknown one is refused. The checksum
/// is of the bytes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster whose pages these are; 0 if not known.
    pub system_id: u64,
    /// Where the range of LSNs begins (excluded, but for images of a base backup).
    pub start_lsn: Lsn,
    /// Where it ends (included).
    pub end_lsn: Lsn,
}

impl Header {
    /// As stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&self.system_id.to_le_bytes());
        out.extend_from_slice(&self.start_lsn.0.to_le_bytes());
        out.extend_from_slice(&self.end_lsn.0.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        put_crc(&mut out, 0);
        out
    }

    fn decode(file: &[u8]) -> Result<Self, LayerError> {
        let bytes = part(file, 0, HEADER_LEN as u64, "header")?;
        let mut r = Reader(bytes);
        let short = LayerError::Truncated { what: "header", offset: 0 };
        let magic: [u8; 8] = r.array().ok_or(short.clone())?;
        if magic != MAGIC {
            return Err(LayerError::Unknown { field: "magic", value: u64::from_le_bytes(magic) });
        }
        let version = r.u16().ok_or(short.clone())?;
        if version != VERSION {
            return Err(LayerError::Unknown { field: "version", value: version.into() });
        }
        check_crc(bytes, 0, "header")?;
        let flags = r.u16().ok_or(short.clone())?;
        if flags != 0 {
            return Err(LayerError::Unknown { field: "flags", value: flags.into() });
        }
        r.skip(4).ok_or(short.clone())?;
        let mut field = || r.u64().ok_or(short.clone());
        Ok(Self { system_id: field()?, start_lsn: Lsn(field()?), end_lsn: Lsn(field()?) })
    }
}

/// What the last bytes of a layer file say.
///
/// ```text
/// offset  0           8        16       24          43         62      68          76    80
///         | index pos | blocks | entries | first key | last key | spare | end magic | crc |
/// ```
///
/// Little-endian, but for the keys. The checksum is of the bytes before it, from the footer's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Where the index starts; the footer follows it.
    pub index_offset: u64,
    /// Number of blocks, and of index entries.
    pub blocks: u64,
    /// Number of entries.
    pub entries: u64,
    /// Lowest and highest key; zeros in a layer without entries.
    pub keys: Option<(Key, Key)>,
}

impl Footer {
    /// As stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_LEN);
        for field in [self.index_offset, self.blocks, self.entries] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let keys = self.keys.map(|(first, last)| [first.encode(), last.encode()]);
        out.extend_from_slice(keys.unwrap_or([[0; Key::LEN]; 2]).as_flattened());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&END_MAGIC);
        put_crc(&mut out, 0);
        out
    }

    fn decode(file: &[u8]) -> Result<Self, LayerError> {
        let short = LayerError::Truncated { what: "footer", offset: file.len() as u64 };
        let offset = (file.len() as u64).checked_sub(FOOTER_LEN as u64).ok_or(short.clone())?;
        let bytes = part(file, offset, FOOTER_LEN as u64, "footer")?;
        if bytes.get(FOOTER_LEN - CRC_LEN - 8..FOOTER_LEN - CRC_LEN) != Some(&END_MAGIC) {
            return Err(short);
        }
        check_crc(bytes, offset, "footer")?;
        Self::read(Reader(bytes)).ok_or(LayerError::Malformed { what: "footer", offset })
    }

    fn read(mut r: Reader<'_>) -> Option<Self> {
        let (index_offset, blocks, entries) = (r.u64()?, r.u64()?, r.u64()?);
        let (first, last) = (r.array()?, r.array()?);
        let keys = if entries == 0 { None } else { Some((Key::decode(&first)?, Key::decode(&last)?)) };
        Some(Self { index_offset, blocks, entries, keys })
    }
}

/// Appends the CRC-32C of everything from `start` on.
pub(super) fn put_crc(out: &mut Vec<u8>, start: usize) {
    let crc = crc32c::crc32c(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Checks the last four bytes of a part against the others.
fn check_crc(bytes: &[u8], offset: u64, what: &'static str) -> Result<(), LayerError> {
    let (body, stored) = bytes.split_last_chunk::<CRC_LEN>().ok_or(LayerError::Truncated { what, offset })?;
    let (stored, found) = (u32::from_le_bytes(*stored), crc32c::crc32c(body));
    if stored == found { Ok(()) } else { Err(LayerError::Checksum { what, offset, stored, found }) }
}

fn part<'a>(file: &'a [u8], offset: u64, len: u64, what: &'static str) -> Result<&'a [u8], LayerError> {
    let range =
        usize::try_from(offset).ok().zip(offset.checked_add(len).and_then(|n| usize::try_from(n).ok()));
    range.and_then(|(start, end)| file.get(start..end)).ok_or(LayerError::Truncated { what, offset })
}

/// A layer file, in memory or mapped. Header, index and footer are checked when it is opened, a block when it is read.
#[derive(Debug)]
pub struct LayerFile<B> {
    bytes: B,
    header: Header,
    footer: Footer,
}

impl<B: AsRef<[u8]>> LayerFile<B> {
    /// Checks header, index and footer.
    ///
    /// # Errors
    /// `Unknown`, `Truncated`, `Checksum` or `Malformed`.
    pub fn open(bytes: B) -> Result<Self, LayerError> {
        let file = bytes.as_ref();
        let header = Header::decode(file)?;
        let footer = Footer::decode(file)?;
        let index_len = (file.len() as u64)
            .checked_sub(FOOTER_LEN as u64)
            .and_then(|end| end.checked_sub(footer.index_offset))
            .ok_or(LayerError::Malformed { what: "footer", offset: footer.index_offset })?;
        let index = part(file, footer.index_offset, index_len, "index")?;
        check_crc(index, footer.index_offset, "index")?;
        let expected = footer.blocks.checked_mul(INDEX_ENTRY_LEN as u64);
        if expected != Some(index_len - CRC_LEN as u64) {
            return Err(LayerError::Malformed { what: "index", offset: footer.index_offset });
        }
        Ok(Self { bytes, header, footer })
    }

    /// What its header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What its footer says.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// All entries at or after a position, in order.
    pub fn scan(&self, key: &Key, newest: Lsn) -> Scan<'_, B> {
        let from = encode_position(key, newest);
        Scan { file: self, next_block: self.block_for(&from), from, block: None }
    }

    /// All entries, in order.
    pub fn scan_all(&self) -> Scan<'_, B> {
        Scan { file: self, next_block: 0, from: [0; POSITION_LEN], block: None }
    }

    /// Reads and checks every block, and that the entries stand in order: reading searches by it.
    ///
    /// # Errors
    /// The first damage found.
    pub fn check(&self) -> Result<(), LayerError> {
        let mut entries = 0;
        let mut last = None;
        for entry in self.scan_all() {
            let entry = entry?;
            let position = encode_position(&entry.key, entry.lsn);
            if last.is_some_and(|last| last >= position) {
                return Err(LayerError::Malformed { what: "order of entries", offset: HEADER_LEN as u64 });
            }
            last = Some(position);
            entries += 1;
        }
        if entries == self.footer.entries {
            Ok(())
        } else {
            Err(LayerError::Malformed { what: "footer", offset: self.footer.index_offset })
        }
    }

    fn index(&self, block: u64) -> Option<(&[u8; POSITION_LEN], u64, u32)> {
        let start = block.checked_mul(INDEX_ENTRY_LEN as u64)?.checked_add(self.footer.index_offset)?;
        if block >= self.footer.blocks {
            return None;
        }
        let entry = self.bytes.as_ref().get(usize::try_from(start).ok()?..)?;
        let (position, rest) = entry.split_first_chunk()?;
        let mut r = Reader(rest);
        Some((position, r.u64()?, r.u32()?))
    }

    /// The last block that begins at or before a position, or the first one.
    fn block_for(&self, from: &[u8; POSITION_LEN]) -> u64 {
        let (mut low, mut high) = (0, self.footer.blocks);
        while high > low + 1 {
            let middle = low.midpoint(high);
            if self.index(middle).is_some_and(|(first, ..)| first <= from) {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    fn block(&self, number: u64, from: &[u8; POSITION_LEN]) -> Option<Result<BlockIter<'_>, LayerError>> {
        let (_, offset, len) = self.index(number)?;
        Some(part(self.bytes.as_ref(), offset, len.into(), "block").and_then(|bytes| {
            check_crc(bytes, offset, "block")?;
            let body = bytes.get(..bytes.len().saturating_sub(CRC_LEN)).unwrap_or_default();
            BlockIter::seek(body, offset, from)
        }))
    }
}

/// Entries of a layer file from some position on.
#[derive(Debug)]
pub struct Scan<'a, B> {
    file: &'a LayerFile<B>,
    next_block: u64,
    from: [u8; POSITION_LEN],
    block: Option<BlockIter<'a>>,
}

impl<'a, B: AsRef<[u8]>> Iterator for Scan<'a, B> {
    type Item = Result<Entry<'a>, LayerError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(block) = &mut self.block else {
                match self.file.block(self.next_block, &self.from)? {
                    Ok(block) => self.block = Some(block),
                    Err(error) => {
                        self.next_block = u64::MAX;
                        return Some(Err(error));
                    }
                }
                self.next_block += 1;
                continue;
            };
            match block.next() {
                None => self.block = None,
                // A block is entered a few entries early.
                Some(Ok(entry)) if encode_position(&entry.key, entry.lsn) < self.from => {}
                Some(Err(error)) => {
                    self.block = None;
                    self.next_block = u64::MAX;
                    return Some(Err(error));
                }
                Some(entry) => return Some(entry),
            }
        }
    }
}

impl<B: AsRef<[u8]> + Send + Sync> Run for LayerFile<B> {
    fn start_lsn(&self) -> Lsn {
        self.header.start_lsn
    }

    fn end_lsn(&self) -> Lsn {
        self.header.end_lsn
    }

    fn entries(&self) -> u64 {
        self.footer.entries
    }

    fn system_id(&self) -> u64 {
        self.header.system_id
    }

    fn history(
        &self,
        key: &Key,
        at_lsn: Lsn,
        each: &mut dyn FnMut(Lsn, Value<'_>) -> ControlFlow<()>,
    ) -> Result<(), LayerError> {
        if !self.footer.keys.is_some_and(|(first, last)| (first..=last).contains(key)) {
            return Ok(());
        }
        for entry in self.scan(key, at_lsn) {
            let entry = entry?;
            if entry.key != *key || each(entry.lsn, entry.value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn heads(
        &self,
        first: &Key,
        last: &Key,
        at_lsn: Lsn,
        each: &mut dyn FnMut(Key, Lsn, Value<'_>),
    ) -> Result<(), LayerError> {
        let mut done = None;
        for entry in self.scan(first, Lsn(u64::MAX)) {
            let Entry { key, lsn, value } = entry?;
            if key > *last {
                break;
            }
            if lsn <= at_lsn && done != Some(key) {
                done = Some(key);
                each(key, lsn, value);
            }
        }
        Ok(())
    }
}
