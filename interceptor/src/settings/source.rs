//! Looks up values: the flag, otherwise the environment, otherwise the default.

use std::fmt;

use super::{
    SettingError,
    flags::{Setting, Values},
};

/// A value, with its flag or variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) setting: String,
    pub(super) value: String,
}

impl Given {
    fn default_of(setting: &Setting) -> Self {
        Self {
            setting: setting.name(),
            value: setting.default_value().to_owned(),
        }
    }

    pub(super) fn error(&self, problem: impl Into<String>) -> SettingError {
        SettingError {
            setting: self.setting.clone(),
            value: Some(self.value.clone()),
            problem: problem.into(),
        }
    }

    pub(super) fn parse<T>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, SettingError> {
        parse(&self.value).map_err(|problem| self.error(problem))
    }
}

impl fmt::Display for Given {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {:?}", self.setting, self.value)
    }
}

/// The flags and the environment.
pub(super) struct Source<'a> {
    pub(super) flags: &'a Values,
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Source<'_> {
    /// The value that is set; a flag takes precedence over variables.
    pub(super) fn find(&self, setting: &Setting) -> Option<Given> {
        self.flag(setting)
            .or_else(|| self.variables(setting).next())
    }

    /// The value that is set, or the default.
    pub(super) fn get(&self, setting: &Setting) -> Given {
        self.find(setting)
            .unwrap_or_else(|| Given::default_of(setting))
    }

    /// Parses a value: an invalid one is an error, whether from a flag or a variable.
    pub(super) fn parse<T>(
        &self,
        setting: &Setting,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, SettingError> {
        self.get(setting).parse(parse)
    }

    /// Parses a value of one of Go's own types: Go ignores an invalid variable of such a type.
    pub(super) fn typed<T>(
        &self,
        setting: &Setting,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<T, SettingError> {
        if let Some(flag) = self.flag(setting) {
            return flag.parse(parse);
        }
        let mut readable = self
            .variables(setting)
            .filter_map(|variable| parse(&variable.value).ok());
        readable
            .next()
            .map_or_else(|| Given::default_of(setting).parse(parse), Ok)
    }

    pub(super) fn switch(&self, setting: &Setting) -> Result<bool, SettingError> {
        self.typed(setting, parse_bool)
    }

    fn flag(&self, setting: &Setting) -> Option<Given> {
        self.flags.get(setting).map(|value| Given {
            setting: setting.name(),
            value: value.to_owned(),
        })
    }

    /// The variables that are set, by precedence: the last that istio-iptables binds comes first.
    fn variables(&self, setting: &Setting) -> impl Iterator<Item = Given> {
        let names = setting.variable_names().iter().rev();
        let flag = setting.name();
        names.filter_map(move |name| {
            let value = (self.environment)(name)?;
            let setting = if flag == *name {
                flag.clone()
            } else {
                format!("{name} ({flag})")
            };
            Some(Given { setting, value })
        })
    }
}

/// Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("is not a boolean: expected true or false".to_owned()),
    }
}
