//! The properties of what the CNI plugin reads and prints.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use serde_json::Value;

use super::split_line;
use crate::cni::{
    call::Environment,
    conf::{Conf, PluginSettings},
    version,
};

/// `CNI_ARGS` on the first line, then the configuration on standard input: whatever it is, the plugin
/// prints JSON, and its own settings survive a round trip.
pub fn cni_stdin(data: &[u8]) {
    let (arguments, input) = split_line(data);
    let variable = ("CNI_ARGS".into(), OsString::from_vec(arguments.to_owned()));
    let pod = Environment::new([variable]).pod();
    let version = version::of_input(input);
    assert_json(&version::response(input));
    if let Err(error) = &pod {
        assert_json(&error.to_json(&version));
    }
    match PluginSettings::read(input) {
        Ok(settings) => {
            let text = serde_json::to_vec(&settings).expect("settings as JSON");
            assert_eq!(PluginSettings::read(&text).as_ref(), Ok(&settings));
            if let Ok(Some(pod)) = pod {
                let _reason = settings.passes(&pod.name);
            }
        }
        Err(error) => assert_json(&error.to_json(&version)),
    }
    if let Ok(conf) = Conf::read(input) {
        assert_json(&conf.result());
    }
}

fn assert_json(text: &str) {
    if let Err(error) = serde_json::from_str::<Value>(text) {
        panic!("{error}: {text}");
    }
}
