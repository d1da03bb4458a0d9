//! Bytes from one socket to another inside the kernel (`splice(2)`), through a pipe: pages change hands and nothing is copied to
//! user space and back. For large bodies the two copies are most of what a proxy costs.
//!
//! This crate is the only one with unsafe code: Pingora lends the number of a connection's descriptor, not the descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use pingora_core::protocols::Stream;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use rustix::buffer::spare_capacity;
use rustix::io::read;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Room of a pipe in bytes. It is counted in pages of 4 KiB, of which each takes one piece as the network delivered it, and that may
/// be a packet of 1,400 bytes. An unprivileged user may have 128 pipes of this size (`/proc/sys/fs/pipe-user-pages-soft`).
const PIPE_BYTES: usize = 512 * 1024;

/// The socket of a client's connection, if there is nothing but a socket: not where bytes are encrypted on the way.
#[must_use]
pub fn socket(stream: &Stream) -> Option<BorrowedFd<'_>> {
    let stream = stream.as_any().downcast_ref::<L4Stream>()?;
    // SAFETY: the stream owns the descriptor that it names and closes it when it is dropped; the borrow ends before that.
    #[allow(unsafe_code)]
    Some(unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) })
}

/// A pipe between two sockets. Whoever uses it leaves it empty.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

/// Bytes on their way through a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// So many were taken from the source, none at its end.
    pub taken: usize,
    /// Of these, so many went to the target; the others are in the pipe.
    pub passed: usize,
}

impl Pipe {
    /// A new one.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A smaller one does as well, in more steps.
        let _ = fcntl_setpipe_size(&writer, PIPE_BYTES);
        Ok(Self { reader, writer })
    }

    /// Moves at most `limit` bytes that are there from one socket to another; neither is waited for. A target that is broken is no
    /// error: it takes nothing, and the next write to it will tell.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if nothing is there; otherwise the source's.
    pub fn pass(&self, source: impl AsFd, target: impl AsFd, limit: usize) -> io::Result<Moved> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let taken = splice(source, None, &self.writer, None, limit, flags)?;
        let mut passed = 0;
        while passed < taken {
            match splice(&self.reader, None, &target, None, taken - passed, flags) {
                Ok(0) | Err(_) => break,
                Ok(count) => passed += count,
            }
        }
        Ok(Moved { taken, passed })
    }

    /// Reads what is left in the pipe, `count` bytes, to the end of `memory`.
    ///
    /// # Errors
    /// If there is less.
    pub fn drain(&self, mut count: usize, memory: &mut Vec<u8>) -> io::Result<()> {
        memory.reserve(count);
        while count > 0 {
            match read(&self.reader, spare_capacity(memory))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                came => count -= came,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A pipe, and two connections: what is written at one end of the first comes out at the far end of the second.
    fn ends() -> (Pipe, [UnixStream; 2], [UnixStream; 2]) {
        let connection = || UnixStream::pair().expect("sockets").into();
        let (source, target): ([UnixStream; 2], [UnixStream; 2]) = (connection(), connection());
        source[1].set_nonblocking(true).expect("a socket");
        target[0].set_nonblocking(true).expect("a socket");
        (Pipe::new().expect("a pipe"), source, target)
    }

    #[test]
    fn what_is_there_is_passed_and_no_more_than_allowed() {
        let (pipe, [mut backend, from], [to, mut client]) = ends();
        let nothing = pipe.pass(&from, &to, 10).expect_err("nothing was sent");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        backend.write_all(b"hello, world").expect("room");
        assert_eq!(pipe.pass(&from, &to, 5).expect("bytes are there"), Moved { taken: 5, passed: 5 });
        assert_eq!(pipe.pass(&from, &to, 10).expect("bytes are there"), Moved { taken: 7, passed: 7 });
        drop(backend);
        assert_eq!(pipe.pass(&from, &to, 10).expect("the end"), Moved { taken: 0, passed: 0 });
        drop(to);
        let mut came = String::new();
        client.read_to_string(&mut came).expect("the end");
        assert_eq!(came, "hello, world");
    }

    #[test]
    fn what_a_target_does_not_take_can_be_read_and_nothing_stays() {
        let (pipe, [mut backend, from], [mut to, client]) = ends();
        let full = std::iter::repeat_with(|| to.write(&[0; 4_096])).find_map(Result::err).expect("it has an end");
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        for _ in 0..2 {
            backend.write_all(b"hello").expect("room");
            assert_eq!(pipe.pass(&from, &to, 10).expect("bytes are there"), Moved { taken: 5, passed: 0 });
            let mut rest = b"so: ".to_vec();
            pipe.drain(5, &mut rest).expect("they are in the pipe");
            assert_eq!(rest, b"so: hello");
            let empty = pipe.drain(1, &mut rest).expect_err("nothing is left");
            assert_eq!(empty.kind(), ErrorKind::WouldBlock);
            // The second time it is not full, but gone.
            client.shutdown(std::net::Shutdown::Both).expect("a socket");
        }
    }
}
