//! Files mapped into memory: the one place that needs `unsafe`.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use memmap2::Mmap;
use walcore::read::{Segment, SegmentError, Segments};

/// A file's bytes, as long as it was when it was mapped.
pub struct Map(Mmap);

impl Map {
    /// Maps a file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        #[expect(unsafe_code, reason = "memory maps")]
        // SAFETY: the bytes behind a map must not change while they are borrowed, and the file must not get shorter.
        // Layer files are written once, under another name, and never again. Segment files are only appended to or
        // written into beyond the last record indexed, and nothing before that is borrowed from them; the contract of
        // `Reader` (`walcore/_native.pyi`) forbids truncating them.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self(map))
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Segment files of a directory, mapped when first needed.
pub struct SegmentDir {
    dir: PathBuf,
    tli: u32,
    segment_size: u64,
    maps: RwLock<HashMap<u64, Segment>>,
}

/// Maps held before all are let go. A process may have some 65,000.
const MAPS_MAX: usize = 8192;

impl SegmentDir {
    /// The directory's segments of one Postgres timeline.
    pub fn new(dir: PathBuf, tli: u32, segment_size: u64) -> Self {
        Self { dir, tli, segment_size, maps: RwLock::default() }
    }

    fn map(&self, segno: u64) -> io::Result<Map> {
        let per_id = (1 << 32) / self.segment_size;
        let name = format!("{:08X}{:08X}{:08X}", self.tli, segno / per_id, segno % per_id);
        let path = self.dir.join(&name);
        match Map::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // Tried again under the first name: it may be renamed in between.
                Map::open(&self.dir.join(name + ".partial")).or_else(|_| Map::open(&path))
            }
            result => result,
        }
    }
}

impl Segments for SegmentDir {
    fn segment(&self, segno: u64, len: u64) -> Result<Segment, SegmentError> {
        let is_long = |segment: &Segment| segment.as_ref().as_ref().len() as u64 >= len;
        let held = self.maps.read().unwrap_or_else(PoisonError::into_inner).get(&segno).cloned();
        if let Some(segment) = held.filter(is_long) {
            return Ok(segment);
        }
        let missing = |reason| SegmentError::Missing { segno, reason };
        let segment: Segment = Arc::new(self.map(segno).map_err(|e| missing(e.to_string()))?);
        if !is_long(&segment) {
            return Err(missing(format!("the file is too short: bytes={}", segment.as_ref().as_ref().len())));
        }
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        if maps.len() >= MAPS_MAX {
            maps.clear();
        }
        maps.insert(segno, Arc::clone(&segment));
        Ok(segment)
    }

    fn segment_size(&self) -> u64 {
        self.segment_size
    }
}
