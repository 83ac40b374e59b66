//! Redo: one record onto one page.
