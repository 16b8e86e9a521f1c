use proptest::prelude::*;
use serde_json::json;

use super::*;

fn documents(text: &str) -> Vec<Document<'_>> {
    let pieces = parse(text).unwrap();
    let whole: String = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Verbatim(text) => text,
            Piece::Document(document) => document.text,
        })
        .collect();
    assert_eq!(whole, text);
    let documents = pieces.into_iter().filter_map(|piece| match piece {
        Piece::Verbatim(_) => None,
        Piece::Document(document) => Some(document),
    });
    documents.collect()
}

fn changed(text: &str, change: impl FnOnce(&mut Value)) -> Rendered {
    let document = documents(text).remove(0);
    let mut value = document.value.clone();
    change(&mut value);
    document.render(&value)
}

#[test]
fn a_stream_is_cut_into_its_documents() {
    let text = "\
# comment
---
a: 1 # one
--- # next
b: |
  ---
  text
---
# only a comment
---
--- {c: 3}
...
---
{\"d\": 4}
{\"e\": 5}
";
    let found = documents(text);
    let values: Vec<_> = found.iter().map(|found| found.value.clone()).collect();
    assert_eq!(
        values,
        [
            json!({"a": 1}),
            json!({"b": "---\ntext\n"}),
            json!({"c": 3}),
            json!({"d": 4}),
            json!({"e": 5}),
        ]
    );
    let lines: Vec<_> = found.iter().map(|found| found.line).collect();
    assert_eq!(lines, [3, 5, 11, 14, 15]);
}

#[test]
fn nothing_and_only_separators_have_no_document() {
    for text in [
        "",
        "\n",
        "---",
        "---\n---\n",
        "# a\n",
        "%YAML 1.2\n---\n",
        "\u{feff}\n",
    ] {
        assert!(documents(text).is_empty(), "{text:?}");
    }
}

#[test]
fn scalars_have_the_types_of_kubernetes() {
    let text = "{a: 0644, b: yes, c: \"yes\", d: ~, e: 1e3, f: 0x10, g: 2001-01-01, h: 1.0}";
    assert_eq!(
        documents(text)[0].value,
        json!({"a": 420, "b": true, "c": "yes", "d": null, "e": 1000.0, "f": 16,
            "g": "2001-01-01", "h": 1.0})
    );
}

#[test]
fn problems_have_a_line() {
    for (text, line, problem) in [
        ("a: 1\n---\nb: 1\nb: 2\n", 4, "duplicate"),
        ("a: 1\n---\nb:\n\t- 1\n", 4, ""),
        ("a: [1\n---\n", 1, ""),
        ("{{ .Values }}\n", 1, ""),
        (
            "{\"a\": 1}\n{\n \"b\": 1,\n \"b\": 2}\n",
            4,
            "duplicate key \"b\"",
        ),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(error.problem.contains(problem), "{text:?}: {error}");
        assert!(!error.problem.contains('\n'), "{error}");
    }
}

#[test]
fn an_unchanged_document_keeps_its_text() {
    let text = "b:   'x' # comment\na: [1,\n 2]\n";
    assert_eq!(changed(text, |_| {}).text, text);
}

#[test]
fn a_change_leaves_the_other_lines() {
    let text = "\
# Web.
spec:   # comment
  b: \"x\"   # b
  list:
    # about one
    - name: one   # first
      value: 'a'

    - name: two
      # inner
      value: 'b'
  flow: {a: 1}
  empty:
  text: |
    lines

    more
last: 'x'
";
    let rendered = changed(text, |value| {
        value["spec"]["b"] = json!("y");
        let list = value["spec"]["list"].as_array_mut().unwrap();
        list[1]["value"] = json!("c: d");
        list[1]["more"] = json!([{"x": "a\nb\n"}]);
        list.remove(0);
        list.insert(0, json!({"name": "zero", "ports": [80]}));
        list.push(json!({"name": "three"}));
        value["spec"]["flow"]["b"] = json!("on");
        value["spec"]["empty"] = json!({"a": 1});
        value["spec"]["text"] = json!("lines\n");
        value["added"] = json!({"k": "v"});
    });
    let expected = r#"# Web.
spec:   # comment
  b: "y"   # b
  list:
    # about one

    - name: zero
      ports:
      - 80
    - name: two
      # inner
      value: "c: d"
      more:
      - x: |
          a
          b
    - name: three
  flow:
    a: 1
    b: "on"
  empty:
    a: 1
  text: |
    lines
last: 'x'
added:
  k: v
"#;
    assert_eq!(rendered.text, expected);
    assert!(!rendered.comments_lost);
}

#[test]
fn a_list_loses_and_gets_its_first_key() {
    let text = "list:\n- a: 1\n  b: 2\n- c: 3\n";
    let rendered = changed(text, |value| {
        value["list"][0].as_object_mut().unwrap().shift_remove("a");
    });
    assert_eq!(rendered.text, "list:\n- b: 2\n- c: 3\n");
    let rendered = changed(text, |value| value["list"] = json!([]));
    assert_eq!(rendered.text, "list: []\n");
}

#[test]
fn line_ends_stay() {
    let windows = changed("a:\r\n  b: 1\r\n", |value| {
        value["a"]["c"] = json!({"d": 1});
    });
    assert_eq!(windows.text, "a:\r\n  b: 1\r\n  c:\r\n    d: 1\r\n");
    let open = changed("a:\n  b: 1", |value| value["a"]["c"] = json!(2));
    assert_eq!(open.text, "a:\n  b: 1\n  c: 2");
}

#[test]
fn what_cannot_be_edited_is_written_as_a_whole() {
    let rendered = changed("a: &x 1 # one\nb: *x\n", |value| value["b"] = json!(2));
    assert_eq!(rendered.text, "a: 1\nb: 2\n");
    assert!(rendered.comments_lost);
    let rendered = changed("--- {a: 1}\n", |value| value["b"] = json!(2));
    assert_eq!(rendered.text, "\na: 1\nb: 2\n");
}

#[test]
fn json_keeps_its_indentation() {
    let added = |value: &mut Value| value["b"] = json!({"c": []});
    assert_eq!(
        changed("{\"a\":1}\n", added).text,
        r#"{"a":1,"b":{"c":[]}}"#
    );
    let tabs = changed("{\n\t\"a\": 1\n}\n", added).text;
    assert_eq!(tabs, "{\n\t\"a\": 1,\n\t\"b\": {\n\t\t\"c\": []\n\t}\n}");
}

#[test]
fn a_pointer_has_a_line() {
    let text = "---\na: 1\nb:\n  x/y: 2\n  list:\n  - k: 1\n    m: 2\n";
    let document = documents(text).remove(0);
    for (pointer, line) in [
        ("", 2),
        ("/a", 2),
        ("/b/x~1y", 4),
        ("/b/list/0/m", 7),
        ("/b/list/0/none", 6),
        ("/b/none", 3),
    ] {
        assert_eq!(document.line_of(pointer), line, "{pointer}");
    }
    let json = documents("\n{\n \"a\": {\n  \"b\": 1}}").remove(0);
    assert_eq!(json.line_of("/a/b"), 4);
}

fn json_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[a-z]{0,3}",
        "\\PC{0,6}",
        Just("a\nb\n".to_owned()),
        Just("yes".to_owned())
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let map = prop::collection::btree_map("[a-e]|name|\\PC{0,3}", inner.clone(), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            map.prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    json_value().prop_map(|value| json!({"kind": "Pod", "spec": value}))
}

proptest! {
    #[test]
    fn a_changed_document_has_the_new_value(old in object(), new in object()) {
        for text in [yaml::render(&old), format!("{old}"), format!("{old:#}")] {
            let document = documents(&text).remove(0);
            prop_assert_eq!(&document.value, &old);
            let text = document.render(&new).text;
            prop_assert_eq!(&documents(&text)[0].value, &new, "{}", text);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[-a{}\\[\\]:,#\"'|>&*! \n\t%.0]{0,40}") {
        let Ok(pieces) = parse(&text) else { return Ok(()) };
        for piece in pieces {
            if let Piece::Document(document) = piece {
                let new = json!({"a": document.value.clone(), "b": [1]});
                let text = document.render(&new).text;
                let found = documents(&text);
                prop_assert_eq!(&found[0].value, &new);
                prop_assert!(document.line_of("/a/0") >= document.line);
            }
        }
    }
}

#[test]
fn entries_are_added_after_a_node_in_braces() {
    let text = "a:\n  b: {c: 1}   # b\nd:\n- e: {f: [1]}\n---\n";
    let rendered = changed(text, |value| {
        value["a"]["g"] = json!(1);
        value["d"][0]["h"] = json!({"i": 2});
        value["k"] = json!([1]);
    });
    let expected = "a:\n  b: {c: 1}   # b\n  g: 1\nd:\n- e: {f: [1]}\n  h:\n    i: 2\nk:\n- 1\n";
    assert_eq!(rendered.text, expected);
}
