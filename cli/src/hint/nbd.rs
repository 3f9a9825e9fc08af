//! What to do next about an NBD server.

use keepstone_engine::nbd::{NbdError, ServerError};

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
        NbdError::ReadOnly { .. } => {
            "start the server so that it can be written: qemu-nbd without --read-only, nbdkit without -r"
        }
        NbdError::TooSmall { .. } => "make the image behind the export larger, or name another export",
        NbdError::NotEmpty { .. } => "add --overwrite if that is meant",
        NbdError::Writing(error) => return writing(error),
        NbdError::Failed { .. } => "look at the server's own messages, and at the disk behind it",
        NbdError::TimedOut { .. } => {
            "check the server and the network, and that it lets in more clients than it has (qemu-nbd lets in one, \
             without --shared), and run the same command again; what was stored is used again"
        }
        NbdError::Lost { .. } | NbdError::GaveUp { .. } => {
            "check the server and the network, and run the same command again; what was stored is used again"
        }
        NbdError::SizeChanged { .. } | NbdError::OtherExport { .. } => {
            "export something that nothing writes to: a snapshot, or an image that is not in use"
        }
        _ => return None,
    })
}

/// The advice for an error while an export is written. What is there already need not be written once more.
fn writing(error: &NbdError) -> Option<&'static str> {
    Some(match error {
        NbdError::Failed { error: ServerError::NO_SPACE, .. }
        | NbdError::NotDurable { error: ServerError::NO_SPACE, .. } => {
            "make room behind the export, and run the same command again with --resume"
        }
        NbdError::Failed { .. } | NbdError::NotDurable { .. } => {
            "look at the server's own messages and at the disk behind it, and run the same command again with --resume"
        }
        NbdError::TimedOut { .. }
        | NbdError::Lost { .. }
        | NbdError::GaveUp { .. }
        | NbdError::WritesLost { .. } => {
            "check the server and the network, and run the same command again with --resume"
        }
        NbdError::SizeChanged { .. } | NbdError::OtherExport { .. } => {
            "check which image the server exports; nothing else may write to it, nor change its size"
        }
        error => return advice(error),
    })
}
