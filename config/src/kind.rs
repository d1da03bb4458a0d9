//! Which documents are ours: the kinds Serin knows, and the apiVersion each must have.

use crate::decode;
use crate::document::Document;
use crate::problem::{Problem, quoted};

/// API group and version of Flagger's kinds.
pub const FLAGGER_API: &str = "flagger.app/v1beta1";
/// API group and version of Serin's kinds.
pub const SERIN_API: &str = "serin.dev/v1alpha1";

/// The kinds that Serin reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`crate::Canary`].
    Canary,
    /// [`crate::MetricTemplate`].
    MetricTemplate,
    /// [`crate::AlertProvider`].
    AlertProvider,
    /// [`crate::Backend`].
    Backend,
    /// [`crate::Listener`].
    Listener,
    /// [`crate::Settings`].
    Settings,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Canary, Self::MetricTemplate, Self::AlertProvider, Self::Backend, Self::Listener, Self::Settings];

    /// The kind's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Canary => "Canary",
            Self::MetricTemplate => "MetricTemplate",
            Self::AlertProvider => "AlertProvider",
            Self::Backend => "Backend",
            Self::Listener => "Listener",
            Self::Settings => "Settings",
        }
    }

    /// The apiVersion that the kind is read in.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Canary | Self::MetricTemplate | Self::AlertProvider => FLAGGER_API,
            Self::Backend | Self::Listener | Self::Settings => SERIN_API,
        }
    }

    /// The kind of a document.
    ///
    /// # Errors
    ///
    /// A warning about a document of somebody else's, which is left alone; an error about one that was meant to be ours.
    pub fn of(document: &Document) -> Result<Self, Problem> {
        let Some(name) = document.kind() else {
            return Err(document.error("kind", "is missing").with_help("such as Canary or Backend"));
        };
        let api_version = document.api_version();
        let Some(kind) = Self::ALL.into_iter().find(|kind| kind.name() == name) else {
            return Err(unknown_kind(document, name, api_version));
        };
        match api_version {
            None => Err(document.error("apiVersion", "is missing").with_help(format!("write {}", kind.api_version()))),
            Some(given) if given == kind.api_version() => Ok(kind),
            Some(given) if is_near(given) => Err(document
                .error("apiVersion", format!("{} is not what a {name} is read in", quoted(given)))
                .with_help(format!("write {}", kind.api_version()))),
            // Other people have kinds called Backend, too (Envoy Gateway has).
            Some(given) => Err(foreign(document, name, Some(given))
                .with_help(format!("Serin's own {name} has apiVersion {}", kind.api_version()))),
        }
    }
}

fn unknown_kind(document: &Document, name: &str, api_version: Option<&str>) -> Problem {
    let ours = api_version.is_some_and(|given| [FLAGGER_API, SERIN_API].contains(&given));
    if !ours {
        return foreign(document, name, api_version);
    }
    let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    document.error("kind", format!("{} is none of the kinds that there are", quoted(name))).with_help(known.join(", "))
}

fn foreign(document: &Document, name: &str, api_version: Option<&str>) -> Problem {
    document.warning(
        "",
        format!("{name} of {} is not a kind that Serin reads, ignored", api_version.unwrap_or("no apiVersion")),
    )
}

/// Whether an apiVersion is one of our groups in another version, a misspelling of one, or has no group at all.
fn is_near(given: &str) -> bool {
    /// Edits that turn a misspelt group into the right one; `flagger.io` is three away.
    const EDITS_MAX: usize = 3;
    let group = |api: &str| api.split_once('/').map(|(group, _)| group.to_owned());
    let Some(given) = group(given) else { return true };
    [FLAGGER_API, SERIN_API].into_iter().filter_map(group).any(|ours| decode::distance(&given, &ours) <= EDITS_MAX)
}
