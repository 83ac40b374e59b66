//! WAL at rest, read in spans of pages on all cores and joined in order.

use std::ops::Range;

use rayon::prelude::*;

use super::page::{PAGE_LEN, PageHeader};
use super::walk::Walk;
use super::{RawRecord, WalError, WalStream};
use crate::Lsn;
use crate::lsn::maxalign;
use crate::version::Major;

/// WAL that can be read at any position.
pub trait WalAt: Sync {
    /// Reads the bytes from `at` on, as many as fit and are there; gives their number. 0: there are none.
    fn read_at(&self, at: Lsn, into: &mut [u8]) -> usize;

    /// Length of a segment.
    fn segment_size(&self) -> u64;
}

/// What is made of records. Each span gets one of its own.
pub trait Sink: Send {
    /// Takes one record.
    ///
    /// # Errors
    /// The record's content is not what it should be: reading stops before it.
    fn take(&mut self, raw: &RawRecord<'_>, major: Major) -> Result<(), WalError>;
}

/// Where reading is, between two calls of [`read`].
#[derive(Clone, Debug)]
pub struct Place {
    /// Where the next record is looked for; on a page without one, the first behind it is taken.
    pub next: Lsn,
    /// Start of the record before it, which its `xl_prev` must be; `None`: any.
    pub prev: Option<Lsn>,
    /// Start of the first record.
    pub first: Option<Lsn>,
    /// Timeline of the last page.
    pub tli: u32,
    /// Bytes that one thread reads at a time: a power of two, at least a page, at most a segment.
    pub span_len: u64,
    /// Bytes from here on are not looked at.
    pub until: Option<Lsn>,
    /// Why the next record is none. A record that is not all there is no failure.
    pub failed: Option<WalError>,
}

/// Bytes that are read from a file at a time: they stay in the cache while they are looked at.
const PIECE_LEN: usize = 1 << 16;

impl Place {
    /// At the start of reading.
    pub fn new(next: Lsn, span_len: u64, until: Option<Lsn>) -> Self {
        Self { next, span_len, prev: None, first: None, tli: 0, until, failed: None }
    }

    /// Where the span that holds `at` ends.
    pub fn end_of_span(&self, at: Lsn) -> Lsn {
        Lsn((at.0 - at.0 % self.span_len).saturating_add(self.span_len))
    }

    /// Whether no byte that could still come is looked at.
    pub fn done(&self) -> bool {
        self.until.is_some_and(|until| self.next.0 >= maxalign(until.0))
    }
}

/// Reads on to `to`, and gives what each span's sink made of the records that start before it, in order.
///
/// `keep` sees each sink in order and says whether to go on; after `false` the place is behind that sink's records.
/// The record that is not whole where the WAL ends is left for the next call.
pub fn read<W, S, M, K>(wal: &W, place: &mut Place, to: Lsn, make: M, mut keep: K)
where
    W: WalAt + ?Sized,
    S: Sink,
    M: Fn() -> S + Sync,
    K: FnMut(S) -> bool,
{
    let from = place.next;
    let until = place.until;
    let parts: Vec<Part<S>> = spans(place, to)
        .into_par_iter()
        .map_init(|| vec![0; PIECE_LEN], |buffer, span| Part::read(wal, from, span, until, &make, buffer))
        .collect();
    for part in parts {
        let (whole, sink) = place.join(part, wal.segment_size());
        if sink.is_some_and(|sink| !keep(sink)) || !whole {
            return;
        }
    }
}

/// Cuts what lies between the page of `place` and `to` so that no span reaches into a second segment.
fn spans(place: &Place, to: Lsn) -> Vec<Range<Lsn>> {
    let mut start = place.next.0 - place.next.0 % PAGE_LEN;
    let mut spans = Vec::new();
    while start < to.0 {
        let end = place.end_of_span(Lsn(start)).0.min(to.0);
        spans.push(Lsn(start)..Lsn(end));
        start = end;
    }
    spans
}

/// What is in one span.
struct Part<S> {
    span: Range<Lsn>,
    sink: S,
    /// Start and `xl_prev` of its first record.
    first: Option<(Lsn, Lsn)>,
    last: Option<Lsn>,
    end: Lsn,
    /// A record that starts in the span is not whole.
    pending: bool,
    /// Timeline of its last page; timelines never go back.
    tli: u32,
    failed: Option<WalError>,
}

impl<S: Sink> Part<S> {
    /// `make` may be asked for two sinks: the first is lost where the walk over the pages gives up.
    fn read<W: WalAt + ?Sized>(
        wal: &W,
        from: Lsn,
        span: Range<Lsn>,
        until: Option<Lsn>,
        make: impl Fn() -> S,
        buffer: &mut [u8],
    ) -> Self {
        let mut part = Self::new(span.clone(), make());
        if part.walk(wal, from, until, buffer).is_some() {
            return part;
        }
        let mut part = Self::new(span, make());
        match WalStream::new(part.span.start, wal.segment_size(), None, None) {
            Ok(mut stream) => {
                part.follow(wal, from, until, &mut stream, buffer);
                part.tli = stream.tli();
            }
            Err(error) => part.failed = Some(error),
        }
        part
    }

    fn new(span: Range<Lsn>, sink: S) -> Self {
        let end = span.start;
        Self { span, sink, first: None, last: None, end, pending: false, tli: 0, failed: None }
    }

    /// Takes the records of sound WAL; `None` where it is not, or not all there.
    fn walk<W: WalAt + ?Sized>(
        &mut self,
        wal: &W,
        from: Lsn,
        until: Option<Lsn>,
        buffer: &mut [u8],
    ) -> Option<()> {
        let stop = self.span.end;
        let mut walk = Walk::new(self.span.start, wal.segment_size());
        let mut at = self.span.start;
        while at < stop || walk.is_gathering() {
            let left = if at < stop { stop.0 - at.0 } else { PAGE_LEN };
            let piece = buffer.get_mut(..left.min(PIECE_LEN as u64) as usize)?;
            let end = at.0 + piece.len() as u64;
            if until.is_some_and(|until| until.0 < end) || wal.read_at(at, piece) < piece.len() {
                return None;
            }
            for page in piece.chunks_exact(PAGE_LEN as usize) {
                walk.page(at, page, stop, &mut |raw| self.take(from, until, raw).ok())?;
                at.0 += PAGE_LEN;
            }
        }
        self.tli = walk.tli();
        Some(())
    }

    fn follow<W: WalAt + ?Sized>(
        &mut self,
        wal: &W,
        from: Lsn,
        until: Option<Lsn>,
        stream: &mut WalStream,
        buffer: &mut [u8],
    ) {
        let limit = until.map_or(u64::MAX, |until| maxalign(until.0));
        let is_ours = |start: Lsn, end: Lsn| start < end;
        while stream.received() < self.span.end
            || stream.gathering().is_some_and(|start| is_ours(start, self.span.end))
        {
            if stream.is_switched() {
                // Nothing but padding up to the end of the segment.
                let mut each = |raw: &RawRecord<'_>| self.take(from, until, raw);
                self.failed = stream.finish(&mut each).err();
                return;
            }
            let at = stream.received();
            let stop = if at < self.span.end { self.span.end.0 } else { at.0 - at.0 % PAGE_LEN + PAGE_LEN };
            let len = stop.min(limit).saturating_sub(at.0).min(buffer.len() as u64) as usize;
            let got = buffer.get_mut(..len).map_or(0, |into| wal.read_at(at, into));
            if got == 0 {
                self.pending = true;
                return;
            }
            let piece = buffer.get(..got).unwrap_or_default();
            let mut each = |raw: &RawRecord<'_>| self.take(from, until, raw);
            if let Err(error) = stream.feed(piece, &mut each) {
                self.failed = Some(error).filter(|_| self.end < self.span.end);
                return;
            }
        }
    }

    #[inline]
    fn take(&mut self, from: Lsn, until: Option<Lsn>, raw: &RawRecord<'_>) -> Result<(), WalError> {
        if raw.start < from || raw.start >= self.span.end {
            return Ok(());
        }
        if until.is_some_and(|until| raw.end_of_bytes().0 > until.0) {
            self.pending = true;
            return Ok(());
        }
        let major = raw.major.ok_or(WalError::Truncated { at: raw.start, what: "page header" })?;
        self.sink.take(raw, major)?;
        self.first.get_or_insert((raw.start, raw.header.prev));
        self.last = Some(raw.start);
        self.end = raw.end;
        Ok(())
    }
}

impl Place {
    /// Goes on behind a part; says whether all of it was there, and gives its sink if it is to be kept.
    fn join<S>(&mut self, part: Part<S>, segment_size: u64) -> (bool, Option<S>) {
        if self.next >= part.span.end {
            return (true, None);
        }
        let Some((start, prev)) = part.first else {
            self.failed = part.failed;
            let whole = self.failed.is_none() && !part.pending;
            return (whole, None);
        };
        if part.tli < self.tli {
            let (expected, found) = (self.tli.into(), part.tli.into());
            self.failed = Some(WalError::Mismatch { at: part.span.start, field: "xlp_tli", expected, found });
            return (false, None);
        }
        if let Some(expected) = self.prev {
            let mismatch = |field, expected: Lsn, found: Lsn| WalError::Mismatch {
                at: self.next,
                field,
                expected: expected.0,
                found: found.0,
            };
            let next = behind_header(self.next, segment_size);
            if start != next {
                self.failed = Some(mismatch("start of record", next, start));
            } else if prev != expected {
                self.failed = Some(mismatch("xl_prev", expected, prev));
            }
            if self.failed.is_some() {
                return (false, None);
            }
        }
        (self.next, self.prev, self.tli) = (part.end, part.last, part.tli);
        self.first.get_or_insert(start);
        self.failed = part.failed;
        let whole = self.failed.is_none() && !part.pending;
        if whole && self.next < part.span.end {
            // The rest of the last record was lost in a crash, and the next span says so.
            self.next = part.span.end;
        }
        (whole, Some(part.sink))
    }
}

/// Where a record starts that is looked for at `at`.
fn behind_header(at: Lsn, segment_size: u64) -> Lsn {
    if at.0 % PAGE_LEN == 0 { Lsn(at.0 + PageHeader::len_at(at, segment_size)) } else { at }
}
