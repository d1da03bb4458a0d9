//! Puts together the root of a container: the machine's own files, with volumes where the pod wants them.
//!
//! A volume's place usually does not exist on this machine (`/var/run/secrets/…`), and we do not want to leave empty folders on it.
//! So the root is a small file system in memory, in which the folders on the way to such a place are rebuilt, entry by entry, and
//! everything else is the machine's, bound as a whole:
//!
//! ```text
//! /            rebuilt   bin, etc, usr, … bound
//! /run         rebuilt   its entries bound
//! /run/secrets/kubernetes.io/serviceaccount    made; the volume is bound here
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File, FileType};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, chroot};

use super::Mount;

/// How many entries a folder may have that is rebuilt. Each takes a mount, and every pod start would wait for them.
const ENTRIES_MAX: usize = 2_000;

/// Builds the root in the empty folder `root` and moves this process into it.
pub(super) fn enter(root: &Path, mounts: &[Mount]) -> Result<()> {
    mount(Some("container"), root, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).context("mounting a root")?;
    // `root` itself lies in a folder that is bound below. Without this it would be found again inside itself.
    mount(None::<&str>, root, None::<&str>, MsFlags::MS_UNBINDABLE, None::<&str>).context("keeping the root apart")?;
    let mut placed = mounts.iter().map(|volume| Ok((place(&volume.target)?, volume))).collect::<Result<Vec<_>>>()?;
    // A volume inside another one comes after it.
    placed.sort_by_key(|(place, _)| place.components().count());
    rebuild(Path::new("/"), root, &to_rebuild(&placed))?;
    for (place, volume) in &placed {
        bind_volume(volume, &inside(root, place)).with_context(|| format!("mounting {}", place.display()))?;
    }
    for (place, _) in placed.iter().filter(|(_, volume)| volume.read_only) {
        make_read_only(&inside(root, place)).with_context(|| format!("making {} read-only", place.display()))?;
    }
    chroot(root).context("taking the root")?;
    chdir("/").context("going to the root")
}

/// A path without symbolic links in the part that exists; `/var/run/x` is `/run/x` on most machines.
fn place(target: &Path) -> Result<PathBuf> {
    ensure!(target.is_absolute(), "{} is not an absolute path", target.display());
    let clean = target.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    ensure!(clean, "{} has dots in it", target.display());
    let existing = target.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    let (existing, real) = existing.context("the root folder does not exist")?;
    Ok(real.join(target.strip_prefix(existing).expect("it is an ancestor")))
}

/// The folders in which something has to be made that is not there; the root is always among them.
fn to_rebuild(placed: &[(PathBuf, &Mount)]) -> BTreeSet<PathBuf> {
    let missing = placed.iter().filter(|(place, _)| !place.exists());
    let above = missing.flat_map(|(place, _)| place.ancestors().filter(|part| part.is_dir()));
    above.chain([Path::new("/")]).map(Path::to_owned).collect()
}

fn inside(root: &Path, place: &Path) -> PathBuf {
    root.join(place.strip_prefix("/").expect("it is absolute"))
}

fn rebuild(folder: &Path, root: &Path, rebuilt: &BTreeSet<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    for (count, entry) in entries.enumerate() {
        ensure!(count < ENTRIES_MAX, "{} has more than {ENTRIES_MAX} entries", folder.display());
        let entry = entry.with_context(|| format!("listing {}", folder.display()))?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let at = inside(root, &path);
        if rebuilt.contains(&path) {
            fs::create_dir(&at)?;
            fs::set_permissions(&at, entry.metadata()?.permissions())?;
            rebuild(&path, root, rebuilt)?;
        } else {
            repeat(&path, kind, &at).with_context(|| format!("showing {}", path.display()))?;
        }
    }
    Ok(())
}

/// Shows one entry of the machine in the new root.
fn repeat(path: &Path, kind: FileType, at: &Path) -> Result<()> {
    if kind.is_symlink() {
        return match fs::read_link(path) {
            Ok(target) => Ok(symlink(target, at)?),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        };
    }
    if kind.is_dir() {
        fs::create_dir(at)?;
    } else {
        File::create(at)?;
    }
    match bind(path, at) {
        // It was removed since the folder was listed: others work on this machine too.
        Err(Errno::ENOENT) => Ok(()),
        done => Ok(done?),
    }
}

fn bind(source: &Path, at: &Path) -> nix::Result<()> {
    mount(Some(source), at, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
}

fn bind_volume(volume: &Mount, at: &Path) -> Result<()> {
    if volume.source.is_dir() {
        fs::create_dir_all(at)?;
    } else if !at.exists() {
        fs::create_dir_all(at.parent().context("a file cannot be the root")?)?;
        File::create(at)?;
    }
    Ok(bind(&volume.source, at)?)
}

fn make_read_only(at: &Path) -> Result<()> {
    // In a user namespace a mount keeps the restrictions of what it shows; leaving one out is refused.
    let kept = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ];
    let has = statvfs(at)?.flags();
    let flags = kept
        .into_iter()
        .filter(|(had, _)| has.contains(*had))
        .fold(MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, |flags, (_, kept)| flags | kept);
    Ok(mount(None::<&str>, at, None::<&str>, flags, None::<&str>)?)
}
