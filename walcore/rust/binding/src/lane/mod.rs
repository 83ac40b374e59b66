//! The quorum's steady state, while Python's event loop has nothing else to do: sockets and files for `walcore::lane`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use walcore::Lsn;
use walcore::lane::{LogEnd, Verdict, held};

mod follow;
mod lead;
mod link;
mod log;

pub use follow::FollowLane;
pub use lead::LeadLane;

/// The longest message a peer or primary may send, as `FRAME_BYTES_MAX` of `walproxy/wire/aio.py`.
const FRAME_BYTES_MAX: usize = 16 << 20;
const READ_BYTES: usize = 1 << 18;

/// Why a lane gives way.
enum Next {
    /// Nothing more is here.
    Wait,
    /// Python's event loop has work, or its time is over.
    Loop,
    /// What comes next on a stream is not steady: what was read of it begins with that.
    HandOver,
}

/// See `walcore/_native.pyi`.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "each is a field of the log's end or of the message")]
pub fn judge_append(
    log_generation: u32,
    log_term: u64,
    elected_term: u64,
    log_tli: u32,
    write_lsn: u64,
    room_end_lsn: u64,
    generation: u32,
    term: u64,
    tli: u32,
    start_lsn: u64,
    wal_bytes: usize,
) -> &'static str {
    let log = LogEnd {
        generation: log_generation,
        term: log_term,
        elected_term,
        tli: log_tli,
        write: Lsn(write_lsn),
        room_end: Lsn(room_end_lsn),
    };
    match log.judge(generation, term, tli, Lsn(start_lsn), wal_bytes) {
        Verdict::Take => "take",
        Verdict::Generation => "generation",
        Verdict::Past => "past",
        Verdict::NotElected => "not elected",
        Verdict::Elsewhere => "elsewhere",
        Verdict::Timeline => "timeline",
        Verdict::Room => "room",
    }
}

/// See `walcore/_native.pyi`.
#[pyfunction]
pub fn held_lsn(flush_lsns: Vec<u64>, majority: usize) -> u64 {
    let mut flushed: Vec<Lsn> = flush_lsns.into_iter().map(Lsn).collect();
    held(&mut flushed, majority).0
}

/// A descriptor of ours for the same thing.
fn duplicate(fd: RawFd) -> std::io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "descriptors come from Python as numbers")]
    // SAFETY: the caller holds it open during this call, and it is not kept beyond; one that is not open is an error.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.as_fd().try_clone_to_owned()
}

#[expect(clippy::disallowed_methods, reason = "this is the driver: the core gets no time at all")]
fn now() -> Instant {
    Instant::now()
}

/// When `timeout_s` seconds are over; `None` is never.
fn due(timeout_s: Option<f64>) -> Option<Instant> {
    let timeout = timeout_s.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
    timeout.and_then(|timeout| now().checked_add(timeout))
}
