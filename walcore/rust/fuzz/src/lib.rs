//! Hostile bytes: what any input must give is an answer or an error, soon, in memory that the input pays for.
//!
//! Each target takes any bytes at all. It panics if what it calls panics, if an answer contradicts itself, or if more
//! memory is in use at once than [`BASE_BYTES`] and [`BYTES_PER_BYTE`] allow; the engine adds a time limit an input.

pub mod flips;
pub mod image;
pub mod layer;
pub mod record;
pub mod redo;
pub mod replay;
pub mod stream;

use std::sync::{Mutex, PoisonError};

use peak_alloc::PeakAlloc;
use walcore::Lsn;
use walcore::version::Major;

/// Counts the bytes in use, for the bound below. What zstd allocates in C is not seen: it decompresses into a page.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory is counted for the whole process: one input at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What every input may use.
pub const BASE_BYTES: usize = 256 << 10;
/// What each of its bytes may use beside that.
pub const BYTES_PER_BYTE: usize = 64;

/// Where records stand that come without a place.
pub const START: Lsn = Lsn(1 << 30);

/// A target: any bytes in, a panic out if they do what they must not.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 5] = [
    ("stream", stream::stream),
    ("record", record::record),
    ("redo", redo::redo),
    ("image", image::image),
    ("layer", layer::layer),
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|(known, _)| *known == name).map(|(_, target)| target)
}

/// Runs a target within the bound on memory.
///
/// # Panics
/// If the target does, or the input used more than it may.
pub fn run(target: Target, input: &[u8]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    target(input);
    let used = MEMORY.peak_usage().saturating_sub(before);
    let most = BASE_BYTES + BYTES_PER_BYTE * input.len();
    assert!(used <= most, "memory beyond the bound: used={used} most={most} input_bytes={}", input.len());
}

/// A major version out of the low bits of a byte.
pub fn major_of(byte: u8) -> Major {
    let [v15, v16, v17, v18] = Major::ALL;
    match byte & 3 {
        0 => v15,
        1 => v16,
        2 => v17,
        _ => v18,
    }
}

/// The low bits that stand for a major.
pub fn bits_of(major: Major) -> u8 {
    (major as u8).wrapping_sub(Major::V15 as u8) & 3
}
