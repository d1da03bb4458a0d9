//! The admin listener: health, readiness, metrics, and the rollouts as JSON. It reads what is posted and asks nobody.

mod metrics;
pub mod rollouts;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::plane::DataPlane;
use rollouts::{Problem, RolloutList, RolloutView};

/// What the answers are made from.
pub(crate) struct Sources<P> {
    pub(crate) board: Arc<Board>,
    pub(crate) plane: Arc<P>,
    pub(crate) version: &'static str,
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
    stop: CancellationToken,
) -> std::io::Result<()> {
    let sources = Arc::new(Sources { board, plane, version });
    let app = Router::new()
        .route("/healthz", get(|| async { "OK" }))
        .route("/readyz", get(ready::<P>))
        .route("/metrics", get(metrics_page::<P>))
        .route("/api/v1/rollouts", get(list::<P>))
        .route("/api/v1/rollouts/{namespace}/{name}", get(one::<P>))
        .with_state(sources);
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
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
    let rollouts =
        posting.canaries.iter().map(|(key, posted)| RolloutView::new(key, posted, &sources.plane.snapshot(Some(key))));
    Json(RolloutList { rollouts: rollouts.collect(), refused_config: posting.refused_config.clone() })
}

async fn one<P: DataPlane>(
    State(sources): State<Arc<Sources<P>>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let posting = sources.board.read();
    let key = serin_measure::CanaryKey::new(&namespace, &name);
    match posting.canaries.get(&key) {
        Some(posted) => Json(RolloutView::new(&key, posted, &sources.plane.snapshot(Some(&key)))).into_response(),
        None => {
            let problem = Problem { error: format!("there is no canary {name} in namespace {namespace}") };
            (StatusCode::NOT_FOUND, Json(problem)).into_response()
        }
    }
}
