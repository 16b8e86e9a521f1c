//! TPROXY: packets are delivered unchanged to the proxy's socket, and a mark routes the replies.

use super::Rules;
use crate::settings::items;

/// The mark of the proxy's own calls of the pod, with any settings.
const SELF_MARK: u32 = 1338;

impl Rules<'_> {
    pub(super) fn define_tproxy(&mut self) {
        let (mark, port) = (self.settings.tproxy_mark, self.settings.capture_port);
        let localhost = self.localhost();
        self.mangle(format!("-A ISTIO_DIVERT -j MARK --set-mark {mark}"));
        self.mangle("-A ISTIO_DIVERT -j ACCEPT");
        self.mangle(format!(
            "-A ISTIO_TPROXY ! -d {localhost} -p tcp -j TPROXY --tproxy-mark {mark}/0xffffffff \
             --on-port {port}"
        ));
    }

    /// Written in every TPROXY mode, also without captured inbound ports.
    pub(super) fn divert(&mut self) {
        if !self.is_tproxy() {
            return;
        }
        let settings = self.settings;
        let mark = settings.tproxy_mark;
        let (localhost, passthrough) = (self.localhost(), self.passthrough());
        self.mangle(format!(
            "-A PREROUTING -p tcp -m mark --mark {mark} -j CONNMARK --save-mark"
        ));
        self.mangle(format!(
            "-A OUTPUT -p tcp -o lo -m mark --mark {mark} -j RETURN"
        ));
        let uids = items(settings.uids).map(|uid| format!("--uid-owner {uid}"));
        let gids = items(settings.gids).map(|gid| format!("--gid-owner {gid}"));
        for owner in uids.chain(gids) {
            self.mangle(format!(
                "-A OUTPUT ! -d {localhost} -p tcp -o lo -m owner {owner} -j MARK --set-mark \
                 {SELF_MARK}"
            ));
        }
        self.mangle(format!(
            "-A OUTPUT -p tcp -m connmark --mark {mark} -j CONNMARK --restore-mark"
        ));
        self.mangle(format!(
            "-I ISTIO_INBOUND 1 -p tcp -m mark --mark {mark} -j RETURN"
        ));
        self.mangle(format!(
            "-I ISTIO_INBOUND 2 -p tcp -s {passthrough} -i lo -j RETURN"
        ));
        self.mangle(format!(
            "-I ISTIO_INBOUND 3 -p tcp -i lo -m mark ! --mark {SELF_MARK} -j RETURN"
        ));
    }
}
