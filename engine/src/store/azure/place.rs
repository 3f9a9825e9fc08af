//! Where in Azure a repository is.

use azure_core::http::Url;
use std::fmt;
use std::net::IpAddr;

const SCHEME: &str = "azblob://";
/// The host names of the public cloud end so.
const PUBLIC_CLOUD: &str = "blob.core.windows.net";
/// What stands behind an account's name where the other region's copy is read.
pub(super) const SECONDARY: &str = "-secondary";

/// A container, or what is below a prefix in one.
///
/// Written as `azblob://ACCOUNT/CONTAINER[/PREFIX][?endpoint=URL]`, where the endpoint is the blob service's URL with
/// everything that comes before the container: `http://127.0.0.1:10000/ACCOUNT` for an emulator. `ACCOUNT-secondary` is the
/// account's endpoint in the other region, which is only read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzurePlace {
    account: String,
    is_secondary: bool,
    container: String,
    /// Empty, or components with a slash behind each.
    prefix: String,
    endpoint: Option<Url>,
}

/// Why a text names no place in Azure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// It has another form.
    #[error("it is not of the form azblob://ACCOUNT/CONTAINER[/PREFIX][?endpoint=URL]")]
    OtherForm,
    /// No account can have that name.
    #[error("{name:?} cannot be a storage account: its name has 3 to 24 lower-case letters and digits")]
    Account {
        /// The name.
        name: String,
    },
    /// No container can have that name.
    #[error(
        "{name:?} cannot be a container: its name has 3 to 63 lower-case letters, digits and single hyphens"
    )]
    Container {
        /// The name.
        name: String,
    },
    /// The prefix has a part that is not allowed.
    #[error("{part:?} cannot be a part of a prefix: letters, digits, '.', '-' and '_' are allowed")]
    Prefix {
        /// The part.
        part: String,
    },
    /// The endpoint is none. What may be a secret in it is left out: user, query and fragment.
    #[error("the endpoint {endpoint:?} is not an http or https URL without user, query and fragment")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
    },
    /// It has a parameter that is not known. Its value may be a secret and is not told.
    #[error("the parameter {name:?} is not known; credentials are never part of a repository's name")]
    Parameter {
        /// The parameter's name.
        name: String,
    },
}

impl AzurePlace {
    /// Reads a place; `None` if the text is no `azblob` URI at all.
    ///
    /// # Errors
    /// A [`PlaceError`].
    pub fn parse(text: &str) -> Option<Result<Self, PlaceError>> {
        text.strip_prefix(SCHEME).map(parse)
    }

    /// The storage account's name, without what names its secondary endpoint.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Whether it is the account's copy in the other region.
    #[must_use]
    pub fn is_secondary(&self) -> bool {
        self.is_secondary
    }

    /// The container's name.
    #[must_use]
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Whether an endpoint was named.
    #[must_use]
    pub fn has_endpoint(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Whether everything that is sent there, signatures in URLs too, can be read on the way: the endpoint is plain HTTP
    /// and not on this machine.
    #[must_use]
    pub fn is_unprotected(&self) -> bool {
        let Some(endpoint) = self.endpoint.as_ref().filter(|endpoint| endpoint.scheme() == "http") else {
            return false;
        };
        let host = endpoint.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_loopback = host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        !is_loopback && host != "localhost"
    }

    /// The same place at another endpoint.
    ///
    /// # Errors
    /// [`PlaceError::Endpoint`].
    pub fn at_endpoint(self, endpoint: &str) -> Result<Self, PlaceError> {
        Ok(Self { endpoint: Some(parse_endpoint(endpoint)?), ..self })
    }

    /// What the names of blobs in the container begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The URL of the service, in which containers are.
    pub(super) fn service_url(&self) -> Url {
        self.endpoint.clone().unwrap_or_else(|| {
            Url::parse(&format!("https://{}.{PUBLIC_CLOUD}/", self.endpoint_name()))
                .expect("the account's name was checked")
        })
    }

    /// The account with what names its secondary endpoint, if it is that.
    pub(super) fn endpoint_name(&self) -> String {
        format!("{}{}", self.account, if self.is_secondary { SECONDARY } else { "" })
    }

    /// The URL of the container, and that of the account's primary endpoint where it is another one and known.
    pub(super) fn container_urls(&self) -> Vec<Url> {
        let primary = Self { is_secondary: false, ..self.clone() };
        let of_primary = (self.is_secondary && !self.has_endpoint()).then(|| primary.container_url());
        [self.container_url()].into_iter().chain(of_primary).collect()
    }

    /// The URL of the container.
    pub(super) fn container_url(&self) -> Url {
        let mut url = self.service_url();
        url.path_segments_mut().expect("an http URL has a path").pop_if_empty().push(&self.container);
        url
    }
}

impl fmt::Display for AzurePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.endpoint_name(), self.container)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix.trim_end_matches('/'))?;
        }
        Ok(())
    }
}

fn parse(rest: &str) -> Result<AzurePlace, PlaceError> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut parts = path.trim_end_matches('/').split('/');
    let (Some(account), Some(container)) = (parts.next(), parts.next()) else {
        return Err(PlaceError::OtherForm);
    };
    let (account, is_secondary) = match account.strip_suffix(SECONDARY) {
        Some(account) => (account, true),
        None => (account, false),
    };
    if !is_account(account) {
        return Err(PlaceError::Account { name: told(account) });
    }
    if !is_container(container) {
        return Err(PlaceError::Container { name: told(container) });
    }
    let mut prefix = String::new();
    for part in parts {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if matches!(part, "" | "." | "..") || !part.bytes().all(allowed) {
            return Err(PlaceError::Prefix { part: told(part) });
        }
        prefix += part;
        prefix.push('/');
    }
    let mut endpoint = None;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("endpoint", value)) if endpoint.is_none() => endpoint = Some(parse_endpoint(value)?),
            Some((name, _)) => return Err(PlaceError::Parameter { name: name.to_owned() }),
            None => return Err(PlaceError::OtherForm),
        }
    }
    let [account, container] = [account, container].map(str::to_owned);
    Ok(AzurePlace { account, is_secondary, container, prefix, endpoint })
}

/// A part of a name that is refused, for an error. Of what may be a credential nothing is told.
fn told(part: &str) -> String {
    let may_be_secret = part.len() > 63 || part.contains([':', '@', '=', ';', '&', '%', '+']);
    if may_be_secret { "...".to_owned() } else { part.to_owned() }
}

fn is_account(name: &str) -> bool {
    (3..=24).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn is_container(name: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    (3..=63).contains(&name.len()) && name.split('-').all(word)
}

fn parse_endpoint(text: &str) -> Result<Url, PlaceError> {
    let unfit = || {
        let told = text.split(['?', '#']).next().unwrap_or_default();
        PlaceError::Endpoint { endpoint: told.rsplit('@').next().unwrap_or_default().to_owned() }
    };
    let url = Url::parse(text).map_err(|_| unfit())?;
    let plain = url.username().is_empty() && url.password().is_none();
    let fits = matches!(url.scheme(), "http" | "https") && url.has_host() && plain;
    if !fits || url.query().is_some() || url.fragment().is_some() {
        return Err(unfit());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Result<AzurePlace, PlaceError> {
        AzurePlace::parse(text).expect("it is an azblob URI")
    }

    #[test]
    fn a_place_has_an_account_a_container_and_perhaps_a_prefix() {
        let bare = place("azblob://account1/backups").unwrap();
        assert_eq!(bare.container_url().as_str(), "https://account1.blob.core.windows.net/backups");
        assert_eq!((bare.prefix(), bare.to_string().as_str()), ("", "azblob://account1/backups"));
        let deep = place("azblob://account1/my-backups/Site_A/vm.s/").unwrap();
        assert_eq!(deep.prefix(), "Site_A/vm.s/");
        assert_eq!(deep.to_string(), "azblob://account1/my-backups/Site_A/vm.s");
    }

    #[test]
    fn an_endpoint_comes_before_the_container() {
        for endpoint in ["http://127.0.0.1:10000/account1", "http://127.0.0.1:10000/account1/"] {
            let place = place(&format!("azblob://account1/backups/p?endpoint={endpoint}")).unwrap();
            assert_eq!(place.container_url().as_str(), "http://127.0.0.1:10000/account1/backups");
        }
        let gov =
            place("azblob://account1/backups?endpoint=https://account1.blob.core.usgovcloudapi.net").unwrap();
        assert_eq!(gov.container_url().as_str(), "https://account1.blob.core.usgovcloudapi.net/backups");
    }

    #[test]
    fn a_secondary_endpoint_is_told_apart_from_its_account() {
        let there = place("azblob://account1-secondary/backups/p").unwrap();
        assert!(there.is_secondary() && !place("azblob://account1/backups").unwrap().is_secondary());
        assert_eq!((there.account(), there.prefix()), ("account1", "p/"));
        assert_eq!(
            there.container_url().as_str(),
            "https://account1-secondary.blob.core.windows.net/backups"
        );
        assert_eq!(there.to_string(), "azblob://account1-secondary/backups/p");
        let emulated =
            place("azblob://account1-secondary/backups?endpoint=http://127.0.0.1:1/account1-secondary")
                .unwrap();
        assert_eq!(emulated.container_url().as_str(), "http://127.0.0.1:1/account1-secondary/backups");
        for text in ["azblob://-secondary/backups", "azblob://account1-secondary-secondary/backups"] {
            assert!(matches!(place(text), Err(PlaceError::Account { .. })), "{text}");
        }
    }

    #[test]
    fn plain_http_is_told_apart_unless_it_stays_on_the_machine() {
        let at = |endpoint: &str| place(&format!("azblob://account1/backups?endpoint={endpoint}")).unwrap();
        for endpoint in
            ["http://127.0.0.1:10000/a", "http://[::1]:1/a", "http://localhost:1/a", "https://host/a"]
        {
            assert!(!at(endpoint).is_unprotected(), "{endpoint}");
        }
        assert!(at("http://10.0.0.1/a").is_unprotected() && at("http://azurite:10000/a").is_unprotected());
        assert!(!place("azblob://account1/backups").unwrap().is_unprotected());
    }

    #[test]
    fn other_texts_are_refused_and_no_value_of_a_parameter_is_told() {
        assert_eq!(AzurePlace::parse("/srv/repo"), None);
        for text in ["azblob://", "azblob://account1", "azblob://account1/"] {
            assert!(place(text).is_err(), "{text} has no container");
        }
        for text in ["azblob://Account/backups", "azblob://ab/backups", "azblob://a_b/backups"] {
            assert!(matches!(place(text), Err(PlaceError::Account { .. })), "{text}");
        }
        for text in [
            "azblob://account1/ab",
            "azblob://account1/a--b",
            "azblob://account1/-ab",
            "azblob://account1/$root",
        ] {
            assert!(matches!(place(text), Err(PlaceError::Container { .. })), "{text}");
        }
        for text in [
            "azblob://account1/backups//x",
            "azblob://account1/backups/../x",
            "azblob://account1/backups/a b",
        ] {
            assert!(matches!(place(text), Err(PlaceError::Prefix { .. })), "{text}");
        }
        for text in [
            "azblob://user:secret@account1/backups",
            "azblob://account1/backups;AccountKey=secret",
            "azblob://account1/backups/x;SharedAccessSignature=sig=secret",
        ] {
            let error = place(text).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        for endpoint in ["", "ftp://host/", "http://user@host/", "http://host/?a=b", "host"] {
            let text = format!("azblob://account1/backups?endpoint={endpoint}");
            assert!(matches!(place(&text), Err(PlaceError::Endpoint { .. })), "{text}");
        }
        let secret = place("azblob://account1/backups?sv=2026&sig=SECRET").unwrap_err();
        assert_eq!(secret, PlaceError::Parameter { name: "sv".to_owned() });
        for text in ["sig=SECRET", "endpoint=https://host/?sig=SECRET", "endpoint=https://a:SECRET@host/"] {
            let error = place(&format!("azblob://account1/backups?{text}")).unwrap_err();
            assert!(!error.to_string().contains("SECRET"), "{error}");
        }
    }
}
