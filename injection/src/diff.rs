//! The difference between an object and its injected form, for programs and for people.

use serde_json::Value;
use similar::TextDiff;

/// The JSON Patch (RFC 6902) from `before` to `after`.
#[must_use]
pub fn json_patch(before: &Value, after: &Value) -> json_patch::Patch {
    json_patch::diff(before, after)
}

/// The unified diff of a file's text, as `diff -u` prints it; empty if nothing differs.
#[must_use]
pub fn unified(name: &str, before: &str, after: &str) -> String {
    let diff = TextDiff::from_lines(before, after);
    let mut diff = diff.unified_diff();
    diff.context_radius(3).header(name, name).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_has_the_changes_only() {
        let patch = json_patch(&json!({"a": {"b": 1}}), &json!({"a": {"b": 1, "c/d": [2]}}));
        assert_eq!(
            json!(patch),
            json!([{"op": "add", "path": "/a/c~1d", "value": [2]}])
        );
    }

    #[test]
    fn a_diff_has_a_header_and_three_lines_around() {
        let before = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let after = before.replace('5', "five");
        assert_eq!(
            unified("f.yaml", before, &after),
            "--- f.yaml\n+++ f.yaml\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"
        );
        assert_eq!(unified("f.yaml", before, before), "");
    }
}
