//! Excluded interfaces, and those whose inbound traffic is a virtual machine's outbound traffic.

use super::Rules;
use crate::settings::items;

impl Rules<'_> {
    pub(super) fn exclude_interfaces(&mut self) {
        let interfaces = self.settings.excluded_interfaces;
        for interface in items(interfaces) {
            self.nat(format!("-A PREROUTING -i {interface} -j RETURN"));
            self.nat(format!("-A OUTPUT -o {interface} -j RETURN"));
        }
        if !self.is_tproxy() {
            return;
        }
        for interface in items(interfaces) {
            self.mangle(format!("-A PREROUTING -i {interface} -j RETURN"));
            self.mangle(format!("-A OUTPUT -o {interface} -j RETURN"));
        }
    }

    /// Each rule is inserted first, so the last interface comes first.
    pub(super) fn return_from_rerouted_interfaces(&mut self) {
        for interface in items(self.settings.rerouted_interfaces) {
            self.nat(format!("-I PREROUTING 1 -i {interface} -j RETURN"));
        }
    }

    /// Like [`Rules::return_from_rerouted_interfaces`], and so before those. `destination` is a
    /// match or nothing.
    pub(super) fn capture_rerouted_interfaces(&mut self, destination: &str) {
        for interface in items(self.settings.rerouted_interfaces) {
            self.nat(format!(
                "-I PREROUTING 1 -i {interface}{destination} -j ISTIO_REDIRECT"
            ));
        }
    }
}
