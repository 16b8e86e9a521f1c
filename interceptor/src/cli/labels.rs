//! Labels on the command line.

use std::{collections::BTreeMap, str::FromStr};

/// `KEY=VALUE,...`
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(BTreeMap<String, String>);

impl Labels {
    pub(super) fn get(&self) -> BTreeMap<&str, &str> {
        let labels = self.0.iter();
        labels.map(|(key, value)| (&**key, &**value)).collect()
    }
}

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let items = text.split(',').filter(|item| !item.is_empty());
        let labels = items.map(|item| match item.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(format!("{item:?}: expected KEY=VALUE")),
        });
        labels.collect::<Result<_, _>>().map(Self)
    }
}
