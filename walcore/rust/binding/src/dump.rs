//! `WalDump`.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use walcore::describe::{Dump, Filter, Form, Stats, Zone};
use walcore::page::PageBuf;
use walcore::version::Major;
use walcore::wal::span::{Place, WalAt};
use walcore::wal::{BlockTag, Fork, RelTag};
use walcore::{Lsn, rmgr};

/// See `walcore/_native.pyi`.
#[pyclass(frozen, module = "walcore._native")]
pub struct WalDump {
    dump: Dump,
    segment_size: u64,
    state: Mutex<State>,
}

struct State {
    place: Place,
    left: u64,
    shown: u64,
    shown_start: Option<Lsn>,
    shown_end: Lsn,
    major: Option<Major>,
    totals: Stats,
    images: Vec<(Lsn, BlockTag, PageBuf)>,
    /// Buffers for text, to be used again.
    spare: Mutex<Vec<Vec<u8>>>,
}

/// Where text goes.
enum Output {
    /// The process's own standard output.
    Stdout,
    Held(Vec<u8>),
}

/// What one thread reads before its totals are added to the others'.
const SPAN_LEN: u64 = 1 << 22;
/// What one thread reads before its text is joined to the others'.
const TEXT_SPAN_LEN: u64 = 1 << 19;
/// What all threads read before text is written: the less of it there is, the less memory it goes through.
const TEXT_ROUND_LEN: u64 = 1 << 23;

/// Tablespace, database, relfilenode.
type Rel = (u32, u32, u32);
/// Start of the record; relation; fork; block; page.
type ImageRow<'py> = (u64, Rel, &'static str, u32, Bound<'py, PyBytes>);

/// A segment: a file, or its bytes.
#[derive(FromPyObject)]
enum Source {
    Bytes(Vec<u8>),
    Path(PathBuf),
}

enum Opened {
    Bytes(Vec<u8>),
    File(File),
}

/// Segments that follow each other.
struct Segments {
    start: u64,
    size: u64,
    opened: Vec<Opened>,
}

impl WalAt for Segments {
    fn read_at(&self, at: Lsn, into: &mut [u8]) -> usize {
        let Some(from) = at.0.checked_sub(self.start) else { return 0 };
        let offset = from % self.size;
        let len = (self.size - offset).min(into.len() as u64) as usize;
        let into = into.get_mut(..len).unwrap_or_default();
        match self.opened.get((from / self.size) as usize) {
            // What cannot be read is not there: whoever asks why reads it again.
            Some(Opened::File(file)) => file.read_at(into, offset).unwrap_or(0),
            Some(Opened::Bytes(bytes)) => {
                let bytes = bytes.get(offset as usize..).unwrap_or_default();
                let len = len.min(bytes.len());
                if let (Some(into), Some(bytes)) = (into.get_mut(..len), bytes.get(..len)) {
                    into.copy_from_slice(bytes);
                }
                len
            }
            None => 0,
        }
    }

    fn segment_size(&self) -> u64 {
        self.size
    }
}

impl Output {
    fn take(&mut self, text: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Stdout => std::io::stdout().lock().write_all(text),
            Self::Held(held) => held.write_all(text),
        }
    }
}

impl State {
    /// Reads on for about `length` bytes.
    fn read(&mut self, dump: &Dump, wal: &Segments, length: u64, output: &mut Output) -> std::io::Result<()> {
        let all = wal.start.saturating_add(wal.size.saturating_mul(wal.opened.len() as u64));
        let end = all.min(self.place.end_of_span(Lsn(self.place.next.0.saturating_add(length))).0);
        let Self { place, left, shown, shown_start, shown_end, major, totals, images, spare } = self;
        let mut written = Ok(());
        while *left > 0 && place.next.0 < end && place.failed.is_none() && !place.done() && written.is_ok() {
            let before = place.next;
            let limit = *left;
            let round = if limit < u64::MAX {
                // A limit is counted down in order.
                1
            } else if dump.form.is_text() {
                TEXT_ROUND_LEN
            } else {
                length
            };
            let to = place.end_of_span(Lsn(before.0.saturating_add(round - 1))).0.min(end);
            let buffer = || lock(spare).pop().unwrap_or_default();
            dump.read(wal, place, Lsn(to), limit, &buffer, &mut |dumped| {
                *left -= if limit == u64::MAX { 0 } else { dumped.shown };
                *shown += dumped.shown;
                *shown_start = shown_start.or(dumped.start);
                *shown_end = dumped.end.max(*shown_end);
                *major = dumped.major.or(*major);
                if let Some(more) = &dumped.totals {
                    totals.merge(more);
                }
                images.extend(dumped.images);
                written = output.take(&dumped.text);
                lock(spare).push(dumped.text);
                written.is_ok()
            });
            if place.next == before {
                break;
            }
        }
        written
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WalDump {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[pymethods]
impl WalDump {
    #[new]
    #[pyo3(signature = (start_lsn, *, segment_size, until_lsn = None, limit = None, rmgrs = None, xid = None,
        relation = None, fork = None, block = None, full_page = false, text = false, block_details = false,
        totals = false, images = false, zone = Vec::new()))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    #[expect(clippy::fn_params_excessive_bools, reason = "they are keywords in Python")]
    fn new(
        start_lsn: u64,
        segment_size: u64,
        until_lsn: Option<u64>,
        limit: Option<u64>,
        rmgrs: Option<Vec<u8>>,
        xid: Option<u32>,
        relation: Option<Rel>,
        fork: Option<u8>,
        block: Option<u32>,
        full_page: bool,
        text: bool,
        block_details: bool,
        totals: bool,
        images: bool,
        zone: Vec<(i64, i64, String)>,
    ) -> PyResult<Self> {
        let no_fork = |n: u8| PyValueError::new_err(format!("no such fork: fork={n}"));
        let fork = fork.map(|n| Fork::from_number(n).ok_or_else(|| no_fork(n))).transpose()?;
        if !(segment_size.is_power_of_two() && (1 << 20..=1 << 30).contains(&segment_size)) {
            return Err(PyValueError::new_err(format!("no segment size: segment_size={segment_size}")));
        }
        let rel = relation.map(|(spc, db, rel)| RelTag { spc, db, rel });
        let filter = Filter { rmgrs, xid, rel, fork, blkno: block, full_page };
        let zone = Zone { steps: zone };
        let span_len = if text || images { TEXT_SPAN_LEN } else { SPAN_LEN };
        let state = State {
            place: Place::new(Lsn(start_lsn), span_len.min(segment_size), until_lsn.map(Lsn)),
            left: limit.unwrap_or(u64::MAX),
            shown: 0,
            shown_start: None,
            shown_end: Lsn::INVALID,
            major: None,
            totals: Stats::default(),
            images: Vec::new(),
            spare: Mutex::default(),
        };
        let shown_as = match (text, totals) {
            (true, _) if block_details => Form::LinesWithBlocks,
            (true, _) => Form::Lines,
            (false, true) => Form::Totals,
            (false, false) => Form::Nothing,
        };
        let dump = Dump { filter, form: shown_as, images, zone };
        Ok(Self { dump, segment_size, state: Mutex::new(state) })
    }

    #[pyo3(signature = (start_lsn, segments, *, length, to_stdout = false))]
    fn read<'py>(
        &self,
        py: Python<'py>,
        start_lsn: u64,
        segments: Vec<Source>,
        length: u64,
        to_stdout: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut output = if to_stdout { Output::Stdout } else { Output::Held(Vec::new()) };
        py.detach(|| {
            let open = |source| match source {
                Source::Bytes(bytes) => Ok(Opened::Bytes(bytes)),
                Source::Path(path) => File::open(path).map(Opened::File),
            };
            let opened = segments.into_iter().map(open).collect::<std::io::Result<_>>()?;
            let wal = Segments { start: start_lsn, size: self.segment_size, opened };
            self.lock().read(&self.dump, &wal, length, &mut output)?;
            if to_stdout { std::io::stdout().flush() } else { Ok(()) }
        })?;
        let held = if let Output::Held(held) = &output { held.as_slice() } else { &[] };
        Ok(PyBytes::new(py, held))
    }

    fn images<'py>(&self, py: Python<'py>) -> Vec<ImageRow<'py>> {
        let images = std::mem::take(&mut self.lock().images);
        images
            .into_iter()
            .map(|(lsn, BlockTag { rel, fork, blkno }, page)| {
                (lsn.0, (rel.spc, rel.db, rel.rel), fork.name(), blkno, PyBytes::new(py, page.bytes()))
            })
            .collect()
    }

    fn totals(&self) -> Vec<(String, String, u64, u64, u64)> {
        let this = self.lock();
        let rows = this.major.map(|major| this.totals.rows(major)).unwrap_or_default();
        rows.into_iter()
            .map(|(rmid, name, t)| (rmgr::name(rmid), name, t.count, t.rec_len, t.fpi_len))
            .collect()
    }

    #[getter]
    fn next_lsn(&self) -> u64 {
        self.lock().place.next.0
    }

    #[getter]
    fn first_lsn(&self) -> u64 {
        self.lock().place.first.unwrap_or_default().0
    }

    #[getter]
    fn last_lsn(&self) -> u64 {
        self.lock().place.prev.unwrap_or_default().0
    }

    #[getter]
    fn shown(&self) -> u64 {
        self.lock().shown
    }

    #[getter]
    fn shown_start_lsn(&self) -> u64 {
        self.lock().shown_start.unwrap_or_default().0
    }

    #[getter]
    fn shown_end_lsn(&self) -> u64 {
        self.lock().shown_end.0
    }

    #[getter]
    fn stopped(&self) -> Option<String> {
        self.lock().place.failed.as_ref().map(ToString::to_string)
    }

    #[getter]
    fn done(&self) -> bool {
        let this = self.lock();
        this.left == 0 || this.place.done()
    }

    /// Forgets why reading stopped: the bytes may have changed.
    fn retry(&self) {
        self.lock().place.failed = None;
    }
}
