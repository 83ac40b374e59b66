//! The write side of a timeline: WAL in, index entries out.

mod sizes;
mod state;

use std::sync::Arc;

pub use sizes::{Changes, Sizes};
pub use state::State;

use crate::layer::{Batch, Key, OpenLayer, Touch, Value};
use crate::redo::touch::COMMIT_TS_XIDS_PER_PAGE;
use crate::redo::{RedoError, Slru, Target, Touched, commit_ts_touches, touches};
use crate::rmgr::xact::XactEnd;
use crate::state::{Change, Control, Cut, changes};
use crate::version::Major;
use crate::wal::{RawRecord, Record, WalError, WalStream};
use crate::{Lsn, rmgr};

/// Entries gathered before the open layer is locked once for all of them.
const BATCH_MAX: usize = 2048;
/// A read of the counters goes through the WAL since they were last noted: so many bytes at most.
const CONTROL_EVERY: u64 = 256 << 10;

/// Scans WAL and indexes every page, size and other state that a record touches.
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
    state: State,
    /// Where counters were last noted.
    control_lsn: Lsn,
    open: Arc<OpenLayer>,
    batch: Batch,
    /// Of the record at hand; kept for its memory.
    effects: Vec<Touched>,
}

impl Ingest {
    /// Begins at `start`, with the state as of then; the rest as [`WalStream::new`].
    ///
    /// # Errors
    /// As [`WalStream::new`].
    pub fn new(
        start: Lsn,
        segment_size: u64,
        system_id: u64,
        major: Major,
        state: State,
    ) -> Result<Self, WalError> {
        let known = Some(system_id).filter(|n| *n != 0);
        let stream = WalStream::new(start, segment_size, known, None)?;
        let open = Arc::new(OpenLayer::new(system_id, start));
        Ok(Self {
            stream,
            index: Index {
                major,
                system_id,
                state,
                control_lsn: Lsn::INVALID,
                open,
                batch: Batch::default(),
                effects: Vec::new(),
            },
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

    /// The state as of [`Self::ingested`].
    pub fn state(&self) -> &State {
        &self.index.state
    }
}

impl Index {
    fn record(&mut self, raw: &RawRecord<'_>) -> Result<(), WalError> {
        if let Some(found) = raw.major.filter(|major| *major != self.major) {
            let (expected, found) = (self.major.wal_magic().into(), found.wal_magic().into());
            return Err(WalError::Mismatch { at: raw.start, field: "xlp_magic", expected, found });
        }
        let record = raw.decode()?;
        let malformed = |what, value| WalError::BadField { at: raw.start, field: what, value };
        let distance = raw.end.0.checked_sub(raw.start.0).and_then(|n| u32::try_from(n).ok());
        let distance = distance.ok_or_else(|| malformed("xl_tot_len", raw.header.tot_len.into()))?;
        self.find_effects(&record).map_err(|error| match error {
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
        let effects = std::mem::take(&mut self.effects);
        for touched in &effects {
            self.effect(raw, *touched, distance);
        }
        self.effects = effects;
        let short = || malformed("record", raw.header.rmid.into());
        self.other_state(&record, distance).ok_or_else(short)?;
        if self.batch.len() >= BATCH_MAX {
            self.open.apply(&mut self.batch, raw.end);
        }
        Ok(())
    }

    /// Puts what a record touches into `effects`.
    fn find_effects(&mut self, record: &Record<'_>) -> Result<(), RedoError> {
        self.effects.clear();
        let effects = &mut self.effects;
        touches(record, self.major, &mut |touched| effects.push(touched))?;
        if is_tracked(self.state.control.as_ref()) {
            commit_ts_touches(record, self.major, &mut |touched| effects.push(touched))?;
        }
        Ok(())
    }

    /// Adds what a record does to state that is neither page nor size. `None` if it is too short.
    fn other_state(&mut self, record: &Record<'_>, distance: u32) -> Option<()> {
        let Self { state, batch, major, .. } = self;
        let end = if record.header.rmid == rmgr::XACT { XactEnd::decode(record, *major)? } else { None };
        let next_xid = state.control.as_ref().map_or(0, |control| control.now.next_xid);
        changes(record, end.as_ref(), next_xid, *major, &mut |change| match change {
            Change::Set(key, bytes) => batch.blobs.push((key, record.end, bytes)),
            Change::Copied(key, spc, db) => {
                batch.states.push((key, record.end, Value::Copied { blocks: 0, spc, db }));
            }
            Change::Gone(key) => batch.states.push((key, record.end, Value::Tombstone)),
        })?;
        let was_tracked = is_tracked(state.control.as_ref());
        let Some(control) = &mut state.control else { return Some(()) };
        let is_notable = control.follow(record, end.as_ref())?;
        if is_notable || record.end.0.saturating_sub(self.control_lsn.0) >= CONTROL_EVERY {
            batch.blobs.push((Key::control(), record.end, control.encode()));
            self.control_lsn = record.end;
        }
        match (was_tracked, is_tracked(Some(control))) {
            (true, false) => {
                batch.blobs.push((Key::slru_cut(Slru::CommitTs), record.end, Cut::All.encode()));
            }
            (false, true) => {
                // Source: `ActivateCommitTs` in `src/backend/access/transam/commit_ts.c`.
                let page = control.now.next_xid as u32 / COMMIT_TS_XIDS_PER_PAGE;
                let touch = Touch { distance, ..Touch::default() };
                batch.touches.push((Key::slru_page(Slru::CommitTs, page), record.end, touch));
            }
            _ => {}
        }
        Some(())
    }

    /// Adds one effect of a record.
    fn effect(&mut self, raw: &RawRecord<'_>, touched: Touched, distance: u32) {
        let (start, end) = (raw.start, raw.end);
        let (sizes, changes) = (&mut self.state.sizes, &mut self.batch.states);
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

/// Whether commit timestamps are kept.
fn is_tracked(control: Option<&Control>) -> bool {
    control.is_some_and(|control| control.parameters.track_commit_timestamp)
}
