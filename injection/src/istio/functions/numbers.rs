//! Sprig's functions on numbers.

use gotmpl::Value;

use super::{Function, Result, exactly, fail};

pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("add", |a| fold(a, i64::wrapping_add)),
    ("add1", |a| {
        Ok(Value::Int(integer(&exactly::<1>(a)?[0]).wrapping_add(1)))
    }),
    ("atoi", |a| Ok(Value::Int(integer(&exactly::<1>(a)?[0])))),
    ("ceil", |a| {
        Ok(Value::Float(float(&exactly::<1>(a)?[0]).ceil()))
    }),
    ("div", |a| divide(a, "div", i64::wrapping_div)),
    ("float64", |a| Ok(Value::Float(float(&exactly::<1>(a)?[0])))),
    ("floor", |a| {
        Ok(Value::Float(float(&exactly::<1>(a)?[0]).floor()))
    }),
    ("int", |a| Ok(Value::Int(integer(&exactly::<1>(a)?[0])))),
    ("int64", |a| Ok(Value::Int(integer(&exactly::<1>(a)?[0])))),
    ("max", |a| fold(a, i64::max)),
    ("min", |a| fold(a, i64::min)),
    ("mod", |a| divide(a, "mod", i64::wrapping_rem)),
    ("mul", |a| fold(a, i64::wrapping_mul)),
    ("round", round),
    ("sub", |a| {
        let [left, right] = exactly(a)?;
        Ok(Value::Int(integer(left).wrapping_sub(integer(right))))
    }),
];

/// A number as an integer, as sprig converts it: 0 for what is none.
pub(super) fn integer(value: &Value) -> i64 {
    match value {
        Value::String(text) => text.parse().unwrap_or_default(),
        Value::Bool(bool) => i64::from(*bool),
        other => other.as_int().unwrap_or_default(),
    }
}

fn float(value: &Value) -> f64 {
    match value {
        Value::String(text) => text.parse().unwrap_or_default(),
        other => other.as_float().unwrap_or_default(),
    }
}

fn fold(arguments: &[Value], function: fn(i64, i64) -> i64) -> Result {
    let numbers = arguments.iter().map(integer);
    match numbers.reduce(function) {
        Some(number) => Ok(Value::Int(number)),
        None => fail("a number is needed"),
    }
}

fn divide(arguments: &[Value], name: &str, function: fn(i64, i64) -> i64) -> Result {
    let [left, right] = exactly(arguments)?.each_ref().map(integer);
    if right == 0 {
        return fail(format!("{name}: division by zero"));
    }
    Ok(Value::Int(function(left, right)))
}

fn round(arguments: &[Value]) -> Result {
    let [number, digits] = exactly(arguments)?;
    let digits = i32::try_from(integer(digits)).unwrap_or_default();
    let scale = 10f64.powi(digits);
    Ok(Value::Float((float(number) * scale).round() / scale))
}
