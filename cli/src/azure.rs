//! Repositories in Azure: their settings, and the store with what drives it.

use crate::clock::Stopwatch;
use crate::credentials::{self, AuthKind, Whose};
use crate::exit::Usage;
use crate::interrupt::Interrupt;
use crate::open;
use crate::prices::Prices;
use crate::profile::Profile;
use crate::progress::Screen;
use anyhow::Context as _;
use keepstone_engine::store::azure::{AzurePlace, AzureSettings, AzureStore, Listener, Setback, Tier};
use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Threads that move bytes: encryption of connections is what they do most.
const WORKERS: usize = 2;

/// What was said on the command line of all commands, and the profile.
#[derive(Debug)]
pub(crate) struct AzureOptions {
    /// Whose credential it is.
    pub(crate) whose: Whose,
    /// The kind of credential.
    pub(crate) auth: Option<AuthKind>,
    /// The most bytes a second to send.
    pub(crate) limit_upload: Option<NonZeroU64>,
    /// The most bytes a second to receive.
    pub(crate) limit_download: Option<NonZeroU64>,
    /// What comes after the flags.
    pub(crate) profile: Profile,
}

/// How new blobs are sent, as a command line says it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Uploads {
    /// The tier of data packs.
    pub(crate) tier: Option<Tier>,
    /// Whether they have an MD5 digest.
    pub(crate) content_md5: bool,
}

/// A store in Azure.
#[derive(Debug)]
pub(crate) struct Remote {
    /// The store. It comes first, since it is dropped before what drives it.
    pub(crate) store: AzureStore,
    /// What its traffic costs.
    pub(crate) prices: Prices,
    _driver: Driver,
}

/// A runtime that does not wait at its end for what nobody waits for, such as a name server that does not answer.
#[derive(Debug)]
struct Driver(Option<Runtime>);

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Reads a tier.
///
/// # Errors
/// One that restores cannot read from, or that does not exist.
pub(crate) fn parse_tier(text: &str) -> Result<Tier, String> {
    match text {
        "hot" => Ok(Tier::Hot),
        "cool" => Ok(Tier::Cool),
        "cold" => Ok(Tier::Cold),
        "archive" => {
            Err("archived packs cannot be read for hours, so that no restore and no check would work: use \
                          cold, and let no lifecycle rule archive packs either"
                .to_owned())
        }
        _ => Err(format!("{text:?} is no tier: write hot, cool or cold")),
    }
}

impl AzureOptions {
    /// Refuses flags that mean nothing for a directory.
    ///
    /// # Errors
    /// There is one.
    pub(crate) fn refuse_for_directory(&self, uploads: Uploads) -> Result<(), Usage> {
        let flags = [
            ("--auth", self.auth.is_some()),
            ("--limit-upload", self.limit_upload.is_some()),
            ("--limit-download", self.limit_download.is_some()),
            ("--tier", uploads.tier.is_some()),
            ("--content-md5", uploads.content_md5),
        ];
        match flags.into_iter().find(|(_, is_given)| *is_given) {
            Some((flag, _)) => {
                Err(Usage::new(format!("{flag} is for repositories in Azure, and this one is a directory"))
                    .hint(format!("leave {flag} out")))
            }
            None => Ok(()),
        }
    }

    /// Makes the store, without a request.
    ///
    /// # Errors
    /// No credential, several, or one that cannot be used; a system without random bytes or threads.
    pub(crate) fn open(
        &self,
        place: AzurePlace,
        uploads: Uploads,
        interrupt: &Interrupt,
        screen: &Screen,
    ) -> anyhow::Result<Remote> {
        let profile = &self.profile;
        let variable = |name: &str| std::env::var_os(name);
        let chosen = credentials::choose(self.whose, self.auth.or(profile.auth), &variable, profile, place)?;
        tracing::info!(origin = chosen.origin, "the credential is chosen");
        if chosen.place.is_unprotected() {
            screen.warn(
                "the endpoint is plain http: who can see the traffic can take the credential; use https",
            );
        }
        let settings = AzureSettings {
            authority: chosen.authority,
            data_tier: uploads.tier.or(profile.tier).unwrap_or_default(),
            content_md5: uploads.content_md5 || profile.content_md5,
            upload_limit: self.limit_upload.or(profile.limit_upload),
            download_limit: self.limit_download.or(profile.limit_download),
            listener: listener(screen.clone()),
            stop: interrupt.flag(),
            ..AzureSettings::new(chosen.place, chosen.credential, open::entropy()?)
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()
            .context("could not start the threads for the network")?;
        let store = AzureStore::new(runtime.handle().clone(), settings)
            .with_context(|| credentials::unusable(&chosen.origin))?;
        Ok(Remote { store, prices: profile.prices.clone(), _driver: Driver(Some(runtime)) })
    }
}

/// Waits that are told of: shorter ones are over before they are read.
const LONG_WAIT: Duration = Duration::from_secs(2);
/// Nothing more is told for so many milliseconds: many requests fail together.
const TOLD_EVERY_MILLIS: u64 = 10_000;

/// Tells on the screen that the service keeps the program waiting.
fn listener(screen: Screen) -> Listener {
    let told: Mutex<Option<Stopwatch>> = Mutex::default();
    Listener::new(move |setback| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = told.as_ref().is_some_and(|told| told.elapsed_millis() < TOLD_EVERY_MILLIS);
        if setback.wait < LONG_WAIT || lately {
            return;
        }
        *told = Some(Stopwatch::start());
        let Setback { why, failed_tries, of_tries, wait } = setback;
        let seconds = wait.as_secs();
        screen.warn(&format!("{why}; try {failed_tries} of {of_tries}, the next one in {seconds} s"));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_are_created_in_tiers_that_can_be_read() {
        assert_eq!(
            ["hot", "cool", "cold"].map(|text| parse_tier(text).unwrap()),
            [Tier::Hot, Tier::Cool, Tier::Cold]
        );
        assert!(parse_tier("archive").unwrap_err().contains("cannot be read"));
        assert!(parse_tier("Hot").is_err());
    }
}
