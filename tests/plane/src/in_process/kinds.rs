//! Which kinds the server knows, and how the real one treats each: a table, to which a test may add its own.
//!
//! The rules are those of the strategies in `k8s.io/kubernetes/pkg/registry` and, for custom kinds, of
//! `apiextensions-apiserver/pkg/registry/customresource`, both of 1.37.

/// A kind of object the server can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The API group; empty for the core kinds.
    pub group: String,
    /// The version within the group.
    pub version: String,
    /// The plural in paths, such as `deployments`.
    pub plural: String,
    /// The kind in manifests, such as `Deployment`.
    pub kind: String,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Whether `status` has a subresource of its own, so that the main resource cannot write it.
    pub status: bool,
    pub(super) rules: Rules,
}

/// How the real server treats a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// What raises `metadata.generation`.
    pub(super) generation: Generation,
    /// `AllowUnconditionalUpdate`: a PUT without a resourceVersion replaces whatever is there.
    pub(super) put_unconditional: bool,
    /// `AllowCreateOnUpdate`: a PUT of what does not exist creates it.
    pub(super) put_creates: bool,
    /// `ReturnDeletedObject`: a DELETE answers the object rather than a `Status`.
    pub(super) delete_returns: bool,
    /// Defined by a CustomResourceDefinition: no strategic merge, lists are atomic, list items name their kind.
    pub(super) custom: bool,
}

/// What raises `metadata.generation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    /// The kind has none.
    None,
    /// A change of `spec`.
    Spec,
    /// A change of `spec` or of the annotations, because a Deployment copies them to its ReplicaSets.
    SpecOrAnnotations,
    /// A change of anything but metadata, or of the labels: EndpointSlices.
    BodyOrLabels,
    /// A change of anything but metadata and, where it has a subresource, `status`: custom kinds.
    Body,
}

impl Kind {
    /// A namespaced kind of a CustomResourceDefinition, with a status subresource.
    pub fn custom(group: &str, version: &str, plural: &str, kind: &str) -> Self {
        let rules = Rules {
            generation: Generation::Body,
            put_unconditional: false,
            put_creates: false,
            delete_returns: false,
            custom: true,
        };
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            kind: kind.to_owned(),
            namespaced: true,
            status: true,
            rules,
        }
    }

    /// The same kind, outside of any namespace.
    #[must_use]
    pub fn cluster_scoped(self) -> Self {
        Self { namespaced: false, ..self }
    }

    /// The same kind, with `status` as a field like any other.
    #[must_use]
    pub fn without_status(self) -> Self {
        Self { status: false, ..self }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `deployments.apps`, or `pods` for the core group: how messages of the server name a resource.
    pub(super) fn qualified(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// The path of the collection in a namespace, or of all namespaces.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        match namespace {
            Some(namespace) if self.namespaced => {
                format!("{root}/{}/namespaces/{namespace}/{}", self.api_version(), self.plural)
            }
            Some(_) | None => format!("{root}/{}/{}", self.api_version(), self.plural),
        }
    }

    /// Whether a test that says `deployments` or `deployments.apps` means this kind.
    pub(super) fn answers_to(&self, name: &str) -> bool {
        self.plural == name || self.qualified() == name
    }
}

fn built_in(group: &str, plural: &str, kind: &str, generation: Generation) -> Kind {
    let mut built_in = Kind::custom(group, "v1", plural, kind);
    built_in.rules.generation = generation;
    built_in.rules.put_unconditional = true;
    built_in.rules.custom = false;
    built_in
}

/// The kinds a new server knows.
pub(super) fn known() -> Vec<Kind> {
    use Generation::{BodyOrLabels, None, Spec, SpecOrAnnotations};
    let creates = |mut kind: Kind| {
        kind.rules.put_creates = true;
        kind
    };
    let returns = |mut kind: Kind| {
        kind.rules.delete_returns = true;
        kind
    };
    let mut lease = creates(built_in("coordination.k8s.io", "leases", "Lease", None).without_status());
    lease.rules.put_unconditional = false;
    let flagger = |plural, kind| Kind::custom("flagger.app", "v1beta1", plural, kind);
    vec![
        returns(built_in("", "pods", "Pod", Spec)),
        returns(creates(built_in("", "services", "Service", None))),
        creates(built_in("", "events", "Event", None).without_status()),
        built_in("", "secrets", "Secret", None).without_status(),
        built_in("", "configmaps", "ConfigMap", None).without_status(),
        returns(built_in("", "namespaces", "Namespace", None).cluster_scoped()),
        creates(built_in("", "endpoints", "Endpoints", None).without_status()),
        built_in("apps", "deployments", "Deployment", SpecOrAnnotations),
        built_in("apps", "replicasets", "ReplicaSet", Spec),
        built_in("apps", "daemonsets", "DaemonSet", Spec),
        built_in("discovery.k8s.io", "endpointslices", "EndpointSlice", BodyOrLabels).without_status(),
        creates(built_in("events.k8s.io", "events", "Event", None).without_status()),
        lease,
        flagger("canaries", "Canary"),
        flagger("metrictemplates", "MetricTemplate"),
        flagger("alertproviders", "AlertProvider"),
        Kind::custom("serin.dev", "v1alpha1", "canarystates", "CanaryState"),
    ]
}
