//! Azurite, containers and stores.

use keepstone_engine::Entropy;
use keepstone_engine::store::azure::{
    AzurePlace, AzureSettings, AzureStore, Credential, RetryPolicy, Secret,
};
use keepstone_peers::azurite::{Account, Azurite, PRIMARY};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// What drives the requests of all stores of this process.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts")
    })
}

/// Makes a container in the shared Azurite and returns its name.
pub fn container() -> String {
    container_of(&PRIMARY)
}

/// Makes a container in an account of the shared Azurite and returns its name.
pub fn container_of(account: &Account) -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!("c-{}", MADE.fetch_add(1, Ordering::Relaxed));
    Azurite::shared().create_container(account, &name);
    name
}

/// The key of the account.
pub fn key() -> Credential {
    key_of(&PRIMARY)
}

/// The key of an account.
pub fn key_of(account: &Account) -> Credential {
    Credential::AccountKey(Secret::new(account.key.to_owned()))
}

/// How a test wants a container to be used, waiting hardly at all between tries.
pub fn settings(container: &str, credential: Credential) -> AzureSettings {
    settings_at(&Azurite::shared().endpoint(&PRIMARY), container, credential)
}

/// As [`settings`], by another way to the service.
pub fn settings_at(endpoint: &str, container: &str, credential: Credential) -> AzureSettings {
    settings_of(&format!("azblob://{}/{container}?endpoint={endpoint}", PRIMARY.name), credential)
}

/// As [`settings`], for any place.
pub fn settings_of(place: &str, credential: Credential) -> AzureSettings {
    let place = AzurePlace::parse(place).expect("it is an azblob URI").expect("it is a place");
    let retry = RetryPolicy {
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(5),
        ..RetryPolicy::default()
    };
    AzureSettings { retry, ..AzureSettings::new(place, credential, Entropy::new([1; 32])) }
}

/// The store in a container.
pub fn open(settings: AzureSettings) -> AzureStore {
    AzureStore::new(runtime().handle().clone(), settings).expect("the credential can be used")
}
