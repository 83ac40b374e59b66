//! What a lot of WAL comes to: columns for other programs, who wrote how much, transactions, one page's history.

pub mod columns;
mod pack;
pub mod page;
mod share;
pub mod transactions;
pub mod usage;

pub use columns::Columns;
pub use transactions::{Transaction, Transactions};
pub use usage::Usage;
