//! Forks as the files of a data directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use walcore::page::BLCKSZ;
use walcore::read::ForkSink;

/// Blocks of one file (`RELSEG_SIZE`).
const FILE_BLOCKS: u32 = 131_072;

/// The files of some forks, each fork by the path of its first file.
pub struct ForkFiles {
    paths: Vec<PathBuf>,
    is_synced: bool,
}

impl ForkFiles {
    /// `is_synced`: what is written is durable once [`Self::sync`] has returned.
    pub fn new(paths: Vec<PathBuf>, is_synced: bool) -> Self {
        Self { paths, is_synced }
    }

    /// Makes the files durable, if that was asked for.
    pub fn sync(&self) -> io::Result<()> {
        if !self.is_synced {
            return Ok(());
        }
        (0..self.paths.len()).into_par_iter().try_for_each(|fork| {
            for number in 0.. {
                match File::open(self.path(fork, number)) {
                    Ok(file) => file.sync_all()?,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        })
    }

    fn path(&self, fork: usize, number: u32) -> PathBuf {
        let first = self.paths.get(fork).map_or(Path::new(""), PathBuf::as_path);
        if number == 0 {
            return first.to_path_buf();
        }
        let mut name = first.as_os_str().to_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

fn opened(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

impl ForkSink for ForkFiles {
    fn begin(&self, fork: usize, blocks: u32) -> io::Result<()> {
        let files = blocks.div_ceil(FILE_BLOCKS).max(1);
        for number in 0..files {
            let here = (blocks - number * FILE_BLOCKS).min(FILE_BLOCKS);
            opened(&self.path(fork, number))?.set_len(u64::from(here) * BLCKSZ as u64)?;
        }
        let mut beyond = files;
        while std::fs::remove_file(self.path(fork, beyond)).is_ok() {
            beyond += 1;
        }
        Ok(())
    }

    fn put(&self, fork: usize, first: u32, pages: &[u8]) -> io::Result<()> {
        let file = opened(&self.path(fork, first / FILE_BLOCKS))?;
        file.write_all_at(pages, u64::from(first % FILE_BLOCKS) * BLCKSZ as u64)
    }
}
