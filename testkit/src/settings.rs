//! The settings of istio-iptables and of Interceptor, with one notation for both.

use std::fmt;

/// Settings of flags and environment. The default is that of a stock injected pod in a dual-stack
/// mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `-p`
    pub proxy_port: u16,
    /// `-z`
    pub capture_port: u16,
    /// `-e`
    pub tunnel_port: u16,
    /// `-u`
    pub uids: &'static str,
    /// `-g`
    pub gids: &'static str,
    /// `-m`
    pub mode: Mode,
    /// `-t`
    pub tproxy_mark: u32,
    /// `-r`
    pub tproxy_table: u32,
    /// `-b`
    pub inbound_ports: &'static str,
    /// `-d`
    pub inbound_excluded_ports: &'static str,
    /// `-i`
    pub outbound_cidrs: &'static str,
    /// `-x`
    pub outbound_excluded_cidrs: &'static str,
    /// `-q`
    pub outbound_ports: &'static str,
    /// `-o`
    pub outbound_excluded_ports: &'static str,
    /// `-c`
    pub excluded_interfaces: &'static str,
    /// `-k`
    pub rerouted_interfaces: &'static str,
    /// `ISTIO_OUTBOUND_OWNER_GROUPS`
    pub owner_groups: &'static str,
    /// `ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE`
    pub excluded_owner_groups: &'static str,
    /// `ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR`
    pub loopback_cidr: &'static str,
    /// `--redirect-dns`, `--capture-all-dns` and resolv.conf
    pub dns: Dns,
    /// `--drop-invalid`
    pub drop_invalid: bool,
    /// `--dual-stack`
    pub dual_stack: bool,
    /// `--strict`, which has no rules
    pub strict: Strict,
}

/// The interception mode of inbound connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The destination is rewritten.
    Redirect,
    /// Nothing is rewritten: the proxy's socket responds for the destination.
    Tproxy,
}

/// The DNS queries that are redirected to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dns {
    /// None.
    Off,
    /// Those to the servers of resolv.conf, here in a comma-separated list.
    Servers(&'static str),
    /// All.
    All,
}

/// What is refused at the pod's interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strict {
    /// Nothing.
    Off,
    /// TCP without a permitted connection.
    Tcp,
    /// The same, and every other protocol that no setting exempts.
    All,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            proxy_port: 15001,
            capture_port: 15006,
            tunnel_port: 15008,
            uids: "1337",
            gids: "1337",
            mode: Mode::Redirect,
            tproxy_mark: 1337,
            tproxy_table: 133,
            inbound_ports: "*",
            inbound_excluded_ports: "15090,15021,15020",
            outbound_cidrs: "*",
            outbound_excluded_cidrs: "",
            outbound_ports: "",
            outbound_excluded_ports: "",
            excluded_interfaces: "",
            rerouted_interfaces: "",
            owner_groups: "*",
            excluded_owner_groups: "",
            loopback_cidr: "127.0.0.1/32",
            dns: Dns::Off,
            drop_invalid: false,
            dual_stack: true,
            strict: Strict::Off,
        }
    }
}

impl Settings {
    /// The command line. istio-iptables' defaults are omitted, except the owners: their default
    /// depends on the machine.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let text = |number: &dyn ToString| number.to_string();
        let valued = [
            ("-p", text(&self.proxy_port), "15001"),
            ("-z", text(&self.capture_port), "15006"),
            ("-e", text(&self.tunnel_port), "15008"),
            ("-u", text(&self.uids), "unset"),
            ("-g", text(&self.gids), "unset"),
            ("-m", text(&self.mode.flag()), "REDIRECT"),
            ("-t", text(&self.tproxy_mark), "1337"),
            ("-r", text(&self.tproxy_table), "133"),
            ("-b", text(&self.inbound_ports), ""),
            ("-d", text(&self.inbound_excluded_ports), ""),
            ("-i", text(&self.outbound_cidrs), ""),
            ("-x", text(&self.outbound_excluded_cidrs), ""),
            ("-q", text(&self.outbound_ports), ""),
            ("-o", text(&self.outbound_excluded_ports), ""),
            ("-c", text(&self.excluded_interfaces), ""),
            ("-k", text(&self.rerouted_interfaces), ""),
            ("--strict", text(&self.strict.flag()), "off"),
        ];
        let switches = [
            ("--redirect-dns", self.dns != Dns::Off),
            ("--capture-all-dns", self.dns == Dns::All),
            ("--drop-invalid", self.drop_invalid),
            ("--dual-stack", self.dual_stack),
        ];
        let with_values = valued
            .into_iter()
            .filter(|(_, value, default)| value != default)
            .flat_map(|(flag, value, _)| [flag.to_owned(), value]);
        let on = switches.into_iter().filter(|(_, is_on)| *is_on);
        with_values
            .chain(on.map(|(flag, _)| flag.to_owned()))
            .collect()
    }

    /// Settings without a flag: variables and their values.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, &'static str)> {
        [
            ("ISTIO_OUTBOUND_OWNER_GROUPS", self.owner_groups, "*"),
            (
                "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
                self.excluded_owner_groups,
                "",
            ),
            (
                "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
                self.loopback_cidr,
                "127.0.0.1/32",
            ),
        ]
        .into_iter()
        .filter(|(_, value, default)| value != default)
        .map(|(name, value, _)| (name, value))
        .collect()
    }

    /// The resolv.conf with the DNS servers, if they matter.
    #[must_use]
    pub fn resolv_conf(&self) -> Option<String> {
        let Dns::Servers(servers) = self.dns else {
            return None;
        };
        let lines: Vec<_> = items(servers)
            .map(|server| format!("nameserver {server}\n"))
            .collect();
        Some(lines.concat())
    }
}

/// As the source of a test: the values that are not the default.
impl fmt::Display for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = format!("{:?}", Self::default());
        let own = format!("{self:?}");
        let fields = |text: &str| -> Vec<String> {
            let inner = text
                .trim_start_matches("Settings { ")
                .trim_end_matches(" }");
            inner.split(", ").map(str::to_owned).collect()
        };
        formatter.write_str("Settings { ")?;
        for (own, default) in fields(&own).iter().zip(fields(&default)) {
            if *own != default {
                let own = own
                    .replace("dns: ", "dns: Dns::")
                    .replace("mode: ", "mode: Mode::")
                    .replace("strict: ", "strict: Strict::");
                write!(formatter, "{own}, ")?;
            }
        }
        formatter.write_str("..Settings::default() }")
    }
}

impl Mode {
    /// The value of `-m`.
    #[must_use]
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Redirect => "REDIRECT",
            Self::Tproxy => "TPROXY",
        }
    }
}

impl Strict {
    /// The value of `--strict`.
    #[must_use]
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Tcp => "tcp",
            Self::All => "all",
        }
    }
}

/// The items of a comma-separated list, as istio-iptables splits it: empty ones are dropped.
pub fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_other_than_the_default_are_written() {
        let flags = Settings::default().flags().join(" ");
        let stock = "-u 1337 -g 1337 -b * -d 15090,15021,15020 -i * --dual-stack";
        assert_eq!(flags, stock);
        assert!(Settings::default().environment().is_empty());
        assert_eq!(Settings::default().resolv_conf(), None);
    }

    #[test]
    fn settings_are_displayed_as_source() {
        let settings = Settings {
            proxy_port: 16001,
            mode: Mode::Tproxy,
            outbound_cidrs: "10.0.0.0/8,::/0",
            dns: Dns::Servers("10.96.0.10"),
            strict: Strict::Tcp,
            ..Settings::default()
        };
        assert_eq!(
            settings.to_string(),
            "Settings { proxy_port: 16001, mode: Mode::Tproxy, \
             outbound_cidrs: \"10.0.0.0/8,::/0\", dns: Dns::Servers(\"10.96.0.10\"), \
             strict: Strict::Tcp, \
             ..Settings::default() }"
        );
    }

    #[test]
    fn dns_servers_are_written_to_a_resolv_conf() {
        let settings = Settings {
            dns: Dns::Servers("10.96.0.10,fd00:96::10"),
            ..Settings::default()
        };
        assert!(settings.flags().contains(&"--redirect-dns".to_owned()));
        assert_eq!(
            settings.resolv_conf().as_deref(),
            Some("nameserver 10.96.0.10\nnameserver fd00:96::10\n")
        );
    }
}
