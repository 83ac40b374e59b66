//! The core's errors as the Python classes of `walcore/errors.py`: the only map between the two.

use std::path::Path;

use pyo3::PyErr;
use walcore::layer::LayerError;
use walcore::read::ReadError;
use walcore::redo::RedoError;
use walcore::wal::WalError;

mod python {
    pyo3::import_exception!(walcore.errors, ImageInvalid);
    pyo3::import_exception!(walcore.errors, LayerCorrupt);
    pyo3::import_exception!(walcore.errors, LsnNotCovered);
    pyo3::import_exception!(walcore.errors, NoSuchBlock);
    pyo3::import_exception!(walcore.errors, NoSuchRelation);
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

/// The exception for damage of a layer.
pub fn layer(error: &LayerError) -> PyErr {
    python::LayerCorrupt::new_err(error.to_string())
}

/// The same, of a file.
pub fn layer_at(error: &LayerError, path: &Path) -> PyErr {
    python::LayerCorrupt::new_err(format!("{error} path={}", path.display()))
}

/// The exception for a page, or a size, that cannot be given.
pub fn read(error: &ReadError) -> PyErr {
    let message = error.to_string();
    match error {
        ReadError::NoSuchRelation { .. } => python::NoSuchRelation::new_err(message),
        ReadError::NoSuchBlock { .. } => python::NoSuchBlock::new_err(message),
        ReadError::NotCovered { .. } => python::LsnNotCovered::new_err(message),
        ReadError::Layer(error) => layer(error),
        ReadError::Redo(error) => redo(error),
        _ => python::PageUnreadable::new_err(message),
    }
}
