//! The end of our own log: a segment file, and the scanner of what goes into it.

use std::fs::File;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use pyo3::prelude::*;
use walcore::Lsn;

use super::{duplicate, now};
use crate::wal::WalScanner;

/// Of one sync. One that takes longer must not hold up the event loop.
const FAST: Duration = Duration::from_millis(20);

pub struct LogFile {
    scanner: Py<WalScanner>,
    file: File,
    start: Lsn,
    /// End of the whole records that are durable.
    pub flush: Lsn,
    /// End and start of the last whole record in what was taken; the scanner of damaged WAL has read beyond.
    record_end: Lsn,
    pub last_record: Option<Lsn>,
    pub damage: Option<String>,
    pub is_slow: bool,
}

impl LogFile {
    pub fn open(file: RawFd, start: Lsn, scanner: Py<WalScanner>, flush: Lsn) -> std::io::Result<Self> {
        Ok(Self {
            scanner,
            file: duplicate(file)?.into(),
            start,
            flush,
            record_end: flush,
            last_record: None,
            damage: None,
            is_slow: false,
        })
    }

    /// LSN of the file's first byte.
    pub fn start(&self) -> Lsn {
        self.start
    }

    /// Checks the records that these bytes go on with; false if they are not WAL, and then nothing more is.
    pub fn scan(&mut self, wal: &[u8]) -> bool {
        if self.damage.is_some() {
            return false;
        }
        if let Err(error) = self.scanner.get().take(wal) {
            self.damage = Some(error.to_string());
            return false;
        }
        (self.record_end, self.last_record) = self.scanner.get().last_record();
        true
    }

    pub fn write(&self, at: Lsn, wal: &[u8]) -> std::io::Result<()> {
        self.file.write_all_at(wal, at.0 - self.start.0)
    }

    pub fn read(&self, at: Lsn, wal: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(wal, at.0 - self.start.0)
    }

    /// Makes all that was scanned and written durable.
    pub fn sync(&mut self) -> std::io::Result<()> {
        let begun = now();
        self.file.sync_data()?;
        self.flush = self.record_end;
        self.is_slow = begun.elapsed() >= FAST;
        Ok(())
    }
}
