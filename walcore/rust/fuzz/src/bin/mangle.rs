//! `mangle FOUND_FOLDER SEED ROUNDS WAL_FOLDER…`: every record of real WAL with damage in it, and on pages that are damaged
//! or not its own; `ROUNDS` times each. Redo must give a page or an error. An input that fails is kept as a file.

use std::fs;
use std::ops::ControlFlow;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use walcore::Lsn;
use walcore::page::{BLCKSZ, PageBuf};
use walcore::redo::Target;
use walcore_fuzz::redo;
use walcore_fuzz::replay::{AnyError, Meeting, Recording, Replay};

/// Pages kept to put records on that are not theirs.
const STRANGERS: usize = 512;
/// Numbers that lengths and offsets go wrong at.
const EDGES: [u16; 10] = [0, 1, 2, 0x7FFF, 0x8000, 0xFFFF, 8191, 8192, 24, 291];

struct Mangler {
    draw: u64,
    rounds: u32,
    strangers: Vec<PageBuf>,
    inputs: u64,
    failures: u64,
    found: PathBuf,
}

impl Mangler {
    fn next(&mut self) -> u64 {
        self.draw ^= self.draw << 13;
        self.draw ^= self.draw >> 7;
        self.draw ^= self.draw << 17;
        self.draw.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn meet(&mut self, meeting: &Meeting<'_>, replay_major: walcore::version::Major) {
        let own = meeting.page.cloned().unwrap_or_else(PageBuf::zeroed);
        if self.strangers.len() < STRANGERS {
            self.strangers.push(own.clone());
        } else if self.below(8) == 0 {
            let place = self.below(STRANGERS);
            self.strangers.splice(place..=place, [own.clone()]);
        }
        for round in 0..self.rounds {
            let mut page = own.clone();
            let mut record = meeting.bytes.to_vec();
            match round % 4 {
                0 => self.damage_record(&mut record),
                1 => self.damage_page(&mut page),
                2 => {
                    let stranger = self.below(self.strangers.len());
                    page = self.strangers.get(stranger).cloned().unwrap_or(page);
                }
                _ => {
                    self.damage_record(&mut record);
                    self.damage_page(&mut page);
                }
            }
            if matches!(meeting.target, Target::Block(_)) {
                page.set_lsn(Lsn(0));
            }
            if let Some(input) = redo::encode(&record, Some(&page), replay_major) {
                self.inputs += 1;
                if catch_unwind(|| redo::redo(&input)).is_err() {
                    self.keep(meeting, &input);
                }
            }
        }
    }

    /// Keeps an input that failed, unless its kind has been seen before.
    fn keep(&mut self, meeting: &Meeting<'_>, input: &[u8]) {
        self.failures += 1;
        let header = &meeting.record.header;
        let name = format!("mangled-{:02}-{:02x}-{}", header.rmid, header.rmgr_info(), meeting.number);
        let path = self.found.join(name);
        if !path.exists() {
            let written = fs::create_dir_all(&self.found).and_then(|()| fs::write(&path, input));
            written.unwrap_or_else(|error| panic!("cannot keep {}: {error}", path.display()));
        }
    }

    /// Damages what stands behind the header, which redo does not read.
    fn damage_record(&mut self, record: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = 24 + self.below(record.len().saturating_sub(24));
            self.damage(record, at);
        }
        // The last bytes are the main data: there it can be cut without the lengths in front of it disagreeing.
        if self.below(8) == 0 {
            let keep = 24 + self.below(record.len() - 24);
            record.truncate(keep);
        }
    }

    /// Damages the header, the line pointers, the special space, or anything.
    fn damage_page(&mut self, page: &mut PageBuf) {
        let (lower, special) = (usize::from(page.lower()), usize::from(page.special()));
        for _ in 0..=self.below(4) {
            let at = match self.below(4) {
                0 => 8 + self.below(16),
                1 => 24 + self.below(lower.saturating_sub(24)),
                2 => special + self.below(BLCKSZ.saturating_sub(special)),
                _ => self.below(BLCKSZ),
            };
            self.damage(page.bytes_mut(), at);
        }
    }

    fn damage(&mut self, bytes: &mut [u8], at: usize) {
        let (kind, bit, drawn) = (self.below(3), self.below(8), self.next());
        let edge = EDGES.get(self.below(EDGES.len())).copied().unwrap_or_default();
        match (kind, bytes.get_mut(at..)) {
            (0, Some([byte, ..])) => *byte ^= 1 << bit,
            (1, Some([byte, ..])) => *byte = drawn as u8,
            (_, Some([low, high, ..])) => [*low, *high] = edge.to_le_bytes(),
            _ => {}
        }
    }
}

fn main() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [found, seed, rounds, folders @ ..] = &arguments[..] else {
        return Err("FOUND_FOLDER SEED ROUNDS WAL_FOLDER…".into());
    };
    let found = PathBuf::from(found);
    let (draw, rounds) = (seed.parse()?, rounds.parse()?);
    let mut mangler = Mangler { draw, rounds, strangers: Vec::new(), inputs: 0, failures: 0, found };
    let mut meetings = 0u64;
    for folder in folders {
        let recording = Recording::open(Path::new(folder))?;
        let (mut stream, mut replay) = (recording.stream()?, Replay::new(recording.major));
        recording.pieces(1 << 20, &mut |piece| {
            let fed = stream.feed(piece, &mut |raw| {
                let redone = replay.add(raw, &mut |meeting| {
                    meetings += 1;
                    mangler.meet(meeting, recording.major);
                });
                redone.unwrap_or_else(|error| panic!("sound WAL is refused: {error}"));
                Ok(())
            });
            if fed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
    }
    println!(
        r#"{{"seed": {seed}, "meetings": {meetings}, "inputs": {}, "failures": {}}}"#,
        mangler.inputs, mangler.failures
    );
    if mangler.failures > 0 { Err("redo failed on damage: see FOUND_FOLDER".into()) } else { Ok(()) }
}
