//! `Search`: breadth first, each world looked at once.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::ask::Stop;
use crate::book::Book;
use crate::moves::{Grain, Move, Mover};
use crate::seen::Seen;
use crate::world::{Layout, World};

/// Of so many worlds it is kept which move led there: a large search ends sound, or early.
const TRACED_MAX: u64 = 2_000_000;
/// Worlds of one layer that a thread takes at a time, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// What to search.
pub struct Search {
    /// Who there is.
    pub layout: Layout,
    /// Which of them propose.
    pub proposers: Vec<usize>,
    /// How much is one move.
    pub grain: Grain,
    /// Stop at the end of the chunk in which there are more.
    pub states_max: u64,
    /// How many search.
    pub threads: usize,
}

/// How far a search came.
#[derive(Debug, Default)]
pub struct Found {
    /// Worlds that were met.
    pub states: u64,
    /// Moves from them.
    pub transitions: u64,
    /// Moves to the farthest of them.
    pub depth: u32,
    /// All were met.
    pub is_complete: bool,
    /// What does not hold, if anything.
    pub violation: Option<String>,
    /// The moves that lead to where it does not.
    pub trace: Vec<Move>,
}

/// What the threads share while they search one layer.
struct Layer<'a> {
    search: &'a Search,
    seen: &'a Seen,
    parents: &'a Mutex<HashMap<u128, (u128, Move)>>,
    now: Mutex<Vec<Vec<u8>>>,
    next: Mutex<Vec<Vec<u8>>>,
    transitions: AtomicU64,
    is_over: AtomicBool,
    why: Mutex<Option<(Stop, u128)>>,
}

impl Search {
    /// Every world that can be reached from the one in which those members, just started, begin.
    pub fn run(&self, book: &Book, members: &[u32], promised: u32) -> Result<Found, Stop> {
        let mut movers: Vec<_> =
            (0..self.threads).map(|_| Mover::new(&self.layout, self.grain, book)).collect();
        let first = movers[0].first(members, promised, &self.proposers)?;
        let (seen, parents) = (Seen::default(), Mutex::default());
        seen.insert(first.fingerprint(self.layout.numbers()));
        let mut chunk = Vec::new();
        first.pack(self.layout.numbers(), &mut chunk);
        let mut found = Found::default();
        let mut now = vec![chunk];
        loop {
            let layer = Layer {
                search: self,
                seen: &seen,
                parents: &parents,
                now: Mutex::new(now),
                next: Mutex::default(),
                transitions: AtomicU64::new(found.transitions),
                is_over: AtomicBool::new(false),
                why: Mutex::default(),
            };
            std::thread::scope(|scope| {
                for mover in &mut movers {
                    scope.spawn(|| layer.search(mover));
                }
            });
            found.states = seen.count();
            found.transitions = layer.transitions.into_inner();
            if let Some((stop, world)) = layer.why.into_inner().expect("no thread panics") {
                let Stop::Violation(violation) = stop else { return Err(stop) };
                found.violation = Some(violation);
                found.trace = trace(&parents.into_inner().expect("no thread panics"), world);
                return Ok(found);
            }
            if layer.is_over.into_inner() {
                return Ok(found);
            }
            now = layer.next.into_inner().expect("no thread panics");
            if now.is_empty() {
                found.is_complete = true;
                return Ok(found);
            }
            found.depth += 1;
            book.tell(found.depth, found.states)?;
        }
    }
}

impl Layer<'_> {
    /// One thread's part.
    fn search(&self, mover: &mut Mover<'_>) {
        let len = self.search.layout.numbers();
        let mut next = Vec::new();
        let mut transitions = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            let Some(chunk) = self.now.lock().expect("no thread panics").pop() else { break };
            let mut rest = &chunk[..];
            while let Some(world) = World::unpack(len, &mut rest) {
                let from = world.fingerprint(len);
                let ended = mover.each(&world, |what, made| {
                    transitions += 1;
                    let fingerprint = made.fingerprint(len);
                    if !self.seen.insert(fingerprint) {
                        return;
                    }
                    if self.seen.count() < TRACED_MAX {
                        self.parents.lock().expect("no thread panics").insert(fingerprint, (from, what));
                    }
                    made.pack(len, &mut next);
                    if next.len() >= CHUNK_BYTES {
                        self.next.lock().expect("no thread panics").push(std::mem::take(&mut next));
                    }
                });
                if let Err(stop) = ended {
                    self.is_over.store(true, Ordering::Relaxed);
                    self.why.lock().expect("no thread panics").get_or_insert((stop, from));
                }
                if self.seen.count() > self.search.states_max {
                    self.is_over.store(true, Ordering::Relaxed);
                }
                if self.is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
        if !next.is_empty() {
            self.next.lock().expect("no thread panics").push(next);
        }
        self.transitions.fetch_add(transitions, Ordering::Relaxed);
    }
}

/// The moves that led there, as far back as they are known.
fn trace(parents: &HashMap<u128, (u128, Move)>, mut world: u128) -> Vec<Move> {
    let mut moves = Vec::new();
    while let Some((from, what)) = parents.get(&world) {
        moves.push(*what);
        world = *from;
    }
    moves.reverse();
    moves
}
