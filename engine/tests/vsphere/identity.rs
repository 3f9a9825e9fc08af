//! Which servers are trusted.

use crate::peer::{Peer, chain};
use keepstone_engine::tls::{Thumbprint, Trust, WrongThumbprint};
use keepstone_engine::vsphere::{VCenter, VCenterSettings, VSphereError};
use keepstone_peers::certificates::Certificates;
use keepstone_peers::scripted::Asked;

fn refusing() -> Peer {
    Peer::start(|method, _: &Asked| panic!("{method} was asked"))
}

fn with(peer: &Peer, trust: Trust) -> Result<VCenter, VSphereError> {
    VCenter::connect(&VCenterSettings { trust, ..peer.settings() })
}

/// An address that reaches the same server, and is not in its certificate.
const OTHER_NAME: &str = "0.0.0.0";

#[test]
fn a_server_with_the_pinned_certificate_is_trusted_whatever_its_name() {
    let peer = refusing();
    let trust = Trust::Thumbprint(peer.thumbprint());
    let settings = VCenterSettings { host: OTHER_NAME.to_owned(), trust, ..peer.settings() };
    assert_eq!(VCenter::connect(&settings).unwrap().about().version, "8.0.3");
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let peer = refusing();
    let settings = VCenterSettings { host: OTHER_NAME.to_owned(), ..peer.settings() };
    let refused = VCenter::connect(&settings).unwrap_err();
    assert!(matches!(refused, VSphereError::Tls { .. }), "{refused:?}");
}

#[test]
fn another_certificate_than_the_pinned_one_is_refused_with_the_thumbprint_to_pin() {
    let peer = refusing();
    let expected = Thumbprint([7; 32]);
    let refused = with(&peer, Trust::Thumbprint(expected)).unwrap_err();
    let VSphereError::WrongThumbprint { source, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(*source, WrongThumbprint { expected, found: peer.thumbprint() });
    let found: Thumbprint = source.found.to_string().parse().unwrap();
    assert_eq!(
        chain(&refused),
        format!(
            "{} is not the server that is trusted: the server's certificate has the thumbprint {found}, not {expected}",
            peer.server.address()
        )
    );
    with(&peer, Trust::Thumbprint(found)).unwrap();
    // Nobody was told a password before.
    assert_eq!(peer.methods(), ["RetrieveServiceContent", "Login"]);
}

#[test]
fn only_the_authority_of_the_file_is_trusted() {
    let peer = refusing();
    let directory = tempfile::tempdir().unwrap();
    let others = Certificates::make_in(directory.path());
    for trust in [Trust::System, Trust::CaFile(others.ca_file())] {
        let refused = with(&peer, trust).unwrap_err();
        assert!(matches!(refused, VSphereError::Tls { .. }), "{refused:?}");
    }
    assert_eq!(peer.methods(), Vec::<String>::new());
    // A wrong certificate does not become right by asking again.
    assert_eq!(*peer.pauses.lock().unwrap(), Vec::<u32>::new());
    with(&peer, Trust::CaFile(peer.certificates.ca_file())).unwrap();
}

#[test]
fn a_missing_file_with_authorities_is_named() {
    let peer = refusing();
    let refused = with(&peer, Trust::CaFile("/nonexistent/ca.pem".into())).unwrap_err();
    assert!(
        chain(&refused).starts_with("TLS cannot be used: cannot read certificates in /nonexistent/ca.pem: ")
    );
}
