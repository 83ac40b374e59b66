//! The read side of a timeline: pages, sizes and SLRU pages at an LSN.

mod chain;
mod error;
mod forks;
mod segments;
mod state;

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use rayon::prelude::*;

pub use chain::{Chain, Delta, Index, Origin};
pub use error::{ReadError, SegmentError};
pub use forks::{ForkSink, Unreadable, WriteError};
pub use segments::{RecordReader, Segment, Segments};

use crate::Lsn;
use crate::layer::{DeltaCount, Key, Kind, LayerError, Size, Value};
use crate::page::PageBuf;
use crate::redo::{Ctx, Slru, redo};
use crate::version::Major;
use crate::wal::{Fork, Record, RelTag};

/// Rebuilds pages from layers and the WAL they point into.
pub struct PageReader {
    index: Index,
    segments: Arc<dyn Segments>,
    major: Major,
    /// Whether hint bits are logged, from an LSN on; ascending.
    hint_bits_logged: Vec<(Lsn, bool)>,
}

/// Sizes looked up once for many pages.
type SizesAt = HashMap<(Key, Lsn), Result<Option<Size>, ReadError>>;

impl PageReader {
    /// A reader of these layers.
    pub fn new(
        index: Index,
        segments: Arc<dyn Segments>,
        major: Major,
        hint_bits_logged: Vec<(Lsn, bool)>,
    ) -> Self {
        Self { index, segments, major, hint_bits_logged }
    }

    /// Pages as of an LSN each, on all cores.
    pub fn pages(&self, asked: &[(Key, Lsn)]) -> Vec<Result<PageBuf, ReadError>> {
        let mut sizes = SizesAt::new();
        for (key, at) in asked {
            let key = key.size_key();
            // Coverage first: the open layer grows, and what is looked up before it covers an LSN is not all there is.
            let size = || self.check_covered(*at).and_then(|()| Ok(self.index.size(&key, *at)?));
            sizes.entry((key, *at)).or_insert_with(size);
        }
        let one = |records: &mut RecordReader<'_>, (key, at): &(Key, Lsn)| {
            let size = sizes.get(&(key.size_key(), *at)).cloned().unwrap_or(Ok(None))?;
            self.page(key, *at, size, records)
        };
        let new_reader = || RecordReader::new(&*self.segments);
        if let [asked] = asked {
            return vec![one(&mut new_reader(), asked)];
        }
        asked.par_iter().map_init(new_reader, one).collect()
    }

    fn page(
        &self,
        key: &Key,
        at: Lsn,
        size: Option<Size>,
        records: &mut RecordReader<'_>,
    ) -> Result<PageBuf, ReadError> {
        let size = size.ok_or(ReadError::NoSuchRelation { key: *key, at })?;
        if key.blkno >= size.blocks {
            return Err(ReadError::NoSuchBlock { key: *key, blocks: size.blocks, at });
        }
        // A block that no record has touched, and of which the base has no image, is all zeros.
        Ok(self.rebuild(key, at, Some(&size), records)?.unwrap_or_else(PageBuf::zeroed))
    }

    /// An SLRU page as of an LSN; `None` if it does not exist then.
    ///
    /// # Errors
    /// Why it cannot be given.
    pub fn slru_page(&self, kind: Slru, pageno: u32, at: Lsn) -> Result<Option<PageBuf>, ReadError> {
        self.check_covered(at)?;
        if kind == Slru::CommitTs && !self.is_control_known(at)? {
            return Err(ReadError::NotFollowed { kind });
        }
        // A page that was removed has no history before that.
        let floor = self.removed_lsn(kind, pageno, at)?;
        let size = Size { blocks: u32::MAX, floor_lsn: floor, floor_blocks: 0 };
        let key = Key::slru_page(kind, pageno);
        self.rebuild(&key, at, Some(&size), &mut RecordReader::new(&*self.segments))
    }

    fn rebuild(
        &self,
        key: &Key,
        at: Lsn,
        size: Option<&Size>,
        records: &mut RecordReader<'_>,
    ) -> Result<Option<PageBuf>, ReadError> {
        let (chain, origin) = self.index.chain(key, at, size)?;
        let mut page = chain.image.map(|(_, page)| page);
        if let Some((origin, lsn)) = origin {
            let size = self.index.size(&origin, lsn)?;
            page = self.rebuild(&origin, lsn, size.as_ref(), records)?;
        }
        for delta in &chain.deltas {
            self.apply(&mut page, key, delta, records)?;
        }
        let is_newer = |page: &&PageBuf| key.kind == Kind::Page && page.lsn() > at;
        match page.as_ref().filter(is_newer) {
            Some(newer) => Err(ReadError::Newer { key: *key, page_lsn: newer.lsn(), at }),
            None => Ok(page),
        }
    }

    fn apply(
        &self,
        page: &mut Option<PageBuf>,
        key: &Key,
        delta: &Delta,
        records: &mut RecordReader<'_>,
    ) -> Result<(), ReadError> {
        let start = delta.start();
        let unreadable = |error| ReadError::Record { key: *key, lsn: start, error };
        let malformed = LayerError::Malformed { what: "page key", offset: 0 };
        let target = key.target().ok_or(malformed)?;
        let bytes = match &delta.bytes {
            Some(bytes) => bytes,
            None => records.record(start, delta.end).map_err(unreadable)?,
        };
        let record = Record::decode(start, delta.end, bytes).map_err(|error| unreadable(error.into()))?;
        let ctx = Ctx { major: self.major, hint_bits_logged: self.hint_bits_logged_at(start) };
        Ok(redo(page, &record, &target, &ctx)?)
    }

    fn hint_bits_logged_at(&self, lsn: Lsn) -> bool {
        self.hint_bits_logged.iter().rev().find(|(from, _)| *from <= lsn).is_some_and(|(_, logged)| *logged)
    }

    /// Size of a fork as of an LSN; `None` if it does not exist then.
    ///
    /// # Errors
    /// `NotCovered`; damage of a layer.
    pub fn size(&self, rel: RelTag, fork: Fork, at: Lsn) -> Result<Option<u32>, ReadError> {
        self.check_covered(at)?;
        Ok(self.index.size(&Key::size(rel, fork), at)?.map(|size| size.blocks))
    }

    /// Every fork that exists at an LSN, with its blocks, ascending.
    ///
    /// # Errors
    /// `NotCovered`; damage of a layer.
    pub fn relations(&self, at: Lsn) -> Result<Vec<(Key, u32)>, ReadError> {
        self.check_covered(at)?;
        let first = Key { shard: 0, kind: Kind::Size, spc: 0, db: 0, rel: 0, fork: 0, blkno: 0 };
        let last =
            Key { spc: u32::MAX, db: u32::MAX, rel: u32::MAX, fork: u8::MAX, blkno: u32::MAX, ..first };
        let mut newest: BTreeMap<Key, (Lsn, Option<u32>)> = BTreeMap::new();
        for layer in self.index.layers() {
            layer.heads(&first, &last, at, &mut |key, lsn, value| {
                let blocks = match value {
                    Value::Size(Size { blocks, .. }) | Value::Copied { blocks, .. } => Some(blocks),
                    _ => None,
                };
                let held = newest.entry(key).or_default();
                if lsn >= held.0 {
                    *held = (lsn, blocks);
                }
            })?;
        }
        Ok(newest.into_iter().filter_map(|(key, (_, blocks))| Some((key, blocks?))).collect())
    }

    /// What a read of a page would use.
    ///
    /// # Errors
    /// Why it cannot be given.
    pub fn chain(&self, key: &Key, at: Lsn) -> Result<Chain, ReadError> {
        self.check_covered(at)?;
        let size = self.index.size(key, at)?;
        Ok(self.index.chain(key, at, size.as_ref())?.0)
    }

    /// Reads the records of a chain, for whoever explains it.
    pub fn records(&self) -> RecordReader<'_> {
        RecordReader::new(&*self.segments)
    }

    /// Deltas since a page's last base.
    ///
    /// # Errors
    /// Damage of a layer.
    pub fn delta_count(&self, key: &Key) -> Result<DeltaCount, ReadError> {
        let mut count = DeltaCount::default();
        for layer in self.index.layers().iter().rev() {
            layer.history(key, Lsn(u64::MAX), &mut |_, value| {
                match value {
                    Value::Wal(_, Some(older)) | Value::Record(_, Some(older), _) => count.extend(&older),
                    _ => count.based = true,
                }
                ControlFlow::Break(())
            })?;
            if count.based {
                break;
            }
        }
        Ok(count)
    }

    fn check_covered(&self, at: Lsn) -> Result<(), ReadError> {
        let layers = self.index.layers();
        let start = layers.iter().map(|layer| layer.start_lsn()).min().unwrap_or_default();
        let end = layers.iter().map(|layer| layer.end_lsn()).max().unwrap_or_default();
        if (start..=end).contains(&at) { Ok(()) } else { Err(ReadError::NotCovered { at, start, end }) }
    }
}
