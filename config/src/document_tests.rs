//! What the reader makes of files that people write, and of text that nobody would.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[track_caller]
fn check(text: &str, documents: &[Value]) {
    let reading = read_documents("a.yaml", text);
    assert_eq!(reading.problems, [], "of {text:?}");
    let read: Vec<Value> = reading.documents.iter().map(Document::to_json).collect();
    assert_eq!(read, documents, "of {text:?}");
}

#[track_caller]
fn check_refused(text: &str, problem: &str) {
    let reading = read_documents("a.yaml", text);
    let rendered: Vec<String> = reading.problems.iter().map(Problem::to_string).collect();
    assert_eq!(rendered.join("\n"), problem);
}

#[test]
fn documents_are_separated_by_dashes_and_empty_ones_are_skipped() {
    check("", &[]);
    check("# nothing\n", &[]);
    check("---\n---\n", &[]);
    check("a: 1\n---\nb: 2\n", &[json!({"a": 1}), json!({"b": 2})]);
    check(
        "---\n# first\na: 1\n--- # second\nb: 2\n---\n\n---\nc: 3",
        &[json!({"a": 1}), json!({"b": 2}), json!({"c": 3})],
    );
    check("# head\n%YAML 1.2\n---\na: 1\n", &[json!({"a": 1})]);
    check("a: 1\n...\nb: 2\n", &[json!({"a": 1}), json!({"b": 2})]);
    check("\u{feff}a: 1\r\n---\r\nb: 2\r\n", &[json!({"a": 1}), json!({"b": 2})]);
    check("a: |\n  ---\n  x\n---\nb: ----\n", &[json!({"a": "---\nx\n"}), json!({"b": "----"})]);
}

#[test]
fn scalars_are_read_as_kubernetes_reads_them() {
    check(
        "{a: 1, b: -2, c: 2.5, d: yes, e: \"yes\", f: ~, g: , h: 1m30s, i: 10.0}",
        &[json!({"a": 1, "b": -2, "c": 2.5, "d": true, "e": "yes", "f": null, "g": null, "h": "1m30s", "i": 10.0})],
    );
    check("80: a\non: b\n1.10: c\n", &[json!({"80": "a", "on": "b", "1.10": "c"})]);
    check("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}\n", &[json!({"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}})]);
}

#[test]
fn a_mistake_is_told_with_its_place_in_the_file() {
    check_refused(
        "ok: 1\n---\na: 1\na: 2\n",
        "a.yaml:4:1: the field a appears twice\n  help: keep the one that is meant",
    );
    check_refused(
        "a: *b\n",
        "a.yaml:1:4: an alias (*name) names no anchor (&name) above it\n  help: text that begins with * needs quotes",
    );
    check_refused("a: .nan\n", "a.yaml:1:4: .nan is not a finite number");
    check_refused(
        "\n- a\n",
        "a.yaml:2:1: a document is a set of fields, this one is a list\n  help: begin with apiVersion and kind",
    );
    check_refused(
        "hello\n",
        "a.yaml:1:1: a document is a set of fields, this one is a single value\n  help: begin with apiVersion and kind",
    );
}

#[test]
fn a_mistake_in_one_document_hides_no_other() {
    let reading = read_documents("a.yaml", "a: 1\n---\nb: [1\n---\nc: }\n---\nd: 4\n");
    assert_eq!(reading.documents.len(), 2);
    let lines: Vec<u32> = reading.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines.len(), 2, "{:?}", reading.problems);
}

#[test]
fn a_file_that_is_no_yaml_is_given_up() {
    let reading = read_documents("a.yaml", &"a\n---\n".repeat(1_000));
    assert_eq!(reading.problems.len(), 101);
    assert_eq!(
        reading.problems[100].to_string(),
        "a.yaml: 100 documents could not be read; the rest of the file is left out"
    );
}

#[test]
fn bombs_are_refused() {
    let bearable = format!("a: {}{}", "[".repeat(60), "]".repeat(60));
    assert_eq!(read_documents("a.yaml", &bearable).problems, []);
    let deep = format!("a: {}{}", "[".repeat(70), "]".repeat(70));
    check_refused_somewhere(&deep);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let previous = format!("*a{}, ", level - 1).repeat(10);
        bomb += &format!("a{level}: &a{level} [{previous}]\n");
    }
    check_refused_somewhere(&bomb);
    check_refused_somewhere(&"a".repeat(FILE_BYTES_MAX + 1));
}

#[track_caller]
fn check_refused_somewhere(text: &str) {
    let reading = read_documents("a.yaml", text);
    assert_eq!((reading.documents.len(), reading.problems.len()), (0, 1), "{:?}", reading.problems);
}

#[test]
fn every_field_knows_its_place() {
    let text = "# head\nmetadata:\n  name: x\nspec:\n  list:\n    - a: 1\n      b: {c: 2}\n    - 3\n  none:\n";
    let reading = read_documents("a.yaml", &format!("z: 0\n---\n{text}"));
    let document = &reading.documents[1];
    let places = [
        ("", 4, 1),
        ("metadata.name", 5, 9),
        ("metadata.labels", 4, 1),
        ("spec.list", 7, 3),
        ("spec.list[0]", 8, 7),
        ("spec.list[0].a", 8, 10),
        ("spec.list[0].b", 9, 7),
        ("spec.list[0].b.c", 9, 14),
        ("spec.list[1]", 10, 7),
        ("spec.list[9].x", 7, 3),
        ("spec.none", 11, 3),
        ("nothing", 4, 1),
    ];
    for (path, line, column) in places {
        assert_eq!(document.position(path), Position { line, column }, "of {path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        read_documents("a.yaml", &text);
    }

    #[test]
    fn no_text_that_looks_like_yaml_makes_the_reader_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "a", ":", " ", "\n", "  ", "- ", "---\n", "...\n", "{", "}", "[", "]", ",", "&a ", "*a", "<<: ", "|\n", ">-\n",
                "\"", "'", "!!int ", "!x ", "%YAML 1.2\n", "#", "?", "\t", "\r\n", "1e999", "0x1F", "~", "é", "\u{0}",
            ]),
            0..60,
        ),
    ) {
        for document in read_documents("a.yaml", &words.concat()).documents {
            document.to_json();
        }
    }
}
