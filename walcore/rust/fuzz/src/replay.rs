//! Real WAL, record by record, each with the pages that it came to.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use walcore::Lsn;
use walcore::page::PageBuf;
use walcore::reader::Reader;
use walcore::redo::{Ctx, Target, Touched, redo, touches};
use walcore::version::Major;
use walcore::wal::{PageHeader, RawRecord, Record, WalError, WalStream};

/// What a replay fails with.
pub type AnyError = Box<dyn Error>;

/// One record and one page that it came to.
#[derive(Clone, Copy, Debug)]
pub struct Meeting<'a> {
    /// The record.
    pub record: &'a Record<'a>,
    /// The record's bytes.
    pub bytes: &'a [u8],
    /// Which of the record's pages this is, counted from 0.
    pub number: usize,
    /// The page's name.
    pub target: Target,
    /// The page as it was before; `None` if there was none.
    pub page: Option<&'a PageBuf>,
    /// The record replaces the page, or begins it.
    pub starts: bool,
}

/// All pages as the WAL has left them, from empty on: a page appears with the first record that begins or replaces it.
#[derive(Debug)]
pub struct Replay {
    /// Of the server that wrote the WAL.
    pub major: Major,
    /// The pages.
    pub pages: HashMap<Target, PageBuf>,
}

impl Replay {
    /// Redoes a record, and shows each page that it comes to before that.
    ///
    /// # Errors
    /// What is wrong with the record.
    pub fn add(&mut self, raw: &RawRecord<'_>, each: &mut dyn FnMut(&Meeting<'_>)) -> Result<(), AnyError> {
        let record = raw.decode()?;
        let ctx = Ctx { major: self.major, hint_bits_logged: true };
        let mut targets = Vec::new();
        touches(&record, self.major, &mut |touched| {
            if let Touched::Page { target, will_init, has_image, .. } = touched {
                targets.push((target, will_init || has_image));
            }
        })?;
        for (number, (target, starts)) in targets.into_iter().enumerate() {
            let mut page = self.pages.remove(&target);
            if page.is_none() && !starts && matches!(target, Target::Block(_)) {
                continue;
            }
            let bytes = raw.bytes;
            each(&Meeting { record: &record, bytes, number, target, page: page.as_ref(), starts });
            redo(&mut page, &record, &target, &ctx)?;
            self.pages.extend(page.map(|page| (target, page)));
        }
        Ok(())
    }
}

/// The segments that a server wrote, in a folder of their own.
#[derive(Debug)]
pub struct Recording {
    /// Of the server.
    pub major: Major,
    /// Bytes of a segment.
    pub seg_size: u64,
    start: Lsn,
    files: Vec<PathBuf>,
}

impl Recording {
    /// Looks at the first segment.
    ///
    /// # Errors
    /// The files are no WAL.
    pub fn open(folder: &Path) -> Result<Self, AnyError> {
        let files: Result<Vec<_>, AnyError> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect();
        let mut files = files?;
        files.sort();
        let first = fs::read(files.first().ok_or("no files")?)?;
        let start = Lsn(first.get(8..).and_then(|bytes| Reader(bytes).u64()).ok_or("not WAL")?);
        let header = PageHeader::decode(start, &first)?;
        let long = header.long.ok_or("not the start of a segment")?;
        Ok(Self { major: header.major, seg_size: long.seg_size.into(), start, files })
    }

    /// Gives all of it to `each`, a few bytes at a time, until that breaks.
    ///
    /// # Errors
    /// A file does not read.
    pub fn pieces(&self, len: usize, each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> Result<(), AnyError> {
        for file in &self.files {
            if fs::read(file)?.chunks(len).try_for_each(&mut *each).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// A stream for its bytes.
    ///
    /// # Errors
    /// As [`WalStream::new`].
    pub fn stream(&self) -> Result<WalStream, WalError> {
        Ok(WalStream::new(self.start, self.seg_size, None, None)?.of_major(self.major))
    }
}

impl Replay {
    /// No page yet.
    pub fn new(major: Major) -> Self {
        Self { major, pages: HashMap::new() }
    }
}
