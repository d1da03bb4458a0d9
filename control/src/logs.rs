//! Where log lines go: standard error, as text for people or as JSON for machines.

use tracing_subscriber::EnvFilter;

use crate::arguments::LogFormat;

/// Pingora logs at `error` what clients do, and every connection that breaks; that is counted, not told. kube logs each call that
/// fails, and tries again; who called says so once.
const SILENCED: &str = "pingora_core=off,pingora_proxy=off,kube_client=off,kube_runtime=off";

/// Starts logging. `SERIN_LOG` sets levels, such as `debug` or `serin_runtime=debug`.
pub(crate) fn start(format: LogFormat) {
    let wanted = std::env::var("SERIN_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::new(format!("{SILENCED},{wanted}"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            let color = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
            lines.with_target(false).with_ansi(color).init();
        }
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
