//! An acceptor's steady state: Appends in, synced, answered, while Python's event loop has nothing else to do.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use walcore::Lsn;
use walcore::lane::{Append, Frames, LogEnd, Reply, Verdict};

use super::log::LogFile;
use super::{FRAME_BYTES_MAX, Next, READ_BYTES, due, duplicate, now};
use crate::wal::WalScanner;

/// What is written before it is synced, however much waits in the socket.
const BATCH_BYTES: usize = 2 << 20;

/// See `walcore/_native.pyi`.
#[pyclass(frozen, module = "walcore._native")]
pub struct FollowLane(Mutex<Follow>);

struct Follow {
    socket: TcpStream,
    event_loop: OwnedFd,
    frames: Frames,
    buffer: Vec<u8>,
    unsent: Vec<u8>,
    file: LogFile,
    version: u8,
    log: LogEnd,
    /// What goes into replies: a lower bound of the commit LSN, and what the downstreams need.
    commit: Lsn,
    needs: Vec<u8>,
    known_commit: Lsn,
    horizon: Lsn,
    heard: u64,
}

impl Follow {
    fn run(&mut self, due: Option<Instant>, wakes_at_commit: bool) -> std::io::Result<Next> {
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
        self.file.sync()?;
        let reply = Reply {
            generation: self.log.generation,
            term: self.log.term,
            flush: self.file.flush,
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
            Next::Wait if self.file.is_slow => Next::Loop,
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
        let is_taken = self.log.judge(generation, term, tli, start, wal.len()) == Verdict::Take;
        if !is_taken || !self.file.scan(wal) {
            return Ok(None);
        }
        self.file.write(start, wal)?;
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
            file: LogFile::open(file, Lsn(file_start_lsn), scanner, Lsn(flush_lsn))?,
            version,
            log: LogEnd { generation, term, elected_term: term, tli, write, room_end },
            commit: Lsn(commit_lsn),
            needs,
            known_commit: Lsn(commit_lsn),
            horizon: Lsn::default(),
            heard: 0,
        })))
    }

    fn run(&self, py: Python<'_>, timeout_s: Option<f64>, wakes_at_commit: bool) -> PyResult<bool> {
        let next = py.detach(|| self.lock().run(due(timeout_s), wakes_at_commit))?;
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
        self.lock().file.damage.clone()
    }

    #[getter]
    fn is_slow(&self) -> bool {
        self.lock().file.is_slow
    }

    #[getter]
    fn heard(&self) -> u64 {
        self.lock().heard
    }

    #[getter]
    fn positions(&self) -> (u64, u64, u64, u64, u64) {
        let lane = self.lock();
        let last_record = lane.file.last_record.unwrap_or_default();
        (lane.log.write.0, lane.file.flush.0, last_record.0, lane.known_commit.0, lane.horizon.0)
    }
}
