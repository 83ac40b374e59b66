//! A block of a layer file: some entries in order, found by binary search.

use super::LayerError;
use super::key::Key;
use super::value::Value;
use crate::Lsn;
use crate::reader::Reader;

/// Length of a key with its LSN.
pub const POSITION_LEN: usize = Key::LEN + 8;
/// Every so many entries one is stored whole, to search from.
const RESTART_INTERVAL: usize = 16;

/// Where an entry stands in the order of a layer: by key, and newest first within one.
///
/// ```text
/// offset  0     19              27
///         | key | NOT end LSN |
/// ```
///
/// Big-endian; the LSN is stored with its bits inverted, so that bytes sort newest first.
pub fn encode_position(key: &Key, lsn: Lsn) -> [u8; POSITION_LEN] {
    let mut out = [0; POSITION_LEN];
    let lsn = (!lsn.0).to_be_bytes();
    for (to, from) in out.iter_mut().zip(key.encode().iter().chain(&lsn)) {
        *to = *from;
    }
    out
}

/// The key and LSN of a position; `None` if the key is of an unknown kind.
pub fn decode_position(bytes: &[u8; POSITION_LEN]) -> Option<(Key, Lsn)> {
    let mut r = Reader(bytes);
    let key = Key::decode(&r.array()?)?;
    Some((key, Lsn(!r.array().map(u64::from_be_bytes)?)))
}

/// Gathers the entries of one block.
///
/// ```text
/// | entry | entry | … | restart offset | … | restart count |     (the file adds the checksum)
///                     `-- u32 each ----'    `---- u32 ----'
///
/// entry:  | shared | rest of the position | value |
///         `-- u8 --'`- 27 - shared bytes -'
/// ```
///
/// `shared` says how many bytes of the position are those of the entry before; 0 at a restart.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    entries: usize,
    last: Option<[u8; POSITION_LEN]>,
}

impl BlockBuilder {
    /// Appends an entry. `position` must be above the last.
    pub fn push(&mut self, position: &[u8; POSITION_LEN], value: &Value<'_>) {
        debug_assert!(self.last.as_ref().is_none_or(|last| last < position));
        let shared = match &self.last {
            Some(last) if self.entries % RESTART_INTERVAL != 0 => {
                last.iter().zip(position).take_while(|(a, b)| a == b).count()
            }
            _ => {
                self.restarts.push(self.bytes.len() as u32);
                0
            }
        };
        self.bytes.push(shared as u8);
        self.bytes.extend_from_slice(position.get(shared..).unwrap_or_default());
        value.encode(&mut self.bytes);
        self.last = Some(*position);
        self.entries += 1;
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The block, without checksum; the builder is empty again.
    pub fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        for offset in &self.restarts {
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.restarts.len() as u32).to_le_bytes());
        self.restarts.clear();
        self.entries = 0;
        self.last = None;
        bytes
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What the value is of.
    pub key: Key,
    /// From which LSN on it holds: the end of the record, for a page.
    pub lsn: Lsn,
    /// The value.
    pub value: Value<'a>,
}

/// The entries of a block, in order.
#[derive(Clone, Debug)]
pub struct BlockIter<'a> {
    entries: Reader<'a>,
    position: [u8; POSITION_LEN],
    /// Where the block starts in the file, for errors.
    offset: u64,
}

impl<'a> BlockIter<'a> {
    /// Begins at the first entry at or after `from`, or a few before it.
    ///
    /// # Errors
    /// `Malformed` if the restarts are not those of a block.
    pub fn seek(block: &'a [u8], offset: u64, from: &[u8; POSITION_LEN]) -> Result<Self, LayerError> {
        Self::search(block, from)
            .map(|entries| Self { entries, position: [0; POSITION_LEN], offset })
            .ok_or(LayerError::Malformed { what: "block", offset })
    }

    fn search(block: &'a [u8], from: &[u8; POSITION_LEN]) -> Option<Reader<'a>> {
        let (rest, count) = block.split_last_chunk::<4>()?;
        let count = u32::from_le_bytes(*count) as usize;
        let (entries, restarts) = rest.split_at_checked(rest.len().checked_sub(count.checked_mul(4)?)?)?;
        let start_of = |i: usize| -> Option<&'a [u8]> {
            let (start, _) = restarts.get(i.checked_mul(4)?..)?.split_first_chunk::<4>()?;
            entries.get(u32::from_le_bytes(*start) as usize..)
        };
        // Invariant: the entry at restart `low` is not above `from`, or `low` is 0; the one at `high` is above it.
        let (mut low, mut high) = (0, count);
        while high > low + 1 {
            let middle = low.midpoint(high);
            let [0, position @ ..] = start_of(middle)? else { return None };
            if position.get(..POSITION_LEN)? <= from.as_slice() {
                low = middle;
            } else {
                high = middle;
            }
        }
        start_of(low).map(Reader)
    }

    fn read(&mut self) -> Option<Entry<'a>> {
        let shared = usize::from(self.entries.u8()?);
        let rest = self.position.get_mut(shared..)?;
        rest.copy_from_slice(self.entries.bytes(rest.len())?);
        let (key, lsn) = decode_position(&self.position)?;
        Some(Entry { key, lsn, value: Value::decode(&mut self.entries)? })
    }
}

impl<'a> Iterator for BlockIter<'a> {
    type Item = Result<Entry<'a>, LayerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.entries.left() == 0 {
            return None;
        }
        let entry = self.read();
        if entry.is_none() {
            self.entries = Reader(&[]);
        }
        Some(entry.ok_or(LayerError::Malformed { what: "entry", offset: self.offset }))
    }
}
