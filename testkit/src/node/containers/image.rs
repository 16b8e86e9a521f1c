//! Images: the machine's files, and programs of the tests at `/usr/local/bin`.

use std::path::PathBuf;

use anyhow::Result;
use interceptor_injection::builtin;

use crate::{
    actor::User,
    command::own_binary,
    sidecar::{self, Envoy},
    users::APP,
};

/// The image of apps.
pub const APP_IMAGE: &str = "example.org/app:1";

/// An image.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name.
    pub reference: String,
    /// Its user.
    pub user: User,
    /// Its programs: the name in `/usr/local/bin`, and the program.
    pub programs: Vec<(String, PathBuf)>,
}

/// The image of apps, which has `actor` and `app`, and that of the built-in sidecar, which has the
/// real Envoy.
pub fn test_images() -> Result<Vec<Image>> {
    let program = |name: &str, path| (name.to_owned(), path);
    Ok(vec![
        Image {
            reference: APP_IMAGE.to_owned(),
            user: APP,
            programs: vec![
                program("actor", own_binary("interceptor-test-actor")?),
                program("app", own_binary(sidecar::BINARY)?),
            ],
        },
        Image {
            reference: builtin::Config::default().image,
            user: User::new(101, 101),
            programs: vec![program("envoy", Envoy::new(1)?.binary)],
        },
    ])
}
