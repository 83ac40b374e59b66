//! A proposer's steady state: the primary's WAL in, on to the acceptors, synced, counted, reported to the primary.

use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use walcore::Lsn;
use walcore::lane::{Append, FromPrimary, LogEnd, Reply, Verdict, WAL_BYTES_MAX, held, put_status};

use super::link::{Got, Link};
use super::log::LogFile;
use super::{Next, READ_BYTES, due, duplicate, now};
use crate::wal::WalScanner;

/// Of an Append that is read from the log again, for a peer that was slow.
const CHUNK_BYTES: u64 = 1 << 18;
/// 2000-01-01, where Postgres begins to count, in seconds since 1970.
const POSTGRES_EPOCH_S: u64 = 946_684_800;

/// See `walcore/_native.pyi`.
#[pyclass(frozen, module = "walcore._native")]
pub struct LeadLane(Mutex<Lead>);

struct Lead {
    event_loop: OwnedFd,
    primary: Link,
    peers: Vec<Peer>,
    buffer: Vec<u8>,
    version: u8,
    log: LogEnd,
    file: LogFile,
    /// The segment before, for peers that are not through with it.
    before: Option<(File, Lsn)>,
    /// Taken from the primary, scanned, and not in the log yet.
    batch: Vec<u8>,
    /// Something of the primary's is read and not handled.
    has_more: bool,
    window: u64,
    majority: usize,
    /// What the voters whose sockets are not lent have flushed.
    others: Vec<Lsn>,
    term_start: Lsn,
    commit: Lsn,
    horizon: Lsn,
    /// What the primary was told last, and whether it wants to be told again.
    reported: Lsn,
    wants_report: bool,
    primary_end: Lsn,
    messages: u64,
    /// Acceptors learn of a commit that no WAL carries after so long, and not before then.
    commit_delay: Duration,
    commit_due: Option<Instant>,
    appends: u64,
}

struct Peer {
    link: Link,
    is_voter: bool,
    /// Where the next Append to it begins.
    next: Lsn,
    write: Lsn,
    flush: Lsn,
    told_commit: Lsn,
    sent_at: Instant,
    heard_at: Instant,
    /// What its downstreams need, as it said last; and what of that Python was not told yet.
    needs: Option<Vec<u8>>,
    new_needs: Option<Vec<u8>>,
    /// Since Python asked last.
    is_heard: bool,
    is_sent: bool,
}

/// What is readable or has room.
struct Ready {
    event_loop: bool,
    primary: bool,
    peers: Vec<bool>,
}

/// What became of one message of the primary.
enum Taken {
    /// It took so many bytes.
    Len(usize),
    /// Its WAL does not fit into this batch.
    Full,
    /// It is not whole yet.
    None,
    /// It is for Python.
    NotOurs,
}

impl Lead {
    fn run(&mut self, due: Option<Instant>, wakes_at_commit: bool) -> std::io::Result<Next> {
        let commit = self.commit;
        self.flush();
        loop {
            let ready = self.wait(due)?;
            let next = self.turn(&ready)?;
            if !matches!(next, Next::Wait) {
                return Ok(next);
            }
            let is_awaited = wakes_at_commit && self.commit > commit;
            if ready.event_loop || is_awaited || due.is_some_and(|due| now() >= due) {
                return Ok(Next::Loop);
            }
        }
    }

    fn wait(&self, due: Option<Instant>) -> std::io::Result<Ready> {
        let takes = self.has_room();
        let until = [due, self.commit_due].into_iter().flatten().min();
        let left = until.map(|until| until.saturating_duration_since(now()));
        let left = if takes && self.has_more { Some(Duration::ZERO) } else { left };
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = Vec::with_capacity(2 + self.peers.len());
        fds.push(PollFd::new(&self.event_loop, PollFlags::IN));
        fds.push(self.primary.poll_fd(takes));
        fds.extend(self.peers.iter().map(|peer| peer.link.poll_fd(true)));
        match poll(&mut fds, left.as_ref()) {
            // A signal: the event loop hears of it through a descriptor of its own.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Who is gone is heard of whatever was asked for.
        let mut ready = fds.iter().map(|fd| !(fd.revents() - PollFlags::OUT).is_empty());
        let event_loop = ready.next().unwrap_or_default();
        let primary = ready.next().unwrap_or_default() || (takes && self.has_more);
        let peers = ready.collect();
        Ok(Ready { event_loop, primary, peers })
    }

    /// Whether a majority follows closely enough to take more. Ours counts: what we take, we sync at once.
    fn has_room(&self) -> bool {
        let near = |peer: &&Peer| {
            peer.is_voter
                && self.log.write.0.saturating_sub(peer.write.0) + WAL_BYTES_MAX as u64 <= self.window
        };
        1 + self.peers.iter().filter(near).count() >= self.majority
    }

    /// Handles all that is here. Source: docs/quorum.md rules 11, 12, 21 and 22.
    fn turn(&mut self, ready: &Ready) -> std::io::Result<Next> {
        let mut next = match (ready.primary, self.has_room()) {
            (true, true) => self.take_in(),
            (true, false) => Next::HandOver, // It is gone: nothing else was asked for.
            (false, _) => Next::Wait,
        };
        self.put_batch()?;
        let is_slow = self.file.is_slow;
        for at in 0..self.peers.len() {
            if ready.peers.get(at).copied().unwrap_or_default() && !self.hear(at) {
                next = Next::HandOver;
            }
        }
        self.count();
        self.tell_commit();
        self.catch_up()?;
        self.flush();
        Ok(match next {
            Next::Wait if is_slow => Next::Loop,
            next => next,
        })
    }

    fn flush(&mut self) {
        self.primary.flush();
        for peer in &mut self.peers {
            peer.link.flush();
        }
    }

    /// Reads what the primary sends, as much as one Append holds.
    fn take_in(&mut self) -> Next {
        self.has_more = false;
        let mut got = Got::More;
        loop {
            match self.take_one() {
                Taken::Len(len) => self.primary.frames.consume(len),
                Taken::NotOurs => return Next::HandOver,
                Taken::Full => {
                    self.has_more = true;
                    return Next::Wait;
                }
                Taken::None if got == Got::More => got = self.primary.read(&mut self.buffer),
                Taken::None if got == Got::Ended => return Next::HandOver,
                Taken::None => return Next::Wait,
            }
        }
    }

    fn take_one(&mut self) -> Taken {
        let frame = match self.primary.frames.next() {
            Ok(Some(frame)) if frame.tag == b'd' => frame,
            Ok(None) => return Taken::None,
            _ => return Taken::NotOurs,
        };
        match FromPrimary::read(frame.body) {
            None => return Taken::NotOurs,
            Some(FromPrimary::Keepalive { end, wants_reply }) => {
                self.primary_end = self.primary_end.max(end);
                self.wants_report |= wants_reply;
            }
            Some(FromPrimary::Wal { start, end, wal }) => {
                if !self.batch.is_empty() && self.batch.len() + wal.len() > WAL_BYTES_MAX {
                    return Taken::Full;
                }
                let write = Lsn(self.log.write.0 + self.batch.len() as u64);
                let LogEnd { generation, term, tli, .. } = self.log;
                let verdict = LogEnd { write, ..self.log }.judge(generation, term, tli, start, wal.len());
                if verdict != Verdict::Take || wal.len() > WAL_BYTES_MAX || !self.file.scan(wal) {
                    return Taken::NotOurs;
                }
                self.batch.extend_from_slice(wal);
                self.primary_end = end.max(Lsn(start.0 + wal.len() as u64));
            }
        }
        self.messages += 1;
        Taken::Len(frame.len)
    }

    /// To the peers first, then into our own log: the syncs of all go on at the same time.
    fn put_batch(&mut self) -> std::io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let start = self.log.write;
        let end = Lsn(start.0 + self.batch.len() as u64);
        let mut head = Vec::with_capacity(64);
        self.append(start, &self.batch).put_head(self.version, &mut head);
        let commit = self.commit;
        for peer in &mut self.peers {
            if peer.next == start
                && !peer.link.is_waiting()
                && end.0.saturating_sub(peer.write.0) <= self.window
            {
                peer.link.send(&head, &self.batch);
                peer.on_sent(end, commit);
            }
        }
        self.file.write(start, &self.batch)?;
        self.log.write = end;
        self.batch.clear();
        self.appends += 1;
        self.file.sync()
    }

    fn append<'a>(&self, start: Lsn, wal: &'a [u8]) -> Append<'a> {
        let LogEnd { generation, term, tli, .. } = self.log;
        Append { generation, term, tli, start, commit: self.commit, horizon: self.horizon, wal }
    }

    /// Takes the answers of a peer; false if there is something else, or the peer is gone.
    fn hear(&mut self, at: usize) -> bool {
        let Some(peer) = self.peers.get_mut(at) else { return true };
        let mut got = Got::More;
        loop {
            while let Ok(Some(frame)) = peer.link.frames.next() {
                let reply = Reply::read(frame.body, self.version).filter(|reply| {
                    frame.tag == b'd'
                        && (reply.generation, reply.term) == (self.log.generation, self.log.term)
                        && reply.flush != Lsn::default()
                });
                let Some(reply) = reply else { return false };
                peer.write = reply.write;
                // Within a term an acceptor's flush LSN only grows, so a late reply is an understatement.
                peer.flush = peer.flush.max(reply.flush);
                if peer.needs.as_deref() != Some(reply.needs) {
                    peer.needs = Some(reply.needs.to_vec());
                    peer.new_needs = Some(reply.needs.to_vec());
                }
                (peer.is_heard, peer.heard_at) = (true, now());
                let len = frame.len;
                peer.link.frames.consume(len);
            }
            if peer.link.frames.next().is_err() {
                return false;
            }
            match got {
                Got::More => got = peer.link.read(&mut self.buffer),
                Got::All => return true,
                Got::Ended => return false,
            }
        }
    }

    /// Calls committed what a majority has flushed, and says so to the primary. Source: docs/quorum.md rule 12.
    fn count(&mut self) {
        let mut flushed = self.others.clone();
        flushed.push(self.file.flush);
        flushed.extend(self.peers.iter().filter(|peer| peer.is_voter).map(|peer| peer.flush));
        let reached = held(&mut flushed, self.majority);
        if reached >= self.term_start && reached > self.commit {
            self.commit = reached;
            self.commit_due = self.commit_due.or_else(|| now().checked_add(self.commit_delay));
        }
        if self.commit > self.reported || self.wants_report {
            self.reported = self.reported.max(self.commit);
            self.wants_report = false;
            let mut status = Vec::with_capacity(64);
            put_status(self.reported, postgres_time_us(), &mut status);
            self.primary.send(&status, &[]);
        }
    }

    /// Tells the peers that heard nothing for a while how far the log is committed.
    fn tell_commit(&mut self) {
        if self.commit_due.is_none_or(|due| now() < due) {
            return;
        }
        let mut is_later = false;
        for at in 0..self.peers.len() {
            let Some(peer) = self.peers.get(at).filter(|peer| peer.told_commit < self.commit) else {
                continue;
            };
            if peer.sent_at.elapsed() < self.commit_delay {
                is_later = true;
            } else if !peer.link.is_waiting() {
                let next = peer.next;
                self.send(at, next, &[]);
            }
        }
        self.commit_due = if is_later { now().checked_add(self.commit_delay) } else { None };
    }

    /// Sends peers that were too slow for the newest WAL what they lack, as far as their windows allow.
    fn catch_up(&mut self) -> std::io::Result<()> {
        let mut wal = Vec::new();
        for at in 0..self.peers.len() {
            while let Some((start, len)) = self.lacking(at) {
                wal.resize(len, 0);
                match &self.before {
                    Some((before, begins)) if start < self.file.start() => {
                        before.read_exact_at(&mut wal, start.0 - begins.0)?;
                    }
                    _ => self.file.read(start, &mut wal)?,
                }
                self.send(at, start, &wal);
            }
        }
        Ok(())
    }

    /// What is to be sent next to that peer, of one file.
    fn lacking(&self, at: usize) -> Option<(Lsn, usize)> {
        let peer = self.peers.get(at)?;
        let file_end = if peer.next < self.file.start() { self.file.start() } else { self.log.write };
        let end = file_end.0.min(peer.next.0 + CHUNK_BYTES);
        let may_send =
            peer.next.0 < end && !peer.link.is_waiting() && end.saturating_sub(peer.write.0) <= self.window;
        may_send.then_some((peer.next, (end - peer.next.0) as usize))
    }

    fn send(&mut self, at: usize, start: Lsn, wal: &[u8]) {
        let mut head = Vec::with_capacity(64);
        self.append(start, wal).put_head(self.version, &mut head);
        let commit = self.commit;
        if let Some(peer) = self.peers.get_mut(at) {
            peer.link.send(&head, wal);
            peer.on_sent(Lsn(start.0 + wal.len() as u64), commit);
        }
    }

    /// 0 is the primary, from 1 on come the peers.
    fn link(&mut self, at: usize) -> Option<&mut Link> {
        match at.checked_sub(1) {
            None => Some(&mut self.primary),
            Some(at) => self.peers.get_mut(at).map(|peer| &mut peer.link),
        }
    }
}

impl Peer {
    fn on_sent(&mut self, next: Lsn, commit: Lsn) {
        self.next = next;
        self.told_commit = commit;
        self.sent_at = now();
        self.is_sent = true;
    }
}

/// A peer as Python knows it: socket, bytes begun, whether it votes, next, write, flush and told commit LSN.
type LentPeer = (RawFd, Vec<u8>, bool, u64, u64, u64, u64);
/// Next, write, flush and told commit LSN; seconds since something was heard, and sent; what it needs, if that is new.
type KnownPeer<'py> = (u64, u64, u64, u64, Option<f64>, Option<f64>, Option<Bound<'py, PyBytes>>);

impl LeadLane {
    fn lock(&self) -> MutexGuard<'_, Lead> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl LeadLane {
    #[new]
    #[pyo3(signature = (*, event_loop, primary, begun, peers, file, file_start_lsn, before, scanner, version, generation,
        term, tli, write_lsn, flush_lsn, room_end_lsn, term_start_lsn, commit_lsn, horizon_lsn, reported_lsn,
        primary_end_lsn, majority, others, window_bytes, commit_delay_s))]
    #[expect(clippy::too_many_arguments, reason = "each is named by the caller")]
    fn new(
        event_loop: RawFd,
        primary: RawFd,
        begun: Vec<u8>,
        peers: Vec<LentPeer>,
        file: RawFd,
        file_start_lsn: u64,
        before: Option<(RawFd, u64)>,
        scanner: Py<WalScanner>,
        version: u8,
        generation: u32,
        term: u64,
        tli: u32,
        write_lsn: u64,
        flush_lsn: u64,
        room_end_lsn: u64,
        term_start_lsn: u64,
        commit_lsn: u64,
        horizon_lsn: u64,
        reported_lsn: u64,
        primary_end_lsn: u64,
        majority: usize,
        others: Vec<u64>,
        window_bytes: u64,
        commit_delay_s: f64,
    ) -> PyResult<Self> {
        let (write, room_end, flush) = (Lsn(write_lsn), Lsn(room_end_lsn), Lsn(flush_lsn));
        let peers = peers.into_iter().map(|(socket, begun, is_voter, next, write, flush, told)| {
            Ok(Peer {
                link: Link::open(socket, begun)?,
                is_voter,
                next: Lsn(next),
                write: Lsn(write),
                flush: Lsn(flush),
                told_commit: Lsn(told),
                sent_at: now(),
                heard_at: now(),
                needs: None,
                new_needs: None,
                is_heard: false,
                is_sent: false,
            })
        });
        let before = before.map(|(file, start)| duplicate(file).map(|file| (File::from(file), Lsn(start))));
        Ok(Self(Mutex::new(Lead {
            event_loop: duplicate(event_loop)?,
            primary: Link::open(primary, begun)?,
            peers: peers.collect::<std::io::Result<_>>()?,
            buffer: vec![0; READ_BYTES],
            version,
            log: LogEnd { generation, term, elected_term: term, tli, write, room_end },
            file: LogFile::open(file, Lsn(file_start_lsn), scanner, flush)?,
            before: before.transpose()?,
            batch: Vec::new(),
            has_more: true,
            window: window_bytes,
            majority,
            others: others.into_iter().map(Lsn).collect(),
            term_start: Lsn(term_start_lsn),
            commit: Lsn(commit_lsn),
            horizon: Lsn(horizon_lsn),
            reported: Lsn(reported_lsn),
            wants_report: false,
            primary_end: Lsn(primary_end_lsn),
            messages: 0,
            commit_delay: Duration::try_from_secs_f64(commit_delay_s).unwrap_or_default(),
            commit_due: None,
            appends: 0,
        })))
    }

    fn run(&self, py: Python<'_>, timeout_s: Option<f64>, wakes_at_commit: bool) -> PyResult<bool> {
        let next = py.detach(|| self.lock().run(due(timeout_s), wakes_at_commit))?;
        Ok(!matches!(next, Next::HandOver))
    }

    fn set_known(&self, horizon_lsn: u64, commit_lsn: u64, reported_lsn: u64, others: Vec<u64>) {
        let mut lane = self.lock();
        lane.horizon = Lsn(horizon_lsn);
        lane.commit = lane.commit.max(Lsn(commit_lsn));
        lane.reported = lane.reported.max(Lsn(reported_lsn));
        lane.others = others.into_iter().map(Lsn).collect();
    }

    fn send(&self, at: usize, payload: &[u8]) {
        let mut head = vec![b'd'];
        head.extend(((4 + payload.len()) as u32).to_be_bytes());
        if let Some(link) = self.lock().link(at) {
            link.send(&head, payload);
        }
    }

    fn rest<'py>(&self, py: Python<'py>, at: usize) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.lock().link(at).map(|link| link.frames.rest()).unwrap_or_default())
    }

    fn unsent<'py>(&self, py: Python<'py>, at: usize) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.lock().link(at).map(|link| link.unsent()).unwrap_or_default())
    }

    fn peers<'py>(&self, py: Python<'py>) -> Vec<KnownPeer<'py>> {
        let mut lane = self.lock();
        let known = lane.peers.iter_mut().map(|peer| {
            let needs = peer.new_needs.take().map(|needs| PyBytes::new(py, &needs));
            let heard = std::mem::take(&mut peer.is_heard).then(|| peer.heard_at.elapsed().as_secs_f64());
            let sent = std::mem::take(&mut peer.is_sent).then(|| peer.sent_at.elapsed().as_secs_f64());
            (peer.next.0, peer.write.0, peer.flush.0, peer.told_commit.0, heard, sent, needs)
        });
        known.collect()
    }

    #[getter]
    fn damage(&self) -> Option<String> {
        self.lock().file.damage.clone()
    }

    #[getter]
    fn is_slow(&self) -> bool {
        self.lock().file.is_slow
    }

    #[getter]
    fn has_room(&self) -> bool {
        self.lock().has_room()
    }

    #[getter]
    fn appends(&self) -> u64 {
        self.lock().appends
    }

    #[getter]
    fn positions(&self) -> (u64, u64, u64, u64) {
        let lane = self.lock();
        let last_record = lane.file.last_record.unwrap_or_default();
        (lane.log.write.0, lane.file.flush.0, last_record.0, lane.commit.0)
    }

    #[getter]
    fn primary(&self) -> (u64, u64, u64) {
        let lane = self.lock();
        (lane.primary_end.0, lane.messages, lane.reported.0)
    }
}

#[expect(clippy::disallowed_methods, reason = "the primary is told when we said it")]
fn postgres_time_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.checked_sub(Duration::from_secs(POSTGRES_EPOCH_S)).map_or(0, |since| since.as_micros() as i64)
}
