//! An answer on its way from a backend to a client: its head composed anew, its body followed to its end and passed on as it is.

use std::os::fd::BorrowedFd;
use std::task::{Context, Poll};
use std::time::Duration;

use pingora_core::protocols::Stream;
use serin_measure::Outcome;
use serin_route::{HeaderEdits, TryEnd};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Lane;
use super::alarm::{Alarm, Rang};
use super::buffer::{BUFFER_BYTES, Buffer};
use super::compose::{self, Afterwards};
use super::exchange::{After, Fault};
use super::framing::Body;
use super::request::HEADERS_MAX;
use super::turn::Turn;
use super::{response, splice};
use crate::attempt::Attempt;
use crate::settings::Settings;
use crate::tries::Tries;

/// Longest head of a response in bytes; nginx takes 4 or 8 KiB by default, and answers with many cookies are longer.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes read at once while a head is awaited: room for it and a small body, while most of a large one stays in the kernel.
const HEAD_READ_BYTES: usize = 16 * 1024;
/// Bytes that a client may send ahead while its request is with the backend: they wait in memory. It can send as much again into the
/// kernel's own buffer.
pub(super) const AHEAD_BYTES_MAX: usize = BUFFER_BYTES;
/// Room before the data of a chunk for its size, which is known only when the data was read.
const CHUNK_HEAD_BYTES: usize = 10;

/// A client while its answer is awaited: its side is watched, so that nobody works for one who has left.
pub(super) struct Client<'a> {
    pub(super) stream: &'a mut Stream,
    pub(super) buffer: &'a mut Buffer,
}

/// Where an answer goes.
pub(super) trait Side: Unpin {
    type Write: AsyncWrite + Unpin + ?Sized;

    fn write(&mut self) -> &mut Self::Write;

    /// The client's socket, if bytes may be passed to it as they are.
    fn socket(&self) -> Option<BorrowedFd<'_>>;

    /// Looks whether the client is still there.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Fault>;

    /// Whether all of the request has been passed on.
    fn has_sent_all(&self) -> bool;

    /// Whether the client is the one who is waited for, so that the backend may be silent.
    fn is_awaited(&self) -> bool;

    /// The client was sent a word, so it does not wait for one any more.
    fn was_told(&self);
}

impl Side for Client<'_> {
    type Write = Stream;

    fn write(&mut self) -> &mut Stream {
        self.stream
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        serin_splice::socket(self.stream)
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Fault> {
        while self.buffer.unused().len() < AHEAD_BYTES_MAX {
            match self.buffer.poll_read(self.stream, AHEAD_BYTES_MAX, context) {
                Poll::Ready(Ok(Some(_))) => {}
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(Fault::ClientGone),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    fn has_sent_all(&self) -> bool {
        true
    }

    fn is_awaited(&self) -> bool {
        false
    }

    fn was_told(&self) {}
}

/// The writing half of a client whose body is still coming; the other half is read by the upload, which sees whether it leaves.
pub(super) struct Uploading<'a, W> {
    pub(super) write: W,
    pub(super) turn: &'a Turn,
}

impl<W: AsyncWrite + Unpin> Side for Uploading<'_, W> {
    type Write = W;

    fn write(&mut self) -> &mut W {
        &mut self.write
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        // Its other half is being read meanwhile.
        None
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<Fault> {
        Poll::Pending
    }

    fn has_sent_all(&self) -> bool {
        self.turn.has_sent_all()
    }

    fn is_awaited(&self) -> bool {
        self.turn.is_clients()
    }

    fn was_told(&self) {
        self.turn.word_was_said();
    }
}

/// What is known of an answer under way.
pub(super) struct Answer<'a> {
    pub(super) attempt: &'a mut Attempt,
    pub(super) alarm: &'a Alarm,
    /// The limit on the backend's silence, which an upload sets anew; writes to the client have the other one.
    pub(super) silence: &'a Alarm,
    pub(super) is_head: bool,
    pub(super) keep_alive: bool,
    /// What is changed of it alone.
    pub(super) edits: Option<&'a HeaderEdits>,
    /// What may still be tried instead of it.
    pub(super) tries: &'a mut Tries,
    pub(super) is_idempotent: bool,
    /// What was read from the backend and not passed on yet.
    pub(super) read: Buffer,
    /// What is being written to the client.
    pub(super) out: &'a mut Vec<u8>,
    /// Whether anything was of what is not whole yet.
    pub(super) has_written: &'a mut bool,
}

/// How an answer ended that is whole.
pub(super) struct Whole {
    pub(super) after: After,
    /// Whether the backend takes another request on its connection.
    pub(super) reusable: bool,
}

impl Lane {
    /// Passes an answer on, head and body, as it comes.
    pub(super) async fn pass_on<C: Side, R: AsyncRead + AsRef<TcpStream> + Unpin>(
        &self,
        mut answer: Answer<'_>,
        mut client: C,
        backend: &mut R,
        is_reused: bool,
    ) -> Result<Whole, Fault> {
        let Begun { mut body, after, reusable, chunks } =
            self.begin(&mut answer, &mut client, backend, is_reused).await?;
        // The head and what has come of the body, in one write; then the rest, read by read.
        loop {
            let came = answer.read.unused();
            let taken = body.take(came).map_err(|_| Fault::Backend(Outcome::Truncated))?;
            if chunks {
                chunk(answer.out, &came[..taken]);
            } else if !answer.out.is_empty() {
                answer.out.extend_from_slice(&came[..taken]);
            } else if taken > 0 {
                let data = &came[..taken];
                *answer.has_written = true;
                write_to(client.write(), data, answer.alarm, self.settings.downstream_write_timeout).await?;
            }
            answer.read.consume(taken);
            write(&mut answer, &mut client, self.settings.downstream_write_timeout).await?;
            if body.is_over() {
                break;
            }
            let is_large = body.run() >= splice::WORTH_BYTES && answer.read.unused().is_empty();
            let is_end = if is_large && client.socket().is_some() && splice::is_possible() {
                self.splice(&mut answer, &mut client, backend.as_ref(), &mut body).await?.is_none()
            } else {
                self.fill(&mut answer, &mut client, backend, BUFFER_BYTES).await?.is_none()
            };
            if is_end && body == Body::ToEnd {
                answer.out.extend_from_slice(b"0\r\n\r\n");
                write(&mut answer, &mut client, self.settings.downstream_write_timeout).await?;
                break;
            }
            if is_end {
                return Err(Fault::Backend(Outcome::Truncated));
            }
        }
        // A backend that says more than its answer is not trusted with another request.
        let reusable = reusable && answer.read.unused().is_empty();
        Ok(Whole { after, reusable })
    }

    /// Passes on what comes before the final head, and composes that.
    async fn begin<C: Side, R: AsyncRead + Unpin>(
        &self,
        answer: &mut Answer<'_>,
        client: &mut C,
        backend: &mut R,
        is_reused: bool,
    ) -> Result<Begun, Fault> {
        let mut has_begun = false;
        loop {
            match self.head(answer, client)? {
                Head::Final(begun) => return Ok(begun),
                Head::Interim => {
                    has_begun = true;
                    // Where the request was, there is an answer now.
                    answer.tries.end();
                    write(answer, client, self.settings.downstream_write_timeout).await?;
                    // It is whole, and what follows may be ours.
                    *answer.has_written = false;
                    client.was_told();
                }
                Head::Partial => {
                    let is_silent = !has_begun && answer.read.unused().is_empty();
                    let limit = HEAD_BYTES_MAX.min(answer.read.unused().len() + HEAD_READ_BYTES);
                    match self.fill(answer, client, backend, limit).await {
                        Ok(Some(_)) => {}
                        Ok(None) | Err(Fault::Backend(Outcome::Reset)) if is_silent && is_reused => {
                            return Err(Fault::Stale);
                        }
                        Ok(None) => return Err(Fault::Backend(Outcome::Reset)),
                        Err(fault) => return Err(fault),
                    }
                }
            }
        }
    }

    /// Reads on from the backend, as long as the client is there. None at the end.
    async fn fill<C: Side, R: AsyncRead + Unpin>(
        &self,
        answer: &mut Answer<'_>,
        client: &mut C,
        backend: &mut R,
        limit: usize,
    ) -> Result<Option<usize>, Fault> {
        let silence = answer.silence;
        let patience = self.patience(client.is_awaited());
        let read = &mut answer.read;
        let filled = std::future::poll_fn(|context| match read.poll_read(backend, limit, context) {
            Poll::Ready(Ok(count)) => Poll::Ready(Ok(count)),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Fault::Backend(Outcome::Reset))),
            Poll::Pending => client.poll_gone(context).map(Err),
        });
        silence.within(patience, filled).await.unwrap_or(Err(Fault::Backend(Outcome::Timeout)))
    }

    /// Passes on what has come of a large body without reading it, as long as the client is there. None at the end. What the client has
    /// no room for is read all the same, so it is next.
    async fn splice<C: Side>(
        &self,
        answer: &mut Answer<'_>,
        client: &mut C,
        backend: &TcpStream,
        body: &mut Body,
    ) -> Result<Option<()>, Fault> {
        let silence = answer.silence;
        let patience = self.patience(client.is_awaited());
        let limit = usize::try_from(body.run()).unwrap_or(usize::MAX).min(splice::ONCE_BYTES);
        let rest = &mut answer.read;
        let passed = std::future::poll_fn(|context| {
            let Some(socket) = client.socket() else { return Poll::Ready(Err(Fault::ClientGone)) };
            match splice::poll_pass(backend, socket, limit, rest, context) {
                Poll::Ready(Ok(moved)) => Poll::Ready(Ok(moved)),
                Poll::Ready(Err(_)) => Poll::Ready(Err(Fault::Backend(Outcome::Reset))),
                Poll::Pending => client.poll_gone(context).map(Err),
            }
        });
        let passed = silence.within(patience, passed).await.unwrap_or(Err(Fault::Backend(Outcome::Timeout)))?;
        Ok(passed.map(|moved| body.skip(moved.passed as u64)))
    }

    /// How long a backend may be silent: while the client is waited for, longer by what that one has, whose limit rings first then.
    pub(super) fn patience(&self, client_is_awaited: bool) -> Duration {
        let Settings { upstream_read_timeout, downstream_read_timeout, .. } = *self.settings;
        if client_is_awaited { upstream_read_timeout + downstream_read_timeout } else { upstream_read_timeout }
    }

    /// Looks whether a whole head has come, and composes what the client gets of it.
    fn head<C: Side>(&self, answer: &mut Answer<'_>, client: &C) -> Result<Head, Fault> {
        let broken = Fault::Backend(Outcome::Reset);
        let mut room = [const { std::mem::MaybeUninit::uninit() }; HEADERS_MAX];
        let bytes = answer.read.unused();
        if bytes.is_empty() {
            return Ok(Head::Partial);
        }
        let Some(found) = response::parse(bytes, answer.is_head, &mut room).map_err(|_| broken)? else {
            return if bytes.len() < HEAD_BYTES_MAX { Ok(Head::Partial) } else { Err(broken) };
        };
        let (length, status) = (found.length, found.status);
        let end = TryEnd::Status(status);
        if let Some(instead) = answer.tries.take(answer.attempt, end, Outcome::Status(status), answer.is_idempotent) {
            answer.attempt.head(status);
            return Err(Fault::Unwanted(status, instead));
        }
        answer.out.clear();
        let head = match status {
            // Nobody asked for another protocol.
            101 => return Err(broken),
            100..=199 => {
                compose::interim(answer.out, &found);
                Head::Interim
            }
            _ => {
                let stays = answer.keep_alive && client.has_sent_all() && !self.is_draining();
                let afterwards = if stays { Afterwards::KeepAlive } else { Afterwards::Close };
                let edits = compose::AnswerEdits {
                    of_route: &answer.attempt.route().edits().response,
                    own: answer.edits,
                    cookie: answer.attempt.cookie(),
                };
                compose::response(answer.out, &found, afterwards, &edits);
                let after = if stays { After::Next } else { After::Close };
                let chunks = found.body == Body::ToEnd;
                Head::Final(Begun { reusable: found.keep_alive, body: found.body, after, chunks })
            }
        };
        if let Head::Final(_) = head {
            answer.attempt.head(status);
        }
        answer.read.consume(length);
        Ok(head)
    }
}

/// What has come of a head.
enum Head {
    Partial,
    Interim,
    Final(Begun),
}

/// An answer whose final head is composed.
struct Begun {
    body: Body,
    after: After,
    reusable: bool,
    /// Its body has no length of its own, so the client gets it in chunks.
    chunks: bool,
}

/// Writes what has been composed, and is ready for more.
async fn write<C: Side>(answer: &mut Answer<'_>, client: &mut C, limit: Duration) -> Result<(), Fault> {
    if answer.out.is_empty() {
        return Ok(());
    }
    *answer.has_written = true;
    let written = write_to(client.write(), answer.out, answer.alarm, limit).await;
    answer.out.clear();
    written
}

/// Writes to a client. The flush costs nothing where the stream keeps nothing back.
async fn write_to<W: AsyncWrite + Unpin + ?Sized>(
    to: &mut W,
    data: &[u8],
    alarm: &Alarm,
    limit: Duration,
) -> Result<(), Fault> {
    let written = async {
        to.write_all(data).await?;
        to.flush().await
    };
    match alarm.within(limit, written).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Fault::ClientGone),
        Err(Rang) => Err(Fault::ClientSlow),
    }
}

/// Appends data as a chunk, if there is any.
fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let mut head = [0; CHUNK_HEAD_BYTES];
    let mut at = CHUNK_HEAD_BYTES - 2;
    head[at..].copy_from_slice(b"\r\n");
    let mut left = data.len();
    while left > 0 && at > 0 {
        at -= 1;
        head[at] = b"0123456789abcdef"[left % 16];
        left /= 16;
    }
    out.extend_from_slice(&head[at..]);
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}
