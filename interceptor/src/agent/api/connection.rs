//! The connection that a request describes, to be explained.

use std::net::{IpAddr, SocketAddr};

use interceptor_ebpf::{Owner, Transport};
use serde::{Deserialize, Deserializer, de};

use super::error::ApiError;
use crate::{
    arguments::socket_address,
    explain::{self, Direction},
    observe::flow::Protocol,
};

/// The parameters of `explain`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Connection {
    #[serde(deserialize_with = "destination")]
    to: SocketAddr,
    protocol: Option<Protocol>,
    from_uid: Option<u32>,
    from_gid: Option<u32>,
    /// The address that the socket is bound to.
    source: Option<IpAddr>,
    #[serde(default)]
    inbound: bool,
    interface: Option<String>,
}

fn destination<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    socket_address(&text).map_err(de::Error::custom)
}

impl TryFrom<Connection> for explain::Query {
    type Error = ApiError;

    fn try_from(connection: Connection) -> Result<Self, ApiError> {
        Ok(Self {
            transport: match connection.protocol {
                None | Some(Protocol::Tcp) => Transport::Tcp,
                Some(Protocol::Udp) => Transport::Udp,
            },
            destination: explain::effective(connection.to),
            direction: connection.direction()?,
        })
    }
}

impl Connection {
    fn direction(self) -> Result<Direction, ApiError> {
        let owner = Owner {
            uid: self.from_uid.unwrap_or(Owner::NONE.uid),
            gid: self.from_gid.unwrap_or(Owner::NONE.gid),
        };
        let source = self.source;
        match (self.inbound, self.interface) {
            (true, _) if owner != Owner::NONE || source.is_some() => Err(ApiError::bad_request(
                "from_uid, from_gid, source: only of outbound connections (inbound=false)",
            )),
            (true, interface) => Ok(Direction::Inbound { interface }),
            (false, None) => Ok(Direction::Outbound { owner, source }),
            (false, Some(_)) => Err(ApiError::bad_request(
                "interface: only of inbound connections (inbound=true)",
            )),
        }
    }
}
