//! The volumes of a pod, written as files. They are written once: a ConfigMap that changes later does not change them.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection};

use super::expand::expand;
use super::fields::field;
use super::sources::{Content, Kind, Problem, Sources};
use crate::launch::Mount;

/// Where each volume lies on this machine.
pub(super) type Volumes = BTreeMap<String, PathBuf>;

/// What Kubernetes gives a file if nobody says otherwise.
const MODE: i32 = 0o644;

/// Whose volumes these are.
pub(super) struct Writer<'a> {
    pub(super) pod: &'a Pod,
    pub(super) address: Ipv4Addr,
    pub(super) sources: &'a Sources,
}

impl Writer<'_> {
    /// Writes all volumes, each to a folder in `folder`.
    pub(super) async fn write_all(&self, folder: &Path) -> Result<Volumes, Problem> {
        let mut volumes = Volumes::new();
        for volume in self.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let at = folder.join(&volume.name);
            let written = self.write(volume, &at).await;
            let at = written.map_err(|problem| Problem {
                message: format!("volume {}: {}", volume.name, problem.message),
                ..problem
            })?;
            volumes.insert(volume.name.clone(), at);
        }
        Ok(volumes)
    }

    async fn write(&self, volume: &Volume, at: &Path) -> Result<PathBuf, Problem> {
        if let Some(host) = &volume.host_path {
            return Ok(PathBuf::from(&host.path));
        }
        fs::create_dir_all(at).map_err(|error| Problem::config(format!("making a folder: {error}")))?;
        if let Some(map) = &volume.config_map {
            let content = self.sources.content(Kind::ConfigMap, &map.name, map.optional).await?;
            put(at, content, map.items.as_deref(), map.default_mode, map.optional)?;
        } else if let Some(secret) = &volume.secret {
            let name = secret.secret_name.as_deref().unwrap_or_default();
            let content = self.sources.content(Kind::Secret, name, secret.optional).await?;
            put(at, content, secret.items.as_deref(), secret.default_mode, secret.optional)?;
        } else if let Some(downward) = &volume.downward_api {
            self.put_fields(at, downward.items.as_deref(), downward.default_mode)?;
        } else if let Some(projected) = &volume.projected {
            for source in projected.sources.iter().flatten() {
                self.project(at, source, projected.default_mode).await?;
            }
        } else if volume.empty_dir.is_some() {
            // Containers need not run as the same user.
            let open = fs::set_permissions(at, Permissions::from_mode(0o777));
            open.map_err(|error| Problem::config(format!("opening a folder: {error}")))?;
        } else {
            return Err(Problem::unsupported("this kind of volume"));
        }
        Ok(at.to_owned())
    }

    async fn project(&self, at: &Path, source: &VolumeProjection, mode: Option<i32>) -> Result<(), Problem> {
        if let Some(token) = &source.service_account_token {
            let text = self.sources.token(self.pod, token).await?;
            put_file(at, &token.path, text.as_bytes(), mode)
        } else if let Some(map) = &source.config_map {
            let content = self.sources.content(Kind::ConfigMap, &map.name, map.optional).await?;
            put(at, content, map.items.as_deref(), mode, map.optional)
        } else if let Some(secret) = &source.secret {
            let content = self.sources.content(Kind::Secret, &secret.name, secret.optional).await?;
            put(at, content, secret.items.as_deref(), mode, secret.optional)
        } else if let Some(downward) = &source.downward_api {
            self.put_fields(at, downward.items.as_deref(), mode)
        } else {
            Err(Problem::unsupported("this kind of projection"))
        }
    }

    fn put_fields(&self, at: &Path, files: Option<&[DownwardAPIVolumeFile]>, mode: Option<i32>) -> Result<(), Problem> {
        for file in files.unwrap_or_default() {
            let wanted = file.field_ref.as_ref().ok_or_else(|| Problem::unsupported("resourceFieldRef"))?;
            let text = field(&wanted.field_path, self.pod, self.address);
            let text = text.ok_or_else(|| Problem::unsupported(&format!("the field {}", wanted.field_path)))?;
            put_file(at, &file.path, text.as_bytes(), file.mode.or(mode))?;
        }
        Ok(())
    }
}

/// Writes the keys that are asked for, under the paths that are asked for; all of them if nothing is.
fn put(
    at: &Path,
    mut content: Content,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: Option<bool>,
) -> Result<(), Problem> {
    let Some(items) = items else {
        return content.iter().try_for_each(|(key, value)| put_file(at, key, value, mode));
    };
    for item in items {
        match content.remove(&item.key) {
            Some(value) => put_file(at, &item.path, &value, item.mode.or(mode))?,
            None if optional == Some(true) => {}
            None => return Err(Problem::config(format!("references non-existent key: {}", item.key))),
        }
    }
    Ok(())
}

fn put_file(at: &Path, path: &str, content: &[u8], mode: Option<i32>) -> Result<(), Problem> {
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        return Err(Problem::config(format!("{path} is not a path inside a volume")));
    }
    let file = at.join(path);
    let mode = u32::try_from(mode.unwrap_or(MODE)).unwrap_or(0o644);
    let written = fs::create_dir_all(file.parent().unwrap_or(at))
        .and_then(|()| fs::write(&file, content))
        .and_then(|()| fs::set_permissions(&file, Permissions::from_mode(mode)));
    written.map_err(|error| Problem::config(format!("writing {}: {error}", file.display())))
}

/// Where a container wants which volume.
pub(super) fn mounts(
    container: &Container,
    volumes: &Volumes,
    variables: &[(String, String)],
) -> Result<Vec<Mount>, Problem> {
    let mounts = container.volume_mounts.iter().flatten().map(|wanted| {
        let volume = volumes.get(&wanted.name);
        let volume = volume.ok_or_else(|| Problem::config(format!("there is no volume {:?}", wanted.name)))?;
        let inside = match (&wanted.sub_path, &wanted.sub_path_expr) {
            (Some(path), _) => path.clone(),
            (None, Some(path)) => expand(path, variables),
            (None, None) => String::new(),
        };
        let source = if inside.is_empty() { volume.clone() } else { volume.join(inside) };
        if !source.exists() {
            // As kubelet does for a subPath that is not there.
            fs::create_dir_all(&source).map_err(|error| Problem::config(format!("{}: {error}", source.display())))?;
        }
        Ok(Mount { source, target: wanted.mount_path.clone().into(), read_only: wanted.read_only == Some(true) })
    });
    mounts.collect()
}
