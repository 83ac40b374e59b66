//! Sound WAL at rest, walked page by page: the records that [`super::WalStream`] gives, in half of its time.

use std::ops::Range;

use super::page::{PAGE_LEN, PageHeader};
use super::record::RecordHeader;
use super::stitch::checksum;
use super::{RawRecord, event};
use crate::lsn::maxalign;
use crate::version::Major;
use crate::{Lsn, rmgr};

/// Goes through whole pages that follow each other, and checks all that a stream checks.
///
/// Where anything is out of the ordinary it gives up, without a reason: damage, the end of WAL, an `XLOG_SWITCH`, a
/// record whose rest was lost, another timeline or major. Then a stream over the same pages says what it is.
#[derive(Debug)]
pub struct Walk {
    begin: Lsn,
    segment_size: u64,
    /// What every page must be of, from the first one.
    of: Option<(Major, u32)>,
    system_id: Option<u64>,
    /// Start of the last record given out.
    prev: Option<Lsn>,
    /// The record under way, and what is here of it; `None`: it began before the walk.
    gathering: Option<Lsn>,
    partial: Vec<u8>,
    /// Bytes of the record under way that are still to come, without padding.
    left: usize,
    /// Where records lie on the page: kept for its memory.
    found: Vec<Range<usize>>,
    joined: Vec<u8>,
}

/// Bodies of records above this are not copied.
const JOINED_LEN: usize = 512;

impl Walk {
    /// A walk from the page at `begin` on.
    pub fn new(begin: Lsn, segment_size: u64) -> Self {
        let (of, system_id, prev, gathering) = (None, None, None, None);
        let (partial, found, joined) = (Vec::new(), Vec::new(), Vec::new());
        Self { begin, segment_size, of, system_id, prev, gathering, partial, left: 0, found, joined }
    }

    /// Whether a record that began in the walk is not whole yet.
    pub fn is_gathering(&self) -> bool {
        self.gathering.is_some()
    }

    /// Timeline of the pages; 0 before the first.
    pub fn tli(&self) -> u32 {
        self.of.map_or(0, |(_, tli)| tli)
    }

    /// Takes the page at `at`, which follows the one before, and calls `each` for the records that it completes and
    /// that start before `stop`. `None`: given up, here or in `each`.
    pub fn page<F>(&mut self, at: Lsn, page: &[u8], stop: Lsn, each: &mut F) -> Option<()>
    where
        F: FnMut(&RawRecord<'_>) -> Option<()>,
    {
        let header = PageHeader::decode(at, page).ok()?;
        header.check(self.segment_size, self.system_id).ok()?;
        self.system_id = header.long.map(|long| long.system_id).or(self.system_id);
        let of = *self.of.get_or_insert((header.major, header.tli));
        if of != (header.major, header.tli) || header.overwrites_continuation() {
            return None;
        }
        let rem_len = if header.is_continuation() { header.rem_len as usize } else { 0 };
        if at == self.begin {
            self.left = rem_len;
        }
        if header.is_continuation() != (self.left > 0) || rem_len != self.left {
            return None;
        }
        let mut offset = header.own_len();
        if self.left > 0 {
            offset += self.go_on(Lsn(at.0 + offset as u64), page.get(offset..)?, each)?;
        }
        let room = stop.0.saturating_sub(at.0).min(PAGE_LEN) as usize;
        let found = self.find(at, page.get(..PAGE_LEN as usize)?, offset, room)?;
        // Checksums one after the other: a processor works at several at once then.
        let joined = &mut self.joined;
        if !found.iter().all(|place| page.get(place.clone()).is_some_and(|record| is_sound(record, joined))) {
            return None;
        }
        for place in &found {
            let (start, end) = (at.0 + place.start as u64, at.0 + maxalign(place.end as u64));
            self.record(Lsn(start), Lsn(end), page.get(place.clone())?, each)?;
        }
        self.found = found;
        Some(())
    }

    /// Where the records lie that are whole on a page, from `offset` on; what follows them begins to be gathered.
    fn find(&mut self, at: Lsn, page: &[u8], mut offset: usize, room: usize) -> Option<Vec<Range<usize>>> {
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        while offset < room {
            let rest = page.get(offset..)?;
            let tot_len = u32::from_le_bytes(*rest.first_chunk()?);
            if !(RecordHeader::LEN as u32..=RecordHeader::TOT_LEN_MAX).contains(&tot_len) {
                return None;
            }
            let tot_len = tot_len as usize;
            if tot_len > rest.len() {
                self.partial.extend_from_slice(rest);
                self.left = tot_len - rest.len();
                self.gathering = Some(Lsn(at.0 + offset as u64));
                break;
            }
            found.push(offset..offset + tot_len);
            offset += maxalign(tot_len as u64) as usize;
        }
        Some(found)
    }

    /// Takes what the page has of the record under way; says how much of the page that is, with padding.
    fn go_on<F>(&mut self, pos: Lsn, rest: &[u8], each: &mut F) -> Option<usize>
    where
        F: FnMut(&RawRecord<'_>) -> Option<()>,
    {
        let bytes = rest.get(..self.left).unwrap_or(rest);
        self.left -= bytes.len();
        let taken = maxalign(bytes.len() as u64) as usize;
        if let Some(start) = self.gathering {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(bytes);
            if self.left == 0 {
                if !is_sound(&partial, &mut self.joined) {
                    return None;
                }
                self.record(start, Lsn(pos.0 + taken as u64), &partial, each)?;
                self.gathering = None;
                partial.clear();
            }
            self.partial = partial;
        }
        Some(taken)
    }

    /// Gives out a record whose checksum is right.
    fn record<F>(&mut self, start: Lsn, end: Lsn, bytes: &[u8], each: &mut F) -> Option<()>
    where
        F: FnMut(&RawRecord<'_>) -> Option<()>,
    {
        let header = RecordHeader::decode(start, bytes).ok()?;
        let follows = self.prev.map_or(header.prev < self.begin, |prev| prev == header.prev);
        if !follows || !rmgr::is_valid(header.rmid) || event::is_switch(&header) {
            return None;
        }
        self.prev = Some(start);
        each(&RawRecord { start, end, header, bytes, major: self.of.map(|(major, _)| major) })
    }
}

/// Whether a record's checksum is that of its bytes. `joined`: kept for its memory.
fn is_sound(record: &[u8], joined: &mut Vec<u8>) -> bool {
    let Some((header, body)) = record.split_first_chunk::<{ RecordHeader::LEN }>() else { return false };
    let [covered @ .., a, b, c, d] = header;
    let found = if body.len() < JOINED_LEN {
        // Of a short record, the first call of two would take longer than the copy.
        joined.clear();
        joined.extend_from_slice(body);
        joined.extend_from_slice(covered);
        crc32c::crc32c(joined)
    } else {
        checksum(record)
    };
    found == u32::from_le_bytes([*a, *b, *c, *d])
}
