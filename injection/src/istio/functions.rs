//! The functions that templates call: Istio's own, and those of sprig that need nothing but their
//! arguments.

use std::sync::Arc;

use gotmpl::{FuncMap, TemplateError, Value};

use super::text;

mod dictionaries;
mod istio;
mod limits;
mod lists;
mod numbers;
mod resources;
mod strings;

/// Functions of the engine.
pub(super) const BUILTIN: &[&str] = &[
    "and", "call", "eq", "ge", "gt", "html", "index", "js", "le", "len", "lt", "ne", "not", "or",
    "print", "printf", "println", "slice", "urlquery",
];

/// Functions of sprig that a template must not have here, and why.
const REFUSED: &[(&str, &str)] = &[
    ("ago", CLOCK),
    ("date", CLOCK),
    ("dateInZone", CLOCK),
    ("date_in_zone", CLOCK),
    ("dateModify", CLOCK),
    ("date_modify", CLOCK),
    ("htmlDate", CLOCK),
    ("htmlDateInZone", CLOCK),
    ("now", CLOCK),
    ("unixEpoch", CLOCK),
    ("randAlpha", CHANCE),
    ("randAlphaNum", CHANCE),
    ("randAscii", CHANCE),
    ("randBytes", CHANCE),
    ("randInt", CHANCE),
    ("randNumeric", CHANCE),
    ("shuffle", CHANCE),
    ("uuidv4", CHANCE),
    ("bcrypt", CHANCE),
    ("encryptAES", CHANCE),
    ("genCA", CHANCE),
    ("genCAWithKey", CHANCE),
    ("genPrivateKey", CHANCE),
    ("genSelfSignedCert", CHANCE),
    ("genSelfSignedCertWithKey", CHANCE),
    ("genSignedCert", CHANCE),
    ("genSignedCertWithKey", CHANCE),
    ("htpasswd", CHANCE),
    ("expandenv", "it reads the environment"),
    ("getHostByName", "it asks the network"),
    ("set", CHANGES),
    ("unset", CHANGES),
    ("merge", CHANGES),
    ("mergeOverwrite", CHANGES),
    ("mustMerge", CHANGES),
    ("mustMergeOverwrite", CHANGES),
];

const CLOCK: &str = "it reads the clock";
const CHANCE: &str = "its result is random";
const CHANGES: &str = "it changes its argument";

/// The longest string or list that a function makes.
const MAX_LENGTH: usize = 1 << 20;

type Result = gotmpl::Result<Value>;

/// A function of the table.
type Function = fn(&[Value]) -> Result;

/// All functions. `native_sidecar` answers templates that ask istiod's environment for it.
pub(super) fn table(native_sidecar: bool) -> FuncMap {
    let mut table = FuncMap::new();
    let groups: [&[(&str, Function)]; 6] = [
        strings::FUNCTIONS,
        lists::FUNCTIONS,
        dictionaries::FUNCTIONS,
        numbers::FUNCTIONS,
        resources::FUNCTIONS,
        // Last, for Istio's functions replace those of sprig.
        istio::FUNCTIONS,
    ];
    for (name, function) in groups.into_iter().flatten() {
        table.insert((*name).to_owned(), limits::limited(*function));
    }
    for name in limits::PRINTING {
        table.insert((*name).to_owned(), limits::printing(name));
    }
    let environment = move |arguments: &[Value]| {
        let [name, default] = arguments else {
            return fail("env: 2 arguments are needed");
        };
        if sprint(name) == "ENABLE_NATIVE_SIDECARS" {
            return string(native_sidecar.to_string());
        }
        Ok(default.clone())
    };
    table.insert("env".to_owned(), Arc::new(environment));
    table
}

/// Why `name` cannot be called.
pub(super) fn describe_unknown(name: &str) -> String {
    let reason = REFUSED.iter().find(|(refused, _)| *refused == name);
    match reason {
        Some((_, reason)) => format!("function {name} is not allowed: {reason}"),
        None => format!("function {name} is unknown"),
    }
}

fn fail(message: impl Into<String>) -> Result {
    Err(TemplateError::Exec(message.into()))
}

#[expect(clippy::unnecessary_wraps, reason = "the type of all functions")]
fn string(text: impl AsRef<str>) -> Result {
    Ok(Value::String(text.as_ref().into()))
}

#[expect(clippy::unnecessary_wraps, reason = "the type of all functions")]
fn list(entries: Vec<Value>) -> Result {
    Ok(Value::List(entries.into()))
}

/// Exactly `N` arguments.
fn exactly<const N: usize>(arguments: &[Value]) -> gotmpl::Result<&[Value; N]> {
    arguments.try_into().map_err(|_| {
        let given = arguments.len();
        TemplateError::Exec(format!("{N} arguments are needed, not {given}"))
    })
}

/// `value` as text. What is missing is empty, as a field of a struct would be.
fn sprint(value: &Value) -> String {
    match value {
        Value::Nil => String::new(),
        value => text::sprint(value),
    }
}

/// All arguments as text.
fn texts<const N: usize>(arguments: &[Value]) -> gotmpl::Result<[String; N]> {
    Ok(exactly::<N>(arguments)?.each_ref().map(sprint))
}

/// A number that is not negative and not larger than a function may use for a length.
fn length(value: &Value) -> gotmpl::Result<usize> {
    let number = numbers::integer(value);
    usize::try_from(number)
        .ok()
        .filter(|length| *length <= MAX_LENGTH)
        .ok_or_else(|| TemplateError::Exec(format!("{number} is not a length up to {MAX_LENGTH}")))
}

/// The entries of a list; none of what is missing.
fn entries(value: &Value) -> gotmpl::Result<&[Value]> {
    match value {
        Value::List(entries) => Ok(entries),
        Value::Nil => Ok(&[]),
        other => Err(TemplateError::Exec(format!(
            "a list is needed, not a {}",
            other.type_name()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use gotmpl::tmap;

    use super::{super::engine::Template, *};

    #[track_caller]
    fn check(cases: &[(&str, &str)]) {
        let functions = table(true);
        let data = tmap! {
            "Map" => tmap! { "b" => 1i64, "a" => "x" },
            "Meta" => tmap! { "Annotations" => tmap! { "k" => "v" } },
            "Float" => 15020.0,
        };
        for (text, expected) in cases {
            let template = Template::parse(text, &functions).unwrap();
            let rendered = template
                .render(&data)
                .unwrap_or_else(|error| format!("! {error}"));
            assert_eq!(rendered, *expected, "{text}");
        }
    }

    #[test]
    fn istios_functions() {
        check(&[
            (
                "{{ contains `a` `cab` }} {{ contains `cab` `a` }}",
                "true false",
            ),
            ("{{ indent 2 `a\nb\n` }}.", "a\n  b\n  ."),
            (
                "{{ annotation .Meta `k` 1 }} {{ annotation .Meta `z` .Float }}",
                "v 15020",
            ),
            (
                "{{ valueOrDefault `` 1 }}{{ valueOrDefault 0 1 }}{{ valueOrDefault .No 2 }}",
                "102",
            ),
            (
                "{{ excludeInboundPort 80 `` }} {{ excludeInboundPort `0` `1, 2` }}",
                "80 1, 2",
            ),
            (
                "{{ excludeInboundPort .Float `1, 2` }} {{ excludeInboundPort 2 `1,2` }}",
                "1,2,15020 1,2",
            ),
            ("{{ isset .Map `a` }} {{ isset .No `a` }}", "true false"),
            ("{{ directory `/a/b/c.pem` }} {{ directory `c` }}", "/a/b/ "),
            (
                "{{ toJSON .Map }} {{ toJSON .No }}",
                r#"{"a":"x","b":1} {}"#,
            ),
            (
                "{{ range $k, $v := fromJSON `{\"a\": [1]}` }}{{ $k }}={{ $v }}{{ end }}",
                "a=[1]",
            ),
            (
                "{{ env `ENABLE_NATIVE_SIDECARS` `false` }} {{ env `PATH` `x` }}",
                "true x",
            ),
            ("{{ toYaml .Map }}", "a: x\nb: 1\n"),
            (
                "{{ toJsonMap (strdict `a` `1` `b`) (omit .Map `b`) }}",
                r#"{"a":"x","b":""}"#,
            ),
            ("{{ index .Map `z` }}|{{ index .Map `a` }}", "|x"),
            ("{{ formatDuration `83s` }}", "1m23s"),
        ]);
    }

    #[test]
    fn istios_networks() {
        let network = |existing: &str| {
            format!("{{{{ appendMultusNetwork `{existing}` `default/istio-cni` }}}}")
        };
        for (existing, expected) in [
            ("", "default/istio-cni"),
            ("a", "a, default/istio-cni"),
            ("a, default/istio-cni", "a, default/istio-cni"),
            (
                r#"[{"name":"a"}]"#,
                r#"[{"name":"a"}, {"name": "istio-cni", "namespace": "default"}]"#,
            ),
            (
                r#"[{"name":"istio-cni","namespace":"default"}]"#,
                r#"[{"name":"istio-cni","namespace":"default"}]"#,
            ),
            ("[oops]", "[oops]"),
        ] {
            check(&[(&network(existing), expected)]);
        }
    }

    #[test]
    fn strings_of_sprig() {
        check(&[
            (
                "{{ `a\"b` | quote }} {{ quote .Float }} {{ squote `x` }}",
                r#""a\"b" "15020" 'x'"#,
            ),
            (
                "{{ `` | default `d` }} {{ 0 | default 5 }} {{ `x` | default `d` }}",
                "d 5 x",
            ),
            (
                "{{ trunc 2 `abc` }} {{ trunc -2 `abc` }} {{ trunc 9 `abc` }}",
                "ab bc abc",
            ),
            (
                "{{ trimAll `-_.` `--a-b..` }} {{ trimSuffix `b` `ab` }} {{ trim ` a ` }}",
                "a-b a a",
            ),
            ("{{ nindent 2 `a\nb` }}", "\n  a\n  b"),
            (
                "{{ upper `a` }}{{ toLower `B` }}{{ title `ab cd` }}",
                "AbAb Cd",
            ),
            ("{{ replace `a` `b` `aac` }} {{ repeat 3 `x` }}", "bbc xxx"),
            (
                "{{ hasPrefix `a` `ab` }} {{ hasSuffix `a` `ab` }}",
                "true false",
            ),
            (
                "{{ join `,` (splitList `-` `a-b`) }} {{ (split `-` `a-b`)._1 }}",
                "a,b b",
            ),
            ("{{ b64enc `hi?` }} {{ b64dec `aGk/` }}", "aGk/ hi?"),
            (
                "{{ ternary 1 2 true }} {{ coalesce `` .No `x` }} {{ empty .No }}",
                "1 x true",
            ),
            (
                "{{ snakecase `FooBar` }} {{ kebabcase `fooBar` }} {{ camelcase `foo_bar` }}",
                "foo_bar foo-bar FooBar",
            ),
            (
                "{{ base `/a/b.c` }} {{ dir `/a/b.c` }} {{ ext `/a/b.c` }}",
                "b.c /a .c",
            ),
            (
                "{{ substr 1 3 `abcd` }} {{ abbrev 5 `abcdefgh` }} {{ nospace ` a b ` }}",
                "bc ab... ab",
            ),
        ]);
    }

    #[test]
    fn lists_and_dictionaries_of_sprig() {
        check(&[
            (
                "{{ append (list 1) 2 }} {{ prepend (list 1) 2 }} {{ concat (list 1) (list 2) }}",
                "[1 2] [2 1] [1 2]",
            ),
            (
                "{{ first (list 1 2) }}{{ last (list 1 2) }}{{ rest (list 1 2) }}{{ initial (list 1 2) }}",
                "12[2][1]",
            ),
            (
                "{{ has 2 (list 1 2) }} {{ without (list 1 2) 1 }} {{ uniq (list 1 1 2) }}",
                "true [2] [1 2]",
            ),
            (
                "{{ compact (list `` `a`) }} {{ sortAlpha (list `b` `a`) }} {{ reverse (list 1 2) }}",
                "[a] [a b] [2 1]",
            ),
            (
                "{{ until 3 }} {{ untilStep 1 6 2 }} {{ tuple 1 }}",
                "[0 1 2] [1 3 5] [1]",
            ),
            (
                "{{ get .Map `a` }} {{ hasKey .Map `b` }} {{ keys .Map }} {{ pick .Map `a` }}",
                "x true [a b] map[a:x]",
            ),
            (
                "{{ dict `a` 1 `b` }} {{ dig `a` `b` `z` (dict `a` (dict `b` 1)) }}",
                "map[a:1 b:] 1",
            ),
            (
                "{{ dig `a` `c` `z` (dict `a` (dict `b` 1)) }} {{ values .Map }}",
                "z [x 1]",
            ),
            (
                "{{ toJson .Map }} {{ (fromJson `{\"a\":1}`).a }}",
                r#"{"a":"x","b":1} 1"#,
            ),
            (
                "{{ kindOf `a` }} {{ kindIs `map` .Map }} {{ any 0 1 }} {{ all 0 1 }}",
                "string true true false",
            ),
        ]);
    }

    #[test]
    fn numbers_of_sprig() {
        check(&[
            (
                "{{ add 1 2 3 }} {{ add1 1 }} {{ sub 3 1 }} {{ mul 2 3 }} {{ div 7 2 }} {{ mod 7 2 }}",
                "6 2 2 6 3 1",
            ),
            (
                "{{ max 1 3 2 }} {{ min 3 1 }} {{ int `7` }} {{ int .Float }} {{ atoi `8` }}",
                "3 1 7 15020 8",
            ),
            ("{{ div 1 0 }}", "! execution error: div: division by zero"),
            (
                "{{ floor 1.5 }} {{ ceil 1.5 }} {{ round 1.256 2 }}",
                "1 2 1.26",
            ),
            ("{{ fail `no` }}", "! execution error: no"),
        ]);
    }
}
