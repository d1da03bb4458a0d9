//! Serin's Listener: an address on which the proxy takes requests.

use serde::{Deserialize, Serialize};

use crate::address::check_listen;
use crate::object::Object;
use crate::problem::{Finding, Findings};

/// An address on which the proxy takes requests.
pub type Listener = Object<ListenerSpec>;

/// `Listener.spec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSpec {
    /// IP address and port, such as `127.0.0.1:8080`; required. Port 0 lets the system choose.
    pub address: Option<String>,
}

impl Listener {
    /// Everything that is wrong, at once.
    pub fn validate(&self) -> Vec<Finding> {
        let mut findings = Findings::default();
        self.metadata.check(&mut findings);
        if let Some(address) = findings.required("spec.address", self.spec.address.as_deref()) {
            check_listen(&mut findings, "spec.address", address);
        }
        findings.into_vec()
    }
}
