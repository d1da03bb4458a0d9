//! Bytes that were read and not used yet, in memory that belongs to a thread and not to a connection: while nothing is there,
//! nothing is held. Ten thousand idle connections share what a few busy ones need.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// Bytes of a buffer: a usual head, and a read of a body that is worth its system call.
pub(crate) const BUFFER_BYTES: usize = 32 * 1024;
/// Buffers that a thread keeps for the next one who needs some; what more there were are given back.
const SPARE_MAX: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A spare piece of memory, empty.
pub(crate) fn spare() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
}

/// Gives a piece of memory back.
pub(crate) fn give_back(mut memory: Vec<u8>) {
    memory.clear();
    SPARE.with_borrow_mut(|spare| {
        // One that a long head made larger is not kept.
        if spare.len() < SPARE_MAX && memory.capacity() == BUFFER_BYTES {
            spare.push(memory);
        }
    });
}

/// Bytes that came, up to a point used.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    used: usize,
}

impl Buffer {
    /// What is there and not used.
    pub(crate) fn unused(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// Memory for what comes in another way than by [`Self::poll_read`].
    pub(crate) fn memory(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = spare();
        }
        &mut self.bytes
    }

    /// So much of it is used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.used += count;
        if self.used >= self.bytes.len() {
            self.used = 0;
            self.bytes.clear();
        }
    }

    /// Reads once, at most up to `limit` unused bytes. Holds no memory while nothing comes and nothing is there. None at the end of
    /// the stream.
    pub(crate) fn poll_read<R: AsyncRead + Unpin + ?Sized>(
        &mut self,
        from: &mut R,
        limit: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Option<usize>>> {
        self.memory();
        if self.used > 0 && self.bytes.len() == self.bytes.capacity() {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
        let room = limit.saturating_sub(self.unused().len());
        if self.bytes.len() == self.bytes.capacity() {
            self.bytes.reserve(self.bytes.capacity().min(room));
        }
        match poll_read_buf(Pin::new(from), context, &mut (&mut self.bytes).limit(room)) {
            Poll::Ready(Ok(read @ 1..)) => Poll::Ready(Ok(Some(read))),
            other => {
                self.release();
                other.map(|result| result.map(|_| None))
            }
        }
    }

    /// Reads once; see [`Self::poll_read`].
    pub(crate) async fn read<R: AsyncRead + Unpin + ?Sized>(
        &mut self,
        from: &mut R,
        limit: usize,
    ) -> io::Result<Option<usize>> {
        std::future::poll_fn(|context| self.poll_read(from, limit, context)).await
    }

    /// Gives the memory back if nothing is in it.
    fn release(&mut self) {
        if self.unused().is_empty() {
            self.used = 0;
            give_back(std::mem::take(&mut self.bytes));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.capacity() > 0 {
            give_back(std::mem::take(&mut self.bytes));
        }
    }
}
