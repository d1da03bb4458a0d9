//! Flagger's AlertProvider: where alerts go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metric_template::SecretRef;
use crate::object::Object;
use crate::problem::{Finding, Findings};
use crate::schema;

/// A place that alerts go to; Canaries refer to it by name.
pub type AlertProvider = Object<AlertProviderSpec>;

/// `AlertProvider.spec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::exactly_one_of(&[&["type", "address"], &["type", "secretRef"]]))]
pub struct AlertProviderSpec {
    /// What kind of place it is; required.
    #[serde(rename = "type")]
    pub provider_type: Option<AlertProviderType>,
    /// The channel, for places that have channels.
    pub channel: Option<String>,
    /// The name to post under.
    pub username: Option<String>,
    /// The address to post to. Either this or `secretRef`.
    pub address: Option<String>,
    /// A proxy on the way.
    pub proxy: Option<String>,
    /// The Secret with the address. Either this or `address`.
    pub secret_ref: Option<SecretRef>,
}

/// Places that Flagger can post to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertProviderType {
    /// Slack.
    Slack,
    /// Microsoft Teams.
    MsTeams,
    /// Discord.
    Discord,
    /// Rocket.Chat.
    Rocket,
    /// Google Chat.
    GChat,
}

impl AlertProvider {
    /// Everything that Flagger's CRD would refuse, at once.
    pub fn validate(&self) -> Vec<Finding> {
        let mut findings = Findings::default();
        self.metadata.check(&mut findings);
        if self.spec.provider_type.is_none() {
            findings.error("spec.type", "is missing");
        }
        match (&self.spec.address, &self.spec.secret_ref) {
            (Some(_), Some(_)) => {
                findings
                    .error("spec.secretRef", "cannot stand beside address")
                    .help("keep the one that holds the address");
            }
            (None, None) => {
                findings
                    .error("spec.address", "is missing")
                    .help("give the address, or a secretRef to a Secret that holds it");
            }
            (Some(_), None) => {}
            (None, Some(secret)) => {
                findings.required("spec.secretRef.name", secret.name.as_deref());
            }
        }
        findings.into_vec()
    }
}
