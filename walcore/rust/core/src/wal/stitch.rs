//! Records out of a stream of WAL: across pages and segments, checked.

use super::page::{PAGE_LEN, PageHeader};
use super::record::{Record, RecordHeader};
use super::{WalError, event};
use crate::lsn::maxalign;
use crate::version::Major;
use crate::{Lsn, rmgr};

/// One whole record, its checksum verified, its content not yet decoded.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    /// Where it starts (`ReadRecPtr`).
    pub start: Lsn,
    /// Where it ends (`EndRecPtr`): the `pd_lsn` of the pages it changes, and where the next one is looked for.
    pub end: Lsn,
    /// The fixed header.
    pub header: RecordHeader,
    /// All of it, `xl_tot_len` bytes, without page headers and padding.
    pub bytes: &'a [u8],
    /// From the page headers or as given; `None` while neither is there.
    pub major: Option<Major>,
}

impl<'a> RawRecord<'a> {
    /// Decodes block references, images and main data.
    ///
    /// # Errors
    /// As [`Record::decode`].
    pub fn decode(&self) -> Result<Record<'a>, WalError> {
        Record::decode(self.start, self.end, self.bytes)
    }

    /// Where its last byte ends: its end without padding.
    pub fn end_of_bytes(&self) -> Lsn {
        let tot_len = u64::from(self.header.tot_len);
        if event::is_switch(&self.header) {
            return Lsn(self.start.0 + RecordHeader::LEN as u64);
        }
        Lsn(self.end.0.saturating_sub(maxalign(tot_len) - tot_len))
    }
}

/// Follows a stream of WAL and gives out its records.
///
/// Bytes come in pieces of any size. A record is given out once it is whole with its padding, so that its end is
/// never past what was fed; `XLOG_SWITCH` once the rest of its segment was fed. A record on one page is borrowed from
/// the piece; one that spans pages or pieces is gathered in a buffer, which grows only as its bytes arrive. Two streams
/// that are equal give the same from there on.
///
/// Source: `XLogDecodeNextRecord` in `src/backend/access/transam/xlogreader.c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalStream {
    seg_size: u64,
    system_id: Option<u64>,
    major: Option<Major>,
    tli: u32,
    /// The next byte expected. Never behind `record_end`.
    pos: Lsn,
    record_end: Lsn,
    last_record: Option<Lsn>,
    prev: Option<Lsn>,
    state: State,
    /// Whether the header of the page that `pos` is in has been taken.
    page_open: bool,
    /// First bytes of a page header that came in pieces.
    header: Vec<u8>,
    /// First bytes of a record that came in pieces or on several pages, padding included.
    partial: Vec<u8>,
    /// The record whose rest was lost, until the record that says so was seen.
    overwritten: Option<Lsn>,
    /// What was skipped may have been the last bytes of an `XLOG_SWITCH`: then zeros follow, and no record.
    skipped_switch: bool,
    failed: Option<WalError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The first page header decides whether a record is continued here.
    First,
    /// A record starts at `pos`, which is aligned (or at the page boundary before it).
    Start,
    /// The record at `start` is being gathered. `want`: its length with padding, 0 until the length field is there.
    Gather { start: Lsn, tot_len: usize, want: usize },
    /// The rest of a record that began before the stream; `left` counts its `pad` bytes of padding.
    Skip { left: u64, pad: u64 },
    /// Zeros up to the end of the segment, after the `XLOG_SWITCH` at `start`; `None` if that was skipped.
    Switch { start: Option<Lsn>, end: Lsn },
}

/// Positions beyond this cannot come from a cluster; below it no sum of lengths overflows.
const LSN_MAX: u64 = 1 << 62;
/// Most bytes of an `XLOG_SWITCH` that can stand on the page behind the one where it starts.
const TAIL_LEN: usize = RecordHeader::LEN - 8;
/// Buffers above this are given back after the record that needed them.
const KEEP_CAPACITY: usize = 1 << 20;

impl WalStream {
    /// A stream whose first byte stands at `start`: a record start, or a WAL page boundary, where the rest of a
    /// record that began before it is skipped.
    ///
    /// `system_id`: what long page headers must say, any if `None`. `prev`: start of the record before `start`,
    /// which the first record's `xl_prev` must be; not checked where a record is skipped.
    ///
    /// # Errors
    /// `BadField` if no record can start at `start`, or `seg_size` is none.
    pub fn new(
        start: Lsn,
        seg_size: u64,
        system_id: Option<u64>,
        prev: Option<Lsn>,
    ) -> Result<Self, WalError> {
        let bad = |field, value| WalError::BadField { at: start, field, value };
        if !(seg_size.is_power_of_two() && (1 << 20..=1 << 30).contains(&seg_size)) {
            return Err(bad("segment size", seg_size));
        }
        let page = Lsn(start.0 - start.0 % PAGE_LEN);
        let offset = start.0 - page.0;
        let in_header = offset != 0 && offset < PageHeader::len_at(page, seg_size);
        if !start.is_valid() || start.0 > LSN_MAX || start.0 % 8 != 0 || in_header {
            return Err(bad("start", start.0));
        }
        Ok(Self {
            seg_size,
            system_id,
            major: None,
            tli: 0,
            pos: start,
            record_end: start,
            last_record: None,
            prev,
            state: if offset == 0 { State::First } else { State::Start },
            page_open: offset != 0,
            header: Vec::new(),
            partial: Vec::new(),
            overwritten: None,
            skipped_switch: false,
            failed: None,
        })
    }

    /// The same stream, of a server whose major version is known: pages of others are refused from the first.
    #[must_use]
    pub fn of_major(mut self, major: Major) -> Self {
        self.major = Some(major);
        self
    }

    /// Takes the next bytes; calls `each` for every record that they complete, in order.
    ///
    /// Damage ends the stream before the record that it is in. Three fields of page headers have no say in any record,
    /// and are only seen to be wrong beside another page's: a timeline that grows, and the first magic and the first
    /// system identifier, if the major and the cluster were not given. Timeline and magic are compared with the next
    /// page, and where that is in the same piece the stream ends before the wrong one; the identifier with the next
    /// segment. Else the stream ends at that other page, behind records that are the right ones.
    ///
    /// # Errors
    /// The first thing that is not the WAL it should be, or what `each` returned. Positions then stay at the last
    /// good record (the one that `each` refused is not counted), and every further call gives the same error.
    pub fn feed<F>(&mut self, bytes: &[u8], each: &mut F) -> Result<(), WalError>
    where
        F: FnMut(&RawRecord<'_>) -> Result<(), WalError>,
    {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.step(rest, each) {
                Ok(taken) => rest = rest.get(taken..).unwrap_or_default(),
                Err(error) => {
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Says that nothing more comes. Gives an `XLOG_SWITCH` whose padding is not all here, as nothing but zeros is
    /// missing; positions do not count it.
    ///
    /// # Errors
    /// What `each` returned.
    pub fn finish<F>(&mut self, each: &mut F) -> Result<(), WalError>
    where
        F: FnMut(&RawRecord<'_>) -> Result<(), WalError>,
    {
        let State::Switch { start: Some(start), end } = self.state else { return Ok(()) };
        self.state = State::Switch { start: None, end };
        let bytes = std::mem::take(&mut self.partial);
        let header = RecordHeader::decode(start, &bytes)?;
        each(&RawRecord { start, end, header, bytes: &bytes, major: self.major })
    }

    /// End of what was fed; after an error, where it was noticed.
    pub fn received(&self) -> Lsn {
        self.pos
    }

    /// End of the last record given out; the start of the stream before the first.
    pub fn record_end(&self) -> Lsn {
        self.record_end
    }

    /// Start of the last record given out.
    pub fn last_record(&self) -> Option<Lsn> {
        self.last_record
    }

    /// Major version, from the page headers or as given.
    pub fn major(&self) -> Option<Major> {
        self.major
    }

    /// From the last long page header, or as given.
    pub fn system_id(&self) -> Option<u64> {
        self.system_id
    }

    /// Timeline of the last page header; 0 before the first.
    pub fn tli(&self) -> u32 {
        self.tli
    }

    /// Start of the record that has begun and is not yet given out.
    pub fn gathering(&self) -> Option<Lsn> {
        match self.state {
            State::Gather { start, .. } => Some(start),
            State::Switch { start, .. } => start,
            State::First | State::Start | State::Skip { .. } => None,
        }
    }

    /// Whether an `XLOG_SWITCH` waits for its padding.
    pub fn is_switched(&self) -> bool {
        matches!(self.state, State::Switch { start: Some(_), .. })
    }

    /// Takes some bytes off the front of `input`, which is not empty; says how many.
    fn step<F>(&mut self, input: &[u8], each: &mut F) -> Result<usize, WalError>
    where
        F: FnMut(&RawRecord<'_>) -> Result<(), WalError>,
    {
        match self.state {
            State::Switch { start, end } => self.padding((start, end), input, each),
            _ if !self.page_open => self.page_header(input),
            State::First | State::Start => self.records(input, each),
            State::Gather { start, tot_len, want } => self.gather((start, tot_len, want), input, each),
            State::Skip { left, pad } => {
                let room = self.room(input);
                let skipped = room.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(room);
                Ok(self.skip((left, pad), skipped))
            }
        }
    }

    /// Leaves out bytes of a record that began before the stream.
    fn skip(&mut self, (left, pad): (u64, u64), skipped: &[u8]) -> usize {
        if left <= TAIL_LEN as u64 {
            self.partial.extend_from_slice(skipped);
        }
        self.advance(skipped.len());
        let left = left.saturating_sub(skipped.len() as u64);
        self.state = State::Skip { left, pad };
        if left == 0 {
            self.skipped_switch = self.partial.last_chunk().is_some_and(event::is_switch_tail);
            self.partial.clear();
            self.state = State::Start;
        }
        skipped.len()
    }

    /// The part of `input` that is on the page of `pos`.
    fn room<'i>(&self, input: &'i [u8]) -> &'i [u8] {
        let room = (PAGE_LEN - self.pos.0 % PAGE_LEN) as usize;
        input.get(..room).unwrap_or(input)
    }

    fn advance(&mut self, n: usize) {
        self.pos = Lsn(self.pos.0 + n as u64);
        self.page_open &= self.pos.0 % PAGE_LEN != 0;
    }

    fn page_header(&mut self, input: &[u8]) -> Result<usize, WalError> {
        let page = Lsn(self.pos.0 - self.header.len() as u64);
        if self.header.is_empty() {
            // The common case: all of it is here.
            if let Some(header) = input.get(..PageHeader::LONG_LEN) {
                let header = PageHeader::decode(page, header)?;
                self.foresee(&header, input.get(PAGE_LEN as usize..).unwrap_or_default())?;
                self.open_page(header)?;
                self.pos = Lsn(page.0 + header.own_len() as u64);
                return Ok(header.own_len());
            }
        }
        let want = PageHeader::len_of(&self.header).unwrap_or(4);
        let taken = input.get(..want.saturating_sub(self.header.len())).unwrap_or(input);
        self.header.extend_from_slice(taken);
        self.pos = Lsn(self.pos.0 + taken.len() as u64);
        if PageHeader::len_of(&self.header) == Some(self.header.len()) {
            let header = PageHeader::decode(page, &self.header)?;
            self.header.clear();
            self.open_page(header)?;
        }
        Ok(taken.len())
    }

    /// Checks a page header against the one behind it, where that is here: of a header that begins a timeline or the
    /// stream, nothing before it says whether it is right.
    fn foresee(&self, header: &PageHeader, behind: &[u8]) -> Result<(), WalError> {
        if header.tli <= self.tli && self.major.is_some() {
            return Ok(());
        }
        let at = header.page_addr;
        let Ok(next) = PageHeader::decode(Lsn(at.0 + PAGE_LEN), behind) else { return Ok(()) };
        if next.major != header.major {
            let (expected, found) = (next.major.wal_magic().into(), header.major.wal_magic().into());
            return Err(WalError::Mismatch { at, field: "xlp_magic", expected, found });
        }
        if next.tli < header.tli {
            let (expected, found) = (next.tli.into(), header.tli.into());
            return Err(WalError::Mismatch { at, field: "xlp_tli", expected, found });
        }
        Ok(())
    }

    /// Checks a page header against the stream, and what it says of a continued record against `state`.
    fn open_page(&mut self, header: PageHeader) -> Result<(), WalError> {
        let at = header.page_addr;
        let mismatch = |field, expected, found| WalError::Mismatch { at, field, expected, found };
        header.check(self.seg_size, self.system_id)?;
        if let Some(major) = self.major.filter(|m| *m != header.major) {
            let (expected, found) = (major.wal_magic().into(), header.major.wal_magic().into());
            return Err(mismatch("xlp_magic", expected, found));
        }
        if header.tli < self.tli {
            return Err(mismatch("xlp_tli", self.tli.into(), header.tli.into()));
        }
        self.state = self.continued(header)?;
        self.major = Some(header.major);
        self.tli = header.tli;
        self.system_id = header.long.map(|long| long.system_id).or(self.system_id);
        self.page_open = true;
        Ok(())
    }

    /// The state behind a page header.
    fn continued(&mut self, header: PageHeader) -> Result<State, WalError> {
        let at = header.page_addr;
        let rem_len = u64::from(header.rem_len);
        let bad_flags = WalError::BadField { at, field: "xlp_info", value: header.info.into() };
        let expected = match self.state {
            State::First if header.is_continuation() => {
                if rem_len == 0 {
                    return Err(WalError::BadField { at, field: "xlp_rem_len", value: 0 });
                }
                self.prev = None;
                let left = maxalign(rem_len);
                return Ok(State::Skip { left, pad: left - rem_len });
            }
            State::Gather { tot_len, .. } => (tot_len as u64).saturating_sub(self.partial.len() as u64),
            State::Skip { left, pad } => left.saturating_sub(pad),
            State::First | State::Start | State::Switch { .. } => {
                return if header.is_continuation() { Err(bad_flags) } else { Ok(State::Start) };
            }
        };
        if header.overwrites_continuation() {
            if header.is_continuation() {
                return Err(bad_flags);
            }
            if let State::Gather { start, .. } = self.state {
                self.overwritten = Some(start);
                self.partial.clear();
            }
            return Ok(State::Start);
        }
        if !header.is_continuation() {
            return Err(bad_flags);
        }
        if rem_len != expected {
            return Err(WalError::Mismatch { at, field: "xlp_rem_len", expected, found: rem_len });
        }
        Ok(self.state)
    }

    /// Records that lie whole on this page and in this piece; then whatever follows them begins to be gathered.
    fn records<F>(&mut self, input: &[u8], each: &mut F) -> Result<usize, WalError>
    where
        F: FnMut(&RawRecord<'_>) -> Result<(), WalError>,
    {
        let mut rest = self.room(input);
        let mut taken = 0;
        while let Some(length) = rest.first_chunk::<4>() {
            let start = self.pos;
            let Some(tot_len) = self.length(start, *length)? else { return Ok(taken) };
            let Some((padded, tail)) = rest.split_at_checked(padded_len(tot_len)) else { break };
            let bytes = padded.get(..tot_len).unwrap_or_default();
            self.state = self.complete(start, Lsn(start.0 + padded.len() as u64), bytes, each)?;
            self.advance(padded.len());
            taken += padded.len();
            rest = tail;
            if self.state != State::Start {
                self.partial.extend_from_slice(bytes);
                return Ok(taken);
            }
        }
        if !rest.is_empty() {
            self.state = State::Gather { start: self.pos, tot_len: 0, want: 0 };
        }
        Ok(taken)
    }

    fn gather<F>(
        &mut self,
        (start, mut tot_len, mut want): (Lsn, usize, usize),
        input: &[u8],
        each: &mut F,
    ) -> Result<usize, WalError>
    where
        F: FnMut(&RawRecord<'_>) -> Result<(), WalError>,
    {
        let had = self.partial.len();
        let room = self.room(input);
        // The length field never crosses a page: records are aligned to 8.
        let target = if want == 0 { 4 } else { want };
        let taken = room.get(..target.saturating_sub(had)).unwrap_or(room);
        self.partial.extend_from_slice(taken);
        self.advance(taken.len());
        let got = self.partial.len();
        if let (0, Some(length)) = (want, self.partial.first_chunk::<4>()) {
            match self.length(start, *length)? {
                Some(n) => (tot_len, want) = (n, padded_len(n)),
                None => return Ok(taken.len()),
            }
        }
        if had < RecordHeader::LEN && got >= RecordHeader::LEN {
            self.check_header(start, &RecordHeader::decode(start, &self.partial)?)?;
        }
        self.state = State::Gather { start, tot_len, want };
        if want != 0 && got >= want {
            let mut partial = std::mem::take(&mut self.partial);
            partial.truncate(tot_len);
            self.state = self.complete(start, self.pos, &partial, each)?;
            self.partial = partial;
            if self.state == State::Start {
                self.partial.clear();
                self.partial.shrink_to(KEEP_CAPACITY);
            }
        }
        Ok(taken.len())
    }

    /// The zeros behind an `XLOG_SWITCH`: its pages have no headers.
    fn padding<F>(
        &mut self,
        (start, end): (Option<Lsn>, Lsn),
        input: &[u8],
        each: &mut F,
    ) -> Result<usize, WalError>
    where
        F: FnMut(&RawRecord<'_>) -> Result<(), WalError>,
    {
        let left = end.0.saturating_sub(self.pos.0) as usize;
        let taken = input.get(..left).unwrap_or(input);
        if let Some(i) = taken.iter().position(|b| *b != 0) {
            let at = Lsn(self.pos.0 + i as u64);
            let value = taken.get(i).copied().unwrap_or_default().into();
            return Err(WalError::BadField { at, field: "padding of XLOG_SWITCH", value });
        }
        self.advance(taken.len());
        if self.pos == end {
            let bytes = std::mem::take(&mut self.partial);
            if let Some(start) = start {
                let header = RecordHeader::decode(start, &bytes)?;
                self.give(&RawRecord { start, end, header, bytes: &bytes, major: self.major }, each)?;
            }
            self.state = State::Start;
        }
        Ok(taken.len())
    }

    /// The length of the record at `at`; `None` if there is none in this segment, because it was switched.
    fn length(&mut self, at: Lsn, field: [u8; 4]) -> Result<Option<usize>, WalError> {
        let tot_len = u32::from_le_bytes(field);
        if (RecordHeader::LEN as u32..=RecordHeader::TOT_LEN_MAX).contains(&tot_len) {
            Ok(Some(tot_len as usize))
        } else if tot_len == 0 && self.skipped_switch {
            self.partial.clear();
            self.state = State::Switch { start: None, end: self.segment_end(at) };
            Ok(None)
        } else if tot_len == 0 {
            Err(WalError::NoRecord { at })
        } else {
            Err(WalError::BadField { at, field: "xl_tot_len", value: tot_len.into() })
        }
    }

    fn segment_end(&self, at: Lsn) -> Lsn {
        Lsn(at.0.div_ceil(self.seg_size) * self.seg_size)
    }

    /// Checks a record whose bytes are all here and gives it out, unless it is a switch with padding to come.
    fn complete<F>(&mut self, start: Lsn, end: Lsn, bytes: &[u8], each: &mut F) -> Result<State, WalError>
    where
        F: FnMut(&RawRecord<'_>) -> Result<(), WalError>,
    {
        let header = RecordHeader::decode(start, bytes)?;
        self.check_header(start, &header)?;
        let found = checksum(bytes);
        if found != header.crc {
            return Err(WalError::Checksum { at: start, stored: header.crc, found });
        }
        let raw = RawRecord { start, end, header, bytes, major: self.major };
        if let Some(expected) = self.overwritten {
            check_overwrite(&raw, expected)?;
            self.overwritten = None;
        }
        if event::is_switch(&header) {
            let end = self.segment_end(end);
            if end > raw.end {
                return Ok(State::Switch { start: Some(start), end });
            }
        }
        self.give(&raw, each)?;
        Ok(State::Start)
    }

    fn give<F>(&mut self, raw: &RawRecord<'_>, each: &mut F) -> Result<(), WalError>
    where
        F: FnMut(&RawRecord<'_>) -> Result<(), WalError>,
    {
        each(raw)?;
        self.skipped_switch = false;
        self.record_end = raw.end;
        self.last_record = Some(raw.start);
        self.prev = Some(raw.start);
        Ok(())
    }

    /// Source: `ValidXLogRecordHeader` in `src/backend/access/transam/xlogreader.c`.
    fn check_header(&self, start: Lsn, header: &RecordHeader) -> Result<(), WalError> {
        if !rmgr::is_valid(header.rmid) {
            return Err(WalError::BadField { at: start, field: "xl_rmid", value: header.rmid.into() });
        }
        match self.prev {
            Some(prev) if prev != header.prev => {
                let (expected, found) = (prev.0, header.prev.0);
                Err(WalError::Mismatch { at: start, field: "xl_prev", expected, found })
            }
            // It began before the stream, or it would have been given.
            None if header.prev >= self.record_end => {
                Err(WalError::BadField { at: start, field: "xl_prev", value: header.prev.0 })
            }
            _ => Ok(()),
        }
    }
}

/// CRC-32C of the body, then of the header up to the checksum itself.
pub(crate) fn checksum(record: &[u8]) -> u32 {
    let (header, body) = record.split_at_checked(RecordHeader::LEN).unwrap_or((record, &[]));
    crc32c::crc32c_append(crc32c::crc32c(body), header.get(..20).unwrap_or_default())
}

fn padded_len(tot_len: usize) -> usize {
    maxalign(tot_len as u64) as usize
}

/// The record after a lost one must say which was lost.
///
/// Source: `VerifyOverwriteContrecord` in `src/backend/access/transam/xlogrecovery.c`.
fn check_overwrite(raw: &RawRecord<'_>, expected: Lsn) -> Result<(), WalError> {
    let found = event::overwritten_lsn(&raw.decode()?).unwrap_or_default();
    if found == expected {
        return Ok(());
    }
    let (expected, found) = (expected.0, found.0);
    Err(WalError::Mismatch { at: raw.start, field: "overwritten_lsn", expected, found })
}
