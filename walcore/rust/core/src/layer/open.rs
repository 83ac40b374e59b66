//! The layer that is being filled, and the same once it is frozen: in memory.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::LayerError;
use super::block::POSITION_LEN;
use super::block::{decode_position, encode_position};
use super::file::Header;
use super::key::Key;
use super::run::Run;
use super::value::{DeltaCount, Touch, Value};
use super::writer::LayerWriter;
use crate::Lsn;
use crate::reader::Reader;

/// What a batch of records adds to the open layer, in the order of the WAL.
#[derive(Debug, Default)]
pub struct Batch {
    /// Pages touched: the LSN is the record's end.
    pub touches: Vec<(Key, Lsn, Touch)>,
    /// Everything else, but for blobs.
    pub states: Vec<(Key, Lsn, Value<'static>)>,
    /// States that are bytes.
    pub blobs: Vec<(Key, Lsn, Vec<u8>)>,
}

impl Batch {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.touches.len() + self.states.len() + self.blobs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A layer in memory. Many threads may read it while one fills it.
#[derive(Debug)]
pub struct OpenLayer {
    system_id: u64,
    start_lsn: Lsn,
    inner: RwLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    end_lsn: Lsn,
    entries: u64,
    bytes: u64,
    pages: HashMap<Key, PageHistory, BuildHasherDefault<FieldHasher>>,
    /// By position, so newest first within a key; values as stored in files.
    states: BTreeMap<[u8; POSITION_LEN], Box<[u8]>>,
}

#[derive(Debug, Default)]
struct PageHistory {
    /// Oldest first.
    entries: Vec<(Lsn, Touch)>,
    count: DeltaCount,
}

/// Memory of an entry, of a page's history without entries, and of a state without its value; roughly.
const ENTRY_BYTES: u64 = 16;
const PAGE_BYTES: u64 = 128;
const STATE_BYTES: u64 = 64;

impl OpenLayer {
    /// An empty layer.
    pub fn new(system_id: u64, start_lsn: Lsn) -> Self {
        let inner = Inner {
            end_lsn: start_lsn,
            entries: 0,
            bytes: 0,
            pages: HashMap::default(),
            states: BTreeMap::new(),
        };
        Self { system_id, start_lsn, inner: RwLock::new(inner) }
    }

    /// Takes what the records up to `end_lsn` did; leaves the batch empty. Readers see all of it or nothing.
    ///
    /// A key may come once at an LSN.
    pub fn apply(&self, batch: &mut Batch, end_lsn: Lsn) {
        let mut inner = self.write_lock();
        let inner = &mut *inner;
        for (key, lsn, touch) in batch.touches.drain(..) {
            let history = inner.pages.entry(key).or_insert_with(|| {
                inner.bytes += PAGE_BYTES;
                PageHistory::default()
            });
            history.entries.push((lsn, touch));
            history.count.push(touch.is_base(), touch.distance.into());
            inner.entries += 1;
            inner.bytes += ENTRY_BYTES;
        }
        for (key, lsn, value) in batch.states.drain(..) {
            inner.set_state(&key, lsn, &value);
        }
        for (key, lsn, bytes) in batch.blobs.drain(..) {
            inner.set_state(&key, lsn, &Value::Blob(&bytes));
        }
        inner.end_lsn = end_lsn;
    }

    /// Memory held, roughly.
    pub fn bytes(&self) -> u64 {
        self.read_lock().bytes
    }

    /// Writes a layer file of what is in it, and returns what it wrote to, for the caller to sync.
    ///
    /// # Errors
    /// What `out` fails with.
    pub fn write_to<W: Write>(&self, out: W) -> io::Result<W> {
        let inner = self.read_lock();
        let header = Header { system_id: self.system_id, start_lsn: self.start_lsn, end_lsn: inner.end_lsn };
        let mut writer = LayerWriter::new(out, &header)?;
        let mut pages: Vec<_> = inner.pages.iter().collect();
        pages.sort_unstable_by_key(|(key, _)| **key);
        let mut pages = pages.into_iter().peekable();
        for (position, bytes) in &inner.states {
            let damaged = || io::Error::other("state of an open layer is damaged");
            let (key, lsn) = decode_position(position).ok_or_else(damaged)?;
            while let Some((page, history)) = pages.next_if(|(page, _)| **page < key) {
                write_page(&mut writer, page, history)?;
            }
            writer.push(&key, lsn, &Value::decode(&mut Reader(bytes)).ok_or_else(damaged)?)?;
        }
        for (page, history) in pages {
            write_page(&mut writer, page, history)?;
        }
        writer.finish()
    }

    fn read_lock(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lock(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn set_state(&mut self, key: &Key, lsn: Lsn, value: &Value<'_>) {
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        self.bytes += STATE_BYTES + bytes.len() as u64;
        if self.states.insert(encode_position(key, lsn), bytes.into()).is_none() {
            self.entries += 1;
        }
    }
}

fn write_page<W: Write>(writer: &mut LayerWriter<W>, key: &Key, history: &PageHistory) -> io::Result<()> {
    let mut count = Some(history.count);
    for (lsn, touch) in history.entries.iter().rev() {
        writer.push(key, *lsn, &Value::Wal(*touch, count.take()))?;
    }
    Ok(())
}

impl Run for OpenLayer {
    fn start_lsn(&self) -> Lsn {
        self.start_lsn
    }

    fn end_lsn(&self) -> Lsn {
        self.read_lock().end_lsn
    }

    fn entries(&self) -> u64 {
        self.read_lock().entries
    }

    fn system_id(&self) -> u64 {
        self.system_id
    }

    fn history(
        &self,
        key: &Key,
        at_lsn: Lsn,
        each: &mut dyn FnMut(Lsn, Value<'_>) -> ControlFlow<()>,
    ) -> Result<(), LayerError> {
        let inner = self.read_lock();
        if key.kind.is_page() {
            let Some(page) = inner.pages.get(key) else { return Ok(()) };
            let end = page.entries.partition_point(|(lsn, _)| *lsn <= at_lsn);
            let mut count = (end == page.entries.len()).then_some(page.count);
            for (lsn, touch) in page.entries.get(..end).unwrap_or_default().iter().rev() {
                if each(*lsn, Value::Wal(*touch, count.take())).is_break() {
                    break;
                }
            }
            return Ok(());
        }
        let range = encode_position(key, at_lsn)..=encode_position(key, Lsn::INVALID);
        for (position, bytes) in inner.states.range(range) {
            let (_, lsn, value) = state(position, bytes)?;
            if each(lsn, value).is_break() {
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
        let inner = self.read_lock();
        let range = encode_position(first, Lsn(u64::MAX))..=encode_position(last, Lsn::INVALID);
        let mut done = None;
        for (position, bytes) in inner.states.range(range) {
            let (key, lsn, value) = state(position, bytes)?;
            if lsn <= at_lsn && done != Some(key) {
                done = Some(key);
                each(key, lsn, value);
            }
        }
        Ok(())
    }
}

fn state<'a>(position: &[u8; POSITION_LEN], bytes: &'a [u8]) -> Result<(Key, Lsn, Value<'a>), LayerError> {
    let (key, lsn) = decode_position(position).ok_or(LayerError::Malformed { what: "state", offset: 0 })?;
    let value =
        Value::decode(&mut Reader(bytes)).ok_or(LayerError::Malformed { what: "state", offset: 0 })?;
    Ok((key, lsn, value))
}

/// Hashes the fields of a key: a multiply a field. Keys come from the WAL of the user's own server, so nobody has an
/// interest in making them collide.
#[derive(Debug, Default)]
pub struct FieldHasher(u64);

impl Hasher for FieldHasher {
    fn finish(&self) -> u64 {
        // The table takes its bucket from the low bits, its tag from the high ones: both must be good.
        self.0 ^ self.0.rotate_right(32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    fn write_isize(&mut self, n: isize) {
        self.write_u64(u64::from_le_bytes((n as i64).to_le_bytes()));
    }
}
