//! `Reader`: the read side of a timeline.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBytes, PyDict};
use walcore::layer::{Key, Run};
use walcore::page::PageBuf;
use walcore::read::{Index, PageReader, ReadError, WriteError};
use walcore::wal::{BlockTag, RecordHeader, RelTag};
use walcore::{Lsn, rmgr};

use crate::error;
use crate::files::ForkFiles;
use crate::layer::{Layer, fork, major, slru};
use crate::map::SegmentDir;
use crate::wal::{set_checkpoint, set_parameters};

type PageKey = (u32, u32, u32, u8, u32);
/// A page that cannot be had, and the exception that says why.
type PageError<'py> = (PageKey, Bound<'py, PyAny>);

fn page_key((spc, db, rel, fork, blkno): PageKey) -> PyResult<Key> {
    let fork = self::fork(fork)?;
    Ok(Key::page(&BlockTag { rel: RelTag { spc, db, rel }, fork, blkno }))
}

/// See `walcore/_native.pyi`.
#[pyclass(frozen, module = "walcore._native")]
pub struct Reader(PageReader);

#[pymethods]
impl Reader {
    #[new]
    #[pyo3(signature = (layers, *, wal_dir, tli, segment_size, major, hint_bits_logged))]
    fn new(
        layers: Vec<PyRef<'_, Layer>>,
        wal_dir: PathBuf,
        tli: u32,
        segment_size: u64,
        major: u8,
        hint_bits_logged: Vec<(u64, bool)>,
    ) -> PyResult<Self> {
        let major = self::major(major)?;
        if !(segment_size.is_power_of_two() && (1 << 20..=1 << 30).contains(&segment_size)) {
            return Err(PyValueError::new_err(format!("no segment is so long: segment_size={segment_size}")));
        }
        let layers: Vec<Arc<dyn Run>> = layers.iter().map(|layer| layer.run()).collect();
        let index = Index::new(layers);
        check_layers(index.layers())?;
        let segments = Arc::new(SegmentDir::new(wal_dir, tli, segment_size));
        let steps = hint_bits_logged.into_iter().map(|(lsn, logged)| (Lsn(lsn), logged)).collect();
        Ok(Self(PageReader::new(index, segments, major, steps)))
    }

    fn pages<'py>(
        &self,
        py: Python<'py>,
        keys: Vec<PageKey>,
        lsns: Vec<u64>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        if lsns.len() != 1 && lsns.len() != keys.len() {
            let (keys, lsns) = (keys.len(), lsns.len());
            return Err(PyValueError::new_err(format!(
                "one lsn a key, or one for all: keys={keys} lsns={lsns}"
            )));
        }
        let asked = keys.into_iter().zip(lsns.into_iter().cycle());
        let asked = asked.map(|(key, lsn)| Ok((page_key(key)?, Lsn(lsn)))).collect::<PyResult<Vec<_>>>()?;
        let pages = py.detach(|| self.0.pages(&asked));
        Ok(pages.into_iter().map(|page| page_or_error(py, page)).collect())
    }

    #[pyo3(signature = (forks, lsn, *, checksums, sync))]
    fn write_files<'py>(
        &self,
        py: Python<'py>,
        forks: Vec<(u32, u32, u32, u8, PathBuf)>,
        lsn: u64,
        checksums: bool,
        sync: bool,
    ) -> PyResult<(u64, Vec<PageError<'py>>)> {
        let mut asked = Vec::with_capacity(forks.len());
        let mut paths = Vec::with_capacity(forks.len());
        for (spc, db, rel, fork, path) in forks {
            asked.push((RelTag { spc, db, rel }, self::fork(fork)?));
            paths.push(path);
        }
        let files = ForkFiles::new(paths, sync);
        let written = py.detach(|| {
            let written = self.0.write_forks(&asked, Lsn(lsn), checksums, &files)?;
            files.sync()?;
            Ok(written)
        });
        let (pages, unreadable) = written.map_err(|e| match e {
            WriteError::Io(e) => e.into(),
            WriteError::Read(e) => error::read(&e),
            e => PyRuntimeError::new_err(e.to_string()),
        })?;
        let unreadable = unreadable.into_iter().map(|(key, error)| {
            let key_of_page = (key.spc, key.db, key.rel, key.fork, key.blkno);
            (key_of_page, self::error::read(&error).into_value(py).into_bound(py).into_any())
        });
        Ok((pages, unreadable.collect()))
    }

    fn size(&self, py: Python<'_>, spc: u32, db: u32, rel: u32, fork: u8, lsn: u64) -> PyResult<Option<u32>> {
        let fork = self::fork(fork)?;
        py.detach(|| self.0.size(RelTag { spc, db, rel }, fork, Lsn(lsn))).map_err(|e| error::read(&e))
    }

    #[pyo3(signature = (lsn, *, db = None))]
    fn relations(&self, py: Python<'_>, lsn: u64, db: Option<u32>) -> PyResult<Vec<PageKey>> {
        let all = py.detach(|| self.0.relations(Lsn(lsn))).map_err(|e| error::read(&e))?;
        let asked = all.into_iter().filter(|(key, _)| db.is_none_or(|db| key.db == db));
        Ok(asked.map(|(key, blocks)| (key.spc, key.db, key.rel, key.fork, blocks)).collect())
    }

    fn slru_page<'py>(
        &self,
        py: Python<'py>,
        kind: &str,
        pageno: u32,
        lsn: u64,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let kind = slru(kind)?;
        let page = py.detach(|| self.0.slru_page(kind, pageno, Lsn(lsn))).map_err(|e| error::read(&e))?;
        Ok(page.map(|page| PyBytes::new(py, page.bytes())))
    }

    fn control<'py>(&self, py: Python<'py>, lsn: u64) -> PyResult<Bound<'py, PyDict>> {
        let control = py.detach(|| self.0.control(Lsn(lsn))).map_err(|e| error::read(&e))?;
        let dict = PyDict::new(py);
        dict.set_item("checkpoint_lsn", control.checkpoint_lsn.0)?;
        for (name, checkpoint) in [("checkpoint", &control.checkpoint), ("now", &control.now)] {
            let fields = PyDict::new(py);
            set_checkpoint(&fields, checkpoint)?;
            dict.set_item(name, fields)?;
        }
        let parameters = PyDict::new(py);
        set_parameters(&parameters, &control.parameters)?;
        dict.set_item("parameters", parameters)?;
        let origins = control.origins.iter().map(|(number, lsn)| (*number, lsn.0));
        dict.set_item("origins", origins.into_py_dict(py)?)?;
        Ok(dict)
    }

    fn relation_map<'py>(
        &self,
        py: Python<'py>,
        spc: u32,
        db: u32,
        lsn: u64,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let map = py.detach(|| self.0.relation_map(spc, db, Lsn(lsn))).map_err(|e| error::read(&e))?;
        Ok(map.map(|map| PyBytes::new(py, &map)))
    }

    fn prepared<'py>(&self, py: Python<'py>, lsn: u64) -> PyResult<Vec<(u64, Bound<'py, PyBytes>)>> {
        let prepared = py.detach(|| self.0.prepared(Lsn(lsn))).map_err(|e| error::read(&e))?;
        Ok(prepared.into_iter().map(|(xid, state)| (xid, PyBytes::new(py, &state))).collect())
    }

    fn databases(&self, py: Python<'_>, lsn: u64) -> PyResult<Vec<(u32, u32)>> {
        py.detach(|| self.0.databases(Lsn(lsn))).map_err(|e| error::read(&e))
    }

    fn tablespaces<'py>(&self, py: Python<'py>, lsn: u64) -> PyResult<Vec<(u32, Bound<'py, PyBytes>)>> {
        let found = py.detach(|| self.0.tablespaces(Lsn(lsn))).map_err(|e| error::read(&e))?;
        Ok(found.into_iter().map(|(spc, path)| (spc, PyBytes::new(py, &path))).collect())
    }

    fn chain<'py>(&self, py: Python<'py>, key: PageKey, lsn: u64) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let key = page_key(key)?;
        let chain = py.detach(|| self.0.chain(&key, Lsn(lsn))).map_err(|e| error::read(&e))?;
        let mut steps = Vec::new();
        if let Some((lsn, page)) = &chain.image {
            let step = PyDict::new(py);
            step.set_item("lsn", lsn.0)?;
            step.set_item("kind", "image")?;
            step.set_item("bytes", page.bytes().len())?;
            steps.push(step);
        }
        let mut records = self.0.records();
        for delta in &chain.deltas {
            let unreadable = |error| self::error::read(&ReadError::Record { key, lsn: delta.start(), error });
            let header = match &delta.bytes {
                Some(bytes) => RecordHeader::decode(delta.start(), bytes).map_err(Into::into),
                None => records
                    .record(delta.start(), delta.end)
                    .and_then(|bytes| Ok(RecordHeader::decode(delta.start(), bytes)?)),
            };
            let header = header.map_err(unreadable)?;
            let step = PyDict::new(py);
            step.set_item("lsn", delta.end.0)?;
            step.set_item("start_lsn", delta.start().0)?;
            step.set_item("kind", "wal")?;
            step.set_item("bytes", header.tot_len)?;
            step.set_item("rmgr", rmgr::name(header.rmid))?;
            step.set_item("will_init", delta.touch.will_init)?;
            step.set_item("has_image", delta.touch.has_image)?;
            steps.push(step);
        }
        Ok(steps)
    }

    fn delta_counts(&self, py: Python<'_>, key: PageKey) -> PyResult<(u64, u64)> {
        let key = page_key(key)?;
        let count = py.detach(|| self.0.delta_count(&key)).map_err(|e| error::read(&e))?;
        Ok((count.deltas, count.bytes))
    }
}

/// Without gaps, and of one cluster.
fn check_layers(layers: &[Arc<dyn Run>]) -> PyResult<()> {
    let mut covered: Option<Lsn> = None;
    let mut system_id = 0;
    for layer in layers {
        if let Some(end) = covered.filter(|end| layer.start_lsn() > *end) {
            let start = layer.start_lsn();
            return Err(PyValueError::new_err(format!(
                "gap between layers: end_lsn={end} start_lsn={start}"
            )));
        }
        covered = covered.max(Some(layer.end_lsn()));
        if layer.system_id() != 0 {
            if system_id != 0 && system_id != layer.system_id() {
                let found = layer.system_id();
                let message = format!("layers of several clusters: system_id={system_id} found={found}");
                return Err(PyValueError::new_err(message));
            }
            system_id = layer.system_id();
        }
    }
    Ok(())
}

fn page_or_error(py: Python<'_>, page: Result<PageBuf, ReadError>) -> Bound<'_, PyAny> {
    match page {
        Ok(page) => PyBytes::new(py, page.bytes()).into_any(),
        Err(error) => self::error::read(&error).into_value(py).into_bound(py).into_any(),
    }
}
