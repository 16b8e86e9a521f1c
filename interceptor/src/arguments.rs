//! Values of the command line. Each error says what is allowed.

use std::{fmt::Display, net::SocketAddr, ops::RangeInclusive, path::PathBuf, str::FromStr};

use clap::error::ErrorKind;
use interceptor_injection::decision::webhooks::DEFAULT_REVISION;
use tracing_subscriber::EnvFilter;

/// A parser of whole numbers in `range`.
pub(crate) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Clone,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (first, last) = (range.start(), range.end());
            format!("expected a whole number from {first} to {last}")
        })
    }
}

/// An IP address and a port.
pub(crate) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_error| {
        "expected an IP address and a port, such as 127.0.0.1:8443 or [::]:8443".to_owned()
    })
}

/// The syntax of a namespace's name: lower-case letters, digits and `-`.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let is_outer = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    bytes.len() <= 63
        && ends
            .iter()
            .all(|byte| byte.is_some_and(|byte| is_outer(*byte)))
        && bytes.iter().all(|byte| is_outer(*byte) || *byte == b'-')
}

/// The name of a namespace, of a Service or of a revision.
pub(crate) fn dns_label(text: &str) -> Result<String, String> {
    if is_dns_label(text) {
        return Ok(text.to_owned());
    }
    Err(
        "expected at most 63 lower-case letters, digits and \"-\", with a letter or a digit at both ends"
            .to_owned(),
    )
}

/// The name of an istiod or of another injector. As in istioctl, none is the default one.
pub(crate) fn revision(text: &str) -> Result<String, String> {
    match text {
        "" => Ok(DEFAULT_REVISION.to_owned()),
        text => dns_label(text),
    }
}

/// The name of most other objects: DNS labels with dots between them.
pub(crate) fn object_name(text: &str) -> Result<String, String> {
    if text.len() <= 253 && text.split('.').all(is_dns_label) {
        return Ok(text.to_owned());
    }
    Err(
        "expected the name of an object: lower-case letters, digits, \"-\" and \".\", with a letter \
         or a digit at both ends, such as istio-sidecar-injector"
            .to_owned(),
    )
}

/// A reference to an image, such as `example.com:5000/team/envoy:1.2@sha256:…`. Its registry is not
/// checked: container runtimes differ in what they accept.
pub(crate) fn image_reference(text: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@[]+".contains(&byte);
    let starts_well = text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[');
    if starts_well && text.bytes().all(is_allowed) && !text.ends_with(['/', ':', '@']) {
        return Ok(text.to_owned());
    }
    Err("expected the reference of an image, such as docker.io/envoyproxy/envoy:v1.36.0".to_owned())
}

/// A level of the log, or filters.
pub(crate) fn log_filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(
            "expected off, error, warn, info, debug or trace, or filters such as \
             info,interceptor=debug"
                .to_owned(),
        ),
    }
}

/// A file to write to. Names of formats are refused: other commands take one after `-o`.
pub(crate) fn output_file(path: PathBuf) -> Result<PathBuf, String> {
    let formats = ["json", "yaml", "table", "text", "wide", "name"];
    match path.to_str().filter(|name| formats.contains(name)) {
        Some(name) => Err(format!(
            "expected a file, whose format is that of the input: for a file of this name, set \
             ./{name}"
        )),
        None => Ok(path),
    }
}

/// A wrong command line, where clap's own rules cannot say what is wrong.
pub(crate) fn wrong_usage(problem: &str) -> anyhow::Error {
    clap::Error::raw(
        ErrorKind::MissingRequiredArgument,
        format!("{problem}\n\nFor more information, try '--help'.\n"),
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_in_its_range() {
        let number = number(1..=20_u64);
        assert_eq!((number("1"), number("20")), (Ok(1), Ok(20)));
        for text in ["0", "21", "-1", "x", "", "1.5", "99999999999999999999999"] {
            let expected = "expected a whole number from 1 to 20".to_owned();
            assert_eq!(number(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn names_are_dns_labels() {
        assert_eq!(dns_label("kube-system"), Ok("kube-system".to_owned()));
        for text in ["", "Bad", "a b", "-a", "a-", "a.b", &"a".repeat(64)] {
            assert!(dns_label(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_revision_without_a_name_is_the_default() {
        assert_eq!(revision(""), Ok("default".to_owned()));
        assert_eq!(revision("1-29"), Ok("1-29".to_owned()));
        assert!(revision("1.29").is_err());
    }

    #[test]
    fn object_names_have_dots() {
        for text in ["a", "a.b", "istio-sidecar-injector-1-29"] {
            object_name(text).unwrap();
        }
        for text in ["", "A", "a..b", ".a", "a b", &"a.".repeat(127)] {
            assert!(object_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn images_have_no_spaces() {
        for text in [
            "envoy",
            "docker.io/envoyproxy/envoy:v1.36.0",
            "[::1]:5000/a/b_c:1",
            "host:5000/envoy@sha256:0123",
        ] {
            image_reference(text).unwrap();
        }
        for text in ["", " ", "a b", "-a", "a:", "a/", "a@", "a\n", "ä"] {
            assert!(image_reference(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_format_is_no_output_file() {
        for text in ["out", "./json", "out.json", "/dev/stdout"] {
            assert_eq!(output_file(text.into()), Ok(text.into()));
        }
        let error = output_file("json".into()).unwrap_err();
        assert!(error.contains("set ./json"), "{error}");
    }

    #[test]
    fn log_filters_are_those_of_the_log() {
        for text in ["info", "off", "info,interceptor=debug", "INFO"] {
            log_filter(text).unwrap();
        }
        for text in ["a=b=c", "foo,bar=quux"] {
            assert!(log_filter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_have_a_port() {
        for text in ["127.0.0.1:0", "[::]:443"] {
            socket_address(text).unwrap();
        }
        for text in ["", "1.2.3.4", "localhost:80", "1.2.3.4:99999"] {
            assert!(socket_address(text).is_err(), "{text}");
        }
    }
}
