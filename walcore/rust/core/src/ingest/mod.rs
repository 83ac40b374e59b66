//! The write side of a timeline: WAL in, index entries out.

mod sizes;

use std::sync::Arc;

pub use sizes::{Changes, Sizes};

use crate::Lsn;
use crate::layer::{Batch, Key, OpenLayer, Touch};
use crate::redo::{RedoError, Target, Touched, touches};
use crate::version::Major;
use crate::wal::{RawRecord, WalError, WalStream};

/// Entries gathered before the open layer is locked once for all of them.
const BATCH_MAX: usize = 2048;

/// Scans WAL and indexes every page and size that a record touches.
#[derive(Debug)]
pub struct Ingest {
    stream: WalStream,
    index: Index,
}

/// What the records are indexed into.
#[derive(Debug)]
struct Index {
    major: Major,
    system_id: u64,
    sizes: Sizes,
    open: Arc<OpenLayer>,
    batch: Batch,
    /// Of the record at hand; kept for its memory.
    effects: Vec<Touched>,
}

impl Ingest {
    /// Begins at `start`, with the sizes as of then; the rest as [`WalStream::new`].
    ///
    /// # Errors
    /// As [`WalStream::new`].
    pub fn new(
        start: Lsn,
        segment_size: u64,
        system_id: u64,
        major: Major,
        sizes: Sizes,
    ) -> Result<Self, WalError> {
        let known = Some(system_id).filter(|n| *n != 0);
        let stream = WalStream::new(start, segment_size, known, None)?;
        let open = Arc::new(OpenLayer::new(system_id, start));
        Ok(Self {
            stream,
            index: Index { major, system_id, sizes, open, batch: Batch::default(), effects: Vec::new() },
        })
    }

    /// Indexes the next bytes of the stream; calls `also` for every record, before it is indexed.
    ///
    /// # Errors
    /// The first thing that is not the WAL it should be, or what `also` returned. What came before it is indexed.
    pub fn feed<F>(&mut self, wal: &[u8], mut also: F) -> Result<(), WalError>
    where
        F: FnMut(&RawRecord<'_>) -> Result<(), WalError>,
    {
        let Self { stream, index } = self;
        let result = stream.feed(wal, &mut |raw| {
            also(raw)?;
            index.record(raw)
        });
        index.open.apply(&mut index.batch, stream.record_end());
        result
    }

    /// What the stream knows of itself.
    pub fn stream(&self) -> &WalStream {
        &self.stream
    }

    /// End of the last record that is indexed.
    pub fn ingested(&self) -> Lsn {
        self.stream.record_end()
    }

    /// The layer being filled.
    pub fn open_layer(&self) -> &Arc<OpenLayer> {
        &self.index.open
    }

    /// Ends the open layer here and begins a new one; returns the old one, which changes no more.
    pub fn freeze(&mut self) -> Arc<OpenLayer> {
        let next = Arc::new(OpenLayer::new(self.index.system_id, self.ingested()));
        std::mem::replace(&mut self.index.open, next)
    }

    /// The sizes as of [`Self::ingested`].
    pub fn sizes(&self) -> &Sizes {
        &self.index.sizes
    }
}

impl Index {
    fn record(&mut self, raw: &RawRecord<'_>) -> Result<(), WalError> {
        if let Some(found) = raw.major.filter(|major| *major != self.major) {
            let (expected, found) = (self.major.wal_magic().into(), found.wal_magic().into());
            return Err(WalError::Mismatch { at: raw.start, field: "xlp_magic", expected, found });
        }
        let record = raw.decode()?;
        self.effects.clear();
        let effects = &mut self.effects;
        let malformed = |what, value| WalError::BadField { at: raw.start, field: what, value };
        touches(&record, self.major, &mut |touched| effects.push(touched)).map_err(|error| match error {
            RedoError::Malformed { what, info, .. } => malformed(what, info.into()),
            _ => malformed("record", raw.header.rmid.into()),
        })?;
        let is_beyond = |touched: &Touched| match touched {
            Touched::Page { target: Target::Slru { pageno, .. }, .. } => *pageno > u32::MAX.into(),
            _ => false,
        };
        if self.effects.iter().any(is_beyond) {
            return Err(malformed("pageno", raw.header.rmid.into()));
        }
        let distance = raw.end.0.checked_sub(raw.start.0).and_then(|n| u32::try_from(n).ok());
        let distance = distance.ok_or_else(|| malformed("xl_tot_len", raw.header.tot_len.into()))?;
        let effects = std::mem::take(&mut self.effects);
        for touched in &effects {
            self.effect(raw, *touched, distance);
        }
        self.effects = effects;
        if self.batch.touches.len() + self.batch.states.len() >= BATCH_MAX {
            self.open.apply(&mut self.batch, raw.end);
        }
        Ok(())
    }

    /// Adds one effect of a record.
    fn effect(&mut self, raw: &RawRecord<'_>, touched: Touched, distance: u32) {
        let (start, end, sizes, changes) = (raw.start, raw.end, &mut self.sizes, &mut self.batch.states);
        match touched {
            Touched::Page { target, will_init, has_image, .. } => {
                let key = match target {
                    Target::Block(tag) => {
                        if touched.extends() {
                            sizes.extend(tag.rel, tag.fork, tag.blkno, start, end, changes);
                        }
                        Key::page(&tag)
                    }
                    Target::Slru { kind, pageno } => Key::slru_page(kind, pageno as u32),
                };
                self.batch.touches.push((key, end, Touch { distance, will_init, has_image }));
            }
            Touched::Created { rel, fork } => sizes.create(rel, fork, end, changes),
            Touched::Truncated { rel, fork, blocks } => sizes.truncate(rel, fork, blocks, end, changes),
            Touched::Dropped { rel } => sizes.drop_relation(rel, end, changes),
            Touched::DatabaseDropped { spc, db } => sizes.drop_database(spc, db, end, changes),
            Touched::DatabaseCopied { src_spc, src_db, spc, db } => {
                sizes.copy_database((src_spc, src_db), (spc, db), end, changes);
            }
        }
    }
}
