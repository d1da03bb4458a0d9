//! The seal on questions and answers of the fleet: HMAC-SHA256 (RFC 2104) under a key that only its processes have.
//!
//! Questions carry brakes and answers carry what verdicts are made of, so neither may come from anybody else. The answer's
//! seal holds the question's nonce: an old answer is no answer. A question that is played again orders a brake that was
//! ordered, for a run that was taken back. The text itself is no secret, and is not encrypted.

use ring::hmac::{self, HMAC_SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};

/// Bytes of the key: the digest's own length, as RFC 2104 asks.
const KEY_BYTES: usize = 32;
/// The header with the nonce, hexadecimal.
pub(crate) const NONCE_HEADER: &str = "serin-nonce";
/// The header with the seal, hexadecimal.
pub(crate) const SEAL_HEADER: &str = "serin-seal";

/// The key of a fleet.
#[derive(Clone)]
pub struct Seal(hmac::Key);

/// Which way a text goes. A question cannot be passed off as an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Question,
    Answer,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    /// A seal under this key; none if it is too short to be one.
    pub fn new(key: &[u8]) -> Option<Self> {
        (key.len() >= KEY_BYTES).then(|| Self(hmac::Key::new(HMAC_SHA256, key)))
    }

    /// A new key, from the operating system's entropy; none if it has none.
    pub(crate) fn new_key() -> Option<[u8; KEY_BYTES]> {
        let mut key = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut key).ok().map(|()| key)
    }

    pub(crate) fn sign(&self, way: Way, nonce: &str, text: &[u8]) -> String {
        hex(hmac::sign(&self.0, &message(way, nonce, text)).as_ref())
    }

    /// Whether this text was sealed under the key, for this nonce and this way. Takes the same time whatever is wrong.
    pub(crate) fn holds(&self, way: Way, nonce: &str, text: &[u8], seal: &str) -> bool {
        unhex(seal).is_some_and(|seal| hmac::verify(&self.0, &message(way, nonce, text), &seal).is_ok())
    }
}

fn message(way: Way, nonce: &str, text: &[u8]) -> Vec<u8> {
    let way = match way {
        Way::Question => "question",
        Way::Answer => "answer",
    };
    [way.as_bytes(), b"\n", nonce.as_bytes(), b"\n", text].concat()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    digits.len().is_multiple_of(2).then(|| pairs.collect()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_for_its_text_its_nonce_its_way_and_its_key() {
        let seal = Seal::new(&[7; KEY_BYTES]).expect("long enough");
        let signed = seal.sign(Way::Question, "n1", b"text");
        assert!(seal.holds(Way::Question, "n1", b"text", &signed));
        assert!(!seal.holds(Way::Answer, "n1", b"text", &signed));
        assert!(!seal.holds(Way::Question, "n2", b"text", &signed));
        assert!(!seal.holds(Way::Question, "n1", b"texts", &signed));
        let other = Seal::new(&[8; KEY_BYTES]).expect("long enough");
        assert!(!other.holds(Way::Question, "n1", b"text", &signed));
        for not_a_seal in ["", "0", "zz", &signed[..10], "é"] {
            assert!(!seal.holds(Way::Question, "n1", b"text", not_a_seal), "{not_a_seal}");
        }
        assert!(Seal::new(&[7; KEY_BYTES - 1]).is_none());
    }

    #[test]
    fn the_seal_is_the_hmac_of_rfc_4231() {
        // Test case 1 of RFC 4231 has a key of 20 bytes, so the library is asked directly.
        let key = hmac::Key::new(HMAC_SHA256, &[0x0b; 20]);
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hex(hmac::sign(&key, b"Hi There").as_ref()), expected);
    }
}
