//! Whole forks at one LSN, for whoever writes files.

use std::io;

use rayon::prelude::*;

use super::{PageReader, ReadError, RecordReader};
use crate::Lsn;
use crate::layer::{Key, Kind, Size};
use crate::page::BLCKSZ;
use crate::wal::{Fork, RelTag};

/// Pages that are rebuilt and put in one piece: no file of a fork ends within one.
const PIECE_BLOCKS: u32 = 128;

/// Where the pages of forks go. A fork is named by its place among those asked for.
pub trait ForkSink: Sync {
    /// A fork will have so many blocks. Comes once, before its pages.
    ///
    /// # Errors
    /// What the sink fails with; nothing more is put then.
    fn begin(&self, fork: usize, blocks: u32) -> io::Result<()>;

    /// Takes neighbouring pages, from block `first` on. Comes in any order, from many threads.
    ///
    /// # Errors
    /// As `begin`.
    fn put(&self, fork: usize, first: u32, pages: &[u8]) -> io::Result<()>;
}

/// A page that could not be rebuilt; zeros were put in its place.
pub type Unreadable = (Key, ReadError);

/// Part of a fork.
#[derive(Clone, Copy)]
struct Piece {
    fork: usize,
    size: Size,
    first: Key,
    blocks: u32,
}

impl PageReader {
    /// Rebuilds every page of some forks as of an LSN, on all cores; `checksums` stamps them as a cluster with data
    /// checksums wants them on disk. Returns how many pages there are, and those that could not be rebuilt.
    ///
    /// # Errors
    /// What the sink fails with; a fork that does not exist then; an LSN or a size that cannot be read.
    pub fn write_forks(
        &self,
        forks: &[(RelTag, Fork)],
        at: Lsn,
        checksums: bool,
        sink: &dyn ForkSink,
    ) -> Result<(u64, Vec<Unreadable>), WriteError> {
        self.check_covered(at)?;
        let pieces = forks.par_iter().enumerate().map(|(fork, (rel, number))| {
            let first = Key { kind: Kind::Page, ..Key::size(*rel, *number) };
            let size = self.index.size(&first, at).map_err(ReadError::from)?;
            let size = size.ok_or(ReadError::NoSuchRelation { key: first, at })?;
            sink.begin(fork, size.blocks)?;
            let piece = move |start: u32| Piece {
                fork,
                size,
                first: Key { blkno: start, ..first },
                blocks: PIECE_BLOCKS.min(size.blocks - start),
            };
            Ok((0..size.blocks).step_by(PIECE_BLOCKS as usize).map(piece).collect::<Vec<_>>())
        });
        let pieces = pieces.collect::<Result<Vec<_>, WriteError>>()?.concat();
        let new_state = || (RecordReader::new(&*self.segments), Vec::new());
        let unreadable = pieces.par_iter().map_init(new_state, |(records, buffer), piece| {
            let unreadable = self.piece(piece, at, checksums, records, buffer);
            sink.put(piece.fork, piece.first.blkno, buffer)?;
            Ok(unreadable)
        });
        let unreadable = unreadable.collect::<Result<Vec<_>, WriteError>>()?.concat();
        Ok((pieces.iter().map(|piece| u64::from(piece.blocks)).sum(), unreadable))
    }

    /// Puts the pages of a piece into the buffer, one behind the other.
    fn piece(
        &self,
        piece: &Piece,
        at: Lsn,
        checksums: bool,
        records: &mut RecordReader<'_>,
        buffer: &mut Vec<u8>,
    ) -> Vec<Unreadable> {
        let mut unreadable = Vec::new();
        buffer.clear();
        for number in 0..piece.blocks {
            let key = Key { blkno: piece.first.blkno + number, ..piece.first };
            match self.page(&key, at, Some(piece.size), records) {
                Ok(mut page) => {
                    if checksums {
                        page.stamp_checksum(key.blkno);
                    }
                    buffer.extend_from_slice(page.bytes());
                }
                Err(error) => {
                    buffer.resize(buffer.len() + BLCKSZ, 0);
                    unreadable.push((key, error));
                }
            }
        }
        unreadable
    }
}

/// Why forks could not be written at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The sink failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A fork cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}
