//! `redo_page`, `mask_page`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use walcore::Lsn;
use walcore::mask::{AccessMethod, mask};
use walcore::page::PageBuf;
use walcore::redo::{Ctx, RedoError, Target, redo};
use walcore::version::Major;
use walcore::wal::{BlockTag, Fork, Record, RelTag};

use crate::error;

fn page_of(bytes: &[u8]) -> PyResult<PageBuf> {
    PageBuf::from_bytes(bytes).ok_or_else(|| PyValueError::new_err("a page is 8192 bytes"))
}

fn tag_of(key: (u32, u32, u32, u8, u32)) -> PyResult<BlockTag> {
    let (spc, db, rel, fork, blkno) = key;
    let fork = Fork::from_number(fork).ok_or_else(|| PyValueError::new_err("forks are 0 to 3"))?;
    Ok(BlockTag { rel: RelTag { spc, db, rel }, fork, blkno })
}

/// See `walcore/_native.pyi`.
#[pyfunction]
#[pyo3(signature = (page, records, key, *, major, hint_bits_logged))]
pub fn redo_page<'py>(
    py: Python<'py>,
    page: Option<&[u8]>,
    records: Vec<(u64, u64, PyBackedBytes)>,
    key: (u32, u32, u32, u8, u32),
    major: u8,
    hint_bits_logged: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let major = Major::from_number(major).ok_or_else(|| PyValueError::new_err("majors are 15 to 18"))?;
    let ctx = Ctx { major, hint_bits_logged };
    let target = Target::Block(tag_of(key)?);
    let mut page = page.map(page_of).transpose()?;
    let last = records.last().map_or(Lsn::INVALID, |(start, ..)| Lsn(*start));
    py.detach(|| {
        for (start, end, bytes) in records {
            let record = Record::decode(Lsn(start), Lsn(end), &bytes).map_err(|e| error::wal(&e))?;
            redo(&mut page, &record, &target, &ctx).map_err(|e| error::redo(&e))?;
        }
        Ok::<_, PyErr>(())
    })?;
    let page = page.ok_or(RedoError::NoPage { page: target, lsn: last }).map_err(|e| error::redo(&e))?;
    Ok(PyBytes::new(py, page.bytes()))
}

/// See `walcore/_native.pyi`.
#[pyfunction]
#[pyo3(signature = (page, *, access_method, blkno))]
pub fn mask_page<'py>(
    py: Python<'py>,
    page: &[u8],
    access_method: &str,
    blkno: u32,
) -> PyResult<Bound<'py, PyBytes>> {
    let method = AccessMethod::from_name(access_method)
        .ok_or_else(|| PyValueError::new_err(format!("no mask for access method {access_method:?}")))?;
    let mut page = page_of(page)?;
    mask(&mut page, method, blkno);
    Ok(PyBytes::new(py, page.bytes()))
}
