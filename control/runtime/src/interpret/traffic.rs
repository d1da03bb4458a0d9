//! What `spec.service` and `analysis.match` say of requests: which are meant, who may meet the canary, and what is changed on the way.

use std::sync::Arc;

use serin_config::{
    Canary, CorsPolicy, GoDuration, HeaderEdits as WrittenEdits, HttpMatch, Located, Problem, RequestMatch,
};
use serin_route::{
    Audience, Cors, Edits, HeaderEdits, HeaderMatch, Host, Match, ParameterMatch, PathMatch, PathRewrite, PatternError,
    StringMatch,
};

use super::upstream::upstream;
use crate::workload::{Reach, Routing};

/// How a request line is rewritten where the provider is Gateway API; anything else replaces the full path (Flagger).
const REPLACE_PREFIX: &str = "ReplacePrefixMatch";

/// The traffic of a canary whose versions are reached so.
pub(super) fn routing(canary: &Located<Canary>, reach: Reach, keep: &mut impl FnMut(Problem)) -> Routing {
    let upstream = Arc::new(upstream(canary, keep));
    let mut written = Written { canary, is_gateway_api: is_gateway_api(&canary.value), keep };
    let hosts = written.hosts();
    let (matches, audience) = written.conditions();
    let edits = Arc::new(written.edits());
    Routing { matches: matches.into(), edits, upstream, audience, ..Routing::new(hosts, reach) }
}

/// Whether the manifest is written for Gateway API, whose prefixes are of whole path elements; Istio's are of bytes.
fn is_gateway_api(canary: &Canary) -> bool {
    canary.spec.provider.as_deref().is_some_and(|provider| provider.starts_with("gatewayapi"))
}

/// A manifest, and where what is wrong with it goes.
struct Written<'a, K> {
    canary: &'a Located<Canary>,
    is_gateway_api: bool,
    keep: &'a mut K,
}

impl<K: FnMut(Problem)> Written<'_, K> {
    fn problem(&mut self, path: &str, message: String, help: Option<&str>) {
        (self.keep)(self.canary.problem_at(path, message, help.map(str::to_owned)));
    }

    fn hosts(&mut self) -> Vec<Host> {
        let written = self.canary.value.spec.service.as_ref().map(serin_config::Service::hosts).unwrap_or_default();
        if written.is_empty() {
            return vec![Host::Any];
        }
        let mut hosts = Vec::new();
        for (index, name) in written.iter().enumerate() {
            match Host::parse(name) {
                Ok(host) => hosts.push(host),
                Err(error) => self.problem(&format!("spec.service.hosts[{index}]"), error.to_string(), None),
            }
        }
        hosts
    }

    /// Which requests the route is for, and who of them may meet the canary (checklist 109, 110, 114, 115). Both lists are combined;
    /// headers and parameters of the analysis take the place of the service's. Such requests then belong to the route too, as in
    /// Flagger, whose rule for them comes before the service's own.
    fn conditions(&mut self) -> (Vec<Match>, Audience) {
        let canary = &self.canary.value;
        let service = canary.spec.service.as_ref().map(serin_config::Service::matches).unwrap_or_default();
        let analysis = canary.spec.analysis.as_ref().map(serin_config::Analysis::matches).unwrap_or_default();
        let served = service.iter().enumerate().filter_map(|(index, entry)| self.service_entry(index, entry));
        let mut served: Vec<Match> = served.collect();
        if served.is_empty() && !service.is_empty() {
            // No entries at all would mean everybody.
            served.push(Match::nobody());
        }
        if analysis.is_empty() {
            return (served, Audience::Everyone);
        }
        let invited = analysis.iter().enumerate().filter_map(|(index, entry)| self.analysis_entry(index, entry));
        let invited: Vec<Match> = invited.collect();
        if service.is_empty() {
            return (served, Audience::Matching(invited));
        }
        let combine = |invited: &Match, served: &Match| Match {
            headers: or(&invited.headers, &served.headers),
            parameters: or(&invited.parameters, &served.parameters),
            ..served.clone()
        };
        let combined: Vec<Match> =
            invited.iter().flat_map(|invited| served.iter().map(|served| combine(invited, served))).collect();
        for entry in &combined {
            if !served.contains(entry) {
                served.push(entry.clone());
            }
        }
        (served, Audience::Matching(combined))
    }

    /// None if callers would need labels, which they have in a mesh alone: then nobody is meant.
    fn service_entry(&mut self, index: usize, written: &HttpMatch) -> Option<Match> {
        let at = format!("spec.service.match[{index}]");
        let labels = written.source_labels.as_ref().is_some_and(|labels| !labels.is_empty());
        if labels || written.source_namespace.as_ref().is_some_and(|namespace| !namespace.is_empty()) {
            return None;
        }
        let optional = |condition: StringMatch| Some(condition).filter(|condition| *condition != StringMatch::Present);
        let mut condition = |field: &str, written: &Option<serin_config::StringMatch>| {
            written.as_ref().and_then(|written| optional(self.string(&format!("{at}.{field}"), written)))
        };
        let method = condition("method", &written.method);
        let scheme = condition("scheme", &written.scheme);
        let authority = condition("authority", &written.authority);
        let path = written.uri.as_ref().and_then(|uri| self.path(&format!("{at}.uri"), uri));
        let path = path.map(|path| if written.ignore_uri_case == Some(true) { path.ignoring_case() } else { path });
        let mut headers = |field: &str, conditions: &Option<std::collections::BTreeMap<String, _>>| {
            let conditions = conditions.iter().flatten();
            let named = conditions.map(|(name, written)| {
                HeaderMatch::new(name, self.string(&format!("{at}.{field}[\"{name}\"]"), written))
            });
            named.collect::<Vec<_>>()
        };
        let (with, without) =
            (headers("headers", &written.headers), headers("withoutHeaders", &written.without_headers));
        let parameters = self.parameters(&at, written.query_params.as_ref());
        Some(Match { path, method, scheme, authority, headers: with, without_headers: without, parameters })
    }

    fn analysis_entry(&mut self, index: usize, written: &RequestMatch) -> Option<Match> {
        let at = format!("spec.analysis.match[{index}]");
        if written.source_labels.as_ref().is_some_and(|labels| !labels.is_empty()) {
            return None;
        }
        let mut headers = Vec::new();
        for (name, condition) in written.headers.iter().flatten() {
            let text = |value: &Option<String>| value.as_deref().unwrap_or_default().into();
            let value = match condition {
                serin_config::HeaderMatch { regex: Some(pattern), .. } => {
                    self.compiled(&format!("{at}.headers.{name}.regex"), StringMatch::regex(pattern))
                }
                serin_config::HeaderMatch { prefix: prefix @ Some(_), .. } => StringMatch::Prefix(text(prefix)),
                serin_config::HeaderMatch { suffix: suffix @ Some(_), .. } => StringMatch::Suffix(text(suffix)),
                serin_config::HeaderMatch { exact, .. } => StringMatch::Exact(text(exact)),
            };
            headers.push(HeaderMatch::new(name, value));
        }
        let parameters = self.parameters(&at, written.query_params.as_ref());
        Some(Match { parameters, ..Match::on(headers) })
    }

    fn parameters(
        &mut self,
        at: &str,
        written: Option<&std::collections::BTreeMap<String, serin_config::StringMatch>>,
    ) -> Vec<ParameterMatch> {
        let conditions = written.into_iter().flatten();
        let named = conditions.map(|(name, written)| ParameterMatch {
            name: name.as_str().into(),
            value: self.string(&format!("{at}.queryParams[\"{name}\"]"), written),
        });
        named.collect()
    }

    fn string(&mut self, at: &str, written: &serin_config::StringMatch) -> StringMatch {
        match written {
            serin_config::StringMatch { regex: Some(pattern), .. } => {
                self.compiled(&format!("{at}.regex"), StringMatch::regex(pattern))
            }
            serin_config::StringMatch { prefix: Some(prefix), .. } => StringMatch::Prefix(prefix.as_str().into()),
            serin_config::StringMatch { exact: Some(exact), .. } => StringMatch::Exact(exact.as_str().into()),
            _ => StringMatch::Present,
        }
    }

    fn path(&mut self, at: &str, written: &serin_config::StringMatch) -> Option<PathMatch> {
        let mut from_root = |field: &str, path: &str| {
            if !path.starts_with('/') {
                let message = format!("{path:?} does not begin with a slash, so it matches no path");
                self.problem(&format!("{at}.{field}"), message, Some("paths are compared from the root on, as /api"));
            }
        };
        match written {
            serin_config::StringMatch { regex: Some(pattern), .. } => match PathMatch::regex(pattern) {
                Ok(path) => Some(path),
                Err(error) => {
                    self.unusable(&format!("{at}.regex"), &error);
                    None
                }
            },
            serin_config::StringMatch { prefix: Some(prefix), .. } => {
                from_root("prefix", prefix);
                Some(if self.is_gateway_api { PathMatch::elements(prefix) } else { PathMatch::prefix(prefix) })
            }
            serin_config::StringMatch { exact: Some(exact), .. } => {
                from_root("exact", exact);
                Some(PathMatch::exact(exact))
            }
            _ => None,
        }
    }

    /// A pattern; one that does not compile is told, and what stands in for it is never used.
    fn compiled(&mut self, at: &str, pattern: Result<StringMatch, PatternError>) -> StringMatch {
        pattern.unwrap_or_else(|error| {
            self.unusable(at, &error);
            StringMatch::Present
        })
    }

    fn unusable(&mut self, at: &str, error: &PatternError) {
        self.problem(at, format!("this pattern cannot be used: {error}"), None);
    }

    fn edits(&mut self) -> Edits {
        let Some(service) = &self.canary.value.spec.service else { return Edits::default() };
        let headers = service.headers.clone().unwrap_or_default();
        let request = self.header_edits("spec.service.headers.request", headers.request.unwrap_or_default());
        let response = self.header_edits("spec.service.headers.response", headers.response.unwrap_or_default());
        let rewrite = service.rewrite.clone().unwrap_or_default();
        let replaces_prefix = !self.is_gateway_api || rewrite.rewrite_type.as_deref() == Some(REPLACE_PREFIX);
        let path = rewrite.uri.filter(|uri| !uri.is_empty()).map(|uri| match replaces_prefix {
            true => PathRewrite::Prefix(uri.into()),
            false => PathRewrite::Full(uri.into()),
        });
        if let Some(PathRewrite::Prefix(uri) | PathRewrite::Full(uri)) = &path
            && uri.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#'))
        {
            let message = format!("{uri:?} is no path: it has spaces, a query, or characters that have to be encoded");
            self.problem("spec.service.rewrite.uri", message, None);
        }
        let authority = rewrite.authority.filter(|authority| !authority.is_empty());
        if let Some(authority) = &authority
            && authority.bytes().any(|byte| !byte.is_ascii_graphic() || b"/@?#".contains(&byte))
        {
            let message = format!("{authority:?} is no host, with or without a port");
            self.problem("spec.service.rewrite.authority", message, None);
        }
        let cors = service.cors_policy.as_ref().and_then(|policy| self.cors(policy));
        Edits { request, response, path, authority: authority.map(Into::into), cors }
    }

    /// None if no origin may, which is as good as no policy.
    fn cors(&mut self, policy: &CorsPolicy) -> Option<Cors> {
        let at = "spec.service.corsPolicy";
        let any = |origin: StringMatch| match origin {
            StringMatch::Exact(star) if &*star == "*" => StringMatch::Present,
            origin => origin,
        };
        let older = policy.allow_origin.iter().flatten().map(|origin| StringMatch::Exact(origin.as_str().into()));
        let mut origins: Vec<StringMatch> = older.map(any).collect();
        for (index, origin) in policy.allow_origins.iter().flatten().enumerate() {
            origins.push(any(self.string(&format!("{at}.allowOrigins[{index}]"), origin)));
        }
        let mut list = |field: &str, names: &Option<Vec<String>>| {
            for (index, name) in names.iter().flatten().enumerate() {
                let is_token = |byte: u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte);
                if name.is_empty() || !name.bytes().all(is_token) {
                    let message = format!("{name:?} is no method and no name of a header field");
                    self.problem(&format!("{at}.{field}[{index}]"), message, Some("give one in each entry"));
                }
            }
            names.as_deref().filter(|names| !names.is_empty()).map(|names| names.join(",").into())
        };
        let methods = list("allowMethods", &policy.allow_methods);
        let headers = list("allowHeaders", &policy.allow_headers);
        let exposed = list("exposeHeaders", &policy.expose_headers);
        let max_age = policy.max_age.as_deref().filter(|age| !age.is_empty()).map(str::parse::<GoDuration>);
        let max_age_s = max_age.and_then(|age| match age {
            Ok(age) if !age.is_negative() => Some(age.to_std().as_secs()),
            Ok(_) | Err(_) => {
                let message = "is no duration, or one below zero".to_owned();
                self.problem(&format!("{at}.maxAge"), message, Some("write it as 24h or 600s"));
                None
            }
        });
        let credentials = policy.allow_credentials.unwrap_or(false);
        Some(Cors { origins, methods, headers, exposed, max_age_s, credentials })
            .filter(|cors| !cors.origins.is_empty())
    }

    fn header_edits(&mut self, at: &str, written: WrittenEdits) -> HeaderEdits {
        let WrittenEdits { add, set, remove } = written;
        let [add, set] = [("add", add), ("set", set)].map(|(field, values)| {
            let values = values.unwrap_or_default().into_iter();
            let values = values.map(|(name, value)| {
                let value = self.value(&format!("{at}.{field}[\"{name}\"]"), value);
                (name, value)
            });
            values.collect()
        });
        HeaderEdits::new(&add, &set, &remove.unwrap_or_default()).unwrap_or_else(|error| {
            let help = "the host is changed by service.rewrite.authority; the rest is the proxy's own";
            self.problem(at, error.to_string(), matches!(error, serin_route::EditError::Framing(_)).then_some(help));
            HeaderEdits::default()
        })
    }

    /// A value as it is sent. Istio gives values to Envoy, which puts in what stands between percent signs.
    fn value(&mut self, at: &str, value: String) -> String {
        if self.is_gateway_api || !value.contains('%') {
            return value;
        }
        if value.replace("%%", "").contains('%') {
            let message = format!("{value:?} has a percent sign, which Envoy takes for one of its variables");
            self.problem(at, message, Some("variables are not honoured; a percent sign itself is written as %%"));
        }
        value.replace("%%", "%")
    }
}

/// The first list, or the other one if that is empty.
fn or<T: Clone>(one: &[T], other: &[T]) -> Vec<T> {
    if one.is_empty() { other } else { one }.to_vec()
}
