//! The environment and the command line of a container.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use kube::ResourceExt as _;

use super::expand::expand;
use super::fields::field;
use super::sources::{Kind, Problem, Sources};
use crate::control_plane::API_PORT;
use crate::launch::basic_environment;
use crate::network;

/// Names and values, in the order in which they were set.
pub(super) type Variables = Vec<(String, String)>;

/// All variables of a container. A later one may refer to an earlier one.
pub(super) async fn variables(
    container: &Container,
    pod: &Pod,
    address: Ipv4Addr,
    sources: &Sources,
) -> Result<Variables, Problem> {
    let mut variables = basic_environment();
    let own = [
        ("HOSTNAME", pod.name_any()),
        ("KUBERNETES_SERVICE_HOST", network::API.to_string()),
        ("KUBERNETES_SERVICE_PORT", API_PORT.to_string()),
    ];
    variables.extend(own.map(|(name, value)| (name.to_owned(), value)));
    for from in container.env_from.iter().flatten() {
        let (kind, name, optional) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(map), _) => (Kind::ConfigMap, &map.name, map.optional),
            (None, Some(secret)) => (Kind::Secret, &secret.name, secret.optional),
            (None, None) => return Err(Problem::unsupported("this envFrom")),
        };
        let prefix = from.prefix.as_deref().unwrap_or_default();
        for (key, value) in sources.content(kind, name, optional).await? {
            set(&mut variables, format!("{prefix}{key}"), text(value));
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(variable, &variables, pod, address, sources).await? {
            set(&mut variables, variable.name.clone(), value);
        }
    }
    Ok(variables)
}

fn set(variables: &mut Variables, name: String, value: String) {
    variables.retain(|(known, _)| *known != name);
    variables.push((name, value));
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a variable is set to; none if it comes from an optional source that is not there.
async fn value(
    variable: &EnvVar,
    before: &Variables,
    pod: &Pod,
    address: Ipv4Addr,
    sources: &Sources,
) -> Result<Option<String>, Problem> {
    let Some(from) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), before)));
    };
    if let Some(wanted) = &from.field_ref {
        let value = field(&wanted.field_path, pod, address);
        return value.map(Some).ok_or_else(|| Problem::unsupported(&format!("the field {}", wanted.field_path)));
    }
    let found = match (&from.config_map_key_ref, &from.secret_key_ref) {
        (Some(wanted), _) => sources.key(Kind::ConfigMap, &wanted.name, &wanted.key, wanted.optional).await?,
        (None, Some(wanted)) => sources.key(Kind::Secret, &wanted.name, &wanted.key, wanted.optional).await?,
        (None, None) => return Err(Problem::unsupported(&format!("the source of the variable {}", variable.name))),
    };
    Ok(found.map(text))
}

/// The command line, given what the image runs by itself. As in Kubernetes, `command` takes the image's place and `args` follow.
pub(super) fn command_line(container: &Container, image: &[String], variables: &Variables) -> Vec<String> {
    let own = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| expand(word, variables)).collect()
    };
    let command = own(&container.command);
    let command = if command.is_empty() { image.to_vec() } else { command };
    command.into_iter().chain(own(&container.args)).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Container;

    use super::command_line;

    #[track_caller]
    fn check(command: &[&str], args: &[&str], expected: &[&str]) {
        let own = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
        let container = Container { command: own(command), args: own(args), ..Container::default() };
        let image = ["backend".to_owned(), "--quiet".to_owned()];
        let variables = vec![("IP".to_owned(), "10.244.0.1".to_owned())];
        assert_eq!(command_line(&container, &image, &variables), expected);
    }

    #[test]
    fn a_command_takes_the_place_of_the_image_and_arguments_follow() {
        check(&[], &[], &["backend", "--quiet"]);
        check(&[], &["--listen=$(IP):80"], &["backend", "--quiet", "--listen=10.244.0.1:80"]);
        check(&["sh", "-c"], &["echo $(IP)"], &["sh", "-c", "echo 10.244.0.1"]);
    }
}
