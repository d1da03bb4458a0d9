//! The CustomResourceDefinitions of the kinds that Serin keeps in a cluster, made from the types that read them.
//!
//! Flagger's three are a superset of Flagger's own: what its definitions accept, these accept, so either can be installed
//! under either program. They add the kind `Backend` of a target, `spec.analysis.guard`, any name of a provider, and any JSON
//! in a webhook's `metadata`; with Flagger's definitions installed these are simply not there.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec, CustomResourceDefinitionVersion, CustomResourceSubresourceStatus,
    CustomResourceSubresources, CustomResourceValidation, JSONSchemaProps,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::CustomResourceExt;
use serde_json::json;

use crate::alert_provider::AlertProviderSpec;
use crate::canary::{CanarySpec, CanaryStatus};
use crate::canary_state::{CanaryState, CanaryStateSpec};
use crate::kind::Kind;
use crate::metric_template::MetricTemplateSpec;
use crate::schema;

/// All definitions: Flagger's Canary, MetricTemplate and AlertProvider, and Serin's CanaryState.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![canary(), metric_template(), alert_provider(), canary_state()]
}

fn canary() -> CustomResourceDefinition {
    let columns = vec![
        column("Status", "string", ".status.phase"),
        column("Weight", "string", ".status.canaryWeight"),
        wide("Suspended", "boolean", ".spec.suspend"),
        wide("FailedChecks", "string", ".status.failedChecks"),
        wide("Interval", "string", ".spec.analysis.interval"),
        wide("Mirror", "boolean", ".spec.analysis.mirror"),
        wide("StepWeight", "string", ".spec.analysis.stepWeight"),
        wide("StepWeights", "string", ".spec.analysis.stepWeights"),
        wide("MaxWeight", "string", ".spec.analysis.maxWeight"),
        column("LastTransitionTime", "string", ".status.lastTransitionTime"),
    ];
    let about = "A rollout's plan: what is rolled out, how traffic moves, and what must hold meanwhile.";
    let mut schema = object(about, "What is wanted.", schema::of::<CanarySpec>());
    let mut status = schema::of::<CanaryStatus>();
    status.description = Some("How the rollout stands. Serin writes it and does not read it.".to_owned());
    schema.properties.get_or_insert_default().insert("status".to_owned(), status);
    definition(Kind::Canary, "canaries", columns, schema)
}

fn metric_template() -> CustomResourceDefinition {
    let columns = vec![column("Provider", "string", ".spec.provider.type")];
    let about = "A query that Canaries refer to by name.";
    let schema = object(about, "What is asked, and of whom.", schema::of::<MetricTemplateSpec>());
    definition(Kind::MetricTemplate, "metrictemplates", columns, schema)
}

fn alert_provider() -> CustomResourceDefinition {
    let columns = vec![column("Type", "string", ".spec.type")];
    let about = "A place that alerts go to; Canaries refer to it by name.";
    let schema = object(about, "What kind of place it is, and where.", schema::of::<AlertProviderSpec>());
    definition(Kind::AlertProvider, "alertproviders", columns, schema)
}

/// As its type derives it, but with the schema made as the others are. It has no category: `kubectl get all` is for what
/// people wrote.
fn canary_state() -> CustomResourceDefinition {
    let mut crd = CanaryState::crd();
    crd.spec.names.list_kind = Some(format!("{}List", crd.spec.names.kind));
    let about =
        "What Serin knows of one rollout. It is Serin's own: an edit by hand can send users to the wrong version.";
    let mut schema = object(about, "What is known, and who wrote it.", schema::of::<CanaryStateSpec>());
    schema.required = Some(vec!["spec".to_owned()]);
    let columns = vec![
        column("Phase", "string", ".spec.state.phase"),
        column("Weight", "integer", ".spec.state.weight"),
        column("Run", "integer", ".spec.state.rollout"),
        column("Epoch", "integer", ".spec.state.epoch.id"),
        column("Age", "date", ".metadata.creationTimestamp"),
    ];
    for version in &mut crd.spec.versions {
        version.schema = Some(CustomResourceValidation { open_api_v3_schema: Some(schema.clone()) });
        version.additional_printer_columns = Some(columns.clone());
    }
    crd
}

/// A definition as Flagger's are: namespaced, with a status of its own, in the category `all`, kept when Helm removes what
/// it installed.
fn definition(
    kind: Kind,
    plural: &str,
    columns: Vec<CustomResourceColumnDefinition>,
    schema: JSONSchemaProps,
) -> CustomResourceDefinition {
    let (group, version) = kind.api_version().split_once('/').expect("the kinds of Serin have a group");
    CustomResourceDefinition {
        metadata: ObjectMeta {
            name: Some(format!("{plural}.{group}")),
            annotations: Some(BTreeMap::from([("helm.sh/resource-policy".to_owned(), "keep".to_owned())])),
            ..ObjectMeta::default()
        },
        spec: CustomResourceDefinitionSpec {
            group: group.to_owned(),
            names: CustomResourceDefinitionNames {
                categories: Some(vec!["all".to_owned()]),
                kind: kind.name().to_owned(),
                list_kind: Some(format!("{}List", kind.name())),
                plural: plural.to_owned(),
                singular: Some(kind.name().to_lowercase()),
                ..CustomResourceDefinitionNames::default()
            },
            scope: "Namespaced".to_owned(),
            versions: vec![CustomResourceDefinitionVersion {
                name: version.to_owned(),
                served: true,
                storage: true,
                additional_printer_columns: Some(columns),
                schema: Some(CustomResourceValidation { open_api_v3_schema: Some(schema) }),
                subresources: Some(CustomResourceSubresources {
                    status: Some(CustomResourceSubresourceStatus(json!({}))),
                    ..CustomResourceSubresources::default()
                }),
                ..CustomResourceDefinitionVersion::default()
            }],
            ..CustomResourceDefinitionSpec::default()
        },
        ..CustomResourceDefinition::default()
    }
}

/// An object with a `spec`. It need not be there, as in Flagger: where it is not, Serin says what is missing.
fn object(about: &str, about_spec: &str, mut spec: JSONSchemaProps) -> JSONSchemaProps {
    spec.description = Some(about_spec.to_owned());
    let bare = |kind: &str| JSONSchemaProps { type_: Some(kind.to_owned()), ..JSONSchemaProps::default() };
    let part = |kind: &str, about: &str| JSONSchemaProps { description: Some(about.to_owned()), ..bare(kind) };
    JSONSchemaProps {
        properties: Some(BTreeMap::from([
            ("apiVersion".to_owned(), part("string", "The API group and version.")),
            ("kind".to_owned(), part("string", "The kind.")),
            // Bare, because the server refuses a definition that says more of it, be it a description.
            ("metadata".to_owned(), bare("object")),
            ("spec".to_owned(), spec),
        ])),
        ..part("object", about)
    }
}

/// A column that `kubectl get` always shows.
fn column(name: &str, kind: &str, path: &str) -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition {
        name: name.to_owned(),
        type_: kind.to_owned(),
        json_path: path.to_owned(),
        ..CustomResourceColumnDefinition::default()
    }
}

/// A column for `kubectl get -o wide`.
fn wide(name: &str, kind: &str, path: &str) -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition { priority: Some(1), ..column(name, kind, path) }
}

#[cfg(test)]
#[path = "crd_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "flagger_crd_tests.rs"]
mod flagger_tests;
