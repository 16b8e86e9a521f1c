//! Go's `text/template`, by the crate `gotmpl`. Nothing else knows which engine it is, but for its
//! values.

use std::fmt;

use gotmpl::{
    FuncMap, Template as Parsed, TemplateError, Value,
    parse::{BranchNode, CommandNode, Expr, ListNode, Node, Parser, PipeNode},
};

use super::functions;

/// Iterations of `range` in one rendering.
const MAX_ITERATIONS: u64 = 100_000;
/// Bytes that one rendering may write.
const MAX_OUTPUT: usize = 1 << 20;

/// A template whose functions are all known.
pub(super) struct Template(Parsed);

impl fmt::Debug for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Template")
    }
}

impl Template {
    /// Parses `text`. The problem names the line, and all unknown functions.
    pub(super) fn parse(text: &str, functions: &FuncMap) -> Result<Self, String> {
        let text = without_trimmed_comments(text);
        let unknown = unknown_functions(&text, functions)?;
        if let Some(Unknown { line, .. }) = unknown.first() {
            let problems: Vec<_> = unknown.iter().map(|function| &*function.problem).collect();
            return Err(format!("line {line}: {}", problems.join("; ")));
        }
        let template = Parsed::new("inject")
            .max_range_iters(MAX_ITERATIONS)
            .funcs(functions.clone())
            .parse(&text);
        template.map(Self).map_err(with_line)
    }

    /// Renders the template with `data`.
    pub(super) fn render(&self, data: &Value) -> Result<String, String> {
        let mut output = Bounded(String::with_capacity(16 << 10));
        match self.0.execute_fmt(&mut output, data) {
            Ok(()) => Ok(output.0),
            Err(_) if output.is_full() => Err(format!("it writes more than {MAX_OUTPUT} bytes")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Output of at most [`MAX_OUTPUT`] bytes.
struct Bounded(String);

impl Bounded {
    fn is_full(&self) -> bool {
        self.0.len() > MAX_OUTPUT
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(text);
        if self.is_full() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

/// `text` with comments that trim the text before them replaced by an action that does only that:
/// gotmpl 0.6 also trims the text behind such a comment.
fn without_trimmed_comments(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{-") {
        let (before, action) = rest.split_at(start);
        result.push_str(before);
        let Some((comment, end)) = trimmed_comment(action) else {
            result.push_str("{{-");
            rest = &action[3..];
            continue;
        };
        result.push_str("{{- \"\"");
        // Line numbers in messages stay right.
        result.extend(comment.chars().filter(|character| *character == '\n'));
        result.push_str(end);
        rest = &action[comment.len() + "{{-".len()..];
    }
    result.push_str(rest);
    result
}

/// Of an action that starts with `{{-` and is a comment: what follows `{{-`, and how it ends.
fn trimmed_comment(action: &str) -> Option<(&str, &'static str)> {
    let body = &action["{{-".len()..];
    let comment = body.trim_start().strip_prefix("/*")?;
    let close = comment.find("*/")?;
    let after = &comment[close + "*/".len()..];
    let blanks = after.len() - after.trim_start().len();
    let (end, length) = if after[blanks..].starts_with("-}}") && blanks > 0 {
        (" -}}", "-}}".len())
    } else if after[blanks..].starts_with("}}") {
        ("}}", "}}".len())
    } else {
        return None;
    };
    let length = body.len() - after.len() + blanks + length;
    Some((&body[..length], end))
}

fn with_line(error: TemplateError) -> String {
    match error {
        TemplateError::Parse { line, message, .. } | TemplateError::Lex { line, message, .. } => {
            format!("line {line}: {message}")
        }
        error => error.to_string(),
    }
}

/// A function that does not exist.
struct Unknown {
    line: usize,
    problem: String,
}

/// The functions that `text` calls and that do not exist, in the order of their first calls.
fn unknown_functions(text: &str, known: &FuncMap) -> Result<Vec<Unknown>, String> {
    let parser = Parser::with_name(Some("inject"), text, "{{", "}}");
    let (tree, defines) = parser.and_then(Parser::parse).map_err(with_line)?;
    let mut called = Vec::new();
    collect_list(&tree, &mut called);
    for define in &defines {
        collect_list(&define.body, &mut called);
    }
    called
        .retain(|call| !known.contains_key(call.name) && !functions::BUILTIN.contains(&call.name));
    called.sort_unstable_by_key(|call| (call.name, call.line));
    called.dedup_by_key(|call| call.name);
    called.sort_unstable_by_key(|call| call.line);
    let unknown = called.into_iter().map(|Call { name, line }| Unknown {
        line,
        problem: functions::describe_unknown(name),
    });
    Ok(unknown.collect())
}

/// A call of a function.
struct Call<'a> {
    name: &'a str,
    line: usize,
}

fn collect_list<'a>(list: &'a ListNode, called: &mut Vec<Call<'a>>) {
    for node in &list.nodes {
        collect_node(node, called);
    }
}

fn collect_node<'a>(node: &'a Node, called: &mut Vec<Call<'a>>) {
    match node {
        Node::List(list) => collect_list(list, called),
        Node::Action(action) => collect_pipe(&action.pipe, called),
        Node::If(branch) | Node::Range(branch) | Node::With(branch) => {
            collect_branch(branch, called);
        }
        Node::Template(template) => {
            if let Some(pipe) = &template.pipe {
                collect_pipe(pipe, called);
            }
        }
        Node::Define(define) => collect_list(&define.body, called),
        Node::Text(_) | Node::Break(_) | Node::Continue(_) => {}
    }
}

fn collect_branch<'a>(branch: &'a BranchNode, called: &mut Vec<Call<'a>>) {
    collect_pipe(&branch.pipe, called);
    collect_list(&branch.body, called);
    if let Some(list) = &branch.else_body {
        collect_list(list, called);
    }
}

fn collect_pipe<'a>(pipe: &'a PipeNode, called: &mut Vec<Call<'a>>) {
    for CommandNode { args, .. } in &pipe.commands {
        for argument in args {
            collect_expression(argument, called);
        }
    }
}

fn collect_expression<'a>(expression: &'a Expr, called: &mut Vec<Call<'a>>) {
    match expression {
        Expr::Identifier(position, name) => called.push(Call {
            name: name.as_str(),
            line: position.line,
        }),
        Expr::Pipe(_, pipe) => collect_pipe(pipe, called),
        Expr::Chain(_, inner, _) => collect_expression(inner, called),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use gotmpl::tmap;
    use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

    use super::*;

    /// Parts of templates.
    const TOKENS: &[&str] = &[
        "{{",
        "{{-",
        "}}",
        "-}}",
        " ",
        "\n",
        "/*",
        "*/",
        "(",
        ")",
        "|",
        ".",
        "$",
        "$x",
        ":=",
        "=",
        "`",
        "\"",
        "'",
        "if",
        "else",
        "end",
        "range",
        "with",
        "define `a`",
        "template `a` .",
        "until",
        "index",
        "list",
        "toYaml",
        "fromJSON",
        "repeat",
        "indent",
        "printf `%d`",
        "trunc",
        "slice",
        "1",
        "-1",
        "999999",
        "1e9",
        ".Values",
        ".List",
        "nil",
        "true",
        "text",
        "é",
    ];

    /// A text that is almost a template.
    fn template() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            9 => prop::sample::select(TOKENS).prop_map(str::to_owned),
            1 => "\\PC{0,4}",
        ];
        prop::collection::vec(part, 0..24).prop_map(|parts| parts.join(" "))
    }

    proptest! {
        #[test]
        fn any_text_is_rendered_or_refused_in_time(text in template()) {
            let data = tmap! { "Values" => tmap! { "a" => 1.5 }, "List" => vec![1i64, 2] };
            let start = Instant::now();
            if let Ok(output) = render(&text, &data) {
                prop_assert!(output.len() <= MAX_OUTPUT);
            }
            prop_assert!(start.elapsed() < Duration::from_secs(20));
        }

        #[test]
        fn actions_are_rendered_or_refused(text in template()) {
            let data = tmap! { "Values" => tmap! { "a" => 1.5 }, "List" => vec![1i64, 2] };
            let _ = render(&format!("{{{{ {text} }}}}"), &data);
        }
    }

    /// Otherwise the properties above would hold for refusals only.
    #[test]
    fn drawn_templates_are_not_all_refused() {
        let data = tmap! { "Values" => tmap! { "a" => 1.5 }, "List" => vec![1i64, 2] };
        let mut runner = TestRunner::deterministic();
        let [mut parsed, mut rendered] = [0, 0];
        for _ in 0..4000 {
            let text = template().new_tree(&mut runner).unwrap().current();
            for text in [format!("{{{{ {text} }}}}"), text] {
                if let Ok(template) = Template::parse(&text, &functions::table(true)) {
                    parsed += 1;
                    rendered += u32::from(template.render(&data).is_ok());
                }
            }
        }
        // Of 8000.
        assert!(parsed > 2000 && rendered > 2000, "{parsed} {rendered}");
    }

    fn render(text: &str, data: &Value) -> Result<String, String> {
        Template::parse(text, &functions::table(true))?.render(data)
    }

    #[test]
    fn a_comment_trims_only_the_side_with_the_mark() {
        let data = tmap! {};
        for (text, expected) in [
            ("a \n{{- /* c */}}\n b", "a\n b"),
            ("a \n{{- /* c */ -}}\n b", "ab"),
            ("a \n{{/* c */ -}}\n b", "a \nb"),
            ("a {{- /* c\n */ }} b", "a b"),
            ("a {{- 1 }} b", "a1 b"),
        ] {
            assert_eq!(render(text, &data).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn unknown_functions_are_named_at_load() {
        let text =
            "{{ define `x` }}{{ if nope . }}{{ end }}{{ end }}{{ $x := (b 1 | quote) }}{{ now }}";
        let problem = render(text, &tmap! {}).unwrap_err();
        for part in ["nope", "b is", "now", "clock"] {
            assert!(problem.contains(part), "{problem}");
        }
        assert!(!problem.contains("quote"), "{problem}");
    }

    #[test]
    fn output_and_time_are_bounded() {
        let data = tmap! {};
        let text = "{{ range until 1000 }}{{ repeat 10000 `x` }}{{ end }}";
        assert!(render(text, &data).unwrap_err().contains("bytes"));
        let text = "{{ range until 1000 }}{{ range until 1000 }}{{ end }}{{ end }}";
        assert!(render(text, &data).is_err());
        assert!(render("{{ repeat 1000000000 `x` }}", &data).is_err());
        assert!(render("{{ range until 1000000000 }}{{ end }}", &data).is_err());
        assert!(
            render(
                "{{ define `a` }}{{ template `a` }}{{ end }}{{ template `a` }}",
                &data
            )
            .is_err()
        );
    }

    #[test]
    fn istios_constructs_render() {
        let data = tmap! { "A" => vec!["x".to_owned(), "y".to_owned()], "N" => Value::Nil };
        let text = "{{- $l := list }}{{ range $i, $v := .A }}{{ $l = append $l $v }}{{ end }}\
                    {{- $l | join `,` }} {{ (.N).Missing }}{{ with index .A 0 | default `z` }}{{ . }}{{ end }}";
        let expected = "x,y <no value>x";
        assert_eq!(render(text, &data).unwrap(), expected);
    }
}
