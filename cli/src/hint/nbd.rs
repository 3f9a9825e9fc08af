//! What to do next about an NBD server.

use keepstone_engine::nbd::NbdError;

/// The advice for an error of an NBD server.
pub(super) fn advice(error: &NbdError) -> Option<&'static str> {
    Some(match error {
        NbdError::Connect { .. } => "check that the server runs, and its address or socket",
        NbdError::NotNbd { .. } | NbdError::BadMessage { .. } => {
            "check that the address is that of an NBD server"
        }
        NbdError::OldProtocol { .. } => "start the server with a named export (not with nbdkit's -o)",
        NbdError::NoExport { .. } => {
            "name one of the server's exports behind the host; `nbdinfo --list` lists them"
        }
        NbdError::TlsRequired { .. } => "write nbds:// or nbds+unix://, perhaps with ?tls-certificates=DIR",
        NbdError::TlsNotOffered { .. } => {
            "switch TLS on at the server, or write nbd:// if the way to it is trusted"
        }
        NbdError::TlsSetup { .. } | NbdError::Tls { .. } | NbdError::TlsName { .. } => {
            "?tls-certificates=DIR names a directory with ca-cert.pem and, if the server wants them, client-cert.pem \
             and client-key.pem"
        }
        NbdError::Failed { .. } => "look at the server's own messages, and at the disk behind it",
        NbdError::TimedOut { .. } | NbdError::Lost { .. } | NbdError::GaveUp { .. } => {
            "check the server and the network, and run the same command again; what was stored is used again"
        }
        NbdError::SizeChanged { .. } | NbdError::OtherExport { .. } => {
            "export something that nothing writes to: a snapshot, or an image that is not in use"
        }
        _ => return None,
    })
}
