//! One lent socket: whole messages in, bytes out as far as it takes them.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::RawFd;

use rustix::event::{PollFd, PollFlags};
use walcore::lane::Frames;

use super::{FRAME_BYTES_MAX, duplicate};

/// What a read gave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// All that was here is in [`Link::frames`].
    All,
    /// There may be more.
    More,
    /// The other side is gone, or an error: whoever reads next is told.
    Ended,
}

pub struct Link {
    socket: TcpStream,
    pub frames: Frames,
    out: Vec<u8>,
    sent: usize,
}

impl Link {
    /// `begun`: bytes read before.
    pub fn open(socket: RawFd, begun: Vec<u8>) -> std::io::Result<Self> {
        let socket = duplicate(socket)?.into();
        Ok(Self { socket, frames: Frames::new(FRAME_BYTES_MAX, begun), out: Vec::new(), sent: 0 })
    }

    /// What to wait for: bytes, if they are wanted, and room for what waits to be sent.
    pub fn poll_fd(&self, wants_bytes: bool) -> PollFd<'_> {
        let bytes = if wants_bytes { PollFlags::IN } else { PollFlags::empty() };
        let room = if self.is_waiting() { PollFlags::OUT } else { PollFlags::empty() };
        PollFd::new(&self.socket, bytes | room)
    }

    /// Reads once.
    pub fn read(&mut self, buffer: &mut [u8]) -> Got {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Got::Ended,
                Ok(count) => {
                    self.frames.feed(buffer.get(..count).unwrap_or_default());
                    return if count < buffer.len() { Got::All } else { Got::More };
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Got::All,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Got::Ended,
            }
        }
    }

    /// Sends, or keeps for later, all of both. An error shows when the socket is read.
    pub fn send(&mut self, head: &[u8], body: &[u8]) {
        let mut taken = 0;
        if !self.is_waiting() {
            taken = self.socket.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]).unwrap_or(0);
        }
        self.out.extend_from_slice(head.get(taken..).unwrap_or_default());
        self.out.extend_from_slice(body.get(taken.saturating_sub(head.len())..).unwrap_or_default());
    }

    /// Sends on what waits.
    pub fn flush(&mut self) {
        while self.is_waiting() {
            match (&self.socket).write(self.unsent()) {
                Ok(count) if count > 0 => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
        self.out.clear();
        self.sent = 0;
    }

    /// Whether something waits for room in the socket.
    pub fn is_waiting(&self) -> bool {
        self.sent < self.out.len()
    }

    /// What the socket did not take.
    pub fn unsent(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }
}
