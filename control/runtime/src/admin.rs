//! The admin listener: health, readiness, metrics, and the rollouts as JSON. It reads what is posted and asks nobody.
//! In a fleet it also answers the leader's questions, which are sealed.

mod metrics;
pub mod rollouts;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serin_measure::{CanaryKey, Snapshot};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::cluster::FLEET_PATH;
use crate::cluster::seal::{NONCE_HEADER, SEAL_HEADER, Seal, Way};
use crate::fleet::{Question, answer};
use crate::plane::DataPlane;
use rollouts::{Problem, RolloutList, RolloutView};

/// What the answers are made from.
pub(crate) struct Sources<P> {
    pub(crate) board: Arc<Board>,
    pub(crate) plane: Arc<P>,
    pub(crate) version: &'static str,
    /// The seal of the fleet, if there is a fleet, and once its key is known.
    pub(crate) seal: Option<Arc<OnceLock<Seal>>>,
}

impl<P: DataPlane> Sources<P> {
    /// Everything counted of a canary: by this process, and where it leads a fleet by the others too.
    fn counts(&self, key: &CanaryKey) -> Snapshot {
        let (mut all, posting) = (self.plane.snapshot(Some(key)), self.board.read());
        if posting.leads {
            all.merge_of(key, &posting.others);
        }
        all
    }
}

/// Serves until told to stop.
///
/// # Errors
/// If the listener breaks.
pub async fn serve<P: DataPlane>(
    listener: TcpListener,
    board: Arc<Board>,
    plane: Arc<P>,
    version: &'static str,
    seal: Option<Arc<OnceLock<Seal>>>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let is_fleet = seal.is_some();
    let sources = Arc::new(Sources { board, plane, version, seal });
    let mut app = Router::new()
        .route("/healthz", get(|| async { "OK" }))
        .route("/readyz", get(ready::<P>))
        .route("/metrics", get(metrics_page::<P>))
        .route("/api/v1/rollouts", get(list::<P>))
        .route("/api/v1/rollouts/{namespace}/{name}", get(one::<P>));
    if is_fleet {
        app = app.route(FLEET_PATH, post(asked::<P>));
    }
    axum::serve(listener, app.with_state(sources)).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn ready<P: DataPlane>(State(sources): State<Arc<Sources<P>>>) -> Response {
    let posting = sources.board.read();
    match (posting.ready, sources.board.is_draining()) {
        (true, false) => (StatusCode::OK, "OK").into_response(),
        (_, true) => (StatusCode::SERVICE_UNAVAILABLE, "draining").into_response(),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "no table yet").into_response(),
    }
}

async fn metrics_page<P: DataPlane>(State(sources): State<Arc<Sources<P>>>) -> Response {
    match metrics::page(&sources) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn list<P: DataPlane>(State(sources): State<Arc<Sources<P>>>) -> Json<RolloutList> {
    let posting = sources.board.read();
    let rollouts = posting.canaries.iter().map(|(key, posted)| RolloutView::new(key, posted, &sources.counts(key)));
    Json(RolloutList { rollouts: rollouts.collect(), refused_config: posting.refused_config.clone() })
}

async fn one<P: DataPlane>(
    State(sources): State<Arc<Sources<P>>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let posting = sources.board.read();
    let key = CanaryKey::new(&namespace, &name);
    match posting.canaries.get(&key) {
        Some(posted) => Json(RolloutView::new(&key, posted, &sources.counts(&key))).into_response(),
        None => {
            let problem = Problem { error: format!("there is no canary {name} in namespace {namespace}") };
            (StatusCode::NOT_FOUND, Json(problem)).into_response()
        }
    }
}

/// A question of the fleet. Only its processes have the key, and everybody else learns no more than that.
async fn asked<P: DataPlane>(State(sources): State<Arc<Sources<P>>>, headers: HeaderMap, body: Bytes) -> Response {
    let of = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (nonce, given) = (of(NONCE_HEADER), of(SEAL_HEADER));
    let Some(seal) =
        sources.seal.as_ref().and_then(|seal| seal.get()).filter(|seal| seal.holds(Way::Question, nonce, &body, given))
    else {
        return (StatusCode::UNAUTHORIZED, "this is for Serin's own fleet\n").into_response();
    };
    let question: Question = match serde_json::from_slice(&body) {
        Ok(question) => question,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let answer = answer(&*sources.plane, &sources.board, &question);
    if answer.is_final {
        sources.board.told_finally();
    }
    match serde_json::to_vec(&answer) {
        Ok(text) => ([(SEAL_HEADER, seal.sign(Way::Answer, nonce, &text))], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
