//! The core's errors as the Python classes of `walcore/errors.py`: the only map between the two.

use pyo3::PyErr;
use walcore::redo::RedoError;
use walcore::wal::WalError;

mod python {
    pyo3::import_exception!(walcore.errors, ImageInvalid);
    pyo3::import_exception!(walcore.errors, PageUnreadable);
    pyo3::import_exception!(walcore.errors, RedoFailed);
    pyo3::import_exception!(walcore.errors, WalCorrupt);
}

/// The exception for an error in WAL.
pub fn wal(error: &WalError) -> PyErr {
    match error {
        WalError::BadImage { .. } => python::ImageInvalid::new_err(error.to_string()),
        _ => python::WalCorrupt::new_err(error.to_string()),
    }
}

/// The exception for a page that cannot be rebuilt.
pub fn redo(error: &RedoError) -> PyErr {
    match error {
        RedoError::Unsupported { .. } => python::PageUnreadable::new_err(error.to_string()),
        _ => python::RedoFailed::new_err(error.to_string()),
    }
}
