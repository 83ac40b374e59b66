//! An acceptor's steady state: Appends in, synced, answered, while Python's event loop has nothing else to do.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use walcore::Lsn;
use walcore::lane::{Append, Frames, LogEnd, Reply, Verdict, held};

use crate::wal::WalScanner;

/// The longest message a peer may send, as `FRAME_BYTES_MAX` of `walproxy/wire/aio.py`.
const FRAME_BYTES_MAX: usize = 16 << 20;
const READ_BYTES: usize = 1 << 18;
/// What is written before it is synced, however much waits in the socket.
const BATCH_BYTES: usize = 2 << 20;
/// Of one sync. One that takes longer must not hold up the event loop.
const FAST: Duration = Duration::from_millis(20);

/// See `walcore/_native.pyi`.
#[pyclass(frozen, module = "walcore._native")]
pub struct FollowLane(Mutex<Follow>);

struct Follow {
    socket: TcpStream,
    event_loop: OwnedFd,
    frames: Frames,
    buffer: Vec<u8>,
    unsent: Vec<u8>,
    scanner: Py<WalScanner>,
    file: File,
    file_start: Lsn,
    version: u8,
    log: LogEnd,
    flush: Lsn,
    /// End and start of the last whole record in what was taken; the scanner of damaged WAL has read beyond.
    record_end: Lsn,
    last_record: Option<Lsn>,
    /// What goes into replies: a lower bound of the commit LSN, and what the downstreams need.
    commit: Lsn,
    needs: Vec<u8>,
    known_commit: Lsn,
    horizon: Lsn,
    heard: u64,
    damage: Option<String>,
    is_slow: bool,
}

/// Why the lane gives way.
enum Next {
    /// Nothing more is here.
    Wait,
    /// Python's event loop has work, or its time is over.
    Loop,
    /// What comes next is not steady: [`Follow::frames`] begins with it.
    HandOver,
}

impl Follow {
    fn run(&mut self, timeout: Option<Duration>, wakes_at_commit: bool) -> std::io::Result<Next> {
        let due = timeout.and_then(|timeout| now().checked_add(timeout));
        let commit = self.known_commit;
        loop {
            let (has_bytes, has_loop) = self.wait(due)?;
            let next = if has_bytes { self.turn()? } else { Next::Wait };
            if !matches!(next, Next::Wait) {
                return Ok(next);
            }
            let is_awaited = wakes_at_commit && self.known_commit > commit;
            if has_loop || is_awaited || due.is_some_and(|due| now() >= due) {
                return Ok(Next::Loop);
            }
        }
    }

    /// Waits for the socket, the event loop, or the time.
    fn wait(&self, due: Option<Instant>) -> std::io::Result<(bool, bool)> {
        let left = due.map(|due| due.saturating_duration_since(now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds =
            [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.event_loop, PollFlags::IN)];
        match poll(&mut fds, left.as_ref()) {
            Ok(_) => {}
            // A signal: the event loop hears of it through a descriptor of its own.
            Err(rustix::io::Errno::INTR) => return Ok((false, false)),
            Err(error) => return Err(error.into()),
        }
        let [socket, event_loop] = fds.map(|fd| !fd.revents().is_empty());
        Ok((socket, event_loop))
    }

    /// Takes all that is here, makes it durable, and only then says so. Source: docs/quorum.md rules 11, 21 and 22.
    fn turn(&mut self) -> std::io::Result<Next> {
        let begun = self.log.write;
        let next = self.take_in()?;
        if self.log.write == begun {
            return Ok(next);
        }
        let started = now();
        self.file.sync_data()?;
        self.flush = self.record_end;
        self.is_slow = started.elapsed() >= FAST;
        let reply = Reply {
            generation: self.log.generation,
            term: self.log.term,
            flush: self.flush,
            write: self.log.write,
            commit: self.commit,
            needs: &self.needs,
        };
        let mut bytes = Vec::with_capacity(64);
        reply.put(self.version, &mut bytes);
        // What the socket does not take, or an error of it, is Python's to handle.
        let sent = self.socket.write(&bytes).unwrap_or(0);
        bytes.drain(..sent);
        self.unsent = bytes;
        Ok(match next {
            _ if !self.unsent.is_empty() => Next::HandOver,
            Next::Wait if self.is_slow => Next::Loop,
            next => next,
        })
    }

    fn take_in(&mut self) -> std::io::Result<Next> {
        let begun = self.log.write;
        loop {
            while let Some(len) = self.take_one()? {
                self.frames.consume(len);
            }
            if !matches!(self.frames.next(), Ok(None)) {
                return Ok(Next::HandOver);
            }
            if self.log.write.0 - begun.0 >= BATCH_BYTES as u64 {
                return Ok(Next::Wait);
            }
            match self.socket.read(&mut self.buffer) {
                Ok(0) => return Ok(Next::HandOver),
                Ok(count) => self.frames.feed(self.buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Wait),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Python reads it again, and says what it was.
                Err(_) => return Ok(Next::HandOver),
            }
        }
    }

    /// Takes the next message if it is whole and steady; gives its length.
    fn take_one(&mut self) -> std::io::Result<Option<usize>> {
        let Ok(Some(frame)) = self.frames.next() else { return Ok(None) };
        let Some(append) = Append::read(frame.body, self.version)
            .filter(|append| frame.tag == b'd' && !append.wal.is_empty())
        else {
            return Ok(None);
        };
        let Append { generation, term, tli, start, commit, horizon, wal } = append;
        if self.damage.is_some() || self.log.judge(generation, term, tli, start, wal.len()) != Verdict::Take {
            return Ok(None);
        }
        if let Err(error) = self.scanner.get().take(wal) {
            self.damage = Some(error.to_string());
            return Ok(None);
        }
        (self.record_end, self.last_record) = self.scanner.get().last_record();
        self.file.write_all_at(wal, start.0 - self.file_start.0)?;
        self.log.write = Lsn(start.0 + wal.len() as u64);
        self.known_commit = self.known_commit.max(commit);
        self.horizon = horizon;
        self.heard += 1;
        Ok(Some(frame.len))
    }
}

impl FollowLane {
    fn lock(&self) -> MutexGuard<'_, Follow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl FollowLane {
    #[new]
    #[pyo3(signature = (*, event_loop, socket, begun, file, file_start_lsn, scanner, version, generation, term, tli, write_lsn,
        flush_lsn, room_end_lsn, commit_lsn, needs))]
    #[expect(clippy::too_many_arguments, reason = "each is named by the caller")]
    fn new(
        event_loop: RawFd,
        socket: RawFd,
        begun: Vec<u8>,
        file: RawFd,
        file_start_lsn: u64,
        scanner: Py<WalScanner>,
        version: u8,
        generation: u32,
        term: u64,
        tli: u32,
        write_lsn: u64,
        flush_lsn: u64,
        room_end_lsn: u64,
        commit_lsn: u64,
        needs: Vec<u8>,
    ) -> PyResult<Self> {
        let (write, room_end) = (Lsn(write_lsn), Lsn(room_end_lsn));
        Ok(Self(Mutex::new(Follow {
            socket: duplicate(socket)?.into(),
            event_loop: duplicate(event_loop)?,
            frames: Frames::new(FRAME_BYTES_MAX, begun),
            buffer: vec![0; READ_BYTES],
            unsent: Vec::new(),
            scanner,
            file: duplicate(file)?.into(),
            file_start: Lsn(file_start_lsn),
            version,
            log: LogEnd { generation, term, elected_term: term, tli, write, room_end },
            flush: Lsn(flush_lsn),
            record_end: Lsn(flush_lsn),
            last_record: None,
            commit: Lsn(commit_lsn),
            needs,
            known_commit: Lsn(commit_lsn),
            horizon: Lsn::default(),
            heard: 0,
            damage: None,
            is_slow: false,
        })))
    }

    fn run(&self, py: Python<'_>, timeout_s: Option<f64>, wakes_at_commit: bool) -> PyResult<bool> {
        let timeout = timeout_s.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
        let next = py.detach(|| self.lock().run(timeout, wakes_at_commit))?;
        Ok(!matches!(next, Next::HandOver))
    }

    fn set_needs(&self, needs: Vec<u8>) {
        self.lock().needs = needs;
    }

    fn rest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.lock().frames.rest())
    }

    fn unsent<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.lock().unsent)
    }

    #[getter]
    fn damage(&self) -> Option<String> {
        self.lock().damage.clone()
    }

    #[getter]
    fn is_slow(&self) -> bool {
        self.lock().is_slow
    }

    #[getter]
    fn heard(&self) -> u64 {
        self.lock().heard
    }

    #[getter]
    fn positions(&self) -> (u64, u64, u64, u64, u64) {
        let lane = self.lock();
        let last_record = lane.last_record.unwrap_or_default();
        (lane.log.write.0, lane.flush.0, last_record.0, lane.known_commit.0, lane.horizon.0)
    }
}

/// See `walcore/_native.pyi`.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "each is a field of the log's end or of the message")]
pub fn judge_append(
    log_generation: u32,
    log_term: u64,
    elected_term: u64,
    log_tli: u32,
    write_lsn: u64,
    room_end_lsn: u64,
    generation: u32,
    term: u64,
    tli: u32,
    start_lsn: u64,
    wal_bytes: usize,
) -> &'static str {
    let log = LogEnd {
        generation: log_generation,
        term: log_term,
        elected_term,
        tli: log_tli,
        write: Lsn(write_lsn),
        room_end: Lsn(room_end_lsn),
    };
    match log.judge(generation, term, tli, Lsn(start_lsn), wal_bytes) {
        Verdict::Take => "take",
        Verdict::Generation => "generation",
        Verdict::Past => "past",
        Verdict::NotElected => "not elected",
        Verdict::Elsewhere => "elsewhere",
        Verdict::Timeline => "timeline",
        Verdict::Room => "room",
    }
}

/// See `walcore/_native.pyi`.
#[pyfunction]
pub fn held_lsn(flush_lsns: Vec<u64>, majority: usize) -> u64 {
    let mut flushed: Vec<Lsn> = flush_lsns.into_iter().map(Lsn).collect();
    held(&mut flushed, majority).0
}

/// A descriptor of ours for the same thing.
fn duplicate(fd: RawFd) -> std::io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "descriptors come from Python as numbers")]
    // SAFETY: the caller holds it open during this call, and it is not kept beyond; one that is not open is an error.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.as_fd().try_clone_to_owned()
}

#[expect(clippy::disallowed_methods, reason = "this is the driver: the core gets no time at all")]
fn now() -> Instant {
    Instant::now()
}
