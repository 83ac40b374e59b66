//! The Python module `walcore._native`: a list of exports.

#![allow(clippy::needless_pass_by_value, reason = "what Python hands over has no other owner")]

use pyo3::prelude::*;

mod check;
mod dump;
mod error;
mod explain;
mod files;
mod inspect;
mod lane;
mod layer;
mod map;
mod read;
mod redo;
mod wal;

/// `data` is `bytes`: nobody can change it while we are detached.
#[pyfunction]
#[pyo3(signature = (data, before = 0))]
fn crc32c(py: Python<'_>, data: &[u8], before: u32) -> u32 {
    py.detach(|| walcore::crc32c(before, data))
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(crc32c, module)?)?;
    module.add_class::<check::WalChecker>()?;
    module.add_class::<wal::WalScanner>()?;
    module.add_function(wrap_pyfunction!(redo::redo_page, module)?)?;
    module.add_function(wrap_pyfunction!(redo::mask_page, module)?)?;
    module.add_class::<dump::WalDump>()?;
    module.add_class::<inspect::WalInspector>()?;
    module.add_function(wrap_pyfunction!(inspect::rmgr_names, module)?)?;
    module.add_function(wrap_pyfunction!(inspect::record_types, module)?)?;
    module.add_class::<explain::WalColumns>()?;
    module.add_class::<explain::WalUsage>()?;
    module.add_class::<explain::WalTransactions>()?;
    module.add_function(wrap_pyfunction!(explain::record_kinds, module)?)?;
    module.add_function(wrap_pyfunction!(explain::page_history, module)?)?;
    module.add_class::<layer::Ingest>()?;
    module.add_class::<layer::Layer>()?;
    module.add_class::<layer::BaseWriter>()?;
    module.add_class::<read::Reader>()?;
    module.add_class::<lane::FollowLane>()?;
    module.add_class::<lane::LeadLane>()?;
    module.add_function(wrap_pyfunction!(lane::judge_append, module)?)?;
    module.add_function(wrap_pyfunction!(lane::held_lsn, module)?)?;
    Ok(())
}
