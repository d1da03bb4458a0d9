//! `serin crd`: the CustomResourceDefinitions as YAML, one document each. The chart has the same ones as files.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serin_config::crds;

use crate::arguments::CrdArguments;
use crate::paint::say;

/// API group of Flagger's kinds.
const FLAGGER: &str = "flagger.app";
/// API group of Serin's kinds.
const SERIN: &str = "serin.dev";

pub(crate) fn crd(arguments: &CrdArguments) -> Result<ExitCode> {
    let groups: &[&str] = if arguments.own { &[SERIN] } else { &[FLAGGER, SERIN] };
    say(yaml(groups)?.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// The definitions of these groups, the same text each time.
fn yaml(groups: &[&str]) -> Result<String> {
    let wanted: Vec<_> = crds().into_iter().filter(|crd| groups.contains(&crd.spec.group.as_str())).collect();
    serde_saphyr::to_string_multiple(&wanted).context("the definitions cannot be written as YAML")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares a file of the chart with what the types make now; with SERIN_BLESS set, writes it.
    #[track_caller]
    fn check(group: &str) {
        let path = format!("{}/../charts/serin/crds/{group}.yaml", env!("CARGO_MANIFEST_DIR"));
        let text = format!(
            "# From the types in config/src, by `SERIN_BLESS=1 cargo test -p serin crd`. Edits are lost.\n{}",
            yaml(&[group]).expect("definitions can be written")
        );
        if std::env::var_os("SERIN_BLESS").is_some() {
            std::fs::write(&path, text).expect("the chart can be written");
            return;
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        let first = found.lines().zip(text.lines()).position(|(found, text)| found != text);
        assert!(
            found == text,
            "{path} is not what the types in config/src make, from line {} on; \
             `SERIN_BLESS=1 cargo test -p serin crd` writes it anew",
            first.unwrap_or_else(|| found.lines().count().min(text.lines().count())) + 1
        );
    }

    #[test]
    fn the_chart_has_flaggers_definitions_as_the_types_make_them() {
        check(FLAGGER);
    }

    #[test]
    fn the_chart_has_serins_definitions_as_the_types_make_them() {
        check(SERIN);
    }

    #[test]
    fn every_definition_is_in_one_of_the_files() {
        let whole = yaml(&[FLAGGER, SERIN]).expect("definitions can be written");
        assert_eq!(whole.matches("kind: CustomResourceDefinition\n").count(), crds().len());
    }
}
