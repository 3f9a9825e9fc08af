//! What Azure tells of copies that it makes by itself, and an account's secondary endpoint.
#![expect(
    clippy::disallowed_methods,
    reason = "signatures are valid from now on, and services tell the time"
)]

use crate::faults::{azurite, through};
use crate::service::{container, container_of, key, key_of, open, settings, settings_at, settings_of};
use keepstone_engine::store::azure::{AzureStore, Credential, ReplicationState, Secret, ServiceError};
use keepstone_engine::store::{BlobStore, Put, StoreError};
use keepstone_peers::annotated::{Annotated, Headers};
use keepstone_peers::azurite::{Azurite, PRIMARY, REPLICA};
use keepstone_peers::proxy::{Fault, Plan, Proxy, Refusal};
use repo_format::BlobName;
use std::time::{Duration, SystemTime};

fn name(text: &str) -> BlobName {
    BlobName::parse(text).expect("a blob name")
}

/// The secondary endpoint of the account, which in Azurite shows what is in the primary one.
fn secondary(container: &str, credential: Credential) -> AzureStore {
    let account = format!("{}-secondary", PRIMARY.name);
    let endpoint = format!("{}/{account}", Azurite::shared().origin());
    open(settings_of(&format!("azblob://{account}/{container}?endpoint={endpoint}"), credential))
}

fn container_sas(container: &str) -> Credential {
    let valid = SystemTime::now() + Duration::from_hours(24);
    Credential::Sas(Secret::new(PRIMARY.container_sas(container, "rcdl", valid)))
}

#[test]
fn a_secondary_endpoint_is_read_and_nothing_is_asked_to_be_changed_there() {
    let container = container();
    let primary = open(settings(&container, key()));
    primary.put_new(&name("config"), b"bytes").unwrap();
    for credential in [key(), container_sas(&container)] {
        let store = secondary(&container, credential);
        assert!(store.is_secondary() && !primary.is_secondary());
        let before = store.traffic();
        for refused in [
            store.put_new(&name("r/1"), b"bytes").map(drop),
            store.delete(&name("config")),
            store.copy_from(&primary, &name("config"), 5).map(drop),
        ] {
            let StoreError::Service { object, source: ServiceError::Secondary, .. } = refused.unwrap_err()
            else {
                panic!("something was changed")
            };
            assert!(object.starts_with("azblob://keepstoneprimary-secondary/"), "{object}");
        }
        assert_eq!(store.traffic(), before, "a request was made");
        assert_eq!(store.get(&name("config"), None).unwrap(), b"bytes");
        assert_eq!(store.list("", None, 9).unwrap().blobs.len(), 1);
    }
}

#[test]
fn blobs_are_copied_from_a_secondary_endpoint() {
    let from = container();
    open(settings(&from, key())).put_new(&name("config"), b"bytes").unwrap();
    let to = container_of(&REPLICA);
    let endpoint = Azurite::shared().endpoint(&REPLICA);
    let place = format!("azblob://{}/{to}?endpoint={endpoint}", REPLICA.name);
    let destination = open(settings_of(&place, key_of(&REPLICA)));
    let copied = destination.copy_from(&secondary(&from, key()), &name("config"), 5);
    assert_eq!(copied.unwrap(), Put::Created);
    assert_eq!(destination.get(&name("config"), None).unwrap(), b"bytes");
}

#[test]
fn the_last_sync_time_is_told_to_whom_the_account_tells_it() {
    let container = container();
    let told = secondary(&container, key()).last_sync_time().unwrap().expect("Azurite tells a time");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970").as_millis();
    let apart = now.abs_diff(u128::from(told));
    assert!(
        apart < 3_600_000,
        "Azurite's time of synchronisation is the present, and this is {apart} ms off"
    );
    assert_eq!(
        open(settings(&container, key())).last_sync_time().unwrap(),
        None,
        "it is the primary endpoint"
    );
    assert_eq!(secondary(&container, container_sas(&container)).last_sync_time().unwrap(), None);
}

#[test]
fn the_state_of_object_replication_is_read_from_headers() {
    use ReplicationState::{Complete, Failed, Pending};
    let container = container();
    let direct = open(settings(&container, key()));
    let notes = |path: &str| -> Headers {
        let rule = ("x-ms-or-policy1_rule1", "complete");
        match path.rsplit("%2F").next().unwrap_or_default() {
            "1" => vec![rule],
            "2" => vec![rule, ("x-ms-or-policy1_rule2", "failed"), ("x-ms-or-policy2_rule1", "pending")],
            "3" => vec![rule, ("x-ms-or-policy1_rule2", "Pending")],
            "4" => vec![("x-ms-or-policy-id", "policy1")],
            _ => vec![],
        }
    };
    let service = Annotated::start(Azurite::shared().origin(), notes);
    let store = open(settings_at(&format!("{}/{}", service.origin(), PRIMARY.name), &container, key()));
    let names: Vec<BlobName> = (0..5).map(|number| name(&format!("r/{number}"))).collect();
    for name in &names {
        direct.put_new(name, b"bytes").unwrap();
    }
    let states: Vec<_> = names.iter().map(|name| store.replication_of(name).unwrap()).collect();
    // A destination has no rules of its own.
    assert_eq!(states, [None, Some(Complete), Some(Failed), Some(Pending), None]);
    let replicated: Vec<_> = names.iter().map(|name| store.is_replicated(name).unwrap()).collect();
    assert_eq!(replicated, [false, false, false, false, true]);
    let missing = store.replication_of(&name("r/9")).unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing:?}");
    assert!(matches!(store.is_replicated(&name("r/9")), Err(StoreError::NotFound { .. })));
}

#[test]
fn a_create_where_only_object_replication_writes_says_so() {
    let refused = |code| {
        let plan = Plan::new(move |request| match request.method.as_str() {
            "PUT" => Fault::Refused(Refusal::azure(409, code)),
            _ => Fault::Forward,
        });
        let proxy = Proxy::start(azurite(), plan);
        let store = open(settings_at(&through(&proxy), &container(), key()));
        match store.put_new(&name("config"), b"bytes") {
            Err(StoreError::Service { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    };
    let told = refused("BlobOperationNotSupported");
    assert!(matches!(told, ServiceError::ReplicationWrites { .. }), "{told:?}");
    assert_eq!(
        told.to_string(),
        "only object replication may write there, it seems (409 BlobOperationNotSupported)"
    );
    let told = refused("ContainerBeingDeleted");
    assert!(matches!(told, ServiceError::Refused { .. }), "{told:?}");
}
