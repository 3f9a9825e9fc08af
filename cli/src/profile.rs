//! Settings in a file.

use crate::azure::parse_tier;
use crate::credentials::AuthKind;
use crate::exit::Usage;
use crate::numbers::{parse_duration, parse_rate, parse_size};
use crate::prices::Prices;
use crate::settings::Compression;
use crate::vsphere::VSphereArguments;
use anyhow::Context as _;
use keepstone_engine::store::azure::Tier;
use keepstone_engine::tls::Thumbprint;
use keepstone_engine::vsphere::{ProxyVm, TransportChoice};
use repo_format::WriterId;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use std::fmt;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// What a profile may hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Profile {
    /// The repository.
    pub(crate) repository: Option<String>,
    /// A file with the password.
    pub(crate) password_file: Option<PathBuf>,
    /// A command that prints the password.
    pub(crate) password_command: Option<String>,
    /// A file with the retention password.
    pub(crate) retention_password_file: Option<PathBuf>,
    /// A command that prints the retention password.
    pub(crate) retention_password_command: Option<String>,
    /// Whether the repository is a replica, although it does not say so itself.
    #[serde(default)]
    pub(crate) replica: bool,
    /// The writer.
    #[serde(default, deserialize_with = "writer")]
    pub(crate) writer: Option<WriterId>,
    /// Where the index cache is.
    pub(crate) cache_dir: Option<PathBuf>,
    /// How large it may become, in bytes.
    #[serde(default, deserialize_with = "size")]
    pub(crate) index_budget: Option<u64>,
    /// How hard new chunks are compressed.
    #[serde(default, deserialize_with = "compression")]
    pub(crate) compression: Option<Compression>,
    /// The kind of credential for Azure.
    pub(crate) auth: Option<AuthKind>,
    /// A file with a SAS.
    pub(crate) sas_token_file: Option<PathBuf>,
    /// A file with an account key.
    pub(crate) key_file: Option<PathBuf>,
    /// A file with a connection string.
    pub(crate) connection_string_file: Option<PathBuf>,
    /// The directory (tenant) of an Entra application.
    pub(crate) tenant_id: Option<String>,
    /// Its id.
    pub(crate) client_id: Option<String>,
    /// A file with its password.
    pub(crate) client_secret_file: Option<PathBuf>,
    /// A file with its certificate and key.
    pub(crate) client_certificate: Option<PathBuf>,
    /// A file with the token of a federated identity.
    pub(crate) federated_token_file: Option<PathBuf>,
    /// Where tokens come from.
    pub(crate) authority_host: Option<String>,
    /// The tier of new data packs.
    #[serde(default, deserialize_with = "tier")]
    pub(crate) tier: Option<Tier>,
    /// Whether blobs are sent with an MD5 digest.
    #[serde(default)]
    pub(crate) content_md5: bool,
    /// The most bytes a second to send.
    #[serde(default, deserialize_with = "rate")]
    pub(crate) limit_upload: Option<NonZeroU64>,
    /// The most bytes a second to receive.
    #[serde(default, deserialize_with = "rate")]
    pub(crate) limit_download: Option<NonZeroU64>,
    /// The user to log in to vCenter as.
    pub(crate) vsphere_user: Option<String>,
    /// A file with the user's password.
    pub(crate) vsphere_password_file: Option<PathBuf>,
    /// A command that prints it.
    pub(crate) vsphere_password_command: Option<String>,
    /// A file with the authorities to trust.
    pub(crate) vsphere_ca: Option<PathBuf>,
    /// The certificate to trust.
    #[serde(default, deserialize_with = "parsed")]
    pub(crate) vsphere_thumbprint: Option<Thumbprint>,
    /// How disks are read.
    #[serde(default, deserialize_with = "parsed")]
    pub(crate) transport: Option<TransportChoice>,
    /// The virtual machine that disks are attached to.
    #[serde(default, deserialize_with = "parsed")]
    pub(crate) proxy_vm: Option<ProxyVm>,
    /// Where VMware's VDDK is.
    pub(crate) vddk_dir: Option<PathBuf>,
    /// The nbdkit to run.
    pub(crate) nbdkit: Option<PathBuf>,
    /// How long vCenter may take for one task.
    #[serde(default, deserialize_with = "duration")]
    pub(crate) task_timeout: Option<Duration>,
    /// What requests and storage cost.
    #[serde(default)]
    pub(crate) prices: Prices,
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// A file that cannot be read or is no profile.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("could not read the profile {}", path.display()))?;
        let mut profile = Self::parse(&text)
            .map_err(|error| Usage::new(format!("the profile {} cannot be used: {error}", path.display())))?;
        profile.place_in(path.parent().unwrap_or(Path::new("")));
        Ok(profile)
    }

    fn parse(text: &str) -> Result<Self, String> {
        // Not with the line itself, as the library would tell it: the file may be one with a secret.
        let profile: Self = toml::from_str(text).map_err(|error| match error.span() {
            Some(span) => format!("line {}: {}", line_at(text, span.start), error.message()),
            None => error.message().to_owned(),
        })?;
        if profile.password_file.is_some() && profile.password_command.is_some() {
            return Err("it has both password-file and password-command".to_owned());
        }
        if profile.retention_password_file.is_some() && profile.retention_password_command.is_some() {
            return Err("it has both retention-password-file and retention-password-command".to_owned());
        }
        if profile.vsphere_password_file.is_some() && profile.vsphere_password_command.is_some() {
            return Err("it has both vsphere-password-file and vsphere-password-command".to_owned());
        }
        if profile.vsphere_ca.is_some() && profile.vsphere_thumbprint.is_some() {
            return Err("it has both vsphere-ca and vsphere-thumbprint".to_owned());
        }
        Ok(profile)
    }

    /// Whether it says anything about who asks in Azure.
    pub(crate) fn tells_credential(&self) -> bool {
        let files = [
            &self.sas_token_file,
            &self.key_file,
            &self.connection_string_file,
            &self.client_secret_file,
            &self.client_certificate,
            &self.federated_token_file,
        ];
        let words = [&self.tenant_id, &self.client_id];
        self.auth.is_some()
            || files.into_iter().any(Option::is_some)
            || words.into_iter().any(Option::is_some)
    }

    /// The same settings with what another profile says about who asks in Azure.
    pub(crate) fn with_credential_of(self, other: &Self) -> Self {
        let Self { auth, sas_token_file, key_file, connection_string_file, tenant_id, .. } = other.clone();
        let Self { client_id, client_secret_file, client_certificate, .. } = other.clone();
        let Self { federated_token_file, authority_host, .. } = other.clone();
        Self {
            auth,
            sas_token_file,
            key_file,
            connection_string_file,
            tenant_id,
            client_id,
            client_secret_file,
            client_certificate,
            federated_token_file,
            authority_host,
            ..self
        }
    }

    /// What it says of a vCenter.
    pub(crate) fn vsphere(&self) -> VSphereArguments {
        VSphereArguments {
            vsphere_user: self.vsphere_user.clone(),
            vsphere_password_file: self.vsphere_password_file.clone(),
            vsphere_password_command: self.vsphere_password_command.clone(),
            vsphere_ca: self.vsphere_ca.clone(),
            vsphere_thumbprint: self.vsphere_thumbprint,
            transport: self.transport,
            proxy_vm: self.proxy_vm.clone(),
            vddk_dir: self.vddk_dir.clone(),
            nbdkit: self.nbdkit.clone(),
            task_timeout: self.task_timeout,
        }
    }

    /// Makes relative paths count from the profile's directory.
    fn place_in(&mut self, dir: &Path) {
        let paths = [
            &mut self.password_file,
            &mut self.retention_password_file,
            &mut self.cache_dir,
            &mut self.sas_token_file,
            &mut self.key_file,
            &mut self.connection_string_file,
            &mut self.client_secret_file,
            &mut self.client_certificate,
            &mut self.federated_token_file,
            &mut self.vsphere_password_file,
            &mut self.vsphere_ca,
            &mut self.vddk_dir,
        ];
        for path in paths.into_iter().flatten() {
            *path = dir.join(&*path);
        }
        if let Some(repository) = self.repository.as_mut().filter(|repository| !repository.contains("://")) {
            // A path that is no text came from the command line, which says the same about it.
            if let Some(placed) = dir.join(&*repository).to_str() {
                placed.clone_into(repository);
            }
        }
    }
}

/// The number of the line that has the byte at an offset.
fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn writer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WriterId>, D::Error> {
    let text = String::deserialize(deserializer)?;
    WriterId::new(&text).map(Some).map_err(D::Error::custom)
}

/// A number, or a text that the command line would take.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl NumberOrText {
    fn text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = NumberOrText::deserialize(deserializer)?.text();
    parse_size(&text).map(Some).map_err(D::Error::custom)
}

fn compression<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Compression>, D::Error> {
    let text = NumberOrText::deserialize(deserializer)?.text();
    text.parse().map(Some).map_err(D::Error::custom)
}

fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU64>, D::Error> {
    let text = NumberOrText::deserialize(deserializer)?.text();
    parse_rate(&text).map(Some).map_err(D::Error::custom)
}

fn tier<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Tier>, D::Error> {
    parse_tier(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_settings_are_read_and_placed() {
        let text = "repository = 'repo'\npassword-file = '/etc/password'\nretention-password-file = 'retention'\nwriter = 'host-a'\ncache-dir = 'cache'\n\
            index-budget = '2 GiB'\ncompression = 3\n";
        let mut profile = Profile::parse(text).unwrap();
        profile.place_in(Path::new("/srv"));
        assert_eq!(profile.repository.as_deref(), Some("/srv/repo"));
        assert_eq!(profile.password_file.as_deref(), Some(Path::new("/etc/password")));
        assert_eq!(profile.retention_password_file.as_deref(), Some(Path::new("/srv/retention")));
        assert_eq!(profile.cache_dir.as_deref(), Some(Path::new("/srv/cache")));
        assert_eq!(
            (profile.writer, profile.index_budget),
            (Some(WriterId::new("host-a").unwrap()), Some(2 << 30))
        );
        assert_eq!(profile.compression, Some(Compression::Level(3)));
    }

    #[test]
    fn a_uri_is_no_relative_path() {
        let mut profile = Profile::parse("repository = 'azblob://account/container'").unwrap();
        profile.place_in(Path::new("/srv"));
        assert_eq!(profile.repository.as_deref(), Some("azblob://account/container"));
    }

    #[test]
    fn unknown_and_contradictory_settings_are_refused() {
        for text in [
            "passwordfile = 'x'",
            "writer = 'Host A'",
            "compression = 20",
            "index-budget = 'much'",
            "password-file = 'x'\npassword-command = 'y'",
            "retention-password-file = 'x'\nretention-password-command = 'y'",
            "repository = ",
            "key = 'inline'",
            "sas-token = 'inline'",
            "auth = 'password'",
            "tier = 'archive'",
            "limit-upload = 0",
            "[prices]\nwrite-hot = -1",
            "[prices]\nwrite-archive = 1",
        ] {
            assert!(Profile::parse(text).is_err(), "{text} is no profile");
        }
    }

    #[test]
    fn settings_for_azure_are_read_and_placed() {
        let text = "auth = 'client-certificate'\ntenant-id = 't'\nclient-id = 'c'\nclient-certificate = 'host.pem'\n\
            tier = 'cold'\ncontent-md5 = true\nlimit-upload = '1MiB'\nlimit-download = 5\n\
            [prices]\ncurrency = 'EUR'\n";
        let mut profile = Profile::parse(text).unwrap();
        profile.place_in(Path::new("/srv"));
        assert_eq!(profile.auth, Some(AuthKind::ClientCertificate));
        assert_eq!(profile.client_certificate.as_deref(), Some(Path::new("/srv/host.pem")));
        assert_eq!((profile.tier, profile.content_md5), (Some(Tier::Cold), true));
        let limits = [profile.limit_upload, profile.limit_download].map(|limit| limit.map(NonZeroU64::get));
        assert_eq!(limits, [Some(1 << 20), Some(5)]);
    }

    #[test]
    fn a_line_that_cannot_be_used_is_told_by_its_number_alone() {
        let told = Profile::parse("writer = 'a'\naccount-key = 'hidden'\n").unwrap_err();
        assert!(told.starts_with("line 2: unknown field `account-key`"), "{told}");
        assert!(!told.contains("hidden"), "{told}");
    }
}
