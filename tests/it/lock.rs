//! What is linked: read from Cargo.lock, so that it holds on every platform and takes a millisecond.

use std::collections::BTreeMap;

/// Every package in the lock file with its versions.
fn locked() -> BTreeMap<String, Vec<String>> {
    let text = include_str!("../../Cargo.lock");
    let mut packages: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in text.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let quoted = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
            quoted.expect("every package has a name and a version").trim_matches('"').to_owned()
        };
        packages.entry(field("name")).or_default().push(field("version"));
    }
    packages
}

#[track_caller]
fn check(name: &str, versions: usize, why: &str) {
    let found = locked().remove(name).unwrap_or_default();
    assert_eq!(found.len(), versions, "{name} {found:?}: {why}");
}

#[test]
fn nothing_needs_a_second_tls_library_or_a_code_generator() {
    check("aws-lc-sys", 0, "rustls is to use ring; another provider means a second set of C code");
    check("openssl-sys", 0, "TLS is rustls; OpenSSL would have to be found on each machine");
    check("native-tls", 0, "TLS is rustls");
    check("bindgen", 0, "it needs libclang on the machine that builds");
}

#[test]
fn what_must_be_shared_is_there_once() {
    check("rustls", 1, "two versions do not take each other's configuration or crypto provider");
    check("ring", 1, "its C symbols and its tables are large");
    check("hyper", 1, "two versions do not take each other's bodies and connections");
    check("h2", 1, "a limit set on one would not hold for the other");
    check("parking_lot", 1, "its parked threads are kept in one table for each version");
}
