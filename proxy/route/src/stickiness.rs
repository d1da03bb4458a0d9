//! How a user keeps the version that he met first. What is carried over is never evidence: only the toss that it follows from is.

use std::hash::Hasher;
use std::net::IpAddr;

use serin_measure::{Arm, Coin};
use siphasher::sip::SipHasher13;

use crate::view::RequestView;

/// How users keep their version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stickiness {
    /// By cookies that are set with the answer to whoever was tossed for.
    Cookies(Cookies),
    /// By a hash of something that comes with each request, so that nothing has to be remembered.
    Hash(Hashing),
}

/// Cookies that tell an arm, as Flagger has them (`analysis.sessionAffinity`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cookies {
    /// For who was sent to the canary.
    pub canary: Option<Cookie>,
    /// For who was sent to the primary; without it they are tossed for again.
    pub primary: Option<Cookie>,
    /// That of a run that is over, which is taken back from who shows it.
    pub former: Option<Cookie>,
}

/// A cookie with one value for all who have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    name: Box<str>,
    value: Box<str>,
    line: Box<str>,
}

/// What comes after a cookie's value (RFC 6265bis section 4.1.2), in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CookieAttributes {
    /// `Max-Age` in seconds.
    pub max_age_s: Option<i64>,
    /// `Domain`.
    pub domain: Option<Box<str>>,
    /// `HttpOnly`.
    pub http_only: bool,
    /// `Partitioned`.
    pub partitioned: bool,
    /// `Path`.
    pub path: Option<Box<str>>,
    /// `SameSite`.
    pub same_site: Option<Box<str>>,
    /// `Secure`.
    pub secure: bool,
}

/// The cookie that an answer sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CookieSet {
    /// None.
    #[default]
    Nothing,
    /// That of the arm.
    Of(Arm),
    /// The one of a former run, so that it is forgotten.
    Former,
}

/// Users by a hash: a user of the smallest hashes meets the canary first, and keeps it while the weight rises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashing {
    /// What is hashed.
    pub key: HashKey,
    /// What is hashed with it: of the run alone, from the system's entropy, so that not the same people always go first.
    pub salt: u128,
    /// The highest threshold that this salt has had at earlier weights: below it nobody is tossed for again.
    pub highest: Coin,
}

/// What of a request tells one user from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The first value of a header.
    Header(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
    /// A query parameter.
    Parameter(Box<str>),
    /// The client's address.
    Address,
}

/// Users are told apart as this many units.
pub const UNITS: usize = 1 << 16;

/// Some of the users: who has the same unit has the same coin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Unit(pub u16);

impl Cookie {
    /// A cookie that is set with these attributes.
    pub fn new(name: &str, value: &str, attributes: &CookieAttributes) -> Self {
        let CookieAttributes { max_age_s, domain, http_only, partitioned, path, same_site, secure } = attributes;
        let mut line = format!("{name}={value}");
        let mut attribute = |name: &str, value: Option<&str>| {
            line.push_str("; ");
            line.push_str(name);
            if let Some(value) = value {
                line.push('=');
                line.push_str(value);
            }
        };
        if let Some(seconds) = max_age_s {
            attribute("Max-Age", Some(&seconds.to_string()));
        }
        if let Some(domain) = domain {
            attribute("Domain", Some(domain));
        }
        if *http_only {
            attribute("HttpOnly", None);
        }
        if *partitioned {
            attribute("Partitioned", None);
        }
        if let Some(path) = path {
            attribute("Path", Some(path));
        }
        if let Some(same_site) = same_site {
            attribute("SameSite", Some(same_site));
        }
        if *secure {
            attribute("Secure", None);
        }
        Self { name: name.into(), value: value.into(), line: line.into() }
    }

    /// The same, to be forgotten. It has to have the same domain and path, or a browser takes it for another one.
    pub fn taken_back(name: &str, value: &str, attributes: &CookieAttributes) -> Self {
        Self::new(name, value, &CookieAttributes { max_age_s: Some(-1), ..attributes.clone() })
    }

    /// The value of `Set-Cookie`.
    pub fn line(&self) -> &str {
        &self.line
    }

    fn is_shown_by(&self, request: &impl RequestView) -> bool {
        request.cookies(&self.name).any(|value| value == self.value.as_bytes())
    }
}

impl Cookies {
    /// The arm that a request was sent to before.
    pub(crate) fn arm(&self, request: &impl RequestView) -> Option<Arm> {
        let is_shown = |cookie: &Option<Cookie>| cookie.as_ref().is_some_and(|cookie| cookie.is_shown_by(request));
        if is_shown(&self.canary) { Some(Arm::Canary) } else { is_shown(&self.primary).then_some(Arm::Primary) }
    }

    /// What is told to a client whose arm was tossed for.
    pub(crate) fn for_toss(&self, arm: Arm) -> CookieSet {
        if self.of(arm).is_some() { CookieSet::Of(arm) } else { CookieSet::Nothing }
    }

    /// What is told to a client that goes to the primary because nothing is on trial.
    pub(crate) fn for_rest(&self, request: &impl RequestView) -> CookieSet {
        let is_former = self.former.as_ref().is_some_and(|cookie| cookie.is_shown_by(request));
        if is_former { CookieSet::Former } else { CookieSet::Nothing }
    }

    fn of(&self, arm: Arm) -> Option<&Cookie> {
        match arm {
            Arm::Primary => self.primary.as_ref(),
            Arm::Canary => self.canary.as_ref(),
        }
    }
}

impl Stickiness {
    /// The value of `Set-Cookie` for an answer, if it has one.
    pub fn line(&self, set: CookieSet) -> Option<&str> {
        let Self::Cookies(cookies) = self else { return None };
        let cookie = match set {
            CookieSet::Nothing => None,
            CookieSet::Of(arm) => cookies.of(arm),
            CookieSet::Former => cookies.former.as_ref(),
        };
        cookie.map(Cookie::line)
    }
}

impl HashKey {
    /// A hash of what a request has of it; none if it has nothing.
    pub(crate) fn hash(&self, request: &impl RequestView, salt: u128) -> Option<u64> {
        let mut hasher = SipHasher13::new_with_key(&salt.to_le_bytes());
        match self {
            Self::Header(name) => hasher.write(request.header(name).next()?),
            Self::Cookie(name) => hasher.write(request.cookie(name)?),
            Self::Parameter(name) => hasher.write(request.parameter(name)?.as_bytes()),
            Self::Address => match request.client()? {
                IpAddr::V4(address) => hasher.write(&address.octets()),
                // Who has one address has its whole network (RFC 6177), and privacy extensions change the rest (RFC 8981).
                IpAddr::V6(address) => hasher.write(&address.octets()[..8]),
            },
        }
        Some(hasher.finish())
    }
}

impl Hashing {
    /// The unit of a request; none if it has nothing to be hashed.
    pub(crate) fn unit(&self, request: &impl RequestView) -> Option<Unit> {
        let hash = self.key.hash(request, self.salt)?;
        Some(Unit(u16::try_from(hash >> 48).expect("16 bits")))
    }

    /// The arm of a unit under a coin, which is rounded to whole units, and whether that is a toss: one that this salt has not decided at
    /// an earlier weight.
    pub(crate) fn arm(&self, unit: Unit, coin: Coin) -> (Arm, bool) {
        let draw = u64::from(unit.0) << 16;
        let arm = if draw < coin.in_units().k() { Arm::Canary } else { Arm::Primary };
        (arm, draw >= self.highest.in_units().k())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::request;

    #[test]
    fn checklist_118_the_attributes_of_a_cookie_have_their_order() {
        let attributes = CookieAttributes {
            max_age_s: Some(86_400),
            domain: Some("shop.example".into()),
            http_only: true,
            partitioned: true,
            path: Some("/app".into()),
            same_site: Some("Lax".into()),
            secure: true,
        };
        let all = "c=abc; Max-Age=86400; Domain=shop.example; HttpOnly; Partitioned; Path=/app; SameSite=Lax; Secure";
        assert_eq!(Cookie::new("c", "abc", &attributes).line(), all);
        assert_eq!(Cookie::taken_back("c", "abc", &attributes).line(), all.replace("86400", "-1"));
        assert_eq!(Cookie::new("c", "abc", &CookieAttributes::default()).line(), "c=abc");
    }

    #[test]
    fn a_cookie_is_found_whole_wherever_it_stands_and_the_canarys_counts_first() {
        let cookie = |name, value| Some(Cookie::new(name, value, &CookieAttributes::default()));
        let cookies = Cookies { canary: cookie("c", "abc"), primary: cookie("p", "xyz"), former: None };
        for (shown, expected) in [
            ("c=abc", Some(Arm::Canary)),
            ("a=1; c=abc; p=xyz", Some(Arm::Canary)),
            ("c=old; c=abc", Some(Arm::Canary)),
            ("p=xyz", Some(Arm::Primary)),
            ("c=abcd", None),
            ("xc=abc", None),
            ("c=\"abc\"", None),
            ("", None),
        ] {
            assert_eq!(cookies.arm(&request(&[("cookie", shown)])), expected, "{shown}");
        }
    }

    #[test]
    fn a_user_who_met_the_canary_keeps_it_while_the_weight_rises_and_is_tossed_for_once() {
        let coin = |percent| Coin::from_percent(percent).expect("a percentage");
        let at = |highest| Hashing { key: HashKey::Header("x-user".into()), salt: 7, highest: coin(highest) };
        let (mut met, mut tossed) = (0_u32, 0_u32);
        for unit in (0..=u16::MAX).map(Unit) {
            let mut former = Arm::Primary;
            for (highest, now) in [(0.0, 10.0), (10.0, 30.0), (30.0, 50.0)] {
                let (arm, is_toss) = at(highest).arm(unit, coin(now));
                assert!(former == Arm::Primary || arm == Arm::Canary, "{unit:?} has lost it at {now}");
                assert_eq!(is_toss, former == Arm::Primary, "{unit:?} at {now}");
                former = arm;
                tossed += u32::from(is_toss);
            }
            met += u32::from(former == Arm::Canary);
        }
        assert_eq!(met, 32_768);
        assert_eq!(tossed, 65_536 + (65_536 - 6_553) + (65_536 - 19_660));
    }

    #[test]
    fn who_has_nothing_to_be_hashed_has_no_unit_and_others_are_spread() {
        let hashing = Hashing { key: HashKey::Header("x-user".into()), salt: 7, highest: Coin::NEVER };
        assert_eq!(hashing.unit(&request(&[])), None);
        let names: Vec<String> = (0..10_000).map(|number| format!("user-{number}")).collect();
        let of = |name: &String| hashing.unit(&request(&[("x-user", name)]));
        assert_eq!(of(&names[0]), of(&names[0]));
        let low = names.iter().filter(|name| of(name).is_some_and(|unit| unit.0 < 6_554)).count();
        assert!((850..1_150).contains(&low), "{low} of 10,000 are in the lowest tenth");
    }
}
