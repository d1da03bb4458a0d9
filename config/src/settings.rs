//! Serin's Settings: how one process runs. There is one at most; without it every default below holds.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::check_listen;
use crate::duration::GoDuration;
use crate::object::Object;
use crate::problem::{Finding, Findings};

/// Worker threads. Each has its own pools, recorder and histograms, and no machine that runs an edge proxy has more cores.
pub const THREADS_MAX: i64 = 1_024;
/// Connections of clients at one time: what Linux can give one process by default (`fs.nr_open`).
pub const CONNECTIONS_MAX: i64 = 1_048_576;

/// How one process runs.
pub type Settings = Object<SettingsSpec>;

/// `Settings.spec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettingsSpec {
    /// Address of the admin API, `127.0.0.1:9090` where absent.
    pub admin: Option<String>,
    /// Worker threads; the machine's parallelism where absent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    pub threads: Option<i64>,
    /// Time for requests to end after the process was told to stop; 10 s where absent.
    pub drain: Option<GoDuration>,
    /// How log lines are written; as text where absent.
    pub log_format: Option<LogFormat>,
    /// Connections to backends.
    pub upstream: Option<Upstream>,
    /// Connections of clients.
    pub downstream: Option<Downstream>,
    /// What backends are told of where a request comes from.
    pub forwarding: Option<Forwarding>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people. The default.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// `Settings.spec.upstream`: connections to backends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// Time to connect; 1 s where absent.
    pub connect_timeout: Option<GoDuration>,
    /// Longest silence while an answer is awaited or read; 60 s where absent.
    pub read_timeout: Option<GoDuration>,
    /// Longest time for one write; 60 s where absent.
    pub write_timeout: Option<GoDuration>,
    /// Time after which an idle connection is closed; 50 s where absent, below the minute that most servers use, so
    /// that it is the proxy that closes.
    pub idle_timeout: Option<GoDuration>,
}

/// `Settings.spec.downstream`: connections of clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Downstream {
    /// Time after which an idle connection is closed; 75 s where absent, above the minute that most load balancers use.
    pub keep_alive_timeout: Option<GoDuration>,
    /// Longest silence while a request is read; 60 s where absent.
    pub read_timeout: Option<GoDuration>,
    /// Longest time for one write; 60 s where absent.
    pub write_timeout: Option<GoDuration>,
    /// Connections at one time; 10,000 where absent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    pub connections_max: Option<i64>,
}

/// Proxies in front that can be counted: more are a mistake.
const TRUSTED_HOPS_MAX: i64 = 100;
/// The field that tells an application which arm it is.
const ARM_HEADER: &str = "x-serin-arm";

/// `Settings.spec.forwarding`: what backends are told of where a request comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forwarding {
    /// Proxies in front whose word is taken; 0 where absent, and then what clients say in `X-Forwarded-*`, `X-Real-IP` and
    /// `Forwarded` is left out. With more it is passed on.
    #[serde(default, deserialize_with = "crate::whole::option")]
    pub trusted_hops: Option<i64>,
    /// Whether `X-Forwarded-For`, `-Proto` and `-Host` are sent; true where absent.
    pub x_forwarded: Option<bool>,
    /// Whether `Forwarded` (RFC 7239) is sent; false where absent.
    pub forwarded: Option<bool>,
    /// Whether `X-Request-Id` is passed on, and made where there is none; true where absent.
    pub request_id: Option<bool>,
    /// Whether `traceparent` is passed on, and made where there is none; true where absent.
    pub trace_context: Option<bool>,
    /// The field that tells an application which arm it is; `x-serin-arm` where absent, none where empty.
    pub arm_header: Option<String>,
}

fn or_seconds(given: Option<GoDuration>, default_s: u64) -> Duration {
    given.map_or_else(|| Duration::from_secs(default_s), GoDuration::to_std)
}

fn or_count(given: Option<i64>, default: usize) -> usize {
    given.and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0).unwrap_or(default)
}

impl SettingsSpec {
    /// Address of the admin API.
    pub fn admin(&self) -> SocketAddr {
        let given = self.admin.as_deref().and_then(|text| text.parse().ok());
        given.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)))
    }

    /// Worker threads. `available` is the machine's parallelism, an argument because asking for it is I/O.
    pub fn threads(&self, available: NonZeroUsize) -> usize {
        or_count(self.threads, available.get())
    }

    /// Time for requests to end after the process was told to stop.
    pub fn drain(&self) -> Duration {
        or_seconds(self.drain, 10)
    }

    /// How log lines are written.
    pub fn log_format(&self) -> LogFormat {
        self.log_format.unwrap_or_default()
    }

    /// Connections to backends.
    pub fn upstream(&self) -> Upstream {
        self.upstream.unwrap_or_default()
    }

    /// Connections of clients.
    pub fn downstream(&self) -> Downstream {
        self.downstream.unwrap_or_default()
    }

    /// What backends are told of where a request comes from.
    pub fn forwarding(&self) -> Forwarding {
        self.forwarding.clone().unwrap_or_default()
    }
}

impl Forwarding {
    /// Proxies in front whose word is taken.
    pub fn trusted_hops(&self) -> u8 {
        self.trusted_hops.and_then(|hops| u8::try_from(hops).ok()).unwrap_or(0)
    }

    /// Whether `X-Forwarded-*` are sent.
    pub fn x_forwarded(&self) -> bool {
        self.x_forwarded.unwrap_or(true)
    }

    /// Whether `Forwarded` is sent.
    pub fn forwarded(&self) -> bool {
        self.forwarded.unwrap_or(false)
    }

    /// Whether `X-Request-Id` is passed on or made.
    pub fn request_id(&self) -> bool {
        self.request_id.unwrap_or(true)
    }

    /// Whether `traceparent` is passed on or made.
    pub fn trace_context(&self) -> bool {
        self.trace_context.unwrap_or(true)
    }

    /// The field that tells an application which arm it is, in lower case.
    pub fn arm_header(&self) -> Option<String> {
        let name = self.arm_header.as_deref().unwrap_or(ARM_HEADER).to_ascii_lowercase();
        Some(name).filter(|name| !name.is_empty())
    }

    fn check(&self, findings: &mut Findings) {
        let path = "spec.forwarding";
        findings.within(format!("{path}.trustedHops"), self.trusted_hops, 0..=TRUSTED_HOPS_MAX);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let name = self.arm_header.as_deref().unwrap_or_default();
        if !name.bytes().all(is_plain) {
            let message = format!("{name:?} is not a header name of letters, digits and dashes");
            findings.error(format!("{path}.armHeader"), message).help("such as x-serin-arm; an empty one turns it off");
        } else if !name.is_empty() && !name.to_ascii_lowercase().starts_with("x-") {
            findings
                .error(format!("{path}.armHeader"), format!("{name:?} may be a field with a meaning of its own"))
                .help("one that begins with x- has none, such as x-version");
        }
    }
}

impl Upstream {
    /// Time to connect.
    pub fn connect_timeout(&self) -> Duration {
        or_seconds(self.connect_timeout, 1)
    }

    /// Longest silence while an answer is awaited or read.
    pub fn read_timeout(&self) -> Duration {
        or_seconds(self.read_timeout, 60)
    }

    /// Longest time for one write.
    pub fn write_timeout(&self) -> Duration {
        or_seconds(self.write_timeout, 60)
    }

    /// Time after which an idle connection is closed; zero keeps none.
    pub fn idle_timeout(&self) -> Duration {
        or_seconds(self.idle_timeout, 50)
    }
}

impl Downstream {
    /// Time after which an idle connection is closed; zero keeps none.
    pub fn keep_alive_timeout(&self) -> Duration {
        or_seconds(self.keep_alive_timeout, 75)
    }

    /// Longest silence while a request is read.
    pub fn read_timeout(&self) -> Duration {
        or_seconds(self.read_timeout, 60)
    }

    /// Longest time for one write.
    pub fn write_timeout(&self) -> Duration {
        or_seconds(self.write_timeout, 60)
    }

    /// Connections at one time.
    pub fn connections_max(&self) -> usize {
        or_count(self.connections_max, 10_000)
    }
}

impl Settings {
    /// Everything that is wrong, at once. The name may be absent: there is only one.
    pub fn validate(&self) -> Vec<Finding> {
        let mut findings = Findings::default();
        let spec = &self.spec;
        if let Some(admin) = spec.admin.as_deref() {
            check_listen(&mut findings, "spec.admin", admin);
        }
        findings.within("spec.threads", spec.threads, 1..=THREADS_MAX);
        findings.within("spec.downstream.connectionsMax", spec.downstream().connections_max, 1..=CONNECTIONS_MAX);
        spec.forwarding().check(&mut findings);
        let (up, down) = (spec.upstream(), spec.downstream());
        for (path, time, zero_ok) in [
            ("spec.drain", spec.drain, true),
            ("spec.upstream.connectTimeout", up.connect_timeout, false),
            ("spec.upstream.readTimeout", up.read_timeout, false),
            ("spec.upstream.writeTimeout", up.write_timeout, false),
            ("spec.upstream.idleTimeout", up.idle_timeout, true),
            ("spec.downstream.keepAliveTimeout", down.keep_alive_timeout, true),
            ("spec.downstream.readTimeout", down.read_timeout, false),
            ("spec.downstream.writeTimeout", down.write_timeout, false),
        ] {
            match time {
                Some(time) if time.is_negative() => {
                    findings.error(path, format!("{time} is less than 0s"));
                }
                Some(time) if time == GoDuration::default() && !zero_ok => {
                    findings
                        .error(path, "0s would end every request at once")
                        .help("leave the field out for the default");
                }
                Some(_) | None => {}
            }
        }
        findings.into_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(spec: SettingsSpec, expected: &[&str]) {
        let settings = Settings { spec, ..Settings::default() };
        let found: Vec<String> =
            settings.validate().iter().map(|finding| format!("{}: {}", finding.path, finding.message)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn defaults_hold_without_any_settings() {
        let spec = SettingsSpec::default();
        let seconds = |duration: Duration| duration.as_secs();
        assert_eq!(spec.admin().to_string(), "127.0.0.1:9090");
        assert_eq!(spec.threads(NonZeroUsize::MIN), 1);
        assert_eq!((seconds(spec.drain()), spec.log_format()), (10, LogFormat::Text));
        let up = spec.upstream();
        assert_eq!(
            [up.connect_timeout(), up.read_timeout(), up.write_timeout(), up.idle_timeout()].map(seconds),
            [1, 60, 60, 50],
        );
        let down = spec.downstream();
        assert_eq!([down.keep_alive_timeout(), down.read_timeout(), down.write_timeout()].map(seconds), [75, 60, 60]);
        assert_eq!(down.connections_max(), 10_000);
        let told = spec.forwarding();
        assert_eq!((told.trusted_hops(), told.arm_header().as_deref()), (0, Some("x-serin-arm")));
        let bools = [told.x_forwarded(), told.request_id(), told.trace_context(), told.forwarded()];
        assert_eq!(bools, [true, true, true, false]);
        check(spec, &[]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let none = Some(GoDuration::default());
        check(
            SettingsSpec {
                admin: Some(":9090".into()),
                threads: Some(0),
                drain: Some(GoDuration::from_secs(-1)),
                upstream: Some(Upstream { connect_timeout: none, idle_timeout: none, ..Upstream::default() }),
                downstream: Some(Downstream { connections_max: Some(0), ..Downstream::default() }),
                forwarding: Some(Forwarding {
                    trusted_hops: Some(-1),
                    arm_header: Some("Content-Length".into()),
                    ..Forwarding::default()
                }),
                ..SettingsSpec::default()
            },
            &[
                "spec.admin: \":9090\" is not an IP address and a port",
                "spec.threads: 0 is less than 1",
                "spec.downstream.connectionsMax: 0 is less than 1",
                "spec.forwarding.trustedHops: -1 is less than 0",
                "spec.forwarding.armHeader: \"Content-Length\" may be a field with a meaning of its own",
                "spec.drain: -1s is less than 0s",
                "spec.upstream.connectTimeout: 0s would end every request at once",
            ],
        );
    }
}
