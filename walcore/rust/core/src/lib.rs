//! PostgreSQL WAL 15 to 18: decoding, native redo, page layers.
//!
//! Pure functions over bytes: no Python, no clock, and files only through [`layer`]'s own trait.

pub mod check;
pub mod describe;
pub mod explain;
pub mod ingest;
pub mod lane;
pub mod layer;
pub mod lsn;
pub mod mask;
pub mod page;
pub mod read;
pub mod reader;
pub mod redo;
pub mod rmgr;
pub mod state;
pub mod version;
pub mod wal;

pub use lsn::Lsn;

/// CRC-32C (Castagnoli) of `data`, going on from the checksum of what came before; 0 to begin.
pub fn crc32c(before: u32, data: &[u8]) -> u32 {
    crc32c::crc32c_append(before, data)
}
