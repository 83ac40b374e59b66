//! `WalInspector`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use walcore::describe::inspect::Wanted;
use walcore::describe::{Filter, Inspector, Scene, Stats, Zone, json, waldump};
use walcore::page::PageBuf;
use walcore::version::Major;
use walcore::wal::{BlockTag, Fork, RawRecord, Record, RelTag, WalError};
use walcore::{Lsn, rmgr};

/// See `walcore/_native.pyi`.
#[pyclass(frozen, module = "walcore._native")]
pub struct WalInspector(Mutex<Inspection>);

/// What a `WalInspector` holds.
pub(crate) struct Inspection {
    inspector: Inspector,
    zone: Arc<Zone>,
    stats: Stats,
    shown: u64,
    first_shown: Lsn,
    last_shown_end: Lsn,
}

/// Start of the record; tablespace, database, relfilenode; fork; block; page.
type ImageRow<'py> = (u64, (u32, u32, u32), &'static str, u32, Bound<'py, PyBytes>);

impl Inspection {
    /// Takes the next bytes and calls `each` for the records asked for.
    pub(crate) fn feed<F>(&mut self, wal: &[u8], last: bool, mut each: F)
    where
        F: FnMut(&RawRecord<'_>, Major) -> Result<(), WalError>,
    {
        let Self { inspector, shown, first_shown, last_shown_end, .. } = self;
        inspector.feed(wal, last, &mut |raw, major| {
            each(raw, major)?;
            if *shown == 0 {
                *first_shown = raw.start;
            }
            *shown += 1;
            *last_shown_end = raw.end;
            Ok(())
        });
    }

    /// The reader's time zone.
    pub(crate) fn zone(&self) -> Arc<Zone> {
        Arc::clone(&self.zone)
    }

    fn render<F>(&mut self, wal: &[u8], last: bool, write: F) -> Vec<u8>
    where
        F: Fn(&mut Vec<u8>, &Record<'_>, &Scene<'_>),
    {
        let zone = Arc::clone(&self.zone);
        // Text is about twice as long as the records it describes.
        let mut out = Vec::with_capacity(wal.len().saturating_mul(2));
        self.feed(wal, last, |raw, major| {
            write(&mut out, &raw.decode()?, &Scene { major, zone: &zone });
            Ok(())
        });
        out
    }

    fn images(&mut self, wal: &[u8], last: bool) -> Vec<(Lsn, BlockTag, PageBuf)> {
        let mut images = Vec::new();
        self.feed(wal, last, |raw, _| {
            for block in raw.decode()?.blocks {
                if let Some(image) = &block.image {
                    images.push((raw.start, block.tag, image.restore(raw.start, block.id)?));
                }
            }
            Ok(())
        });
        images
    }
}

/// Names of the built-in resource managers; a name's place is its number.
#[pyfunction]
pub fn rmgr_names() -> Vec<&'static str> {
    rmgr::RMGRS.iter().map(|(_, name)| *name).collect()
}

/// Every kind of record of a major: name of the resource manager, name of the record.
#[pyfunction]
pub fn record_types(major: u8) -> PyResult<Vec<(String, &'static str)>> {
    let major = Major::from_number(major).ok_or_else(|| PyValueError::new_err("no supported major"))?;
    Ok(walcore::describe::record_types(major)
        .into_iter()
        .map(|(rmid, name)| (rmgr::name(rmid), name))
        .collect())
}

impl WalInspector {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inspection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl WalInspector {
    #[new]
    #[pyo3(signature = (start_lsn, *, segment_size, system_id = 0, rmgrs = None, xid = None, relation = None,
        fork = None, block = None, full_page = false, from_lsn = 0, until_lsn = None, limit = None, zone = Vec::new()))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        start_lsn: u64,
        segment_size: u64,
        system_id: u64,
        rmgrs: Option<Vec<u8>>,
        xid: Option<u32>,
        relation: Option<(u32, u32, u32)>,
        fork: Option<u8>,
        block: Option<u32>,
        full_page: bool,
        from_lsn: u64,
        until_lsn: Option<u64>,
        limit: Option<u64>,
        zone: Vec<(i64, i64, String)>,
    ) -> PyResult<Self> {
        let no_fork = |n: u8| PyValueError::new_err(format!("no such fork: fork={n}"));
        let fork = fork.map(|n| Fork::from_number(n).ok_or_else(|| no_fork(n))).transpose()?;
        let rel = relation.map(|(spc, db, rel)| RelTag { spc, db, rel });
        let filter = Filter { rmgrs, xid, rel, fork, blkno: block, full_page };
        let wanted = Wanted { filter, from: Lsn(from_lsn), until: until_lsn.map(Lsn), limit };
        let system_id = Some(system_id).filter(|id| *id != 0);
        let inspector = Inspector::new(Lsn(start_lsn), segment_size, system_id, wanted)
            .map_err(|e| PyValueError::new_err(e.to_string()))?;
        Ok(Self(Mutex::new(Inspection {
            inspector,
            zone: Arc::new(Zone { steps: zone }),
            stats: Stats::default(),
            shown: 0,
            first_shown: Lsn::INVALID,
            last_shown_end: Lsn::INVALID,
        })))
    }

    #[pyo3(signature = (wal, *, last = false))]
    fn json<'py>(&self, py: Python<'py>, wal: &[u8], last: bool) -> Bound<'py, PyBytes> {
        let lines = py.detach(|| self.lock().render(wal, last, json::write_line));
        PyBytes::new(py, &lines)
    }

    #[pyo3(signature = (wal, *, last = false, block_details = false))]
    fn waldump<'py>(
        &self,
        py: Python<'py>,
        wal: &[u8],
        last: bool,
        block_details: bool,
    ) -> Bound<'py, PyBytes> {
        let text = py.detach(|| {
            self.lock().render(wal, last, |out, record, scene| {
                waldump::write_record(out, record, scene, block_details);
            })
        });
        PyBytes::new(py, &text)
    }

    #[pyo3(signature = (wal, *, last = false))]
    fn count(&self, py: Python<'_>, wal: &[u8], last: bool) {
        py.detach(|| {
            let mut this = self.lock();
            let mut stats = std::mem::take(&mut this.stats);
            this.feed(wal, last, |raw, _| stats.add(raw));
            this.stats = stats;
        });
    }

    #[pyo3(signature = (wal, *, last = false))]
    fn images<'py>(&self, py: Python<'py>, wal: &[u8], last: bool) -> Vec<ImageRow<'py>> {
        let images = py.detach(|| self.lock().images(wal, last));
        images
            .into_iter()
            .map(|(lsn, tag, page)| {
                let RelTag { spc, db, rel } = tag.rel;
                (lsn.0, (spc, db, rel), tag.fork.name(), tag.blkno, PyBytes::new(py, page.bytes()))
            })
            .collect()
    }

    fn stats(&self) -> Vec<(String, String, u64, u64, u64)> {
        let this = self.lock();
        let rows = this.inspector.stream().major().map(|major| this.stats.rows(major)).unwrap_or_default();
        rows.into_iter()
            .map(|(rmid, name, t)| (rmgr::name(rmid), name, t.count, t.rec_len, t.fpi_len))
            .collect()
    }

    #[getter]
    fn stopped(&self) -> Option<String> {
        self.lock().inspector.failed().map(ToString::to_string)
    }

    #[getter]
    fn done(&self) -> bool {
        self.lock().inspector.done()
    }

    #[getter]
    fn shown(&self) -> u64 {
        self.lock().shown
    }

    #[getter]
    fn first_shown_lsn(&self) -> u64 {
        self.lock().first_shown.0
    }

    #[getter]
    fn last_shown_end_lsn(&self) -> u64 {
        self.lock().last_shown_end.0
    }

    #[getter]
    fn received_lsn(&self) -> u64 {
        self.lock().inspector.stream().received().0
    }

    #[getter]
    fn record_end_lsn(&self) -> u64 {
        self.lock().inspector.stream().record_end().0
    }

    #[getter]
    fn last_record_lsn(&self) -> u64 {
        self.lock().inspector.stream().last_record().unwrap_or_default().0
    }

    #[getter]
    fn major(&self) -> u8 {
        self.lock().inspector.stream().major().map_or(0, |major| major as u8)
    }

    #[getter]
    fn system_id(&self) -> u64 {
        self.lock().inspector.stream().system_id().unwrap_or_default()
    }

    #[getter]
    fn tli(&self) -> u32 {
        self.lock().inspector.stream().tli()
    }
}
