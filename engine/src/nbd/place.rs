//! Where an NBD server and its export are: the NBD project's URIs.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The port that IANA gave to NBD.
const DEFAULT_PORT: u16 = 10809;
/// The protocol's limit for strings, in bytes.
const EXPORT_LEN_MAX: usize = 4096;
/// What is escaped where a place is shown: what ends or confuses the parts of a URI.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b']');

/// An export of an NBD server, and how to reach it.
///
/// Written as the NBD project's URI specification says: `nbd://HOST[:PORT]/EXPORT`, or
/// `nbd+unix:///EXPORT?socket=PATH`; with TLS `nbds://` and `nbds+unix://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdPlace {
    pub(super) server: Server,
    pub(super) export: String,
    pub(super) tls: Option<TlsPlace>,
}

/// What to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Tcp {
        /// A name or an address, of IPv6 without brackets.
        host: String,
        port: u16,
    },
    /// A path, or an abstract name behind a NUL.
    Unix(PathBuf),
}

/// Whom to trust and as whom to appear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TlsPlace {
    /// A directory with `ca-cert.pem`, and perhaps `client-cert.pem` and `client-key.pem`.
    pub(super) certificates: Option<PathBuf>,
    /// Whose name the server's certificate must have.
    pub(super) hostname: String,
}

/// Why a text names no export of an NBD server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// It has another form.
    #[error(
        "it is not of the form nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH, with nbds for TLS"
    )]
    OtherForm,
    /// It has a part before an `@`, which may be a secret and is not told.
    #[error("NBD knows no users: leave out what stands before the '@'")]
    User,
    /// The host is missing, or none.
    #[error("{host:?} cannot be a host")]
    Host {
        /// What stands in its place.
        host: String,
    },
    /// The port is none.
    #[error("{port:?} cannot be a port: that is a number from 1 to 65535")]
    Port {
        /// What stands in its place.
        port: String,
    },
    /// A Unix socket is to be reached over a host.
    #[error("a Unix socket has no host: three slashes come after nbd+unix:")]
    UnixHost,
    /// The parameter `socket` is missing, or empty.
    #[error("the parameter socket=PATH is missing")]
    NoSocket,
    /// A part does not decode.
    #[error("the {part} does not decode to text without a zero byte")]
    Escape {
        /// "export", "host", "socket" and such.
        part: &'static str,
    },
    /// The export's name is longer than the protocol allows.
    #[error("the export's name has {len} bytes; {EXPORT_LEN_MAX} are allowed")]
    LongExport {
        /// Its length in bytes.
        len: usize,
    },
    /// A parameter is not known, comes twice, or does not belong here.
    #[error("the parameter {name:?} is not known here, or comes twice")]
    Parameter {
        /// Its name.
        name: String,
    },
    /// A parameter has a value that is not supported.
    #[error(
        "{name}={value} is not supported: a server is known by its X.509 certificate, which is always checked"
    )]
    Unsupported {
        /// The parameter's name.
        name: &'static str,
        /// The value.
        value: String,
    },
}

impl NbdPlace {
    /// Reads a place; `None` if the text is no URI of an NBD server at all.
    ///
    /// # Errors
    /// A [`PlaceError`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Result<Self, PlaceError>> {
        let (scheme, rest) = text.split_once(':')?;
        let (is_unix, is_tls) = match scheme.to_ascii_lowercase().as_str() {
            "nbd" => (false, false),
            "nbds" => (false, true),
            "nbd+unix" => (true, false),
            "nbds+unix" => (true, true),
            _ => return None,
        };
        Some(parse(rest, is_unix, is_tls))
    }

    /// The export's name; empty for the server's default.
    #[must_use]
    pub fn export(&self) -> &str {
        &self.export
    }

    /// Whether nothing but TLS is spoken.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }
}

/// The URI without its parameters for TLS.
impl fmt::Display for NbdPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.tls.is_some() { "s" } else { "" };
        let export = percent_encode(self.export.as_bytes(), ESCAPED);
        match &self.server {
            Server::Tcp { host, port } => {
                write!(f, "nbd{s}://{}", Host(host))?;
                if *port != DEFAULT_PORT {
                    write!(f, ":{port}")?;
                }
                write!(f, "/{export}")
            }
            Server::Unix(path) => {
                let socket = percent_encode(path.as_os_str().as_bytes(), ESCAPED);
                write!(f, "nbd{s}+unix:///{export}?socket={socket}")
            }
        }
    }
}

/// A host as URIs have it.
struct Host<'a>(&'a str);

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(self.0) }
    }
}

fn parse(rest: &str, is_unix: bool, is_tls: bool) -> Result<NbdPlace, PlaceError> {
    let rest = rest.strip_prefix("//").filter(|rest| !rest.contains('#')).ok_or(PlaceError::OtherForm)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err(PlaceError::User);
    }
    let export = decoded_text("export", export)?;
    if export.len() > EXPORT_LEN_MAX {
        return Err(PlaceError::LongExport { len: export.len() });
    }
    let mut parameters = Parameters::parse(query)?;
    let server = if is_unix {
        if !authority.is_empty() {
            return Err(PlaceError::UnixHost);
        }
        Server::Unix(socket(parameters.take("socket").ok_or(PlaceError::NoSocket)?)?)
    } else {
        parse_authority(authority)?
    };
    let tls = if is_tls { Some(parse_tls(&mut parameters, &server)?) } else { None };
    parameters.end()?;
    Ok(NbdPlace { server, export, tls })
}

fn parse_authority(authority: &str) -> Result<Server, PlaceError> {
    let no_host = || PlaceError::Host { host: authority.to_owned() };
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or_else(no_host)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| no_host())?;
        let port = if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(no_host)?) };
        (address.to_owned(), port)
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        (decoded_text("host", host)?, port)
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
        return Err(no_host());
    }
    // RFC 3986 allows a colon with nothing behind it.
    let port = match port {
        None | Some("") => DEFAULT_PORT,
        Some(digits) => {
            let bad_port = || PlaceError::Port { port: digits.to_owned() };
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(bad_port());
            }
            digits.parse().ok().filter(|port| *port > 0).ok_or_else(bad_port)?
        }
    };
    Ok(Server::Tcp { host, port })
}

fn parse_tls(parameters: &mut Parameters<'_>, server: &Server) -> Result<TlsPlace, PlaceError> {
    for (name, supported) in [("tls-type", "x509"), ("tls-verify-peer", "1")] {
        if let Some(value) = parameters.take(name).filter(|value| *value != supported) {
            return Err(PlaceError::Unsupported { name, value: value.to_owned() });
        }
    }
    let certificates = parameters.take("tls-certificates").map(|value| decoded_path("directory", value));
    let hostname = match parameters.take("tls-hostname") {
        Some(name) => decoded_text("name", name)?,
        None => match server {
            Server::Tcp { host, .. } => host.clone(),
            // As others that speak NBD over TLS do: the server is on this machine.
            Server::Unix(_) => "localhost".to_owned(),
        },
    };
    Ok(TlsPlace { certificates: certificates.transpose()?, hostname })
}

/// What stands behind the question mark, still escaped.
struct Parameters<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Parameters<'a> {
    fn parse(query: &'a str) -> Result<Self, PlaceError> {
        let mut found: Vec<(&str, &str)> = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if found.iter().any(|(before, _)| *before == name) {
                return Err(PlaceError::Parameter { name: name.to_owned() });
            }
            found.push((name, value));
        }
        Ok(Self(found))
    }

    fn take(&mut self, wanted: &str) -> Option<&'a str> {
        let position = self.0.iter().position(|(name, _)| *name == wanted)?;
        Some(self.0.swap_remove(position).1)
    }

    /// What was not taken is not known.
    fn end(self) -> Result<(), PlaceError> {
        let unknown = self.0.into_iter().next();
        unknown.map_or(Ok(()), |(name, _)| Err(PlaceError::Parameter { name: name.to_owned() }))
    }
}

fn decoded_text(part: &'static str, text: &str) -> Result<String, PlaceError> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| PlaceError::Escape { part })?;
    if decoded.contains('\0') {
        return Err(PlaceError::Escape { part });
    }
    Ok(decoded.into_owned())
}

fn decoded_path(part: &'static str, text: &str) -> Result<PathBuf, PlaceError> {
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(PlaceError::Escape { part });
    }
    Ok(OsString::from_vec(bytes).into())
}

/// A path, which may be abstract: with a zero byte first.
fn socket(text: &str) -> Result<PathBuf, PlaceError> {
    let path: Vec<u8> = percent_decode_str(text).collect();
    match path.as_slice() {
        [] => Err(PlaceError::NoSocket),
        [_, rest @ ..] if rest.contains(&0) => Err(PlaceError::Escape { part: "socket" }),
        _ => Ok(OsString::from_vec(path).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Result<NbdPlace, PlaceError> {
        NbdPlace::parse(text).expect("it is an NBD URI")
    }

    fn tcp(host: &str, port: u16) -> Server {
        Server::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn a_server_has_a_host_and_a_port_and_an_export_a_name() {
        for (text, server, export) in [
            ("nbd://example.com/disk", tcp("example.com", 10809), "disk"),
            ("nbd://example.com:2000/", tcp("example.com", 2000), ""),
            ("NBD://example.com", tcp("example.com", 10809), ""),
            ("nbd://example.com:/disk", tcp("example.com", 10809), "disk"),
            ("nbd://example.com//disk", tcp("example.com", 10809), "/disk"),
            ("nbd://example.com/a/b%2Fc%20d", tcp("example.com", 10809), "a/b/c d"),
            ("nbd://10.0.0.1:1/%C3%A4", tcp("10.0.0.1", 1), "ä"),
            ("nbd://[::1]:65535/disk", tcp("::1", 65535), "disk"),
            ("nbd://[2001:db8::7]/", tcp("2001:db8::7", 10809), ""),
        ] {
            assert_eq!(
                place(text).unwrap(),
                NbdPlace { server, export: export.to_owned(), tls: None },
                "{text}"
            );
        }
    }

    #[test]
    fn a_unix_socket_is_a_parameter() {
        for (text, path, export) in [
            ("nbd+unix:///disk?socket=/run/nbd.sock", "/run/nbd.sock", "disk"),
            ("nbd+unix:///?socket=nbd.sock", "nbd.sock", ""),
            ("nbd+unix://?socket=a%26b%3Dc", "a&b=c", ""),
            ("nbd+unix:///a%3Fb?socket=/tmp/x%20y", "/tmp/x y", "a?b"),
            ("nbd+unix:///?socket=%00abstract", "\0abstract", ""),
        ] {
            let server = Server::Unix(PathBuf::from(path));
            assert_eq!(
                place(text).unwrap(),
                NbdPlace { server, export: export.to_owned(), tls: None },
                "{text}"
            );
        }
    }

    #[test]
    fn tls_has_a_directory_of_certificates_and_a_name() {
        let tls = |text: &str| place(text).unwrap().tls.expect("it is over TLS");
        let named = |certificates: Option<&str>, hostname: &str| TlsPlace {
            certificates: certificates.map(PathBuf::from),
            hostname: hostname.to_owned(),
        };
        assert_eq!(tls("nbds://host:1/x"), named(None, "host"));
        assert_eq!(tls("nbds://[::1]/x?tls-certificates=/etc/pki"), named(Some("/etc/pki"), "::1"));
        assert_eq!(tls("nbds+unix:///x?socket=s&tls-type=x509&tls-verify-peer=1"), named(None, "localhost"));
        assert_eq!(tls("nbds+unix:///x?tls-hostname=server.example&socket=s"), named(None, "server.example"));
        assert!(!place("nbd://host/x").unwrap().is_encrypted());
    }

    #[test]
    fn a_place_is_shown_so_that_it_reads_as_the_same() {
        for text in [
            "nbd://example.com/disk",
            "nbds://example.com:1/a%20b%3F",
            "nbd://[::1]:7/",
            "nbd+unix:///a%25?socket=/tmp/a%26b",
            "nbds+unix:///%5Bx%5D?socket=%00abstract",
        ] {
            let place = place(text).unwrap();
            assert_eq!(place.to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused_and_say_why() {
        for text in ["/dev/nbd0", "azblob://a/b", "nbdx://host/", "disk.raw"] {
            assert_eq!(NbdPlace::parse(text), None, "{text}");
        }
        let parameter = |name: &str| PlaceError::Parameter { name: name.to_owned() };
        let unsupported =
            |name: &'static str, value: &str| PlaceError::Unsupported { name, value: value.to_owned() };
        let port = |port: &str| PlaceError::Port { port: port.to_owned() };
        let host = |host: &str| PlaceError::Host { host: host.to_owned() };
        for (text, expected) in [
            ("nbd:host", PlaceError::OtherForm),
            ("nbd:/host/x", PlaceError::OtherForm),
            ("nbd://host/x#y", PlaceError::OtherForm),
            ("nbd://user:SECRET@host/x", PlaceError::User),
            ("nbd://", host("")),
            ("nbd:///x", host("")),
            ("nbd://:10809/x", host(":10809")),
            ("nbd://[::1/x", host("[::1")),
            ("nbd://[host]/x", host("[host]")),
            ("nbd://[::1]7/x", host("[::1]7")),
            ("nbd://a%20b/x", host("a%20b")),
            ("nbd://host:0/x", port("0")),
            ("nbd://host:65536/x", port("65536")),
            ("nbd://host:+1/x", port("+1")),
            ("nbd://::1/x", host("::1")),
            ("nbd+unix://host/x?socket=s", PlaceError::UnixHost),
            ("nbd+unix:///x", PlaceError::NoSocket),
            ("nbd+unix:///x?socket=", PlaceError::NoSocket),
            ("nbd+unix:///x?socket=a%00b", PlaceError::Escape { part: "socket" }),
            ("nbd://host/%FF", PlaceError::Escape { part: "export" }),
            ("nbd://host/a%00", PlaceError::Escape { part: "export" }),
            ("nbd://host/x?socket=s", parameter("socket")),
            ("nbd://host/x?tls-certificates=/etc", parameter("tls-certificates")),
            ("nbd+unix:///x?socket=s&socket=t", parameter("socket")),
            ("nbds://host/x?tls-psk-file=SECRET", parameter("tls-psk-file")),
            ("nbds://host/x?tls-certificates=", PlaceError::Escape { part: "directory" }),
            ("nbds://host/x?tls-verify-peer=0", unsupported("tls-verify-peer", "0")),
            ("nbds://host/x?tls-type=psk", unsupported("tls-type", "psk")),
        ] {
            let error = place(text).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("SECRET"), "{error}");
        }
        let long = format!("nbd://host/{}", "x".repeat(EXPORT_LEN_MAX + 1));
        assert_eq!(place(&long).unwrap_err(), PlaceError::LongExport { len: EXPORT_LEN_MAX + 1 });
    }
}
