//! What every layer can do, wherever it is kept.

use std::ops::ControlFlow;

use super::LayerError;
use super::key::Key;
use super::value::Value;
use crate::Lsn;

/// A sorted run over (key, LSN): a file, or an open or frozen layer in memory.
pub trait Run: Send + Sync {
    /// Where its range of LSNs begins.
    fn start_lsn(&self) -> Lsn;
    /// Where it ends, included. Grows while the layer is open.
    fn end_lsn(&self) -> Lsn;
    /// Number of entries.
    fn entries(&self) -> u64;
    /// The cluster; 0 if not known.
    fn system_id(&self) -> u64;

    /// Calls `each` for the values of a key at or below an LSN, newest first, until it breaks.
    ///
    /// # Errors
    /// Damage of the layer.
    fn history(
        &self,
        key: &Key,
        at_lsn: Lsn,
        each: &mut dyn FnMut(Lsn, Value<'_>) -> ControlFlow<()>,
    ) -> Result<(), LayerError>;

    /// Calls `each` for the newest value at or below an LSN of every key from `first` to `last`, in their order.
    ///
    /// # Errors
    /// Damage of the layer.
    fn heads(
        &self,
        first: &Key,
        last: &Key,
        at_lsn: Lsn,
        each: &mut dyn FnMut(Key, Lsn, Value<'_>),
    ) -> Result<(), LayerError>;
}
