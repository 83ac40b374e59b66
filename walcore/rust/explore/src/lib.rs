//! The search of the quorum's explorer: from world to world, each looked at once (`tests/explore/search.py`).
//!
//! A member, a message, what was promised are numbers here. What an event does to a member, and whether what it then
//! says of itself may be, is asked once: the quorum's own code answers, in Python.
#![allow(
    clippy::indexing_slicing,
    reason = "places come from the layout; a panic ends a search, nothing else"
)]
#![allow(clippy::missing_panics_doc, reason = "a panic ends a search, nothing else")]

pub mod ask;
pub mod book;
pub mod moves;
#[cfg(feature = "python")]
mod python;
pub mod quick;
pub mod search;
pub mod seen;
pub mod world;
