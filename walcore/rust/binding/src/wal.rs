//! `WalScanner`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use walcore::Lsn;
use walcore::version::Major;
use walcore::wal::event::{CheckPoint, Counts, Event, Parameters};
use walcore::wal::{RawRecord, WalError, WalStream};

use crate::error;

/// See `walcore/_native.pyi`.
#[pyclass(frozen, module = "walcore._native")]
pub struct WalScanner(Mutex<Scan>);

struct Scan {
    stream: WalStream,
    tally: Tally,
}

/// What is counted and noticed while records go by.
pub struct Tally {
    /// How many, how large.
    pub counts: Counts,
    /// Start and end of the records that change the state of the server, and what they say.
    pub events: Vec<(Lsn, Lsn, Event)>,
    /// False if nobody takes the events: they are checked and forgotten.
    keeps_events: bool,
}

impl Tally {
    /// Nothing seen yet.
    pub fn new(keeps_events: bool) -> Self {
        Self { counts: Counts::default(), events: Vec::new(), keeps_events }
    }

    /// Takes one record into account.
    pub fn add(&mut self, raw: &RawRecord<'_>) -> Result<(), WalError> {
        self.counts.add(raw)?;
        if Event::is_event(&raw.header) {
            let event = Event::decode(&raw.decode()?, raw.major)?;
            self.events.extend(event.filter(|_| self.keeps_events).map(|event| (raw.start, raw.end, event)));
        }
        Ok(())
    }
}

impl Scan {
    fn feed(&mut self, wal: &[u8]) -> Result<(), WalError> {
        let Self { stream, tally } = self;
        stream.feed(wal, &mut |raw| tally.add(raw))
    }
}

impl WalScanner {
    /// Takes the next bytes.
    pub fn take(&self, wal: &[u8]) -> Result<(), WalError> {
        self.lock().feed(wal)
    }

    /// End of the last whole record, and its start.
    pub fn last_record(&self) -> (Lsn, Option<Lsn>) {
        let scan = self.lock();
        (scan.stream.record_end(), scan.stream.last_record())
    }

    fn lock(&self) -> MutexGuard<'_, Scan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl WalScanner {
    #[new]
    #[pyo3(signature = (start_lsn, *, segment_size, system_id = 0, prev_lsn = 0, major = 0, events = false))]
    fn new(
        start_lsn: u64,
        segment_size: u64,
        system_id: u64,
        prev_lsn: u64,
        major: u8,
        events: bool,
    ) -> PyResult<Self> {
        let known = |n: u64| Some(n).filter(|n| *n != 0);
        let prev = known(prev_lsn).map(Lsn);
        let mut stream = WalStream::new(Lsn(start_lsn), segment_size, known(system_id), prev)
            .map_err(|e| PyValueError::new_err(e.to_string()))?;
        if major != 0 {
            let unknown = || PyValueError::new_err(format!("no such major version: major={major}"));
            stream = stream.of_major(Major::from_number(major).ok_or_else(unknown)?);
        }
        Ok(Self(Mutex::new(Scan { stream, tally: Tally::new(events) })))
    }

    fn feed(&self, py: Python<'_>, wal: &[u8]) -> PyResult<()> {
        py.detach(|| self.lock().feed(wal)).map_err(|e| error::wal(&e))
    }

    fn feed_to_end(&self, py: Python<'_>, wal: &[u8]) -> Option<String> {
        py.detach(|| self.lock().feed(wal)).err().map(|e| e.to_string())
    }

    #[getter]
    fn received_lsn(&self) -> u64 {
        self.lock().stream.received().0
    }

    #[getter]
    fn record_end_lsn(&self) -> u64 {
        self.lock().stream.record_end().0
    }

    #[getter]
    fn last_record_lsn(&self) -> u64 {
        self.lock().stream.last_record().unwrap_or_default().0
    }

    #[getter]
    fn major(&self) -> u8 {
        self.lock().stream.major().map_or(0, |major| major as u8)
    }

    #[getter]
    fn system_id(&self) -> u64 {
        self.lock().stream.system_id().unwrap_or_default()
    }

    #[getter]
    fn tli(&self) -> u32 {
        self.lock().stream.tli()
    }

    fn take_counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = std::mem::take(&mut self.lock().tally.counts);
        counts_dict(py, &counts)
    }

    fn take_events<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let events = std::mem::take(&mut self.lock().tally.events);
        event_dicts(py, &events)
    }
}

/// What `take_counts` gives.
pub fn counts_dict<'py>(py: Python<'py>, counts: &Counts) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("records", counts.records)?;
    dict.set_item("commits", counts.commits)?;
    dict.set_item("record_bytes", counts.record_bytes)?;
    dict.set_item("fpi_count", counts.fpi_count)?;
    dict.set_item("fpi_bytes", counts.fpi_bytes)?;
    Ok(dict)
}

/// What `take_events` gives.
pub fn event_dicts<'py>(py: Python<'py>, events: &[(Lsn, Lsn, Event)]) -> PyResult<Vec<Bound<'py, PyDict>>> {
    events.iter().map(|(start, end, event)| event_dict(py, *start, *end, event)).collect()
}

/// An event as a dict: `lsn`, `end_lsn`, `kind` and the fields of that kind.
pub fn event_dict<'py>(py: Python<'py>, start: Lsn, end: Lsn, event: &Event) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("lsn", start.0)?;
    dict.set_item("end_lsn", end.0)?;
    let kind = match event {
        Event::FpwChange { full_page_writes } => {
            dict.set_item("full_page_writes", full_page_writes)?;
            "fpw_change"
        }
        Event::Checkpoint { online, body } => {
            dict.set_item("online", online)?;
            set_checkpoint(&dict, body)?;
            "checkpoint"
        }
        Event::ParameterChange(parameters) => {
            set_parameters(&dict, parameters)?;
            "parameter_change"
        }
        Event::EndOfRecovery { tli, prev_tli } => {
            dict.set_item("tli", tli)?;
            dict.set_item("prev_tli", prev_tli)?;
            "end_of_recovery"
        }
        Event::Switch => "switch",
        Event::OverwriteContrecord { overwritten } => {
            dict.set_item("overwritten_lsn", overwritten.0)?;
            "overwrite_contrecord"
        }
        Event::BackupEnd { start } => {
            dict.set_item("start_lsn", start.0)?;
            "backup_end"
        }
    };
    dict.set_item("kind", kind)?;
    Ok(dict)
}

/// Adds the fields of a checkpoint.
pub fn set_checkpoint(dict: &Bound<'_, PyDict>, body: &CheckPoint) -> PyResult<()> {
    dict.set_item("redo_lsn", body.redo.0)?;
    dict.set_item("tli", body.tli)?;
    dict.set_item("prev_tli", body.prev_tli)?;
    dict.set_item("full_page_writes", body.full_page_writes)?;
    dict.set_item("wal_level", body.wal_level.map(|n| wal_level(n.into())))?;
    dict.set_item("next_xid", body.next_xid)?;
    dict.set_item("next_oid", body.next_oid)?;
    dict.set_item("next_multi", body.next_multi)?;
    dict.set_item("next_multi_offset", body.next_multi_offset)?;
    dict.set_item("oldest_xid", body.oldest_xid)?;
    dict.set_item("oldest_xid_db", body.oldest_xid_db)?;
    dict.set_item("oldest_multi", body.oldest_multi)?;
    dict.set_item("oldest_multi_db", body.oldest_multi_db)?;
    dict.set_item("time", body.time)?;
    dict.set_item("oldest_commit_ts_xid", body.oldest_commit_ts_xid)?;
    dict.set_item("newest_commit_ts_xid", body.newest_commit_ts_xid)?;
    dict.set_item("oldest_active_xid", body.oldest_active_xid)
}

/// Adds the settings of a parameter change.
pub fn set_parameters(dict: &Bound<'_, PyDict>, parameters: &Parameters) -> PyResult<()> {
    dict.set_item("max_connections", parameters.max_connections)?;
    dict.set_item("max_worker_processes", parameters.max_worker_processes)?;
    dict.set_item("max_wal_senders", parameters.max_wal_senders)?;
    dict.set_item("max_prepared_transactions", parameters.max_prepared_xacts)?;
    dict.set_item("max_locks_per_transaction", parameters.max_locks_per_xact)?;
    dict.set_item("wal_level", wal_level(parameters.wal_level.into()))?;
    dict.set_item("wal_log_hints", parameters.wal_log_hints)?;
    dict.set_item("track_commit_timestamp", parameters.track_commit_timestamp)
}

/// The setting's name for its number.
fn wal_level(n: i64) -> &'static str {
    match n {
        0 => "minimal",
        1 => "replica",
        2 => "logical",
        _ => "?",
    }
}
