//! The coin that sends a request to the canary, as the exact number the router compares with.
//!
//! The draw itself is not made here: the router brings a random number of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::Arm;

/// The canary gets a request when a uniform 32-bit draw is below `k`.
///
/// Evidence uses this exact probability, never the percentage somebody configured: a bet on 10 % is unfair when the
/// router tosses 9.99 %. Serialized as the bare number `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Coin {
    k: u64,
}

/// A threshold above 2^32 names no coin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoinOutOfRange {
    /// What was given, in draws of 2^32.
    pub given: u64,
}

impl Coin {
    /// One past the largest draw: at this threshold every request goes to the canary.
    const K_MAX: u64 = 1 << 32;
    /// Every request goes to the primary.
    pub const NEVER: Self = Self { k: 0 };
    /// Every request goes to the canary.
    pub const ALWAYS: Self = Self { k: Self::K_MAX };

    /// The coin with threshold `k` in `0..=2^32`; anything above is no coin.
    pub fn from_k(k: u64) -> Option<Self> {
        (k <= Self::K_MAX).then_some(Self { k })
    }

    /// The coin nearest below this share in percent, 0 to 100; anything else is no coin.
    ///
    /// Rounded toward the primary, so that rounding alone never sends a request to the canary.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the product is between 0 and 2^32, where f64 counts exactly"
    )]
    pub fn from_percent(percent: f64) -> Option<Self> {
        let in_range = (0.0..=100.0).contains(&percent);
        in_range.then(|| Self { k: (percent / 100.0 * Self::K_MAX as f64).floor() as u64 })
    }

    /// The threshold, in draws of 2^32.
    pub fn k(self) -> u64 {
        self.k
    }

    /// The canary's probability, exactly `k / 2^32`.
    #[allow(
        clippy::cast_precision_loss,
        reason = "k is at most 2^32 and the divisor a power of two: both and the quotient are exact"
    )]
    pub fn probability(self) -> f64 {
        self.k as f64 / Self::K_MAX as f64
    }

    /// Whether this draw sends the request to the canary.
    pub fn is_canary(self, draw: u32) -> bool {
        u64::from(draw) < self.k
    }

    /// The coin for users in 2^16 units, rounded toward the primary.
    #[must_use]
    pub const fn in_units(self) -> Self {
        Self { k: self.k & !0xffff }
    }

    /// The arm, where the coin cannot but fall one way.
    pub fn certain(self) -> Option<Arm> {
        match self {
            Self::NEVER => Some(Arm::Primary),
            Self::ALWAYS => Some(Arm::Canary),
            _ => None,
        }
    }
}

impl fmt::Display for CoinOutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a coin's threshold is at most 2^32, not {}", self.given)
    }
}

impl std::error::Error for CoinOutOfRange {}

impl TryFrom<u64> for Coin {
    type Error = CoinOutOfRange;

    fn try_from(k: u64) -> Result<Self, CoinOutOfRange> {
        Self::from_k(k).ok_or(CoinOutOfRange { given: k })
    }
}

impl From<Coin> for u64 {
    fn from(coin: Coin) -> Self {
        coin.k
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_in_percent_rounds_toward_the_primary() {
        for (percent, k) in [(0.0, 0), (10.0, 429_496_729), (50.0, 1 << 31), (100.0, 1 << 32), (1e-9, 0)] {
            assert_eq!(Coin::from_percent(percent).map(Coin::k), Some(k), "{percent}");
        }
        for none in [-0.1, 100.1, f64::NAN] {
            assert_eq!(Coin::from_percent(none), None, "{none}");
        }
    }

    #[test]
    fn a_draw_below_the_threshold_meets_the_canary_and_a_certain_coin_needs_no_draw() {
        let coin = Coin::from_k(3).expect("small");
        assert!(coin.is_canary(2) && !coin.is_canary(3));
        assert!(Coin::ALWAYS.is_canary(u32::MAX) && !Coin::NEVER.is_canary(0));
        assert_eq!([coin, Coin::NEVER, Coin::ALWAYS].map(Coin::certain), [None, Some(Arm::Primary), Some(Arm::Canary)]);
        assert_eq!(Coin::from_k((1 << 32) + 1), None);
        assert!(Coin::try_from((1_u64 << 32) + 1).is_err());
    }
}
