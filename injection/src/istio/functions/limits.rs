//! Limits of what functions make, so that no template needs more memory, or a deeper stack, than a
//! pod is worth.

use std::sync::Arc;

use gotmpl::{Template, TemplateError, Value, ValueFunc};

use super::{Function, MAX_LENGTH, Result, fail, string};

/// Lists in lists, and so on. Each level of a value is a level of the stack.
const MAX_DEPTH: usize = 100;

/// The engine's functions that make text.
pub(super) const PRINTING: &[&str] = &["html", "js", "print", "printf", "println", "urlquery"];

/// `function`, but with a limit of its result.
pub(super) fn limited(function: Function) -> ValueFunc {
    Arc::new(move |arguments| {
        let result = function(arguments)?;
        let mut budget = MAX_LENGTH;
        if fits(&result, &mut budget, MAX_DEPTH) {
            Ok(result)
        } else {
            fail(format!(
                "a value is larger than {MAX_LENGTH} bytes or deeper than {MAX_DEPTH} levels"
            ))
        }
    })
}

/// Whether the value needs no more than `budget` bytes or entries and `depth` levels.
fn fits(value: &Value, budget: &mut usize, depth: usize) -> bool {
    let length = value.as_str().map_or(1, |text| text.len() + 1);
    let Some(rest) = budget.checked_sub(length) else {
        return false;
    };
    *budget = rest;
    match value {
        Value::List(_) | Value::Map(_) if depth == 0 => false,
        Value::List(list) => list.iter().all(|entry| fits(entry, budget, depth - 1)),
        Value::Map(map) => map.values().all(|entry| fits(entry, budget, depth - 1)),
        _ => true,
    }
}

/// The engine's own function of this name, with a limit of its result. The engine does not export
/// it, but can call it.
pub(super) fn printing(name: &'static str) -> ValueFunc {
    Arc::new(move |arguments| {
        let operands = (0..arguments.len()).map(|index| format!(" (index . {index})"));
        let call = format!("{{{{ {name}{} }}}}", operands.collect::<String>());
        let arguments = Value::List(arguments.into());
        let text = Template::new("")
            .parse(&call)?
            .execute_to_string(&arguments)?;
        check_length(text.len())?;
        string(text)
    })
}

/// Fails for a text that is too long.
pub(super) fn check_length(length: usize) -> gotmpl::Result<()> {
    if length > MAX_LENGTH {
        let problem = format!("a text is longer than {MAX_LENGTH} bytes");
        return Err(TemplateError::Exec(problem));
    }
    Ok(())
}

/// `text` with spaces after each line break.
pub(super) fn indented(spaces: usize, text: &str) -> Result {
    check_length(text.matches('\n').count().saturating_mul(spaces))?;
    string(text.replace('\n', &format!("\n{}", " ".repeat(spaces))))
}

#[cfg(test)]
mod tests {
    use gotmpl::tmap;

    use crate::istio::{engine, functions};

    fn render(text: &str) -> Result<String, String> {
        engine::Template::parse(text, &functions::table(true))?.render(&tmap! { "N" => 7i64 })
    }

    #[test]
    fn printing_is_the_engines_own() {
        for (text, expected) in [
            (
                "{{ printf `%s-%05d-%v` `a` .N (list 1 2) }}",
                "a-00007-[1 2]",
            ),
            ("{{ print `a` 1 2 }}{{ println .N }}", "a1 27\n"),
            ("{{ html `<` }}{{ urlquery `a b` }}", "&lt;a+b"),
        ] {
            assert_eq!(render(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn no_value_grows_without_limit() {
        for step in [
            "print $x $x",
            "printf `%s%s` $x $x",
            "list $x $x",
            "list $x",
            "dict `a` $x",
            "concat (list $x) (list $x)",
            "indent 100000 (print $x `\n`)",
            "join (repeat 100000 `x`) (until 100000)",
        ] {
            let text = format!(
                "{{{{ $x := `x` }}}}{{{{ range until 200 }}}}{{{{ $x = {step} }}}}{{{{ end }}}}"
            );
            let problem = render(&text).unwrap_err();
            assert!(problem.contains("than"), "{step}: {problem}");
        }
    }
}
