//! State of a server that is no page: what WAL says of it, and how it is kept in layers (`docs/layer-format.md`).

mod change;
mod control;
mod cut;
mod twophase;

pub use change::{Change, changes};
pub use control::Control;
pub use cut::Cut;
pub use twophase::{Prepare, state_file};

/// Half of the ring of 32-bit ids.
const HALF: u32 = 1 << 31;

/// The full transaction id, with its epoch, of a transaction less than half the numbers away from the next one.
///
/// Source: `FullTransactionIdFromAllowableAt` in `src/backend/access/transam/twophase.c`.
#[must_use]
pub fn full_xid(xid: u32, next_xid: u64) -> u64 {
    let ahead = xid.wrapping_sub(next_xid as u32);
    let behind = ahead.wrapping_neg();
    if behind <= HALF { next_xid.wrapping_sub(behind.into()) } else { next_xid.wrapping_add(ahead.into()) }
}

/// Whether an id comes before another on the ring of 32-bit ids.
fn precedes(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) >= HALF
}
