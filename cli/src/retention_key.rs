//! Getting at the key that forgets and prunes.

use crate::open;
use crate::password::{Asking, Origin, Password, Question};
use crate::settings::Settings;
use keepstone_engine::Repository;
use keepstone_engine::repository::unlock_retention;
use repo_format::RetentionKey;

/// How the retention password can be given without a terminal.
pub(crate) const RETENTION_PASSWORD_OTHERWISE: &str =
    "give it with --retention-password-file, --retention-password-command or KEEPSTONE_RETENTION_PASSWORD";

/// Opens the repository's retention key, with the retention password or, if none was given, with the repository's.
///
/// # Errors
/// No password, or one that opens no retention slot.
pub(crate) fn retention_key(
    settings: &Settings,
    repository: &Repository<'_>,
) -> anyhow::Result<RetentionKey> {
    let key = unlock_retention(repository, &retention_password(settings)?)?;
    tracing::info!("the retention key is open");
    Ok(key)
}

/// The password that opens a retention slot. Where passwords are typed it is asked for by its name, since it may be
/// another one than the repository's.
pub(crate) fn retention_password(settings: &Settings) -> anyhow::Result<Password> {
    let origin = match (&settings.retention_password, &settings.password) {
        (Some(origin), _) => origin,
        (None, Origin::Terminal) => &Origin::Terminal,
        (None, _) => return open::password(settings),
    };
    origin.password(Question {
        text: "Retention password of the repository",
        asking: Asking::Once,
        otherwise: RETENTION_PASSWORD_OTHERWISE,
    })
}
