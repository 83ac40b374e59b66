//! `WalChecker`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use walcore::Lsn;
use walcore::check::Checker;
use walcore::describe::record_name;
use walcore::redo::Ctx;
use walcore::rmgr;
use walcore::version::Major;
use walcore::wal::WalStream;

/// See `walcore/_native.pyi`.
#[pyclass(frozen, module = "walcore._native")]
pub struct WalChecker(Mutex<Check>);

struct Check {
    stream: WalStream,
    checker: Checker,
}

impl Check {
    fn feed(&mut self, wal: &[u8]) -> Option<String> {
        let Self { stream, checker } = self;
        let fed = stream.feed(wal, &mut |raw| {
            if let Some(major) = raw.major {
                // Only a page's LSN depends on hints being logged, and that is not compared.
                checker.add(&raw.decode()?, Ctx { major, hint_bits_logged: true });
            }
            Ok(())
        });
        fed.err().map(|error| error.to_string())
    }

    fn major(&self) -> Major {
        self.stream.major().unwrap_or(Major::V18)
    }
}

impl WalChecker {
    fn lock(&self) -> MutexGuard<'_, Check> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl WalChecker {
    #[new]
    #[pyo3(signature = (start_lsn, *, segment_size))]
    fn new(start_lsn: u64, segment_size: u64) -> PyResult<Self> {
        let stream = WalStream::new(Lsn(start_lsn), segment_size, None, None)
            .map_err(|e| PyValueError::new_err(e.to_string()))?;
        Ok(Self(Mutex::new(Check { stream, checker: Checker::default() })))
    }

    fn feed_to_end(&self, py: Python<'_>, wal: &[u8]) -> Option<String> {
        py.detach(|| self.lock().feed(wal))
    }

    #[getter]
    fn record_end_lsn(&self) -> u64 {
        self.lock().stream.record_end().0
    }

    #[getter]
    fn major(&self) -> u8 {
        self.lock().stream.major().map_or(0, |major| major as u8)
    }

    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let check = self.lock();
        let counts = check.checker.counts().iter().map(|((rmid, info), count)| {
            let dict = PyDict::new(py);
            dict.set_item("rmgr", rmgr::name(*rmid))?;
            dict.set_item("record", name_of(*rmid, *info, check.major()))?;
            dict.set_item("seen", count.seen)?;
            dict.set_item("compared", count.compared)?;
            dict.set_item("different", count.different)?;
            dict.set_item("unsupported", count.unsupported)?;
            Ok(dict)
        });
        counts.collect()
    }

    fn differences<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let check = self.lock();
        let differences = check.checker.differences().map(|difference| {
            let dict = PyDict::new(py);
            dict.set_item("lsn", difference.lsn.0)?;
            dict.set_item("rmgr", rmgr::name(difference.rmid))?;
            dict.set_item("record", name_of(difference.rmid, difference.info, check.major()))?;
            dict.set_item("page", difference.page.map(|page| page.to_string()))?;
            dict.set_item("what", &difference.what)?;
            Ok(dict)
        });
        differences.collect()
    }
}

fn name_of(rmid: u8, info: u8, major: Major) -> String {
    record_name(major, rmid, info).map_or_else(|| format!("UNKNOWN ({info:x})"), str::to_owned)
}
