//! What a pod is given: variables, files, and an account.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use serin_plane::Namespace;

use crate::lifecycle::is_ready;
use crate::objects::{SOON, pod};
use crate::wrote;

/// Writes all that it was given, and then waits.
const TELLS: &str = "echo \"$GREETING $NAME $PASSWORD $APP_colour at $WHERE\"; cat /etc/shop/deep/greeting; echo; \
    cat /etc/shop-secret/password; echo; cat /etc/podinfo/labels; ls -l /etc/shop/deep/greeting; \
    cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo; \
    head -c 2 /var/run/secrets/kubernetes.io/serviceaccount/token; echo; hostname; echo end; exec sleep 600";

fn telling() -> Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "volumes": [
            { "name": "config", "configMap": { "name": "shop", "items": [{ "key": "greeting", "path": "deep/greeting" }] } },
            { "name": "secret", "secret": { "secretName": "shop" } },
            { "name": "info", "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
        ],
        "containers": [{
            "name": "app", "image": "sh", "args": [TELLS],
            "envFrom": [{ "prefix": "APP_", "configMapRef": { "name": "shop" } }],
            "env": [
                { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                { "name": "GREETING", "valueFrom": { "configMapKeyRef": { "name": "shop", "key": "greeting" } } },
                { "name": "PASSWORD", "valueFrom": { "secretKeyRef": { "name": "shop", "key": "password" } } },
                { "name": "NONE", "valueFrom": { "secretKeyRef": { "name": "none", "key": "none", "optional": true } } },
                { "name": "WHERE", "value": "[$(NAME)|$(NONE)|$$(NAME)]" },
            ],
            "volumeMounts": [
                { "name": "config", "mountPath": "/etc/shop", "readOnly": true },
                { "name": "secret", "mountPath": "/etc/shop-secret" },
                { "name": "info", "mountPath": "/etc/podinfo" },
            ],
        }],
    })
}

fn sources() -> Value {
    json!([
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "shop" }, "data": { "greeting": "hello", "colour": "red" } },
        { "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "shop" }, "stringData": { "password": "sesame" } },
    ])
}

pub(crate) async fn arrives(shop: Namespace) -> Result<()> {
    shop.apply(sources()).await?;
    shop.apply(pod("teller", telling())).await?;
    let told = wrote(&shop, "teller", "end\n").await?;
    let lines: Vec<_> = told.lines().collect();
    let variables = "hello teller sesame red at [teller|$(NONE)|$(NAME)]";
    let expected = [variables, "hello", "sesame", "app=\"teller\""];
    ensure!(lines[..4] == expected, "it was told:\n{told}");
    ensure!(lines[4].starts_with("-rw-r--r--"), "it was told:\n{told}");
    ensure!(lines[5..] == [shop.name(), "ey", "teller", "end"], "it was told:\n{told}");
    Ok(())
}

pub(crate) async fn waits(shop: Namespace) -> Result<()> {
    shop.apply(pod("teller", telling())).await?;
    shop.until_object("teller", SOON, |pod: &Pod| {
        serde_json::to_string(pod).is_ok_and(|text| text.contains("ConfigMap \\\"shop\\\" not found"))
    })
    .await?;
    shop.apply(sources()).await?;
    wrote(&shop, "teller", "end\n").await?;
    Ok(())
}

pub(crate) async fn account(shop: Namespace) -> Result<()> {
    let client = json!({ "terminationGracePeriodSeconds": 1, "serviceAccountName": "reader",
        "containers": [{ "name": "app", "image": "api-client" }] });
    shop.apply(json!([
        { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "reader" } },
        pod("client", client),
    ]))
    .await?;
    shop.until_object("client", SOON, is_ready).await?;
    // RBAC is real.
    wrote(&shop, "client", "403").await?;
    shop.apply(json!([
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "reader" },
          "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"] }] },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "reader" },
          "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
          "subjects": [{ "kind": "ServiceAccount", "name": "reader" }] },
    ]))
    .await?;
    wrote(&shop, "client", "answered").await?;
    Ok(())
}
