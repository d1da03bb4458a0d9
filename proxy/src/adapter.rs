//! Pingora's hooks, as thin as they can be: decide, attempt, answer. What they do is decided elsewhere.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result, RetryType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};
use serin_measure::Outcome;
use serin_route::{Decision, Found, HeaderEdits, TryEnd, Unrouted};

use crate::attempt::Attempt;
use crate::connection::Taken;
use crate::counts::{Counting, Refusal};
use crate::forward::Origin;
use crate::limits::{set_deadline, something_moves};
use crate::settings::Settings;
use crate::thread::{Decided, Desk, ThreadRoute};
use crate::tries::Tries;
use crate::view::HeaderView;
use crate::{edit, grpc};

/// Endpoints tried when connecting fails before a byte was sent. Both arms alike, and never the other arm.
pub(crate) const ENDPOINTS_TRIED_MAX: usize = 3;
/// How long an unread request body is drained after an early answer, before the connection is closed instead.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest body that is taken to come with its head, in bytes: what a client sends before it has to wait for a window (RFC 9113
/// section 6.9.2).
const SHORT_BYTES: u64 = 65_535;

pub(crate) struct Adapter {
    pub(crate) desk: Arc<Desk>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) counting: Arc<Counting>,
    pub(crate) draining: Arc<AtomicBool>,
}

/// What is known of a request under way.
#[derive(Default)]
pub(crate) struct Context {
    sent: Option<Sent>,
}

struct Sent {
    attempt: Attempt,
    route: Arc<ThreadRoute>,
    found: Found,
    /// What is changed of its answer alone.
    answer_edits: Option<HeaderEdits>,
    connects: usize,
    tries: Tries,
    /// It is one of gRPC.
    is_grpc: bool,
    /// An answer of plain HTTP to gRPC is made one without a body.
    is_translated: bool,
    deadline: Deadline,
}

/// When a request has to be over.
#[derive(Debug, Clone, Copy)]
enum Deadline {
    /// At no time.
    Never,
    /// Then.
    At(Instant),
    /// So long after all of it has come.
    AfterBody(Duration),
}

impl Deadline {
    /// A request of gRPC has the time that it says, from its head on. A route's own time begins when all has come, which a short body is
    /// taken to have.
    fn of(session: &mut Session, is_grpc: bool, timeout: Option<Duration>) -> Self {
        let own = if is_grpc { grpc::timeout(session.req_header()) } else { None };
        let length =
            session.get_header(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let is_short =
            session.as_downstream_mut().is_body_empty() || length.is_some_and(|length: u64| length <= SHORT_BYTES);
        match (own, timeout) {
            (None, None) => Self::Never,
            (Some(own), timeout) => Self::At(Instant::now() + timeout.map_or(own, |timeout| timeout.min(own))),
            (None, Some(timeout)) if is_short => Self::At(Instant::now() + timeout),
            (None, Some(timeout)) => Self::AfterBody(timeout),
        }
    }

    fn left(self) -> Option<Duration> {
        match self {
            Self::At(then) => Some(then.saturating_duration_since(Instant::now())),
            Self::Never | Self::AfterBody(_) => None,
        }
    }

    fn has_passed(self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }
}

/// The error of an answer that is given up for another try.
const AGAIN: ErrorType = ErrorType::Custom("another try");

impl Sent {
    /// Whether there is another try after one that ended so. If there is, the one that failed is counted.
    fn try_again(&mut self, session: &Session, end: TryEnd, outcome: Outcome) -> bool {
        let is_idempotent = session.req_header().method.is_idempotent();
        if self.deadline.has_passed() {
            return false;
        }
        let Some(instead) = self.tries.take(&self.attempt, end, outcome, is_idempotent) else { return false };
        instead.begin(&mut self.attempt, outcome);
        self.connects = 0;
        true
    }
}

impl Adapter {
    async fn refuse(&self, session: &mut Session, why: Refusal, status: u16, text: &'static str) -> Result<bool> {
        self.counting.refuse(why);
        if grpc::is_grpc(session.req_header()) {
            session.as_downstream_mut().write_error_response(grpc::answer(status, text, false)?, Bytes::new()).await?;
        } else {
            session.respond_error_with_body(status, Bytes::from_static(text.as_bytes())).await?;
        }
        Ok(true)
    }
}

#[async_trait]
impl ProxyHttp for Adapter {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::default()
    }

    /// Pingora's default adds a compression module that is off.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    /// What it is given was left with the head by the connection, not by a request before.
    fn on_connection_reuse(&self, _: &mut Session, _: &mut Context, left: Box<dyn Any + Send + Sync>) {
        if let Some(taken) = left.downcast_ref::<Taken>() {
            taken.set();
        }
    }

    async fn early_request_filter(&self, session: &mut Session, _: &mut Context) -> Result<()> {
        let settings = &self.settings;
        session.set_read_timeout(Some(settings.downstream_read_timeout));
        session.set_write_timeout(Some(settings.downstream_write_timeout));
        session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
        // Without it, a request sent before this one is answered makes Pingora break this one off. It is put back in
        // `logging`: heads are read by us and not by Pingora, so what it has read ahead cannot be used, and the
        // connection closes after this answer (RFC 9112 section 9.3.2 makes the client send the rest again). What
        // follows an upgrade is no request.
        let pipelining = !session.is_upgrade_req();
        session.set_pipelining_enabled(pipelining);
        // An HTTP/1.0 client does not know heads before the final one (RFC 9110 section 15.2).
        let old = is_old(session);
        session.set_ignore_info_resp(old);
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(settings.keep_alive_timeout.as_secs()));
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        let (origin, trusted_hops) = (origin(session), self.settings.forwarding.trusted_hops);
        match self.desk.decide(&HeaderView { head: session.req_header(), origin, trusted_hops }, |_| true) {
            // It takes everything.
            Ok(Decided::NotTaken) => Error::e_explain(ErrorType::InternalError, "not taken"),
            Ok(Decided::Taken(decision, route)) => {
                let request = HeaderView { head: session.req_header(), origin, trusted_hops };
                let cors = route.edits().cors.as_ref();
                if let Some(answer) = cors.and_then(|cors| cors.preflight(&request)) {
                    return answer_preflight(session, &answer).await;
                }
                let answer_edits = cors.map(|cors| cors.answer(&request));
                let mut attempt = Attempt::begin(route.clone(), &decision);
                let is_grpc = grpc::is_grpc(request.head);
                if is_grpc {
                    attempt.is_of_grpc();
                }
                route.budget.earn();
                let (tries, is_translated) = (Tries::of(route.upstream()), false);
                let deadline = Deadline::of(session, is_grpc, route.upstream().timeout);
                if let Some(left) = deadline.left() {
                    set_deadline(left);
                }
                let Decision { found, .. } = decision;
                context.sent = Some(Sent {
                    attempt,
                    route,
                    found,
                    answer_edits,
                    connects: 0,
                    tries,
                    is_grpc,
                    is_translated,
                    deadline,
                });
                Ok(false)
            }
            Err(Unrouted::UnknownHost) => {
                self.refuse(session, Refusal::UnknownHost, 404, "no route answers for this host\n").await
            }
            Err(Unrouted::NoEndpoint) => {
                self.refuse(session, Refusal::NoEndpoint, 503, "no endpoint is available\n").await
            }
        }
    }

    async fn upstream_peer(&self, _: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>> {
        let sent = context.sent.as_ref().ok_or_else(|| Error::explain(ErrorType::InternalError, "not routed"))?;
        let mut peer = Box::new(sent.route.peers(sent.attempt.arm())[sent.attempt.endpoint()].clone());
        let limits = [sent.deadline.left(), sent.route.upstream().retries.try_timeout];
        if let Some(limit) = limits.into_iter().flatten().min() {
            let options = &mut peer.options;
            for time in
                [&mut options.connection_timeout, &mut options.total_connection_timeout, &mut options.read_timeout]
            {
                // Pingora takes no time at all for no limit.
                *time = time.map(|time| time.min(limit).max(Duration::from_millis(1)));
            }
        }
        Ok(peer)
    }

    /// Nothing was sent yet, so another endpoint of the same arm may be tried; a killed pod then costs nothing.
    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let Some(sent) = &mut context.sent else { return error };
        sent.connects += 1;
        let endpoints = sent.attempt.endpoints();
        let mut another = sent.connects < ENDPOINTS_TRIED_MAX.min(endpoints) && !sent.deadline.has_passed();
        if another {
            sent.attempt.move_on();
        } else if sent.try_again(session, TryEnd::NotConnected, upstream(false, error.root_etype())) {
            another = true;
        }
        error.set_retry(another);
        error
    }

    /// A request is sent once more in the same arm if no backend has looked at it, or if it may be repeated and the reused connection
    /// turned out dead; then as its route says.
    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        context: &mut Context,
        client_reused: bool,
    ) -> Box<Error> {
        let answered = session.response_written().is_some_and(|head| !head.status.is_informational());
        let can_repeat = !answered && !session.as_ref().retry_buffer_truncated();
        // Pingora has decided where HTTP/2 says that nobody has looked at it (RFC 9113 section 8.7), and in our own `Again`.
        let is_untouched = error.retry == RetryType::Decided(true);
        let is_stale =
            client_reused && error.retry == RetryType::ReusedOnly && session.req_header().method.is_idempotent();
        let Some(sent) = context.sent.as_mut().filter(|_| can_repeat) else {
            error.set_retry(false);
            return error;
        };
        let is_another = if is_untouched && *error.root_etype() == AGAIN {
            true
        } else if (is_untouched || is_stale) && sent.connects < ENDPOINTS_TRIED_MAX && !sent.deadline.has_passed() {
            // As many as there are endpoints to be met in that state.
            sent.connects += 1;
            sent.attempt.send_again();
            true
        } else {
            let is_backends = *error.esource() == ErrorSource::Upstream;
            let end = if is_untouched { TryEnd::Refused } else { TryEnd::NoAnswer };
            let outcome = classify(sent.attempt.status(), &error);
            is_backends && !awaits_client(session, &error) && sent.try_again(session, end, outcome)
        };
        error.set_retry(is_another);
        error
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        is_end: bool,
        context: &mut Context,
    ) -> Result<()> {
        something_moves();
        if let Some(Sent { deadline: Deadline::AfterBody(limit), .. }) = context.sent.as_ref().filter(|_| is_end) {
            set_deadline(*limit);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        _: bool,
        context: &mut Context,
    ) -> Result<Option<Duration>> {
        something_moves();
        if context.sent.as_ref().is_some_and(|sent| sent.is_translated) {
            *body = None;
        }
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        trailers: &mut http::HeaderMap,
        context: &mut Context,
    ) -> Result<Option<Bytes>> {
        if let (Some(sent), Some(status)) = (&mut context.sent, grpc::status(trailers)) {
            sent.attempt.grpc_status(status);
        }
        Ok(None)
    }

    /// The head that a backend gets; see `direct/compose.rs`, which does the same.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        let Some(sent) = &context.sent else { return Ok(()) };
        edit::join_cookies(head)?;
        edit::forward(head, sent.route.edits(), &self.settings.forwarding, origin(session), sent.attempt.arm())?;
        edit::request(head, sent.route.edits(), sent.route.entry(sent.found))
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        let is_final = !head.status.is_informational() || head.status == http::StatusCode::SWITCHING_PROTOCOLS;
        let Some(sent) = context.sent.as_mut().filter(|_| is_final) else { return Ok(()) };
        let status = head.status.as_u16();
        sent.attempt.head(status);
        let grpc = grpc::status(&head.headers).filter(|_| sent.is_grpc);
        let (end, outcome) = match grpc {
            Some(grpc) => {
                sent.attempt.grpc_status(grpc);
                (TryEnd::Grpc(grpc), Outcome::of_grpc(status, Some(grpc)))
            }
            None => (TryEnd::Status(status), Outcome::Status(status)),
        };
        if !session.as_ref().retry_buffer_truncated() && sent.try_again(session, end, outcome) {
            let mut again = Error::explain(AGAIN, "its route wants another try");
            again.set_retry(true);
            return Err(again.into_up());
        }
        Ok(())
    }

    /// The last look at a head before it is written.
    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        if let Some(sent) = context.sent.as_mut().filter(|_| !head.status.is_informational()) {
            if sent.is_grpc && head.status != http::StatusCode::OK && !grpc::is_answer(head) {
                sent.is_translated = true;
                grpc::translate(head)?;
            }
            edit::response(head, &sent.route.edits().response)?;
            sent.answer_edits.as_ref().map_or(Ok(()), |edits| edit::response(head, edits))?;
            if let Some(cookie) = sent.attempt.cookie() {
                head.append_header(http::header::SET_COOKIE, cookie)?;
            }
        }
        // An HTTP/1.0 client knows no chunks (RFC 9112 section 6.1) and reads to the end of the connection instead.
        let to_the_end = is_old(session) && head.remove_header(&http::header::TRANSFER_ENCODING).is_some();
        // Looked at here and not when the request came, so that an answer under way says it too.
        if to_the_end || self.draining.load(Ordering::Relaxed) {
            session.set_keepalive(None);
        }
        Ok(())
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        let error_code = if awaits_client(session, error) { 408 } else { status_of(error) };
        let grpc = context.sent.as_ref().filter(|sent| sent.is_grpc);
        if error_code > 0 && session.response_written().is_none_or(|head| head.status.is_informational()) {
            // The client may be gone by now; there is nobody else to tell.
            let _ = match grpc.map(|sent| grpc::answer(error_code, "no answer", sent.deadline.has_passed())) {
                Some(Ok(head)) => session.as_downstream_mut().write_error_response(head, Bytes::new()).await,
                Some(Err(_)) | None => session.respond_error(error_code).await,
            };
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        session.set_pipelining_enabled(false);
        if let Some(sent) = &mut context.sent {
            let status = sent.attempt.status();
            let is_clients = status.is_none() && error.is_some_and(|error| awaits_client(session, error));
            match error {
                None => sent.attempt.end_whole(),
                Some(_) if is_clients => sent.attempt.end_as(Outcome::ClientAbort),
                Some(error) => sent.attempt.end_as(classify(status, error)),
            }
            if let Some(error) = error {
                tracing::debug!(arm = sent.attempt.arm().as_str(), path = session.req_header().uri.path(), %error, "request failed");
            }
        }
    }

    /// A broken canary fails often; failures are counted, and told at debug.
    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }
}

/// Where a request came from; see [`Origin::of`].
fn origin(session: &Session) -> Origin {
    let peer = session.client_addr().and_then(|peer| peer.as_inet()).map(|peer| peer.ip().to_canonical());
    Origin { peer, is_tls: session.digest().is_some_and(|digest| digest.ssl_digest.is_some()) }
}

async fn answer_preflight(session: &mut Session, answer: &HeaderEdits) -> Result<bool> {
    let mut head = ResponseHeader::build(200, None)?;
    head.insert_header(http::header::CONTENT_LENGTH, 0)?;
    edit::response(&mut head, answer)?;
    session.write_response_header(Box::new(head), true).await?;
    Ok(true)
}

/// Whether a backend was silent because the client was: not all of a body has come, and the client does not wait for a word before it. A
/// backend that takes nothing of a body blocks a write instead, which has less time.
fn awaits_client(session: &mut Session, error: &Error) -> bool {
    let is_silence = *error.esource() == ErrorSource::Upstream && *error.root_etype() == ErrorType::ReadTimedout;
    let waits_for_a_word =
        session.as_downstream().body_bytes_read() == 0 && session.get_header(http::header::EXPECT).is_some();
    is_silence && !waits_for_a_word && !session.as_downstream_mut().is_body_done()
}

/// Whether the client speaks HTTP/1.0.
fn is_old(session: &Session) -> bool {
    session.req_header().version < http::Version::HTTP_11
}

/// The status a client gets for an error; 0 if it is gone.
fn status_of(error: &Error) -> u16 {
    use ErrorType::{
        ConnectTimedout, ConnectionClosed, HTTPStatus, ReadError, ReadTimedout, TLSHandshakeTimedout, WriteError,
        WriteTimedout,
    };
    match (error.esource(), error.root_etype()) {
        (_, HTTPStatus(code)) => *code,
        (ErrorSource::Upstream, ConnectTimedout | TLSHandshakeTimedout | ReadTimedout | WriteTimedout) => 504,
        (ErrorSource::Upstream, _) => 502,
        (ErrorSource::Downstream, ReadError | WriteError | ConnectionClosed) => 0,
        (ErrorSource::Downstream, ReadTimedout | WriteTimedout) => 408,
        (ErrorSource::Downstream, _) => 400,
        (ErrorSource::Internal | ErrorSource::Unset, _) => 500,
    }
}

/// How a request ended that failed so, from the status of its head, if one came.
fn classify(status: Option<u16>, error: &Error) -> Outcome {
    match (status, error.esource()) {
        // A server error was seen, whatever happened to its body afterwards.
        (Some(status @ 500..), _) => Outcome::Status(status),
        (_, ErrorSource::Downstream) => Outcome::ClientAbort,
        (status, ErrorSource::Upstream) => upstream(status.is_some(), error.root_etype()),
        (_, ErrorSource::Internal | ErrorSource::Unset) => Outcome::Internal,
    }
}

fn upstream(head_came: bool, kind: &ErrorType) -> Outcome {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, ReadTimedout, SocketError, TLSHandshakeFailure,
        TLSHandshakeTimedout, WriteTimedout,
    };
    match kind {
        ConnectTimedout | TLSHandshakeTimedout | ReadTimedout | WriteTimedout => Outcome::Timeout,
        ConnectRefused | ConnectNoRoute | ConnectError | SocketError | TLSHandshakeFailure => Outcome::ConnectFailed,
        _ if head_came => Outcome::Truncated,
        _ => Outcome::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_one_outcome() {
        let error = |kind, source: fn(&mut Error)| {
            let mut error = Error::new(kind);
            source(&mut error);
            error
        };
        let up: fn(&mut Error) = Error::as_up;
        let down: fn(&mut Error) = Error::as_down;
        for (status, error, expected) in [
            (Some(200), error(ErrorType::ReadError, up), Outcome::Truncated),
            (Some(500), error(ErrorType::WriteError, down), Outcome::Status(500)),
            (Some(200), error(ErrorType::WriteError, down), Outcome::ClientAbort),
            (None, error(ErrorType::ConnectionClosed, up), Outcome::Reset),
            (None, error(ErrorType::ConnectRefused, up), Outcome::ConnectFailed),
            (None, error(ErrorType::ConnectTimedout, up), Outcome::Timeout),
            (None, error(ErrorType::ReadTimedout, up), Outcome::Timeout),
            (Some(200), error(ErrorType::ReadTimedout, up), Outcome::Timeout),
            (None, error(ErrorType::ReadTimedout, down), Outcome::ClientAbort),
            (None, error(ErrorType::InternalError, |_| ()), Outcome::Internal),
        ] {
            assert_eq!(classify(status, &error), expected, "{status:?} {error:?}");
        }
    }
}
