//! One request and its answer, from a client's connection to a backend's and back.
//!
//! ```text
//!   head, begin of the body ──one write──▶ backend      (rest of the body: `upload`, beside what follows)
//!   client ◀──one write── head, begin of the body ◀── backend, read by read      (`pass_on.rs`)
//! ```
//!
//! What was decided and composed when the head was read comes in as [`Order`]; nothing here looks at fields of a request.

use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use pingora_core::protocols::Stream;
use serin_measure::{Arm, Outcome};
use serin_route::{HeaderEdits, TryEnd};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Lane;
use super::alarm::{Alarm, Rang};
use super::buffer::{BUFFER_BYTES, Buffer};
use super::framing::Body;
use super::pass_on::{AHEAD_BYTES_MAX, Answer, Client, Uploading, Whole};
use super::turn::Turn;
use crate::adapter::ENDPOINTS_TRIED_MAX;
use crate::attempt::Attempt;
use crate::tries::{Instead, Tries};

/// A request that was decided on.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) attempt: Attempt,
    /// Where in its head the backend is told which arm it is.
    pub(crate) arm_at: Option<usize>,
    /// What of its body has not come yet.
    pub(crate) body: Body,
    pub(crate) is_head: bool,
    pub(crate) is_idempotent: bool,
    pub(crate) keep_alive: bool,
    /// The client may wait for a word of the backend before it sends its body.
    pub(crate) expects: bool,
    /// Whether the client was sent anything of an answer that is not whole.
    pub(crate) has_written: bool,
    /// What is changed of its answer alone.
    pub(crate) answer_edits: Option<Box<HeaderEdits>>,
    /// What may still be tried.
    pub(crate) tries: Tries,
}

/// What becomes of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    Next,
    /// All that the client sent was read.
    Close,
    /// The client may still be sending.
    Linger,
}

/// Why a request has no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The client went away.
    ClientGone,
    /// The client took too long.
    ClientSlow,
    /// What the client sent is no body.
    ClientMalformed,
    /// The backend, in this way.
    Backend(Outcome),
    /// There was no connection to one, in this way.
    NotConnected(Outcome),
    /// An answer with this status has begun, and there is something else instead.
    Unwanted(u16, Instead),
    /// The backend closed a kept connection before it answered anything.
    Stale,
}

impl Fault {
    /// The status for the client, if it is still there to be told.
    const fn status(self) -> Option<&'static str> {
        match self {
            Self::ClientGone => None,
            Self::ClientSlow => Some("408 Request Timeout"),
            Self::ClientMalformed => Some("400 Bad Request"),
            Self::Backend(Outcome::Timeout) | Self::NotConnected(Outcome::Timeout) => Some("504 Gateway Timeout"),
            Self::Backend(_) | Self::NotConnected(_) | Self::Unwanted(..) | Self::Stale => Some("502 Bad Gateway"),
        }
    }

    /// Whose failure that is, and which.
    const fn outcome(self, head: Option<u16>) -> Outcome {
        match (self, head) {
            // A server error was seen, whatever happened to its body afterwards.
            (_, Some(status @ 500..)) => Outcome::Status(status),
            (Self::ClientGone | Self::ClientSlow | Self::ClientMalformed, _) => Outcome::ClientAbort,
            (Self::Backend(Outcome::Reset), Some(_)) | (Self::Stale, Some(_)) => Outcome::Truncated,
            (Self::Backend(outcome) | Self::NotConnected(outcome), _) => outcome,
            (Self::Unwanted(status, _), _) => Outcome::Status(status),
            (Self::Stale, None) => Outcome::Reset,
        }
    }

    /// What a rule for another try sees of it; nothing if it is the client's.
    const fn end_of_try(self) -> Option<TryEnd> {
        match self {
            Self::ClientGone | Self::ClientSlow | Self::ClientMalformed => None,
            Self::Backend(_) | Self::Stale => Some(TryEnd::NoAnswer),
            Self::NotConnected(_) => Some(TryEnd::NotConnected),
            Self::Unwanted(status, _) => Some(TryEnd::Status(status)),
        }
    }
}

/// A body that is still coming.
struct Coming<'a> {
    buffer: &'a mut Buffer,
    body: &'a mut Body,
    expects: bool,
}

/// How it is passed on, beside its answer.
struct Upload<'a> {
    coming: Coming<'a>,
    /// The limit on the backend's silence; see [`Lane::patience`].
    silence: &'a Alarm,
    turn: &'a Turn,
    /// Rings that long after all has come.
    deadline: Option<(&'a Alarm, Duration)>,
}

/// A connection to a backend.
struct Backend {
    stream: TcpStream,
    address: SocketAddr,
    is_reused: bool,
}

impl Lane {
    /// Carries a request out. `out` has its head for the backend, and the begin of its body.
    pub(crate) async fn exchange(
        &self,
        stream: &mut Stream,
        buffer: &mut Buffer,
        alarm: &Alarm,
        mut order: Order,
        out: &mut Vec<u8>,
    ) -> After {
        let upstream = order.attempt.route().upstream();
        let carried = if upstream.timeout.is_none() && upstream.retries.try_timeout.is_none() {
            self.carry(stream, buffer, alarm, &mut order, out, None).await
        } else {
            // Boxed, so that others have no room for it.
            Box::pin(self.carry_in_time(stream, buffer, alarm, &mut order, out)).await
        };
        match carried {
            Ok(after) => {
                order.attempt.end_whole();
                after
            }
            Err(fault) => {
                let head = order.attempt.status();
                order.attempt.end_as(fault.outcome(head));
                tracing::debug!(arm = order.attempt.arm().as_str(), ?fault, "request failed");
                if let (false, Some(status)) = (order.has_written, fault.status()) {
                    self.tell(stream, alarm, status).await;
                }
                if fault == Fault::ClientGone { After::Close } else { After::Linger }
            }
        }
    }

    /// The same within the time for a whole request, which begins when all of it has come.
    async fn carry_in_time(
        &self,
        stream: &mut Stream,
        buffer: &mut Buffer,
        alarm: &Alarm,
        order: &mut Order,
        out: &mut Vec<u8>,
    ) -> Result<After, Fault> {
        let deadline = self.watchman.alarm();
        if order.body.is_over() {
            deadline.set(order.attempt.route().upstream().timeout.unwrap_or(Duration::MAX));
        }
        let carried = deadline.wait(self.carry(stream, buffer, alarm, order, out, Some(&deadline))).await;
        carried.unwrap_or(Err(Fault::Backend(Outcome::Timeout)))
    }

    async fn carry(
        &self,
        stream: &mut Stream,
        buffer: &mut Buffer,
        alarm: &Alarm,
        order: &mut Order,
        out: &mut Vec<u8>,
        deadline: Option<&Alarm>,
    ) -> Result<After, Fault> {
        let is_whole = order.body.is_over();
        let mut may_reuse = true;
        loop {
            let try_timeout = order.attempt.route().upstream().retries.try_timeout.filter(|_| is_whole);
            let once = self.try_once(stream, buffer, alarm, order, out, deadline, may_reuse);
            let tried = match try_timeout {
                None => once.await,
                Some(limit) => {
                    let once = Box::pin(self.watchman.alarm().within(limit, once)).await;
                    once.unwrap_or(Err(Fault::Backend(Outcome::Timeout)))
                }
            };
            let fault = match tried {
                Ok(after) => return Ok(after),
                Err(fault) => fault,
            };
            // Once more in the same arm, on a connection that is new; that is its outcome then.
            if fault == Fault::Stale && may_reuse && is_whole && order.is_idempotent {
                may_reuse = false;
                order.attempt.send_again();
                continue;
            }
            let outcome = fault.outcome(order.attempt.status());
            let instead = match (fault, fault.end_of_try()) {
                (Fault::Unwanted(_, instead), _) => Some(instead),
                (_, Some(end)) if !order.has_written => {
                    order.tries.take(&order.attempt, end, outcome, order.is_idempotent)
                }
                (_, Some(_) | None) => None,
            };
            let Some(instead) = instead else { return Err(fault) };
            instead.begin(&mut order.attempt, outcome);
            if instead == Instead::Replay
                && let Some(at) = order.arm_at
            {
                let former = Arm::Canary.as_str().len();
                out.splice(at..at + former, Arm::Primary.as_str().bytes());
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "they are what a request is carried with, and each has another lender"
    )]
    async fn try_once(
        &self,
        stream: &mut Stream,
        buffer: &mut Buffer,
        alarm: &Alarm,
        order: &mut Order,
        out: &mut Vec<u8>,
        deadline: Option<&Alarm>,
        may_reuse: bool,
    ) -> Result<After, Fault> {
        let mut backend = self.reach(alarm, order, may_reuse).await?;
        match alarm.within(self.settings.upstream_write_timeout, backend.stream.write_all(out)).await {
            Ok(Ok(())) => {}
            // It may have answered before it closed, so its answer is looked for all the same.
            Ok(Err(_)) if !backend.is_reused => {}
            Ok(Err(_)) => return Err(Fault::Stale),
            Err(Rang) => return Err(Fault::Backend(Outcome::Timeout)),
        }
        let Whole { after, reusable } = self.answer(stream, buffer, alarm, order, out, &mut backend, deadline).await?;
        if reusable {
            self.pool.give_back(backend.address, backend.stream);
        }
        Ok(after)
    }

    /// A connection to one of the arm's endpoints. While nothing was sent, another one may be tried.
    async fn reach(&self, alarm: &Alarm, order: &mut Order, may_reuse: bool) -> Result<Backend, Fault> {
        let endpoints = order.attempt.endpoints();
        let mut tried = 0;
        loop {
            let address = order.attempt.address();
            if may_reuse && let Some(stream) = self.pool.take(address) {
                return Ok(Backend { stream, address, is_reused: true });
            }
            let fault = match alarm.within(self.settings.connect_timeout, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Heads go out in one write each, and wait for nothing.
                    let _ = stream.set_nodelay(true);
                    return Ok(Backend { stream, address, is_reused: false });
                }
                Ok(Err(_)) => Fault::NotConnected(Outcome::ConnectFailed),
                Err(Rang) => Fault::NotConnected(Outcome::Timeout),
            };
            tried += 1;
            if tried >= ENDPOINTS_TRIED_MAX.min(endpoints) {
                return Err(fault);
            }
            order.attempt.move_on();
        }
    }

    #[expect(clippy::too_many_arguments, reason = "as above")]
    async fn answer(
        &self,
        stream: &mut Stream,
        buffer: &mut Buffer,
        alarm: &Alarm,
        order: &mut Order,
        out: &mut Vec<u8>,
        backend: &mut Backend,
        deadline: Option<&Alarm>,
    ) -> Result<Whole, Fault> {
        let Order {
            attempt, is_head, is_idempotent, keep_alive, body, expects, has_written, answer_edits, tries, ..
        } = order;
        let answer = Answer {
            attempt,
            alarm,
            silence: alarm,
            is_head: *is_head,
            keep_alive: *keep_alive,
            edits: answer_edits.as_deref(),
            tries,
            is_idempotent: *is_idempotent,
            read: Buffer::default(),
            out,
            has_written,
        };
        if body.is_over() {
            let client = Client { stream, buffer };
            return self.pass_on(answer, client, &mut backend.stream, backend.is_reused).await;
        }
        // Few requests have more of a body than comes with their head, and every idle connection would keep the room for it.
        let coming = Coming { buffer, body, expects: *expects };
        Box::pin(self.answer_while_uploading(stream, coming, answer, backend, deadline)).await
    }

    async fn answer_while_uploading(
        &self,
        stream: &mut Stream,
        coming: Coming<'_>,
        answer: Answer<'_>,
        backend: &mut Backend,
        deadline: Option<&Alarm>,
    ) -> Result<Whole, Fault> {
        let silence = self.watchman.alarm();
        let answer = Answer { silence: &silence, ..answer };
        let turn = Turn::new(self.watchman.alarm(), self.settings.downstream_read_timeout);
        let upstream = answer.attempt.route().upstream();
        let times = [upstream.timeout, upstream.retries.try_timeout].into_iter().flatten();
        let limit = deadline.zip(times.min());
        // Whoever waits for a word is not waited for.
        if !coming.expects {
            turn.give_to_client();
        }
        let whole = {
            let (mut from_client, to_client) = tokio::io::split(&mut *stream);
            let (mut from_backend, mut to_backend) = backend.stream.split();
            let client = Uploading { write: to_client, turn: &turn };
            let upload = Upload { coming, silence: &silence, turn: &turn, deadline: limit };
            let upload = self.upload(upload, &mut from_client, &mut to_backend);
            let pass_on = self.pass_on(answer, client, &mut from_backend, backend.is_reused);
            let (mut upload, mut pass_on) = (pin!(upload), pin!(pass_on));
            let mut is_uploading = true;
            std::future::poll_fn(|context| {
                // An answer that has come counts, whatever the client does meanwhile.
                if let Poll::Ready(answered) = pass_on.as_mut().poll(context) {
                    return Poll::Ready(answered);
                }
                if is_uploading {
                    match upload.as_mut().poll(context) {
                        Poll::Ready(Ok(())) => is_uploading = false,
                        Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                        Poll::Pending => {}
                    }
                }
                Poll::Pending
            })
            .await
        }?;
        if turn.has_sent_all() {
            return Ok(whole);
        }
        Ok(Whole { after: After::Linger, reusable: false })
    }

    /// Passes the rest of a body on. A backend that takes no more may still answer, so that is no fault; when all is sent, it goes on to
    /// look whether the client leaves.
    async fn upload<R, W>(
        &self,
        Upload { coming: Coming { buffer, body, .. }, silence, turn, deadline }: Upload<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Result<(), Fault>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let alarm = self.watchman.alarm();
        while !body.is_over() {
            match turn.limit(buffer.read(from, BUFFER_BYTES)).await {
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None) | Err(_)) => return Err(Fault::ClientGone),
                Err(Rang) => return Err(Fault::ClientSlow),
            }
            let taken = body.take(buffer.unused()).map_err(|_| Fault::ClientMalformed)?;
            let sent = to.write_all(&buffer.unused()[..taken]);
            match alarm.within(self.settings.upstream_write_timeout, sent).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(()),
                Err(Rang) => return Err(Fault::Backend(Outcome::Timeout)),
            }
            buffer.consume(taken);
            if body.is_over() {
                turn.give_to_backend();
                if let Some((deadline, limit)) = deadline {
                    deadline.set(limit);
                }
            } else {
                turn.give_to_client();
            }
            silence.set(self.patience(turn.is_clients()));
        }
        while buffer.unused().len() < AHEAD_BYTES_MAX {
            match buffer.read(from, AHEAD_BYTES_MAX).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Err(Fault::ClientGone),
            }
        }
        Ok(())
    }
}
