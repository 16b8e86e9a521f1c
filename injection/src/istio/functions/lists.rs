//! Sprig's functions on lists.

use std::{collections::BTreeMap, sync::Arc};

use gotmpl::Value;

use super::{
    Function, Result, entries, exactly, fail, length, limits, list, numbers, sprint, string,
    strings,
};

pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("append", append),
    ("compact", compact),
    ("concat", concat),
    ("first", |a| {
        Ok(one(a)?.first().cloned().unwrap_or(Value::Nil))
    }),
    ("has", has),
    ("initial", |a| {
        list(
            one(a)?
                .split_last()
                .map_or_else(Vec::new, |(_, rest)| rest.to_vec()),
        )
    }),
    ("join", join),
    ("last", |a| {
        Ok(one(a)?.last().cloned().unwrap_or(Value::Nil))
    }),
    ("list", |a| list(a.to_vec())),
    ("prepend", prepend),
    ("push", append),
    ("rest", |a| {
        list(
            one(a)?
                .split_first()
                .map_or_else(Vec::new, |(_, rest)| rest.to_vec()),
        )
    }),
    ("reverse", |a| list(one(a)?.iter().rev().cloned().collect())),
    ("sortAlpha", sort_alpha),
    ("split", split),
    ("splitList", split_list),
    ("toStrings", |a| {
        list(
            strings::strings(&exactly::<1>(a)?[0])?
                .into_iter()
                .map(text)
                .collect(),
        )
    }),
    ("tuple", |a| list(a.to_vec())),
    ("uniq", uniq),
    ("until", until),
    ("untilStep", until_step),
    ("without", without),
];

fn text(text: String) -> Value {
    Value::String(text.into())
}

/// The entries of the only argument.
fn one(arguments: &[Value]) -> gotmpl::Result<&[Value]> {
    let [list] = exactly(arguments)?;
    entries(list)
}

fn append(arguments: &[Value]) -> Result {
    let [old, entry] = exactly(arguments)?;
    list([entries(old)?, std::slice::from_ref(entry)].concat())
}

fn prepend(arguments: &[Value]) -> Result {
    let [old, entry] = exactly(arguments)?;
    list([std::slice::from_ref(entry), entries(old)?].concat())
}

fn concat(arguments: &[Value]) -> Result {
    let mut all = Vec::new();
    for argument in arguments {
        all.extend_from_slice(entries(argument)?);
    }
    list(all)
}

fn compact(arguments: &[Value]) -> Result {
    let kept = one(arguments)?.iter().filter(|entry| entry.is_truthy());
    list(kept.cloned().collect())
}

fn uniq(arguments: &[Value]) -> Result {
    let mut unique: Vec<Value> = Vec::new();
    for entry in one(arguments)? {
        if !unique.contains(entry) {
            unique.push(entry.clone());
        }
    }
    list(unique)
}

fn has(arguments: &[Value]) -> Result {
    let [entry, list] = exactly(arguments)?;
    Ok(Value::Bool(entries(list)?.contains(entry)))
}

fn without(arguments: &[Value]) -> Result {
    let Some((old, removed)) = arguments.split_first() else {
        return fail("without: a list is needed");
    };
    let kept = entries(old)?
        .iter()
        .filter(|entry| !removed.contains(entry));
    list(kept.cloned().collect())
}

fn join(arguments: &[Value]) -> Result {
    let [separator, list] = exactly(arguments)?;
    let separator = sprint(separator);
    match list {
        Value::List(_) | Value::Nil => {
            let parts = strings::strings(list)?;
            limits::check_length(parts.len().saturating_mul(separator.len()))?;
            string(parts.join(&separator))
        }
        other => string(sprint(other)),
    }
}

fn sort_alpha(arguments: &[Value]) -> Result {
    let [old] = exactly(arguments)?;
    let mut sorted = strings::strings(old)?;
    sorted.sort();
    list(sorted.into_iter().map(text).collect())
}

fn split_list(arguments: &[Value]) -> Result {
    let [separator, source] = super::texts(arguments)?;
    list(
        source
            .split(&separator)
            .map(|part| text(part.to_owned()))
            .collect(),
    )
}

/// The parts as a map with the keys `_0`, `_1` and so on.
fn split(arguments: &[Value]) -> Result {
    let [separator, source] = super::texts(arguments)?;
    let parts = source.split(&separator).enumerate();
    let parts: BTreeMap<Arc<str>, Value> = parts
        .map(|(index, part)| (format!("_{index}").into(), text(part.to_owned())))
        .collect();
    Ok(Value::Map(Arc::new(parts)))
}

fn until(arguments: &[Value]) -> Result {
    let [end] = exactly(arguments)?;
    let end = length(end)?;
    list((0i64..).take(end).map(Value::Int).collect())
}

fn until_step(arguments: &[Value]) -> Result {
    let [start, end, step] = exactly(arguments)?.each_ref().map(numbers::integer);
    let mut numbers = Vec::new();
    let mut number = start;
    while step != 0 && (if step > 0 { number < end } else { number > end }) {
        numbers.push(Value::Int(number));
        if numbers.len() > super::MAX_LENGTH {
            return fail("untilStep: the list is too long");
        }
        number = number.saturating_add(step);
    }
    list(numbers)
}
