//! A filtered reading of WAL.

use super::Filter;
use crate::Lsn;
use crate::lsn::maxalign;
use crate::version::Major;
use crate::wal::page::PAGE_LEN;
use crate::wal::{RawRecord, WalError, WalStream};

/// Follows a stream and passes on the records that are asked for, until it has them all.
#[derive(Debug)]
pub struct Inspector {
    stream: WalStream,
    wanted: Wanted,
    failed: Option<WalError>,
}

/// Which records, of those in the stream.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// What they must be.
    pub filter: Filter,
    /// Where the first one may start.
    pub from: Lsn,
    /// What the last one may reach, padding excluded; `None`: all there are.
    pub until: Option<Lsn>,
    /// How many at most.
    pub limit: Option<u64>,
}

impl Inspector {
    /// Inspects a stream from a page boundary, so that the major version is known before the first record.
    ///
    /// # Errors
    /// `BadField` if `start` is no page boundary, or as [`WalStream::new`].
    pub fn new(start: Lsn, seg_size: u64, system_id: Option<u64>, wanted: Wanted) -> Result<Self, WalError> {
        if start.0 % PAGE_LEN != 0 {
            return Err(WalError::BadField { at: start, field: "start", value: start.0 });
        }
        let stream = WalStream::new(start, seg_size, system_id, None)?;
        Ok(Self { stream, wanted, failed: None })
    }

    /// Takes the next bytes and calls `each` for the records asked for among those that they complete.
    ///
    /// `last`: nothing comes after them; an `XLOG_SWITCH` without all of its padding is given too.
    pub fn feed<F>(&mut self, wal: &[u8], last: bool, each: &mut F)
    where
        F: FnMut(&RawRecord<'_>, Major) -> Result<(), WalError>,
    {
        if self.done() || self.failed.is_some() {
            return;
        }
        let Self { stream, wanted, .. } = self;
        // Behind `until` there may be no WAL at all.
        let room = wanted.until.map(|until| maxalign(until.0).saturating_sub(stream.received().0));
        let cut = room.and_then(|room| wal.get(..usize::try_from(room).ok()?)).unwrap_or(wal);
        let mut give = |raw: &RawRecord<'_>| wanted.pass(raw, each);
        let mut fed = stream.feed(cut, &mut give);
        if fed.is_ok() && (last || cut.len() < wal.len()) {
            fed = stream.finish(&mut give);
        }
        if !self.done() {
            self.failed = fed.err();
        }
    }

    /// Why reading stopped before its end: what is there is not WAL.
    pub fn failed(&self) -> Option<&WalError> {
        self.failed.as_ref()
    }

    /// Whether nothing that could still come is asked for.
    pub fn done(&self) -> bool {
        self.wanted.limit == Some(0)
            || self.wanted.until.is_some_and(|until| self.stream.received().0 >= maxalign(until.0))
    }

    /// The stream, for its positions.
    pub fn stream(&self) -> &WalStream {
        &self.stream
    }
}

impl Wanted {
    fn pass<F>(&mut self, raw: &RawRecord<'_>, each: &mut F) -> Result<(), WalError>
    where
        F: FnMut(&RawRecord<'_>, Major) -> Result<(), WalError>,
    {
        let past = self.until.is_some_and(|until| raw.end_of_bytes().0 > until.0);
        if self.limit == Some(0) || past || raw.start < self.from || !self.filter.accepts(raw)? {
            return Ok(());
        }
        let major = raw.major.ok_or(WalError::Truncated { at: raw.start, what: "page header" })?;
        self.limit = self.limit.map(|n| n - 1);
        each(raw, major)
    }
}
