//! `Ingest`, `Layer` and `BaseWriter`: the write side of a timeline.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use walcore::Lsn;
use walcore::ingest::{self, State};
use walcore::layer::{
    Header, Key, Kind, LayerFile, LayerWriter, MergeError, OpenLayer, Run, Size, Value, merge, page_image,
};
use walcore::page::PageBuf;
use walcore::redo::Slru;
use walcore::state::{Control, full_xid};
use walcore::version::Major;
use walcore::wal::{BlockTag, Fork, RelTag};

use crate::error;
use crate::map::Map;
use crate::wal::{Tally, counts_dict, event_dicts};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The major with this number, or `ValueError`.
pub fn major(number: u8) -> PyResult<Major> {
    Major::from_number(number)
        .ok_or_else(|| PyValueError::new_err(format!("no such major version: major={number}")))
}

/// The fork with this number, or `ValueError`.
pub fn fork(number: u8) -> PyResult<Fork> {
    Fork::from_number(number).ok_or_else(|| PyValueError::new_err(format!("no such fork: fork={number}")))
}

/// The SLRU with this directory, or `ValueError`.
pub fn slru(kind: &str) -> PyResult<Slru> {
    Slru::from_dir(kind).ok_or_else(|| PyValueError::new_err(format!("no such SLRU: kind={kind}")))
}

/// See `walcore/_native.pyi`.
#[pyclass(frozen, module = "walcore._native")]
pub struct Ingest {
    inner: Mutex<Inner>,
    // Beside the lock, so that whoever asks does not wait for a `feed` that is at work.
    received: AtomicU64,
    ingested: AtomicU64,
}

struct Inner {
    ingest: ingest::Ingest,
    tally: Tally,
}

#[pymethods]
impl Ingest {
    #[new]
    #[pyo3(signature = (start_lsn, *, segment_size, system_id, major, state))]
    fn new(start_lsn: u64, segment_size: u64, system_id: u64, major: u8, state: &[u8]) -> PyResult<Self> {
        let state = State::decode(state).map_err(|e| error::layer(&e))?;
        let major = self::major(major)?;
        let ingest = ingest::Ingest::new(Lsn(start_lsn), segment_size, system_id, major, state)
            .map_err(|e| PyValueError::new_err(e.to_string()))?;
        Ok(Self {
            inner: Mutex::new(Inner { ingest, tally: Tally::new(true) }),
            received: AtomicU64::new(start_lsn),
            ingested: AtomicU64::new(start_lsn),
        })
    }

    fn feed(&self, py: Python<'_>, wal: &[u8]) -> PyResult<()> {
        py.detach(|| {
            let mut inner = lock(&self.inner);
            let Inner { ingest, tally } = &mut *inner;
            let result = ingest.feed(wal, |raw| tally.add(raw));
            self.received.store(ingest.stream().received().0, Ordering::Release);
            self.ingested.store(ingest.ingested().0, Ordering::Release);
            result
        })
        .map_err(|e| error::wal(&e))
    }

    #[getter]
    fn received_lsn(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    #[getter]
    fn ingested_lsn(&self) -> u64 {
        self.ingested.load(Ordering::Acquire)
    }

    #[getter]
    fn tli(&self, py: Python<'_>) -> u32 {
        py.detach(|| lock(&self.inner).ingest.stream().tli())
    }

    #[getter]
    fn open_bytes(&self, py: Python<'_>) -> u64 {
        py.detach(|| lock(&self.inner).ingest.open_layer().bytes())
    }

    fn take_counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = py.detach(|| std::mem::take(&mut lock(&self.inner).tally.counts));
        counts_dict(py, &counts)
    }

    fn take_events<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let events = py.detach(|| std::mem::take(&mut lock(&self.inner).tally.events));
        event_dicts(py, &events)
    }

    fn open_layer(&self, py: Python<'_>) -> Layer {
        Layer(Kept::Memory(py.detach(|| Arc::clone(lock(&self.inner).ingest.open_layer()))))
    }

    fn freeze(&self, py: Python<'_>) -> Layer {
        Layer(Kept::Memory(py.detach(|| lock(&self.inner).ingest.freeze())))
    }

    fn state(&self, py: Python<'_>) -> Vec<u8> {
        py.detach(|| lock(&self.inner).ingest.state().encode())
    }
}

/// See `walcore/_native.pyi`.
#[pyclass(frozen, module = "walcore._native")]
pub struct Layer(Kept);

#[derive(Clone)]
enum Kept {
    Memory(Arc<OpenLayer>),
    File(Arc<LayerFile<Map>>),
}

impl Layer {
    /// As the core reads it.
    pub fn run(&self) -> Arc<dyn Run> {
        match &self.0 {
            Kept::Memory(layer) => Arc::clone(layer) as Arc<dyn Run>,
            Kept::File(layer) => Arc::clone(layer) as Arc<dyn Run>,
        }
    }
}

#[pymethods]
impl Layer {
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| {
            let map = Map::open(&path)?;
            let file = LayerFile::open(map).map_err(|e| error::layer_at(&e, &path))?;
            Ok(Self(Kept::File(Arc::new(file))))
        })
    }

    #[staticmethod]
    fn merge(py: Python<'_>, layers: Vec<PyRef<'_, Self>>, path: PathBuf) -> PyResult<()> {
        let files = layers.iter().map(|layer| match &layer.0 {
            Kept::File(file) => Ok(Arc::clone(file)),
            Kept::Memory(_) => Err(PyValueError::new_err("only layer files can be merged")),
        });
        let files = files.collect::<PyResult<Vec<_>>>()?;
        py.detach(|| {
            let files: Vec<_> = files.iter().map(Arc::as_ref).collect();
            match merge(&files, create(&path)?) {
                Ok(out) => sync(out),
                Err(MergeError::Layer(e)) => Err(error::layer(&e)),
                Err(MergeError::Io(e)) => Err(e.into()),
                Err(e) => Err(PyValueError::new_err(e.to_string())),
            }
        })
    }

    #[getter]
    fn start_lsn(&self) -> u64 {
        self.run().start_lsn().0
    }

    #[getter]
    fn end_lsn(&self) -> u64 {
        self.run().end_lsn().0
    }

    #[getter]
    fn entries(&self) -> u64 {
        self.run().entries()
    }

    #[getter]
    fn system_id(&self) -> u64 {
        self.run().system_id()
    }

    fn write(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let Kept::Memory(layer) = &self.0 else {
            return Err(PyValueError::new_err("the layer is a file already"));
        };
        py.detach(|| sync(layer.write_to(create(&path)?)?))
    }

    fn check(&self, py: Python<'_>) -> PyResult<()> {
        match &self.0 {
            Kept::Memory(_) => Ok(()),
            Kept::File(file) => py.detach(|| file.check()).map_err(|e| error::layer(&e)),
        }
    }
}

type Out = BufWriter<File>;

fn create(path: &Path) -> std::io::Result<Out> {
    Ok(BufWriter::with_capacity(1 << 20, File::create_new(path)?))
}

fn sync(out: Out) -> PyResult<()> {
    out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}

/// See `walcore/_native.pyi`.
#[pyclass(frozen, module = "walcore._native")]
pub struct BaseWriter(Mutex<Option<Base>>);

struct Base {
    writer: LayerWriter<Out>,
    lsn: Lsn,
    state: State,
    /// Of the forks added so far; written behind the last page.
    forks: Vec<(Key, u32)>,
    /// Other state, written last.
    blobs: BTreeMap<Key, Vec<u8>>,
    scratch: Vec<u8>,
}

#[pymethods]
impl BaseWriter {
    #[new]
    #[pyo3(signature = (path, *, lsn, system_id))]
    fn new(path: PathBuf, lsn: u64, system_id: u64) -> PyResult<Self> {
        let lsn = Lsn(lsn);
        let header = Header { system_id, start_lsn: lsn, end_lsn: lsn };
        let writer = LayerWriter::new(create(&path)?, &header)?;
        let base = Base {
            writer,
            lsn,
            state: State::default(),
            forks: Vec::new(),
            blobs: BTreeMap::new(),
            scratch: Vec::new(),
        };
        Ok(Self(Mutex::new(Some(base))))
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a fork's name")]
    fn add_relation(
        &self,
        py: Python<'_>,
        spc: u32,
        db: u32,
        rel: u32,
        fork: u8,
        files: Vec<PathBuf>,
    ) -> PyResult<u32> {
        let (rel, fork) = (RelTag { spc, db, rel }, self::fork(fork)?);
        py.detach(|| self.with(|base| base.add_relation(rel, fork, &files)))
    }

    fn add_slru(&self, py: Python<'_>, kind: &str, files: Vec<(u32, PathBuf)>) -> PyResult<u32> {
        let kind = slru(kind)?;
        py.detach(|| self.with(|base| base.add_slru(kind, &files)))
    }

    fn add_control(&self, control_file: &[u8], origins: Vec<(u16, u64)>, major: u8) -> PyResult<()> {
        let major = self::major(major)?;
        let control = Control::from_control_file(control_file, major);
        let mut control = control.ok_or_else(|| PyValueError::new_err("the control file is too short"))?;
        control.origins = origins.into_iter().map(|(number, lsn)| (number, Lsn(lsn))).collect();
        self.with(|base| {
            base.blobs.insert(Key::control(), control.encode());
            base.state.control = Some(control);
            Ok(())
        })
    }

    fn add_relation_map(&self, spc: u32, db: u32, content: Vec<u8>) -> PyResult<()> {
        self.add_blob(Key::of_database(Kind::RelMap, spc, db), content)
    }

    fn add_database(&self, spc: u32, db: u32) -> PyResult<()> {
        self.add_blob(Key::of_database(Kind::Database, spc, db), Vec::new())
    }

    fn add_tablespace(&self, spc: u32, path: Vec<u8>) -> PyResult<()> {
        self.add_blob(Key::tablespace(spc), path)
    }

    fn add_prepared(&self, xid: u32, state: Vec<u8>) -> PyResult<()> {
        self.with(|base| {
            let control = base.state.control.as_ref();
            let control = control.ok_or_else(|| PyValueError::new_err("the control file comes first"))?;
            base.blobs.insert(Key::two_phase(full_xid(xid, control.now.next_xid)), state);
            Ok(())
        })
    }

    fn finish(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        py.detach(|| {
            let mut base = lock(&self.0).take().ok_or_else(finished)?;
            base.write_sizes()?;
            for (key, bytes) in &base.blobs {
                base.writer.push(key, base.lsn, &Value::Blob(bytes))?;
            }
            sync(base.writer.finish()?)?;
            Ok(base.state.encode())
        })
    }
}

fn finished() -> PyErr {
    PyValueError::new_err("the layer is finished")
}

impl BaseWriter {
    fn with<T>(&self, work: impl FnOnce(&mut Base) -> PyResult<T>) -> PyResult<T> {
        work(lock(&self.0).as_mut().ok_or_else(finished)?)
    }

    fn add_blob(&self, key: Key, bytes: Vec<u8>) -> PyResult<()> {
        self.with(|base| {
            base.blobs.insert(key, bytes);
            Ok(())
        })
    }
}

/// Pages of an SLRU in one of its files.
const SLRU_SEGMENT_PAGES: u32 = 32;

impl Base {
    fn add_relation(&mut self, rel: RelTag, fork: Fork, files: &[PathBuf]) -> PyResult<u32> {
        if fork == Fork::Fsm {
            return Ok(0);
        }
        let mut blocks = 0u32;
        for path in files {
            each_page(path, &mut |page| {
                if page.bytes().iter().any(|b| *b != 0) {
                    let key = Key::page(&BlockTag { rel, fork, blkno: blocks });
                    let image = page_image(page.bytes(), &mut self.scratch);
                    self.writer.push(&key, self.lsn, &Value::Image(image))?;
                }
                blocks = blocks.checked_add(1).ok_or_else(|| PyValueError::new_err("too many blocks"))?;
                Ok(())
            })?;
        }
        self.state.sizes.insert(rel, fork, blocks);
        self.forks.push((Key::size(rel, fork), blocks));
        Ok(blocks)
    }

    fn add_slru(&mut self, kind: Slru, files: &[(u32, PathBuf)]) -> PyResult<u32> {
        self.write_sizes()?;
        let mut pages = 0;
        for (segment, path) in files {
            let too_large = || PyValueError::new_err(format!("no such SLRU segment: segment={segment}"));
            let mut pageno = segment.checked_mul(SLRU_SEGMENT_PAGES).ok_or_else(too_large)?;
            each_page(path, &mut |page| {
                let image = page_image(page.bytes(), &mut self.scratch);
                self.writer.push(&Key::slru_page(kind, pageno), self.lsn, &Value::Image(image))?;
                pageno = pageno.checked_add(1).ok_or_else(too_large)?;
                pages += 1;
                Ok(())
            })?;
        }
        Ok(pages)
    }

    /// Sizes come between the pages of relations and those of SLRUs.
    fn write_sizes(&mut self) -> PyResult<()> {
        for (key, blocks) in self.forks.drain(..) {
            let size = Size { blocks, ..Size::default() };
            self.writer.push(&key, self.lsn, &Value::Size(size))?;
        }
        Ok(())
    }
}

/// Calls `each` for every whole page of a file. A running server may have been extending it: a part of a page at the
/// end is left to the WAL.
fn each_page(path: &Path, each: &mut dyn FnMut(PageBuf) -> PyResult<()>) -> PyResult<()> {
    let mut file = std::io::BufReader::with_capacity(1 << 18, File::open(path)?);
    let mut page = PageBuf::zeroed();
    loop {
        match file.read_exact(page.bytes_mut()) {
            Ok(()) => each(page.clone())?,
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}
