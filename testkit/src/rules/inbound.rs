//! Inbound connections.

use super::Rules;
use crate::settings::items;

impl Rules<'_> {
    pub(super) fn drop_invalid(&mut self) {
        if self.settings.drop_invalid {
            self.mangle("-A PREROUTING -m conntrack --ctstate INVALID -j ISTIO_DROP");
            self.mangle("-A ISTIO_DROP -j DROP");
        }
    }

    /// The chains of every mode.
    pub(super) fn define_redirects(&mut self) {
        let settings = self.settings;
        self.nat(format!(
            "-A ISTIO_INBOUND -p tcp --dport {} -j RETURN",
            settings.tunnel_port
        ));
        self.nat(format!(
            "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports {}",
            settings.proxy_port
        ));
        self.nat(format!(
            "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports {}",
            settings.capture_port
        ));
    }

    pub(super) fn capture_inbound(&mut self) {
        let settings = self.settings;
        if settings.inbound_ports.is_empty() {
            return;
        }
        if self.is_tproxy() {
            self.define_tproxy();
        }
        self.inbound("-A PREROUTING -p tcp -j ISTIO_INBOUND".to_owned());
        if settings.inbound_ports == "*" {
            for port in items(settings.inbound_excluded_ports) {
                self.inbound(format!("-A ISTIO_INBOUND -p tcp --dport {port} -j RETURN"));
            }
            self.capture_inbound_port("");
        } else {
            for port in items(settings.inbound_ports) {
                self.capture_inbound_port(&format!(" --dport {port}"));
            }
        }
    }

    /// `port` is a match or nothing.
    fn capture_inbound_port(&mut self, port: &str) {
        if self.is_tproxy() {
            self.mangle(format!(
                "-A ISTIO_INBOUND -p tcp{port} -m conntrack --ctstate RELATED,ESTABLISHED \
                 -j ISTIO_DIVERT"
            ));
            self.mangle(format!("-A ISTIO_INBOUND -p tcp{port} -j ISTIO_TPROXY"));
        } else {
            self.nat(format!(
                "-A ISTIO_INBOUND -p tcp{port} -j ISTIO_IN_REDIRECT"
            ));
        }
    }

    /// Adds a rule to the table that captures inbound packets.
    fn inbound(&mut self, rule: String) {
        if self.is_tproxy() {
            self.mangle(rule);
        } else {
            self.nat(rule);
        }
    }
}
