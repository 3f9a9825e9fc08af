//! The store in a real account: what is promised of Azurite, where nothing is emulated.
//!
//! It runs if `KEEPSTONE_TEST_AZURE_URL` names a container, as in `azblob://ACCOUNT/CONTAINER`, with the first that is
//! there of `AZURE_STORAGE_SAS_TOKEN`, `AZURE_STORAGE_SAS_TOKEN_FILE` (read, create, list and delete), `AZURE_STORAGE_KEY`,
//! and the Azure CLI's login; and says on standard error that it was not run otherwise. All blobs are made under a prefix
//! of the run, and stay if it fails.

#![expect(clippy::disallowed_methods, reason = "the account is named in the environment")]
#![expect(clippy::print_stderr, reason = "there is no harness that says it")]

mod world;

use keepstone_engine::Entropy;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::azure::{AzurePlace, AzureSettings, AzureStore, Credential, Secret, Tier};
use keepstone_engine::store::{BlobStore, conformance};
use repo_format::BlobName;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;
use tokio::runtime::{Builder, Runtime};

const VARIABLE: &str = "KEEPSTONE_TEST_AZURE_URL";

fn main() {
    let Ok(url) = std::env::var(VARIABLE) else {
        eprintln!(
            "NOT RUN: the tests with a real Azure account, because {VARIABLE} is not set (see docs/azure.md)"
        );
        return;
    };
    let runtime =
        Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
    let account =
        Account { url, run: format!("test-{}", since.as_millis()), runtime, containers: AtomicU32::new(0) };
    eprintln!("with {}, below {}", account.url, account.run);
    conformance::check(&|| {
        let settings = account.settings();
        let handle = account.runtime.handle().clone();
        Box::new(move || Box::new(AzureStore::new(handle.clone(), settings.clone()).expect("a credential")))
    });
    eprintln!("it conforms");
    account.backs_up_restores_and_verifies();
    eprintln!("it backs up, restores and verifies");
    let everything =
        AzureStore::new(account.runtime.handle().clone(), account.at(&account.run)).expect("a credential");
    let removed = remove_all(&everything);
    eprintln!("passed; {removed} blobs were removed again");
}

struct Account {
    url: String,
    run: String,
    runtime: Runtime,
    containers: AtomicU32,
}

impl Account {
    /// Something like a new container: a prefix that nobody has used.
    fn settings(&self) -> AzureSettings {
        self.at(&format!("{}/{}", self.run, self.containers.fetch_add(1, Ordering::Relaxed)))
    }

    fn at(&self, prefix: &str) -> AzureSettings {
        let (place, query) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let separator = if query.is_empty() { "" } else { "?" };
        let place = format!("{}/{prefix}{separator}{query}", place.trim_end_matches('/'));
        let variable = |name| std::env::var(name).ok();
        let sas = variable("AZURE_STORAGE_SAS_TOKEN").map(|sas| Credential::Sas(Secret::new(sas)));
        let sas_file = variable("AZURE_STORAGE_SAS_TOKEN_FILE").map(|file| Credential::SasFile(file.into()));
        let key = variable("AZURE_STORAGE_KEY").map(|key| Credential::AccountKey(Secret::new(key)));
        let place = AzurePlace::parse(&place).expect("an azblob URI").expect("a place");
        let credential = sas.or(sas_file).or(key).unwrap_or(Credential::AzureCli { tenant: None });
        let settings = AzureSettings::new(place, credential, Entropy::new([1; 32]));
        AzureSettings { content_md5: true, ..settings }
    }

    fn backs_up_restores_and_verifies(&self) {
        let settings = AzureSettings { data_tier: Tier::Cool, ..self.settings() };
        let store = AzureStore::new(self.runtime.handle().clone(), settings).expect("a credential");
        let repository = world::create(&store, world::small_geometry());
        let mut index = world::memory_index(&repository);
        let mut disk = world::mixed(1, 1_000_000);
        for run in 1..=3 {
            let source = MemoryDisk::new(disk.clone());
            world::back_up(&repository, &mut index, "vm", &[("disk", &source)], run)
                .expect("it is backed up");
            let snapshot = world::latest(&repository, "vm");
            assert!(
                world::restored(&repository, &snapshot, "disk").expect("it is restored") == disk,
                "other bytes"
            );
            disk[..20_000].copy_from_slice(&world::noise(u64::from(run), 20_000));
        }
        world::undamaged(&repository);
    }
}

fn remove_all(store: &dyn BlobStore) -> usize {
    let mut removed = 0;
    let mut from: Option<BlobName> = None;
    loop {
        let page = store.list("", from.as_ref(), 1000).expect("it lists");
        for blob in &page.blobs {
            store.delete(&blob.name).expect("it deletes");
            removed += 1;
        }
        match page.next {
            Some(next) => from = Some(next),
            None => return removed,
        }
    }
}
