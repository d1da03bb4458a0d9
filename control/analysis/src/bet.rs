//! Betting on which version met a failure.
//!
//! The proxy tosses the coin that sends a request to the canary. If the canary is no worse, which version a failing
//! request met is that coin, whatever load, outages or retries do. A gambler who stakes 1 against it owns `E` later, and
//! a fair game makes him reach `1/alpha` at any time with probability at most `alpha` (Ville 1939; Shafer 2021, "Testing
//! by betting"; Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting").
//! A verdict can be asked for as often as one likes, by any rule. `E` needs four integers for each slice of time:
//!
//! ```text
//!   routed n ──┬─ canary failed  a   each  f_c = 1 + λ (1/w − δ)
//!              ├─ primary failed b   each  f_p = 1 − λ (r0/(1−w) + δ)      W_k ← (W_k + π f_0^m) Π f
//!              └─ everything else    each  f_0 = 1 − λ δ                   E = cash + mean of the ten W_k
//!   in flight m: sent earlier, not answered when the slice begins
//! ```
//!
//! Not all of the 1 is bet at once. Half goes into the first slice, the rest is let out slowly over judged time, so that a
//! regression after a long good history meets fresh stake instead of a gambler long ruined (a Shiryaev mixture).
//! When `E` is enough is the affair of [`Stake`](crate::Stake); what may be counted at all is the proxy's.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::logs::{ln_add_exp, ln_mean_exp};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// The relative risks that are bet on, with equal shares: how many times as often the canary might fail. Averaging over a
/// grid costs at most `ln 10` against knowing the risk, and needs no tuning.
pub const R_GRID: [f64; 10] = [1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0];

/// Failures of the canary count against `r0` times the primary's; 1 compares them as they are.
const R0: f64 = 1.0;

/// How close a bet may come to losing everything on one failure of the primary. At 1 a single one would ruin it for good.
const BET_MAX: f64 = 0.995;

/// The part of the stake that is bet in the first slice; the rest waits for later regressions.
pub(crate) const START: f64 = 0.5;

/// After this much judged time half of the later stake is out. The heavy tail matters, the scale hardly does.
const SCALE_MS: f64 = 1_800_000.0;

/// What one request multiplies a bet by, as natural logarithms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    /// A request that failed on the canary.
    pub ln_fc: f64,
    /// A request that failed on the primary.
    pub ln_fp: f64,
    /// Any other routed request: the fee for the tolerance.
    pub ln_f0: f64,
}

/// The factors of the bet that the canary fails `r` times as often, at the canary's probability `w` strictly between 0
/// and 1, against the claim `p_c <= r0 p_p + delta` with `0 <= delta < 1`.
///
/// With `delta = 0` and `r0 = 1` this is the likelihood ratio of "a failure is the canary's with probability `q`" against
/// `w`, the test for counts of Lindon and Malek 2022 ("Anytime-valid inference for multinomial count data"), where
/// `q = wr/(wr + 1 − w)` ties the odds to a relative risk so that it survives a change of weight.
pub fn factors(w: f64, r: f64, r0: f64, delta: f64) -> Factors {
    let q = w * r / (w * r + 1.0 - w);
    let primary_loss = r0 / (1.0 - w) + delta;
    let bet = (q - w).min(BET_MAX / primary_loss);
    Factors {
        ln_fc: (bet * (1.0 / w - delta)).ln_1p(),
        ln_fp: (-bet * primary_loss).ln_1p(),
        ln_f0: (-bet * delta).ln_1p(),
    }
}

/// What one epoch brought to a slice of time. Cells of replicas add, field by field, as long as `w` and `delta` agree.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slice {
    /// The canary's exact probability in this epoch, see [`Coin::probability`](serin_measure::Coin::probability).
    pub w: f64,
    /// Tolerance as a rate, `0 <= delta < 1`: by so much the canary may fail more often.
    pub delta: f64,
    /// Requests routed in the slice, both versions.
    pub n: u64,
    /// Failures of the canary seen in the slice, whenever they were routed.
    pub a: u64,
    /// Failures of the primary seen in the slice, whenever they were routed.
    pub b: u64,
    /// Requests routed earlier and unanswered when the slice begins, both versions. Too large a number is safe.
    pub in_flight: u64,
}

impl Slice {
    /// Whether the coin of this epoch is uncertain. One that is not says nothing.
    fn is_judged(&self) -> bool {
        0.0 < self.w && self.w < 1.0
    }

    /// What the slice multiplies the bet on `r` by, and what a stake that starts now pays for requests in flight,
    /// both as logarithms.
    #[allow(clippy::cast_precision_loss, reason = "counts stay below 2^53, where doubles are exact")]
    fn bet(&self, r: f64) -> (f64, f64) {
        let Factors { ln_fc, ln_fp, ln_f0 } = factors(self.w, r, R0, self.delta);
        let (n, a, b) = (self.n as f64, self.a as f64, self.b as f64);
        // The rest is negative when a failure is seen in a later slice than its routing: that gives the fee back.
        let ln_r = a * ln_fc + b * ln_fp + (n - a - b) * ln_f0;
        (ln_r, self.in_flight as f64 * ln_f0)
    }
}

/// What the bets on one rollout's failures are worth, and all that must be kept to go on betting.
///
/// Serialized with its numbers as text: JSON has no infinity, and not every reader of it keeps the last bit of a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved", into = "Saved")]
pub struct Evidence {
    /// Stake not yet bet.
    cash: f64,
    /// Worth of the bet on each relative risk of the grid, as logarithms; negative infinity before the first slice.
    ln_w: [f64; R_GRID.len()],
    /// Time over which the coin was uncertain.
    judged_ms: u64,
}

impl Evidence {
    /// Nothing bet, nothing judged: `E` is 1.
    pub fn new() -> Self {
        Self { cash: 1.0, ln_w: [f64::NEG_INFINITY; R_GRID.len()], judged_ms: 0 }
    }

    /// `ln E`, the number to hold against a stake's limit. It never falls below the logarithm of the unbet stake.
    pub fn ln_e(&self) -> f64 {
        ln_add_exp(self.cash.ln(), ln_mean_exp(&self.ln_w))
    }

    /// Milliseconds over which the coin was uncertain, up to the last closed slice.
    pub fn judged_ms(&self) -> u64 {
        self.judged_ms
    }

    /// The part of the stake that waits for later regressions, in `(0, 1]`.
    pub fn cash(&self) -> f64 {
        self.cash
    }

    /// Closes a slice of `dt_ms` that began at [`judged_ms`](Self::judged_ms). There is one [`Slice`] for each epoch that
    /// routed or answered in it. Slices may have any length, also different ones; the schedule depends on time alone.
    /// Epochs with a certain coin are skipped, and a slice of nothing else is no judged time and changes nothing.
    #[must_use]
    pub fn advance(self, slices: &[Slice], dt_ms: u64) -> Self {
        let mut next = self.scored(slices);
        if slices.iter().any(Slice::is_judged) {
            next.judged_ms = next.judged_ms.saturating_add(dt_ms);
        }
        next
    }

    /// `ln E` if the open slice were closed now, to the bit what [`advance`](Self::advance) would come to. Nothing is
    /// allocated and nothing changes, so any thread may look at every failure of the canary.
    pub fn look(&self, slices: &[Slice]) -> f64 {
        self.scored(slices).ln_e()
    }

    /// Takes over saved evidence at `judged_ms` of judged time. The stake that fell due since the save is given up, not
    /// bet: whoever judged meanwhile may have bet it, and no stake is bet twice. Judged time never runs backwards.
    #[must_use]
    pub fn resumed(self, judged_ms: u64) -> Self {
        let judged_ms = judged_ms.max(self.judged_ms);
        Self { cash: self.cash.min(left(judged_ms)), judged_ms, ..self }
    }

    /// Lets out the stake that is due and plays the slices. Judged time stays at their begin.
    fn scored(&self, slices: &[Slice]) -> Self {
        let mut next = self.clone();
        if !slices.iter().any(Slice::is_judged) {
            return next;
        }
        next.cash = self.cash.min(left(self.judged_ms));
        // No stake due is ln 0, negative infinity, and adds nothing below.
        let ln_due = (self.cash - next.cash).ln();
        for (ln_w, &r) in next.ln_w.iter_mut().zip(&R_GRID) {
            let (ln_r, ln_fee) = slices
                .iter()
                .filter(|slice| slice.is_judged())
                .map(|slice| slice.bet(r))
                .fold((0.0, 0.0), |sum, bet| (sum.0 + bet.0, sum.1 + bet.1));
            // A stake that starts now has not paid for the requests in flight, but would collect their failures.
            *ln_w = ln_add_exp(*ln_w, ln_due + ln_fee) + ln_r;
        }
        next
    }
}

impl Default for Evidence {
    fn default() -> Self {
        Self::new()
    }
}

/// The stake still unbet once a slice that begins at this judged time has taken its part: `C/(2(C + t))`.
#[allow(clippy::cast_precision_loss, reason = "milliseconds stay below 2^53, where doubles are exact")]
fn left(judged_ms: u64) -> f64 {
    (1.0 - START) * SCALE_MS / (SCALE_MS + judged_ms as f64)
}

/// Evidence as it is stored.
#[derive(Serialize, Deserialize)]
struct Saved {
    cash: String,
    ln_w: [String; R_GRID.len()],
    judged_ms: u64,
}

/// Why stored evidence cannot be used: somebody changed it by hand, or it was never ours.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum Spoilt {
    #[error("cash is a number above 0 and at most 1, not {given}")]
    Cash { given: String },
    #[error("ln_w holds numbers below infinity, not {given}")]
    Worth { given: String },
}

impl From<Evidence> for Saved {
    fn from(evidence: Evidence) -> Self {
        // Rust prints the shortest text that reads back as the same bits, and reads any text to the nearest number.
        Self {
            cash: evidence.cash.to_string(),
            ln_w: evidence.ln_w.map(|ln_w| ln_w.to_string()),
            judged_ms: evidence.judged_ms,
        }
    }
}

impl TryFrom<Saved> for Evidence {
    type Error = Spoilt;

    fn try_from(saved: Saved) -> Result<Self, Spoilt> {
        let cash = match saved.cash.parse() {
            Ok(cash) if 0.0 < cash && cash <= 1.0 => cash,
            _ => return Err(Spoilt::Cash { given: saved.cash }),
        };
        let mut ln_w = [f64::NEG_INFINITY; R_GRID.len()];
        for (ln_w, given) in ln_w.iter_mut().zip(saved.ln_w) {
            *ln_w = match given.parse() {
                Ok(worth) if worth < f64::INFINITY => worth,
                _ => return Err(Spoilt::Worth { given }),
            };
        }
        Ok(Self { cash, ln_w, judged_ms: saved.judged_ms })
    }
}
