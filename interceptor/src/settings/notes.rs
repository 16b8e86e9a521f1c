//! Notes about settings without effect: every ignored setting is reported.

use super::{
    Mode, OwnerGroups, SettingError, Settings,
    flags::{
        DROP_INVALID, FORCE_IPTABLES_BINARY, IGNORED, INBOUND_PORTS_EXCLUDE, MODE,
        OWNER_GROUPS_EXCLUDE, REMOVED, Setting, TPROXY_MARK, TPROXY_TABLE,
    },
    ports::PortSelection,
    source::Source,
};

/// Refuses flags of older Istio releases, with their replacement.
pub(super) fn refuse_removed(source: &Source<'_>) -> Result<(), SettingError> {
    for (setting, instead) in &REMOVED {
        if let Some(given) = source.find(setting) {
            let error = given.error(format!("istio-iptables no longer has this flag: {instead}"));
            // A flag without a value has the empty default.
            let value = error.value.filter(|value| !value.is_empty());
            return Err(SettingError { value, ..error });
        }
    }
    Ok(())
}

/// Notes about settings that have a meaning for iptables only.
pub(super) fn ignored(source: &Source<'_>) -> Result<Vec<String>, SettingError> {
    source.parse(&FORCE_IPTABLES_BINARY, |binary| match binary {
        "" | "legacy" | "nft" => Ok(()),
        _ => Err("is not a kind of iptables: allowed are legacy and nft".to_owned()),
    })?;
    let mut notes = Vec::new();
    for (setting, why) in &IGNORED {
        if is_set(source, setting)?
            && let Some(given) = source.find(setting)
        {
            notes.push(format!("{given}: ignored: {why}"));
        }
    }
    Ok(notes)
}

/// Whether a setting is set to another value than its default.
fn is_set(source: &Source<'_>, setting: &Setting) -> Result<bool, SettingError> {
    if setting.is_switch() {
        return source.switch(setting);
    }
    let given = source.find(setting);
    Ok(given.is_some_and(|given| given.value != setting.default_value()))
}

/// Notes about settings that other settings leave without effect.
pub(super) fn unused(source: &Source<'_>, settings: &Settings) -> Vec<String> {
    let redirect = settings.mode == Mode::Redirect;
    let not_all_inbound = settings.inbound_ports != PortSelection::All;
    let groups_listed = matches!(settings.owner_groups, OwnerGroups::Only(_));
    let conditions = [
        (
            &TPROXY_MARK,
            redirect,
            "no effect: only -m TPROXY uses a mark",
        ),
        (
            &TPROXY_TABLE,
            redirect,
            "no effect: only -m TPROXY uses a routing table",
        ),
        (
            &INBOUND_PORTS_EXCLUDE,
            not_all_inbound,
            "no effect: inbound ports are excluded only with -b '*'",
        ),
        (
            &OWNER_GROUPS_EXCLUDE,
            groups_listed,
            "no effect: groups are excluded only if ISTIO_OUTBOUND_OWNER_GROUPS is '*'",
        ),
        (
            &DROP_INVALID,
            settings.drop_invalid,
            "no effect: without conntrack, no packet is invalid",
        ),
        (
            &MODE,
            redirect && !["", "REDIRECT"].contains(&source.get(&MODE).value.as_str()),
            "handled as REDIRECT, as are all modes except TPROXY",
        ),
    ];
    conditions
        .into_iter()
        .filter(|(_, applies, _)| *applies)
        .filter_map(|(setting, _, why)| {
            let given = source.find(setting)?;
            (given.value != setting.default_value()).then(|| format!("{given}: {why}"))
        })
        .collect()
}
