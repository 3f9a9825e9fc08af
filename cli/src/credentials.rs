//! Who asks: the credential for an account, out of the environment and the profile.
//!
//! One is taken without being chosen only if it is the only one that is there whole. What the machine is (a managed
//! identity, a login of the Azure CLI) must be chosen: nothing is tried one after the other.

use crate::exit::Usage;
use crate::profile::Profile;
use anyhow::Context as _;
use keepstone_engine::store::azure::{AzurePlace, Credential, CredentialError, Secret};
use serde::Deserialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The kinds of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AuthKind {
    /// A shared access signature
    Sas,
    /// A connection string
    ConnectionString,
    /// A key of the account
    Key,
    /// An Entra application with a password
    ClientSecret,
    /// An Entra application with a certificate
    ClientCertificate,
    /// The managed identity of this machine
    ManagedIdentity,
    /// A federated identity
    WorkloadIdentity,
    /// Whoever is logged in to the Azure CLI
    AzureCli,
}

impl AuthKind {
    fn name(self) -> &'static str {
        match self {
            Self::Sas => "sas",
            Self::ConnectionString => "connection-string",
            Self::Key => "key",
            Self::ClientSecret => "client-secret",
            Self::ClientCertificate => "client-certificate",
            Self::ManagedIdentity => "managed-identity",
            Self::WorkloadIdentity => "workload-identity",
            Self::AzureCli => "azure-cli",
        }
    }
}

/// One part of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    SasToken,
    SasTokenFile,
    Key,
    ConnectionString,
    Tenant,
    Client,
    ClientSecret,
    ClientCertificate,
    FederatedToken,
}

const PARTS: [Part; 9] = [
    Part::SasToken,
    Part::SasTokenFile,
    Part::Key,
    Part::ConnectionString,
    Part::Tenant,
    Part::Client,
    Part::ClientSecret,
    Part::ClientCertificate,
    Part::FederatedToken,
];

/// Whose credential is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// That of the repository of the command.
    Repository,
    /// That of the other repository of a command that uses two.
    Other,
}

/// What the names of variables begin with that are about the other repository of a command.
pub(crate) const OTHER_PREFIX: &str = "KEEPSTONE_OTHER_";

impl Whose {
    /// The name of a variable that is about it.
    fn variable(self, name: &str) -> String {
        match self {
            Self::Repository => name.to_owned(),
            Self::Other => format!("{OTHER_PREFIX}{name}"),
        }
    }

    /// How one of several credentials is chosen.
    fn choosing(self) -> &'static str {
        match self {
            Self::Repository => "choose one with --auth KIND, or leave only one of them",
            Self::Other => "choose one with auth in the file of --other-profile, or leave only one of them",
        }
    }

    /// What chooses a kind.
    fn chooser(self, kind: AuthKind) -> String {
        match self {
            Self::Repository => format!("--auth {}", kind.name()),
            Self::Other => format!("auth = '{}' of the other repository", kind.name()),
        }
    }
}

/// Whether a part of a credential is in the environment.
pub(crate) fn is_any_there(whose: Whose, variable: &dyn Fn(&str) -> Option<OsString>) -> bool {
    let is_there =
        |part: Part| variable(&whose.variable(part.variable())).is_some_and(|value| !value.is_empty());
    PARTS.into_iter().any(is_there)
}

impl Part {
    fn variable(self) -> &'static str {
        match self {
            Self::SasToken => "AZURE_STORAGE_SAS_TOKEN",
            Self::SasTokenFile => "AZURE_STORAGE_SAS_TOKEN_FILE",
            Self::Key => "AZURE_STORAGE_KEY",
            Self::ConnectionString => "AZURE_STORAGE_CONNECTION_STRING",
            Self::Tenant => "AZURE_TENANT_ID",
            Self::Client => "AZURE_CLIENT_ID",
            Self::ClientSecret => "AZURE_CLIENT_SECRET",
            Self::ClientCertificate => "AZURE_CLIENT_CERTIFICATE_PATH",
            Self::FederatedToken => "AZURE_FEDERATED_TOKEN_FILE",
        }
    }
}

const AUTHORITY_VARIABLE: &str = "AZURE_AUTHORITY_HOST";

/// What each kind is made of. A kind may come in several forms.
const FORMS: [(AuthKind, &[Part]); 9] = [
    (AuthKind::Sas, &[Part::SasToken]),
    (AuthKind::Sas, &[Part::SasTokenFile]),
    (AuthKind::ConnectionString, &[Part::ConnectionString]),
    (AuthKind::Key, &[Part::Key]),
    (AuthKind::ClientSecret, &[Part::Tenant, Part::Client, Part::ClientSecret]),
    (AuthKind::ClientCertificate, &[Part::Tenant, Part::Client, Part::ClientCertificate]),
    (AuthKind::WorkloadIdentity, &[Part::Tenant, Part::Client, Part::FederatedToken]),
    (AuthKind::ManagedIdentity, &[]),
    (AuthKind::AzureCli, &[]),
];

type Form = (AuthKind, &'static [Part]);

/// A part that is there.
#[derive(Clone, Debug)]
struct Given {
    part: Part,
    /// The variable or the profile's setting.
    name: String,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Text(OsString),
    /// A file that holds it.
    InFile(PathBuf),
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(a value)")
    }
}

/// A credential, and what it means for the place.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// The credential.
    pub(crate) credential: Credential,
    /// The place, with the endpoint that the credential names.
    pub(crate) place: AzurePlace,
    /// Where tokens come from, if that was said.
    pub(crate) authority: Option<String>,
    /// What it was made of, for messages: the names of variables and settings.
    pub(crate) origin: String,
}

/// Chooses the credential for a place.
///
/// # Errors
/// [`Usage`] if none or several are there, or parts of the chosen one are missing; [`CredentialError`] for one that
/// cannot be used.
pub(crate) fn choose(
    whose: Whose,
    kind: Option<AuthKind>,
    variable: &dyn Fn(&str) -> Option<OsString>,
    profile: &Profile,
    place: AzurePlace,
) -> anyhow::Result<Chosen> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let authority_variable = whose.variable(AUTHORITY_VARIABLE);
    let environment: Vec<Given> = PARTS
        .into_iter()
        .filter_map(|part| {
            let name = whose.variable(part.variable());
            let value = Value::Text(variable(&name)?);
            Some(Given { part, name, value })
        })
        .collect();
    let both: Vec<Given> = environment
        .iter()
        .cloned()
        .chain(in_profile(profile).into_iter().filter(|given| {
            // A SAS in the environment comes before one in the profile, whatever its form.
            let is_sas = |part| matches!(part, Part::SasToken | Part::SasTokenFile);
            !environment
                .iter()
                .any(|other| other.part == given.part || is_sas(other.part) && is_sas(given.part))
        }))
        .collect();
    let (form, given) = match complete(kind, &environment)[..] {
        // What needs nothing may have more in the profile.
        [] | [(_, [])] => match complete(kind, &both)[..] {
            [] => return Err(missing(whose, kind, &both).into()),
            [form] => (form, both),
            ref several => return Err(ambiguous(whose, several, &both).into()),
        },
        [form] => (form, environment),
        ref several => return Err(ambiguous(whose, several, &environment).into()),
    };
    let authority =
        variable(&authority_variable).map(|value| text(&authority_variable, value)).transpose()?;
    let authority = authority.or_else(|| profile.authority_host.clone());
    let origin = origin(whose, form, &given);
    let made = make(form.0, &given, place);
    let (credential, place) = made.with_context(|| unusable(&origin))?;
    Ok(Chosen { credential, place, authority, origin })
}

/// What is said of a credential that is there and is of no use.
pub(crate) fn unusable(origin: &str) -> String {
    format!("the credential cannot be used ({origin})")
}

fn in_profile(profile: &Profile) -> Vec<Given> {
    let path = |part, name: &str, path: &Option<PathBuf>| {
        let value = Value::Text(path.clone()?.into_os_string());
        Some(Given { part, name: String::from(name), value })
    };
    let word = |part, name: &str, word: &Option<String>| {
        let value = Value::Text(word.clone()?.into());
        Some(Given { part, name: String::from(name), value })
    };
    let secret = |part, name: &str, path: &Option<PathBuf>| {
        Some(Given { part, name: String::from(name), value: Value::InFile(path.clone()?) })
    };
    let given = [
        path(Part::SasTokenFile, "sas-token-file", &profile.sas_token_file),
        secret(Part::Key, "key-file", &profile.key_file),
        secret(Part::ConnectionString, "connection-string-file", &profile.connection_string_file),
        word(Part::Tenant, "tenant-id", &profile.tenant_id),
        word(Part::Client, "client-id", &profile.client_id),
        secret(Part::ClientSecret, "client-secret-file", &profile.client_secret_file),
        path(Part::ClientCertificate, "client-certificate", &profile.client_certificate),
        path(Part::FederatedToken, "federated-token-file", &profile.federated_token_file),
    ];
    given.into_iter().flatten().collect()
}

/// The forms that are there whole; those that need nothing only if their kind was chosen.
fn complete(kind: Option<AuthKind>, given: &[Given]) -> Vec<Form> {
    let is_wanted = |form: &Form| kind.map_or(!form.1.is_empty(), |kind| kind == form.0);
    FORMS.into_iter().filter(|form| is_wanted(form) && absent(form.1, given).is_empty()).collect()
}

fn absent(parts: &[Part], given: &[Given]) -> Vec<Part> {
    parts.iter().copied().filter(|part| !given.iter().any(|given| given.part == *part)).collect()
}

fn origin(whose: Whose, (kind, parts): Form, given: &[Given]) -> String {
    let names = given.iter().filter(|given| parts.contains(&given.part)).map(|given| given.name.as_str());
    let names: Vec<&str> = names.collect();
    if names.is_empty() { whose.chooser(kind) } else { names.join(", ") }
}

fn ambiguous(whose: Whose, forms: &[Form], given: &[Given]) -> Usage {
    let found: Vec<String> =
        forms.iter().map(|form| format!("{} ({})", form.0.name(), origin(whose, *form, given))).collect();
    let usage = Usage::new(format!("there is more than one credential: {}", found.join("; ")));
    if forms.iter().all(|form| form.0 == forms[0].0) {
        usage.hint("leave only one of them")
    } else {
        usage.hint(whose.choosing())
    }
}

fn missing(whose: Whose, kind: Option<AuthKind>, given: &[Given]) -> Usage {
    if let Some(kind) = kind {
        let needs: Vec<String> = FORMS
            .into_iter()
            .filter(|form| form.0 == kind)
            .map(|form| {
                let names: Vec<_> =
                    absent(form.1, given).into_iter().map(|part| whose.variable(part.variable())).collect();
                names.join(" and ")
            })
            .collect();
        return Usage::new(format!("{} needs {}", whose.chooser(kind), needs.join(" or ")))
            .hint("set it in the environment, or its file in the profile; docs/azure.md lists the names");
    }
    let found: Vec<&str> = given.iter().map(|given| given.name.as_str()).collect();
    let found = match found.as_slice() {
        [] => String::new(),
        names => format!("; what is there, {}, is not all of one", names.join(", ")),
    };
    Usage::new(format!("there is no credential for the storage account{found}")).hint(match whose {
        Whose::Repository => {
            "set AZURE_STORAGE_SAS_TOKEN_FILE or another one that docs/azure.md lists, or choose --auth \
             managed-identity or azure-cli"
        }
        Whose::Other => {
            "set KEEPSTONE_OTHER_AZURE_STORAGE_SAS_TOKEN_FILE or another one that docs/azure.md lists, or name \
             --other-profile with one"
        }
    })
}

/// Makes the credential of the parts that are there.
fn make(kind: AuthKind, given: &[Given], place: AzurePlace) -> anyhow::Result<(Credential, AzurePlace)> {
    let find = |part| given.iter().find(|given| given.part == part);
    let need = |part| find(part).expect("the form is there whole");
    let word = |part| need(part).word();
    let optional = |part| find(part).map(Given::word).transpose();
    let credential = match kind {
        AuthKind::Sas => match find(Part::SasToken) {
            Some(token) => Credential::Sas(token.secret()?),
            None => Credential::SasFile(need(Part::SasTokenFile).path()?),
        },
        AuthKind::ConnectionString => {
            let text = need(Part::ConnectionString).secret()?;
            return Ok(Credential::from_connection_string(&text, place)?);
        }
        AuthKind::Key => Credential::AccountKey(need(Part::Key).secret()?),
        AuthKind::ClientSecret => Credential::ClientSecret {
            tenant: word(Part::Tenant)?,
            client: word(Part::Client)?,
            secret: need(Part::ClientSecret).secret()?,
        },
        AuthKind::ClientCertificate => Credential::ClientCertificate {
            tenant: word(Part::Tenant)?,
            client: word(Part::Client)?,
            pem: read_secret(&need(Part::ClientCertificate).path()?)?,
        },
        AuthKind::WorkloadIdentity => Credential::WorkloadIdentity {
            tenant: word(Part::Tenant)?,
            client: word(Part::Client)?,
            token_file: need(Part::FederatedToken).path()?,
        },
        AuthKind::ManagedIdentity => Credential::ManagedIdentity { client: optional(Part::Client)? },
        AuthKind::AzureCli => Credential::AzureCli { tenant: optional(Part::Tenant)? },
    };
    Ok((credential, place))
}

impl Given {
    fn word(&self) -> Result<String, Usage> {
        match &self.value {
            Value::Text(value) => text(&self.name, value.clone()),
            Value::InFile(_) => unreachable!("only secrets are in files"),
        }
    }

    /// The file that holds it. What looks like the credential itself is refused before an error can tell it.
    fn path(&self) -> Result<PathBuf, Usage> {
        let path = match &self.value {
            Value::Text(value) => PathBuf::from(value),
            Value::InFile(path) => path.clone(),
        };
        if is_like_one(&path.to_string_lossy()) {
            return Err(Usage::new(format!("{} looks like a credential", self.name))
                .hint("it is to be the name of a file that holds one"));
        }
        Ok(path)
    }

    fn secret(&self) -> anyhow::Result<Secret> {
        match &self.value {
            Value::Text(value) => Ok(Secret::new(text(&self.name, value.clone())?)),
            Value::InFile(_) => Ok(read_secret(&self.path()?)?),
        }
    }
}

fn text(name: &str, value: OsString) -> Result<String, Usage> {
    value.into_string().map_err(|_| Usage::new(format!("{name} is not text")))
}

fn read_secret(path: &Path) -> Result<Secret, CredentialError> {
    let failed = |source| CredentialError::File { path: path.display().to_string(), source };
    let mut text = std::fs::read_to_string(path).map_err(failed)?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(Secret::new(text))
}

/// Whether a text that should name a file or a place looks like a credential: nothing of it is told then.
pub(crate) fn is_like_one(text: &str) -> bool {
    ["sig=", "AccountKey=", "SharedAccessSignature="].iter().any(|part| text.contains(part))
        || text.ends_with("==")
}

#[cfg(test)]
mod tests;
