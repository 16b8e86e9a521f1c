//! What the user of istio-iptables and of Interceptor can set, with one spelling for both.

/// Settings as the flags give them. The default is what a stock injected pod gets, in a mesh with
/// dual-stack.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `-p`
    pub proxy_port: u16,
    /// `-z`
    pub capture_port: u16,
    /// `-u`
    pub uids: &'static str,
    /// `-g`
    pub gids: &'static str,
    /// `-b`
    pub inbound_ports: &'static str,
    /// `-d`
    pub inbound_excluded_ports: &'static str,
    /// `-i`
    pub outbound_cidrs: &'static str,
    /// `-x`
    pub outbound_excluded_cidrs: &'static str,
    /// `-o`
    pub outbound_excluded_ports: &'static str,
    /// `--dual-stack`
    pub dual_stack: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            proxy_port: 15001,
            capture_port: 15006,
            uids: "1337",
            gids: "1337",
            inbound_ports: "*",
            inbound_excluded_ports: "15090,15021,15020",
            outbound_cidrs: "*",
            outbound_excluded_cidrs: "",
            outbound_excluded_ports: "",
            dual_stack: true,
        }
    }
}

impl Settings {
    /// The command line.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let mut flags: Vec<String> = [
            ("-p", self.proxy_port.to_string().as_str()),
            ("-z", self.capture_port.to_string().as_str()),
            ("-u", self.uids),
            ("-g", self.gids),
            ("-m", "REDIRECT"),
            ("-b", self.inbound_ports),
            ("-d", self.inbound_excluded_ports),
            ("-i", self.outbound_cidrs),
            ("-x", self.outbound_excluded_cidrs),
            ("-o", self.outbound_excluded_ports),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()])
        .collect();
        if self.dual_stack {
            flags.push("--dual-stack".to_owned());
        }
        flags
    }
}

/// The items of a comma-separated list, as istio-iptables splits it: empty ones are dropped.
pub fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|item| !item.is_empty())
}
