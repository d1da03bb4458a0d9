//! Everything that one directory of files says: the objects, sorted by kind, and every problem with them.
//!
//! A set with an error is for showing, not for running: the caller keeps the last good one.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::alert_provider::AlertProvider;
use crate::backend::Backend;
use crate::canary::Canary;
use crate::decode::{decode, unknown_fields};
use crate::document::{Document, FILE_BYTES_MAX, Reading, read_documents, too_large};
use crate::kind::Kind;
use crate::listener::Listener;
use crate::metric_template::MetricTemplate;
use crate::object::{Metadata, Object, ObjectName};
use crate::problem::{Finding, Problem, Severity};
use crate::settings::Settings;

/// Files in one directory. A directory is read whole at every change in it, and a thousand small files take a moment.
pub const FILES_MAX: usize = 1_000;
/// Documents in one directory: fifty times what Flagger's own scheduler can serve (fluxcd/flagger#638 fails near 50
/// Canaries), and little enough to stay in memory with all places.
pub const DOCUMENTS_MAX: usize = 10_000;

/// An object and the document that it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Located<T> {
    /// The object.
    pub value: T,
    /// The document, which knows where each field stands.
    pub document: Document,
}

impl<T> Located<T> {
    /// An error about the field `path` of this object, with its line and column.
    pub fn problem_at(&self, path: &str, message: impl Into<String>, help: Option<String>) -> Problem {
        let message = message.into();
        self.document.problem(Finding { path: path.to_owned(), message, help, severity: Severity::Error })
    }
}

/// A file before it is parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The name that problems are shown with.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// What a directory of files says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Set {
    /// The Canaries without errors, in the order of the files.
    pub canaries: Vec<Located<Canary>>,
    /// The Backends without errors.
    pub backends: Vec<Located<Backend>>,
    /// The Listeners without errors.
    pub listeners: Vec<Located<Listener>>,
    /// The Settings, if there are any without errors.
    pub settings: Option<Located<Settings>>,
    /// The MetricTemplates without errors.
    pub metric_templates: Vec<Located<MetricTemplate>>,
    /// The AlertProviders without errors.
    pub alert_providers: Vec<Located<AlertProvider>>,
    /// Everything that is wrong, by file and line.
    pub problems: Vec<Problem>,
    /// Names of the Backends that are left out. What refers to one of them is not to blame.
    pub backends_refused: BTreeSet<ObjectName>,
    /// Whether something could not be read at all, so that nobody knows what it would have been.
    pub has_unreadable: bool,
    /// Changes when the files' names or bytes do, within one build of the program: it tells a watcher whether there is
    /// anything new, and is not for keeping.
    pub content_hash: u64,
}

impl Set {
    /// Whether anything is wrong that forbids running this set.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// Reads all `*.yaml` and `*.yml` files that lie directly in `dir`, by name. Hidden files and directories are left out; so
/// are the links beside a ConfigMap's files (`..data`), while the files themselves are followed.
///
/// # Errors
///
/// That of listing the directory, which the operator must look at. A file that cannot be read is a problem in the set.
pub fn read_dir(dir: &Path) -> io::Result<Set> {
    let mut problems = Vec::new();
    let names = yaml_names(dir)?;
    if names.len() > FILES_MAX {
        problems.push(Problem::of_file(
            dir.display().to_string(),
            format!("holds {} YAML files, {FILES_MAX} are read at most", names.len()),
        ));
    }
    let mut files = Vec::new();
    for name in names.into_iter().take(FILES_MAX) {
        match read_file(&dir.join(&name), &name) {
            Ok(bytes) => files.extend(bytes.map(|bytes| SourceFile { name, bytes })),
            Err(problem) => problems.push(problem),
        }
    }
    Ok(gather(&files, problems))
}

/// Reads files that are already in memory.
pub fn read_files(files: &[SourceFile]) -> Set {
    gather(files, Vec::new())
}

fn yaml_names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && (name.ends_with(".yaml") || name.ends_with(".yml")) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The file's bytes; `None` for what is not a file, such as a directory with such a name.
fn read_file(path: &Path, name: &str) -> Result<Option<Vec<u8>>, Problem> {
    let unreadable = |error: io::Error| Problem::of_file(name, format!("cannot be read: {error}"));
    // Asked before opening, for opening a pipe would wait for its other end.
    let about = fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() {
        return Ok(None);
    }
    if about.len() > FILE_BYTES_MAX as u64 {
        return Err(too_large(name, about.len()));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a file that grew meanwhile is noticed.
    let mut bounded = File::open(path).map_err(unreadable)?.take(FILE_BYTES_MAX as u64 + 1);
    bounded.read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(Some(bytes))
}

fn gather(files: &[SourceFile], problems: Vec<Problem>) -> Set {
    let set = Set { has_unreadable: !problems.is_empty(), problems, ..Set::default() };
    let mut gathering = Gathering { set, seen: HashMap::new(), documents: 0 };
    let mut hasher = DefaultHasher::new();
    // Files that could not be read count too: when one of them is repaired, or breaks in another way, that is news.
    gathering.set.problems.iter().for_each(|problem| problem.to_string().hash(&mut hasher));
    for SourceFile { name, bytes } in files {
        (name, bytes).hash(&mut hasher);
        match std::str::from_utf8(bytes) {
            Ok(text) => gathering.add_reading(read_documents(name, text)),
            Err(error) => {
                let message = format!("is not UTF-8 text: byte {} cannot be read", error.valid_up_to() + 1);
                gathering.set.problems.push(Problem::of_file(name, message));
                gathering.set.has_unreadable = true;
            }
        }
    }
    let mut set = gathering.set;
    check_addresses(&mut set);
    set.problems.sort_by(Problem::by_place);
    set.content_hash = hasher.finish();
    set
}

struct Gathering {
    set: Set,
    seen: HashMap<(Kind, ObjectName), String>,
    documents: usize,
}

impl Gathering {
    fn add_reading(&mut self, reading: Reading) {
        self.set.has_unreadable |= !reading.problems.is_empty();
        self.set.problems.extend(reading.problems);
        for document in reading.documents {
            self.documents += 1;
            if self.documents == DOCUMENTS_MAX + 1 {
                let message = format!("is left out from here on: {DOCUMENTS_MAX} documents are read at most");
                self.set.problems.push(document.error("", message));
            }
            if self.documents > DOCUMENTS_MAX {
                return;
            }
            self.add(document);
        }
    }

    fn add(&mut self, document: Document) {
        let backend = (document.kind() == Some(Kind::Backend.name())).then(|| written_name(&document));
        let backends = self.set.backends.len();
        self.add_object(document);
        if self.set.backends.len() == backends {
            self.set.backends_refused.extend(backend);
        }
    }

    fn add_object(&mut self, document: Document) {
        let kind = match Kind::of(&document) {
            Ok(kind) => kind,
            Err(problem) => return self.set.problems.push(problem),
        };
        match kind {
            Kind::Canary => {
                let canary = self.object(kind, document, Canary::validate);
                self.set.canaries.extend(canary);
            }
            Kind::MetricTemplate => {
                let template = self.object(kind, document, MetricTemplate::validate);
                self.set.metric_templates.extend(template);
            }
            Kind::AlertProvider => {
                let provider = self.object(kind, document, AlertProvider::validate);
                self.set.alert_providers.extend(provider);
            }
            Kind::Backend => {
                let backend = self.object(kind, document, Backend::validate);
                self.set.backends.extend(backend);
            }
            Kind::Listener => {
                let listener = self.object(kind, document, Listener::validate);
                self.set.listeners.extend(listener);
            }
            Kind::Settings => {
                let settings = self.object(kind, document, Settings::validate);
                self.set.settings = self.set.settings.take().or(settings);
            }
        }
    }

    /// Decodes and validates one object; `None` where something forbids its use, which is then among the problems.
    fn object<S>(
        &mut self,
        kind: Kind,
        document: Document,
        validate: fn(&Object<S>) -> Vec<Finding>,
    ) -> Option<Located<Object<S>>>
    where
        Object<S>: DeserializeOwned,
    {
        let decoded = match decode::<Object<S>>(&document) {
            Ok(decoded) => decoded,
            Err(problems) => {
                self.set.problems.extend(problems);
                return None;
            }
        };
        let value = decoded.value;
        self.set.problems.extend(unknown_fields::<Object<S>>(&document, &decoded.unknown));
        let findings = validate(&value);
        let sound = findings.iter().all(|finding| finding.severity == Severity::Warning);
        self.set.problems.extend(findings.into_iter().map(|finding| document.problem(finding)));
        let first_of_its_name = self.claim(kind, &document, value.object_name());
        (sound && first_of_its_name).then_some(Located { value, document })
    }

    /// Takes a name for a document; false where another has it. Of Settings there is one, whatever its name.
    fn claim(&mut self, kind: Kind, document: &Document, object_name: ObjectName) -> bool {
        let single = kind == Kind::Settings;
        if object_name.name.is_empty() && !single {
            // Reported already as a missing name.
            return false;
        }
        let key =
            if single { ObjectName { namespace: String::new(), name: String::new() } } else { object_name.clone() };
        let at = document.position("metadata.name");
        let place = format!("{}:{}:{}", document.file(), at.line, at.column);
        let Some(first) = self.seen.get(&(kind, key.clone())) else {
            self.seen.insert((kind, key), place);
            return true;
        };
        let name = kind.name();
        let message = if single {
            format!("there can be only one {name}, the first is at {first}")
        } else {
            format!("{name} {object_name} is already declared at {first}")
        };
        self.set.problems.push(document.error("metadata.name", message));
        false
    }
}

/// The name of an object that may have errors.
fn written_name(document: &Document) -> ObjectName {
    let metadata = &document.to_json()["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
    Object {
        metadata: Metadata { name: Some(text("name")), namespace: Some(text("namespace")), ..Metadata::default() },
        ..Object::<()>::default()
    }
    .object_name()
}

/// Two Listeners cannot take the same address.
fn check_addresses(set: &mut Set) {
    let mut taken: HashMap<&str, &str> = HashMap::new();
    let mut problems = Vec::new();
    for listener in &set.listeners {
        let address = listener.value.spec.address.as_deref().unwrap_or_default();
        // Port 0 is another port each time.
        if address.ends_with(":0") {
            continue;
        }
        match taken.get(address) {
            Some(first) => problems.push(listener.problem_at(
                "spec.address",
                format!("{address} is already taken by the Listener {first}"),
                None,
            )),
            None => {
                taken.insert(address, listener.value.name());
            }
        }
    }
    set.problems.extend(problems);
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
