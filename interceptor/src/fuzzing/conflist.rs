//! The property of conflist editing.

use crate::cni::{
    conf::PluginSettings,
    conflist::{Network, Shape},
};

/// A network configuration: installing and uninstalling the plugin gives the original, and the runtime
/// can read what is written in between.
pub fn conflist(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    for shape in [Shape::List, Shape::Single] {
        if let Ok(network) = Network::parse(shape, text) {
            check(network);
        }
    }
}

fn check(original: Network) {
    let settings = PluginSettings::default();
    let Ok(installed) = original.clone().with_ours(&settings) else {
        return;
    };
    assert!(installed.has_ours_with(&settings), "{installed:?}");
    assert_eq!(installed.our_settings().as_ref(), Some(&settings));
    let read = Network::parse(Shape::List, &installed.to_text()).expect("a configuration");
    assert_eq!(read, installed);
    let again = read.clone().with_ours(&settings).expect("a configuration");
    assert_eq!(again, read, "a second installation changes something");
    assert_eq!(
        read.without_ours().to_text(),
        original.into_list().without_ours().to_text(),
    );
}
