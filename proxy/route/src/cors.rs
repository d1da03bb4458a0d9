//! Which other origins may use a route from a browser (Fetch standard, CORS protocol), as Istio's `corsPolicy` has it.

use crate::edits::HeaderEdits;
use crate::matcher::StringMatch;
use crate::view::RequestView;

/// Who may, and what.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cors {
    /// Origins that may; none of them makes the policy say nothing.
    pub origins: Vec<StringMatch>,
    /// What a preflight is told: methods, with commas between.
    pub methods: Option<Box<str>>,
    /// Request headers, with commas between.
    pub headers: Option<Box<str>>,
    /// Response headers that scripts may read, with commas between.
    pub exposed: Option<Box<str>>,
    /// How long a browser may keep a preflight's answer, in seconds.
    pub max_age_s: Option<u64>,
    /// Whether requests may carry cookies and other credentials.
    pub credentials: bool,
}

/// What the answers to requests of another origin say, which a backend is not to say itself.
const ANSWERED: [&str; 3] =
    ["access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"];

impl Cors {
    /// What a preflight of an origin that may is answered, by the proxy itself. None for any other request.
    pub fn preflight(&self, request: &impl RequestView) -> Option<HeaderEdits> {
        let asks = request.method() == "OPTIONS" && request.header("access-control-request-method").next().is_some();
        let origin = self.origin(request).filter(|_| asks)?;
        let max_age = self.max_age_s.map(|seconds| seconds.to_string());
        let mut fields = self.allowed(origin);
        for (name, value) in [
            ("access-control-allow-methods", self.methods.as_deref()),
            ("access-control-allow-headers", self.headers.as_deref()),
            ("access-control-max-age", max_age.as_deref()),
        ] {
            fields.extend(value.map(|value| (name, value)));
        }
        Some(HeaderEdits::of(&[], &fields))
    }

    /// What is changed of an answer. One to another request than of an origin that may says only that it would be another one then, so
    /// that no cache gives it to those.
    pub fn answer(&self, request: &impl RequestView) -> HeaderEdits {
        let Some(origin) = self.origin(request) else { return HeaderEdits::of(&[], &[("vary", "origin")]) };
        let mut fields = self.allowed(origin);
        fields.extend(self.exposed.as_deref().map(|exposed| ("access-control-expose-headers", exposed)));
        HeaderEdits::of(&ANSWERED, &fields)
    }

    /// The origin of a request, if it may. More than one is no origin (Fetch standard, section 3.2).
    fn origin<'a>(&self, request: &'a impl RequestView) -> Option<&'a str> {
        let mut origins = request.header("origin");
        let (origin, None) = (origins.next()?, origins.next()) else { return None };
        let allowed = self.origins.iter().any(|allowed| allowed.matches(origin));
        std::str::from_utf8(origin).ok().filter(|_| allowed)
    }

    /// The origin itself and not a star: only so may credentials be sent, and then caches must keep answers apart.
    fn allowed<'a>(&self, origin: &'a str) -> Vec<(&'a str, &'a str)> {
        let mut fields = vec![("access-control-allow-origin", origin), ("vary", "origin")];
        fields.extend(self.credentials.then_some(("access-control-allow-credentials", "true")));
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Request, request};

    fn shop() -> Cors {
        let origins =
            vec![StringMatch::Exact("https://shop.example".into()), StringMatch::Suffix(".shop.example".into())];
        Cors { origins, credentials: true, ..Cors::default() }
    }

    #[track_caller]
    fn check(edits: Option<HeaderEdits>, expected: Option<&str>) {
        let said = edits.map(|edits| edits.appended().map(|(n, v)| format!("{n}: {v}\n")).collect::<String>());
        assert_eq!(said.as_deref(), expected);
    }

    fn from(origin: &str) -> Request {
        request(&[("origin", origin), ("access-control-request-method", "PUT")])
    }

    #[test]
    fn a_preflight_is_answered_for_origins_that_may() {
        let ask = |origin| Request { method: "OPTIONS", ..from(origin) };
        let cors =
            Cors { methods: Some("GET,PUT".into()), headers: Some("x-a".into()), max_age_s: Some(86_400), ..shop() };
        check(
            cors.preflight(&ask("https://a.shop.example")),
            Some(
                "access-control-allow-origin: https://a.shop.example\nvary: origin\naccess-control-allow-credentials: true\n\
                 access-control-allow-methods: GET,PUT\naccess-control-allow-headers: x-a\naccess-control-max-age: 86400\n",
            ),
        );
        check(cors.preflight(&ask("https://evil.example")), None);
        check(cors.preflight(&from("https://shop.example")), None);
        let plain = Request { method: "OPTIONS", ..request(&[("origin", "https://shop.example")]) };
        check(cors.preflight(&plain), None);
    }

    #[test]
    fn answers_say_who_may_and_what_a_backend_says_of_it_is_left_out() {
        let cors = Cors { exposed: Some("x-b".into()), ..shop() };
        let edits = cors.answer(&from("https://shop.example"));
        assert!(edits.drops("Access-Control-Allow-Origin") && !edits.drops("vary"));
        check(
            Some(edits),
            Some(
                "access-control-allow-origin: https://shop.example\nvary: origin\naccess-control-allow-credentials: true\n\
                 access-control-expose-headers: x-b\n",
            ),
        );
        let other = Some("vary: origin\n");
        check(Some(cors.answer(&from("null"))), other);
        check(Some(cors.answer(&request(&[]))), other);
        let twice = request(&[("origin", "https://shop.example"), ("origin", "https://shop.example")]);
        check(Some(cors.answer(&twice)), other);
    }
}
