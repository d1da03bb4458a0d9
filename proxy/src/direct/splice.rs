//! Large bodies go from a backend to a client inside the kernel, where it can be done.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll, ready};

use serin_splice::{Moved, Pipe};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::buffer::Buffer;

/// What is left of a body or chunk from which on it pays: below, a copy costs less than the calls.
pub(super) const WORTH_BYTES: u64 = 16 * 1024;
/// Bytes passed on at once. A client that does not read makes us hold as many in memory.
pub(super) const ONCE_BYTES: usize = 128 * 1024;

thread_local! {
    /// It is empty between two uses, so one serves all connections of a thread.
    static PIPE: RefCell<Option<Pipe>> = const { RefCell::new(None) };
}

/// Whether this thread has a pipe; it makes one if it can.
pub(super) fn is_possible() -> bool {
    PIPE.with_borrow_mut(|pipe| {
        if pipe.is_none() {
            *pipe = Pipe::new().ok();
        }
        pipe.is_some()
    })
}

/// Passes on at most `limit` bytes of what a backend has sent, without waiting for the client: what that one has no room for comes into
/// `rest`. None at the end of the stream.
pub(super) fn poll_pass(
    source: &TcpStream,
    target: BorrowedFd<'_>,
    limit: usize,
    rest: &mut Buffer,
    context: &mut Context<'_>,
) -> Poll<io::Result<Option<Moved>>> {
    loop {
        ready!(source.poll_read_ready(context))?;
        match source.try_io(Interest::READABLE, || pass(source, target, limit, rest)) {
            Ok(Moved { taken: 0, .. }) => return Poll::Ready(Ok(None)),
            Ok(moved) => return Poll::Ready(Ok(Some(moved))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

fn pass(source: &TcpStream, target: BorrowedFd<'_>, limit: usize, rest: &mut Buffer) -> io::Result<Moved> {
    PIPE.with_borrow_mut(|place| {
        let pipe = place.as_ref().ok_or(ErrorKind::NotFound)?;
        let moved = pipe.pass(source, target, limit)?;
        if moved.passed < moved.taken
            && let Err(error) = pipe.drain(moved.taken - moved.passed, rest.memory())
        {
            // Nobody may find what is left in it.
            *place = None;
            return Err(error);
        }
        Ok(moved)
    })
}
