//! The quorum's steady state: Appends that go on where the log ends, their answers, and the count.
//!
//! Nothing here opens, waits or reads a clock. What decides is called by the Python cores too (`walproxy/quorum`), so that
//! the simulation proves it; whatever is not steady is theirs alone. The rules stand in `docs/quorum.md`, the bytes in
//! `walproxy/quorum/messages.py`.

mod append;
mod count;
mod frames;
mod walsender;

pub use append::{Append, LogEnd, Reply, Verdict, WAL_BYTES_MAX};
pub use count::held;
pub use frames::{Frame, Frames, LengthImpossible};
pub use walsender::{FromPrimary, put_status};

/// The first `N` bytes, which are then gone from `rest`.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}
