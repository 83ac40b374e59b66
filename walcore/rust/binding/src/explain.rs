//! `WalColumns`, `WalUsage`, `WalTransactions` and `page_history`: what a `WalInspector` passes on, added up.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use walcore::describe::{Scene, json, record_name};
use walcore::explain::page::effect;
use walcore::explain::usage::{METHODS, Reason};
use walcore::explain::{Columns, Transaction, Transactions, Usage};
use walcore::rmgr;
use walcore::version::Major;
use walcore::wal::{BlockTag, Fork, RelTag};

use crate::inspect::WalInspector;

/// A batch as other programs like it, and a bound for rows with long descriptions.
const FULL_ROWS: usize = 1 << 16;
const FULL_BYTES: usize = 32 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn oids(rel: RelTag) -> (u32, u32, u32) {
    (rel.spc, rel.db, rel.rel)
}

/// Names of the records of a major, by sixteen times the number of the resource manager and the upper half of `xl_info`.
#[pyfunction]
pub fn record_kinds(major: u8) -> PyResult<Vec<String>> {
    let major = Major::from_number(major).ok_or_else(|| PyValueError::new_err("no such major"))?;
    let kinds = (0u8..=255).flat_map(|rmid| (0u8..=240).step_by(16).map(move |opcode| (rmid, opcode)));
    let name = |(rmid, opcode)| {
        record_name(major, rmid, opcode).map_or_else(|| format!("UNKNOWN ({opcode:x})"), str::to_owned)
    };
    Ok(kinds.map(name).collect())
}

/// See `walcore/_native.pyi`.
#[pyclass(frozen, module = "walcore._native")]
#[derive(Default)]
pub struct WalColumns(Mutex<Columns>);

#[pymethods]
impl WalColumns {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    #[pyo3(signature = (inspector, wal, *, last = false))]
    fn feed(&self, py: Python<'_>, inspector: &Bound<'_, WalInspector>, wal: &[u8], last: bool) {
        let inspector = inspector.get();
        py.detach(|| {
            let mut columns = lock(&self.0);
            let mut inspection = inspector.lock();
            let zone = inspection.zone();
            inspection.feed(wal, last, |raw, major| columns.add(raw, &Scene { major, zone: &zone }));
        });
    }

    fn __len__(&self) -> usize {
        lock(&self.0).len()
    }

    #[getter]
    fn is_full(&self) -> bool {
        let columns = lock(&self.0);
        columns.len() >= FULL_ROWS || columns.bytes() >= FULL_BYTES
    }

    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let batch = lock(&self.0).take();
        let columns = |columns: Vec<(&'static str, Vec<u8>)>| {
            let dict = PyDict::new(py);
            for (name, bytes) in columns {
                dict.set_item(name, PyBytes::new(py, &bytes))?;
            }
            PyResult::Ok(dict)
        };
        let dict = PyDict::new(py);
        dict.set_item("len", batch.len)?;
        dict.set_item("blocks_len", batch.blocks_len)?;
        dict.set_item("relations", batch.rels.into_iter().map(oids).collect::<Vec<_>>())?;
        dict.set_item("records", columns(batch.records)?)?;
        dict.set_item("blocks", columns(batch.blocks)?)?;
        Ok(dict)
    }
}

/// See `walcore/_native.pyi`.
#[pyclass(frozen, module = "walcore._native")]
pub struct WalUsage {
    usage: Mutex<Usage>,
    pack: bool,
}

type VolumeRow = (Option<(u32, u32, u32)>, String, u64, u64, u64, u64);

#[pymethods]
impl WalUsage {
    #[new]
    #[pyo3(signature = (*, pack))]
    fn new(pack: bool) -> Self {
        Self { usage: Mutex::default(), pack }
    }

    #[pyo3(signature = (inspector, wal, *, last = false))]
    fn feed(&self, py: Python<'_>, inspector: &Bound<'_, WalInspector>, wal: &[u8], last: bool) {
        let inspector = inspector.get();
        py.detach(|| {
            let mut usage = lock(&self.usage);
            inspector.lock().feed(wal, last, |raw, _| usage.add(raw, self.pack));
        });
    }

    fn volumes(&self) -> Vec<VolumeRow> {
        let usage = lock(&self.usage);
        let row = |(rel, rmid, v): (Option<RelTag>, u8, walcore::explain::usage::Volume)| {
            (rel.map(oids), rmgr::name(rmid), v.records, v.record_bytes, v.images, v.image_bytes)
        };
        usage.volumes().map(row).collect()
    }

    fn images(&self) -> Vec<(&'static str, u64, u64, u64)> {
        let usage = lock(&self.usage);
        let reasons = [Reason::FullPageWrites, Reason::Forced, Reason::Checking];
        let row = |reason: Reason| {
            let images = usage.images(reason);
            (reason.name(), images.count, images.bytes, images.header_bytes)
        };
        reasons.map(row).to_vec()
    }

    fn data_instead(&self) -> u64 {
        lock(&self.usage).data_instead()
    }

    fn packed(&self) -> (u64, f64, Vec<(&'static str, f64)>) {
        let packed = lock(&self.usage).packed();
        let by_method = METHODS.iter().zip(packed.packed_bytes).map(|(method, bytes)| (method.name(), bytes));
        (packed.count, packed.stored_bytes, by_method.collect())
    }
}

/// See `walcore/_native.pyi`.
#[pyclass(frozen, module = "walcore._native")]
#[derive(Default)]
pub struct WalTransactions(Mutex<Transactions>);

#[pymethods]
impl WalTransactions {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    #[pyo3(signature = (inspector, wal, *, last = false))]
    fn feed<'py>(
        &self,
        py: Python<'py>,
        inspector: &Bound<'_, WalInspector>,
        wal: &[u8],
        last: bool,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let inspector = inspector.get();
        let ended = py.detach(|| {
            let mut transactions = lock(&self.0);
            inspector.lock().feed(wal, last, |raw, major| transactions.add(raw, major));
            transactions.take()
        });
        ended.iter().map(|transaction| transaction_dict(py, transaction)).collect()
    }

    fn unfinished<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let open = lock(&self.0).unfinished();
        open.iter().map(|transaction| transaction_dict(py, transaction)).collect()
    }
}

fn transaction_dict<'py>(py: Python<'py>, transaction: &Transaction) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("xid", transaction.xid)?;
    dict.set_item("state", transaction.state.name())?;
    dict.set_item("time_us", transaction.time_us)?;
    dict.set_item("first_lsn", transaction.first.0)?;
    dict.set_item("end_lsn", transaction.end.0)?;
    dict.set_item("records", transaction.records)?;
    dict.set_item("bytes", transaction.bytes)?;
    dict.set_item("image_bytes", transaction.image_bytes)?;
    dict.set_item("subxids", &transaction.subxids)?;
    let changes: Vec<_> = transaction
        .changes
        .iter()
        .map(|(rel, c)| (oids(*rel), c.records, c.bytes, c.image_bytes, c.inserted, c.updated, c.deleted))
        .collect();
    dict.set_item("changes", changes)?;
    Ok(dict)
}

/// See `walcore/_native.pyi`.
#[pyfunction]
#[pyo3(signature = (inspector, wal, page, *, last = false))]
pub fn page_history<'py>(
    py: Python<'py>,
    inspector: &Bound<'_, WalInspector>,
    wal: &[u8],
    page: (u32, u32, u32, u8, u32),
    last: bool,
) -> PyResult<Vec<(&'static str, Bound<'py, PyBytes>)>> {
    let (spc, db, rel, fork, blkno) = page;
    let fork = Fork::from_number(fork).ok_or_else(|| PyValueError::new_err("no such fork"))?;
    let tag = BlockTag { rel: RelTag { spc, db, rel }, fork, blkno };
    let inspector = inspector.get();
    let found = py.detach(|| {
        let mut found = Vec::new();
        let mut inspection = inspector.lock();
        let zone = inspection.zone();
        inspection.feed(wal, last, |raw, major| {
            let record = raw.decode()?;
            if let Some(effect) = effect(&record, major, tag) {
                let mut line = Vec::new();
                json::write_line(&mut line, &record, &Scene { major, zone: &zone });
                found.push((effect.name(), line));
            }
            Ok(())
        });
        found
    });
    Ok(found.into_iter().map(|(effect, line)| (effect, PyBytes::new(py, &line))).collect())
}
