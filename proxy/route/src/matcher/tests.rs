//! Conditions, one by one.

use super::*;
use crate::sample::{Request, request, to};

#[track_caller]
fn check(condition: &Match, request: &Request, expected: bool) {
    assert_eq!(condition.matches(request), expected, "{condition:?} {request:?}");
}

fn exact(value: &str) -> StringMatch {
    StringMatch::Exact(value.into())
}

#[test]
fn a_path_is_compared_without_its_query() {
    let path = |path| Match { path: Some(path), ..Match::default() };
    let regex = |pattern| PathMatch::regex(pattern).expect("it compiles");
    for (condition, target, expected) in [
        (PathMatch::exact("/a"), "/a?b", true),
        (PathMatch::exact("/a"), "/a/", false),
        (PathMatch::exact("/a"), "/A", false),
        (PathMatch::exact("/a").ignoring_case(), "/A", true),
        (PathMatch::prefix("/a"), "/ab", true),
        (PathMatch::prefix("/a/"), "/a", false),
        (PathMatch::prefix("/a").ignoring_case(), "/AB", true),
        (PathMatch::elements("/a"), "/ab", false),
        (PathMatch::elements("/a"), "/a", true),
        (PathMatch::elements("/a/"), "/a", true),
        (PathMatch::elements("/a/"), "/a/b", true),
        (PathMatch::elements("/"), "/anything", true),
        (regex("/a/[0-9]+"), "/a/12?x", true),
        (regex("/a/[0-9]+"), "/a/12/x", false),
        (regex("/a").ignoring_case(), "/A", false),
    ] {
        check(&path(condition), &to(target), expected);
    }
}

#[test]
fn every_condition_of_an_entry_has_to_hold() {
    let entry = Match {
        method: Some(exact("POST")),
        scheme: Some(exact("https")),
        authority: Some(StringMatch::Suffix(".example.com".into())),
        headers: vec![HeaderMatch::new("X-A", StringMatch::Present)],
        without_headers: vec![HeaderMatch::new("x-b", exact("1"))],
        parameters: vec![ParameterMatch { name: "c".into(), value: StringMatch::Prefix("2".into()) }],
        ..Match::default()
    };
    let full = Request { method: "POST", scheme: "https", target: "/?c=23", ..request(&[("x-a", ""), ("x-b", "2")]) };
    check(&entry, &full, true);
    let headers = |headers| request(headers).headers;
    for missing in [
        Request { method: "GET", ..full.clone() },
        Request { scheme: "http", ..full.clone() },
        Request { authority: Some("example.org".to_owned()), ..full.clone() },
        Request { authority: None, ..full.clone() },
        Request { headers: headers(&[]), ..full.clone() },
        Request { headers: headers(&[("x-a", "1"), ("x-b", "1")]), ..full.clone() },
        Request { target: "/", ..full.clone() },
        Request { target: "/?c=12", ..full },
    ] {
        check(&entry, &missing, false);
    }
}

#[test]
fn checklist_113_a_parameter_is_compared_decoded_and_the_first_counts() {
    let entry =
        |name: &str, value| Match { parameters: vec![ParameterMatch { name: name.into(), value }], ..Match::default() };
    for (target, expected) in [
        ("/?user=a%20b", true),
        ("/?x=1&user=a+b", true),
        ("/?us%65r=a+b&user=c", true),
        ("/?user=c&user=a+b", false),
        ("/?user", false),
        ("/", false),
        ("/user=a+b", false),
    ] {
        check(&entry("user", exact("a b")), &to(target), expected);
    }
    check(&entry("user", StringMatch::regex("[a-c]").expect("it compiles")), &to("/?user=b"), true);
    check(&entry("user", StringMatch::regex("[a-c]").expect("it compiles")), &to("/?user=bb"), false);
}

#[test]
fn a_cookie_is_found_wherever_it_stands() {
    let request = request(&[("cookie", "a=1; canary=x=y ;b=2"), ("cookie", "canary=later"), ("Cookie", "c=3")]);
    for (name, expected) in [
        ("a", Some("1")),
        ("canary", Some("x=y")),
        ("b", Some("2")),
        ("c", Some("3")),
        ("can", None),
        ("x", None),
        ("A", None),
    ] {
        assert_eq!(request.cookie(name), expected.map(str::as_bytes), "{name}");
    }
}
