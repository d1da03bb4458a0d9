//! The README's own example, taken from its text and run: it has to carry traffic as it stands.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serin_tests::backend::{Backend, Behaviour};
use serin_tests::files::ConfigDir;
use serin_tests::load::Load;
use serin_tests::process::Launch;

/// The heading above the example.
const HEADING: &str = "Put it in front of your own service";

/// The ports that the example gives to its versions.
const PORTS: [&str; 2] = [":9001", ":9002"];

/// The first block of YAML under a heading and above the next section.
fn yaml_under<'a>(heading: &str, text: &'a str) -> Option<&'a str> {
    let begin = text.lines().find(|line| line.starts_with('#') && line.trim_start_matches('#').trim() == heading)?;
    let below = &text[text.find(begin)? + begin.len()..];
    let block = below.split_once("\n```yaml\n")?;
    let is_under_another = block.0.lines().any(|line| line.starts_with("## "));
    let (yaml, _) = block.1.split_once("\n```")?;
    (!is_under_another).then_some(yaml)
}

/// The host that the example answers for, if it names one.
fn host(yaml: &str) -> Option<&str> {
    let (_, hosts) = yaml.split_once("hosts:")?;
    hosts.split(['[', ']', '-', '\n', ' ', '"', ',']).find(|word| !word.is_empty())
}

#[test]
fn the_readme_tells_what_was_measured() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_else(|why| panic!("{name}: {why}"));
    let (readme, results) = (read("README.md"), read("benches/results/results.md"));
    let (_, section) = readme.split_once("## What a request costs\n").expect("README.md has the section");
    let (section, _) = section.split_once("\n## ").expect("another section follows");
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 5, "a table of figures");
    for row in rows {
        assert!(results.lines().any(|line| line == row), "not in the results: {row}");
    }
}

#[tokio::test]
async fn the_example_of_the_readme_carries_traffic() -> Result<()> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(&readme).context("reading README.md at the top of the repository")?;
    let example = yaml_under(HEADING, &text);
    let mut yaml = example.with_context(|| format!("README.md has no ```yaml block under {HEADING:?}"))?.to_owned();
    let mut backends = Vec::new();
    for written in PORTS {
        let backend = Backend::start(written, Behaviour::Ok).await?;
        yaml = yaml.replace(written, &format!(":{}", backend.address().port()));
        backends.push(backend);
    }
    let home = tempfile::tempdir()?;
    let config = ConfigDir::new(home.path().join("config"))?;
    config.write("serin.yaml", &yaml)?;
    let serin = Launch::configured(config.path(), &home.path().join("state")).start().await?;

    let mut load = Load::closed(serin.listen(), 4, Duration::from_secs(30));
    load.requests_max = 100;
    let none = SocketAddr::to_string(&serin.listen());
    load.host = host(&yaml).unwrap_or(&none).to_owned();
    let seen = load.run().await;
    assert_eq!((seen.requests, seen.failed), (100, 0), "{seen:?}");
    let reached: u64 = backends.iter().map(Backend::requests).sum();
    assert_eq!(reached, 100, "the example's ports are {PORTS:?}");
    Ok(())
}

#[test]
fn the_block_is_found_by_its_heading() {
    let text = "# Serin\n```yaml\na: 1\n```\n## Put it there\nText.\n```yaml\nb: 2\nc: 3\n```\n```yaml\nd: 4\n```\n## Next\n```yaml\ne: 5\n```\n";
    assert_eq!(yaml_under("Put it there", text), Some("b: 2\nc: 3"));
    assert_eq!(yaml_under("Next", text), Some("e: 5"));
    assert_eq!(yaml_under("Serin", text), Some("a: 1"));
    assert_eq!(yaml_under("Put it", text), None);
    assert_eq!(host("  service:\n    hosts: [app.example.com]\n"), Some("app.example.com"));
    assert_eq!(host("  service:\n    hosts:\n      - app.example.com\n"), Some("app.example.com"));
    assert_eq!(host("  service: { port: 80 }\n"), None);
}
