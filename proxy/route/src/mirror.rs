//! Which requests the canary gets a copy of, and what of them. Nobody sees its answer; what it does is measured as the canary's, and is
//! never evidence.

use serin_measure::Coin;

use crate::view::RequestView;

/// Copies for the canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// The share of the primary's requests.
    pub share: Coin,
    /// Whether requests that change something are copied too. Twice is not once, so this has to be asked for.
    pub unsafe_methods: bool,
    /// Whether copies say who the user is: `Authorization`, `Cookie` and `Proxy-Authorization`.
    pub credentials: bool,
}

impl Mirror {
    /// All requests that change nothing, without who sent them.
    pub const ALL: Self = Self { share: Coin::ALWAYS, unsafe_methods: false, credentials: false };

    /// Whether there is a copy of a request, by a uniform random number.
    pub(crate) fn takes(&self, request: &impl RequestView, random: u32) -> bool {
        // RFC 9110 section 9.2.1.
        let is_safe = matches!(request.method(), "GET" | "HEAD" | "OPTIONS" | "TRACE");
        let is_upgrade = request.header("upgrade").next().is_some();
        (is_safe || self.unsafe_methods) && !is_upgrade && self.share.is_canary(random)
    }

    /// Whether a field is left out of a copy.
    pub fn withholds(&self, name: &str) -> bool {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        !self.credentials && (is("authorization") || is("cookie") || is("proxy-authorization"))
    }
}
