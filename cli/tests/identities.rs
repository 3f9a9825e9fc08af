//! Who the program is when it asks with tokens: each kind of identity, chosen as users choose it.

mod world;

use keepstone_peers::azure_cli::{write_az, write_az_without_login};
use keepstone_peers::azurite::{Azurite, PRIMARY};
use keepstone_peers::certificates::{Certificates, ClientCertificate};
use keepstone_peers::entra::{Entra, Proof};
use keepstone_peers::imds::{Identity, Imds};
use keepstone_peers::token::access_token;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use world::{Ended, PROGRAM, World};

/// Secrets and assertions that no message may tell.
const PASSWORD: &str = "the-password-of-an-application";
const FEDERATED: &str = "the-token-of-somebody-else";

/// A container behind TLS that takes tokens, and what gives them.
struct Tenant {
    world: World,
    azurite: Azurite,
    entra: Entra,
    ca_file: PathBuf,
}

impl Tenant {
    fn new() -> Self {
        let world = World::new();
        let certificates = Certificates::make_in(world.dir.path());
        let azurite = Azurite::start_with_tokens(&certificates);
        azurite.create_container(&PRIMARY, "backups");
        let (entra, ca_file) = (Entra::start(&certificates), certificates.ca_file());
        Self { world, azurite, entra, ca_file }
    }

    fn run(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Ended {
        let endpoint = self.azurite.endpoint(&PRIMARY);
        let repository = format!("azblob://{}/backups/site?endpoint={endpoint}", PRIMARY.name);
        let mut command = self.world.bare(PROGRAM);
        command.args(["-vv", "-r", &repository, "--password-file", "password"]).args(arguments);
        command.env("SSL_CERT_FILE", &self.ca_file).env("AZURE_AUTHORITY_HOST", self.entra.authority());
        let ended = Ended::of(command.envs(environment.iter().copied()).output());
        for secret in [PASSWORD, FEDERATED, "eyJ"] {
            assert!(!ended.stderr.contains(secret), "{secret} is told: {ended:?}");
        }
        ended
    }
}

#[test]
fn every_kind_of_identity_is_used_as_it_is_chosen() {
    let tenant = Tenant::new();
    let application = [("AZURE_TENANT_ID", "tenant"), ("AZURE_CLIENT_ID", "client")];
    let with = |name, value| [&application[..], &[(name, value)]].concat();

    tenant.run(&with("AZURE_CLIENT_SECRET", PASSWORD), &["init"]).done();

    let certificate = ClientCertificate::make();
    tenant.world.write("host.pem", certificate.pem.as_bytes());
    tenant.run(&with("AZURE_CLIENT_CERTIFICATE_PATH", "host.pem"), &["key", "list"]).done();

    tenant.world.write("federated", FEDERATED.as_bytes());
    tenant.run(&with("AZURE_FEDERATED_TOKEN_FILE", "federated"), &["key", "list"]).done();

    let grants = tenant.entra.grants();
    assert!(grants.iter().all(|it| (it.tenant.as_str(), it.client.as_str()) == ("tenant", "client")));
    let proofs: Vec<&Proof> = grants.iter().map(|grant| &grant.proof).collect();
    let [Proof::Secret(secret), Proof::Assertion(signed), Proof::Assertion(stated)] = &proofs[..] else {
        panic!("these are not a password, a signature and a token: {proofs:?}")
    };
    assert_eq!((secret.as_str(), stated.0.as_str()), (PASSWORD, FEDERATED));
    assert!(signed.is_signed_by(&certificate), "another key signed");

    let user = Identity::UserAssigned("client".to_owned());
    let imds = Imds::start(&[Identity::SystemAssigned, user.clone()]);
    let proxy = imds.proxy();
    let chosen = ["--auth", "managed-identity", "key", "list"];
    tenant.run(&[("HTTP_PROXY", &proxy)], &chosen).done();
    tenant.run(&[("HTTP_PROXY", &proxy), ("AZURE_CLIENT_ID", "client")], &chosen).done();
    assert_eq!(imds.asked(), [Identity::SystemAssigned, user]);

    let now = SystemTime::now();
    let end = now + Duration::from_hours(1);
    write_az(tenant.world.dir.path(), &access_token("user", now..end), end);
    let path = format!("{}:/usr/bin:/bin", tenant.world.dir.path().display());
    let chosen = ["--auth", "azure-cli", "key", "list"];
    tenant.run(&[("PATH", &path)], &chosen).done();

    write_az_without_login(tenant.world.dir.path());
    for (ended, reason) in [
        (tenant.run(&[("PATH", &path)], &chosen), "az login"),
        (
            {
                tenant.entra.refuse(7_000_222);
                tenant.run(&with("AZURE_CLIENT_SECRET", PASSWORD), &["key", "list"])
            },
            "AADSTS7000222",
        ),
    ] {
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        for told in ["no token for the storage account could be had", reason, "hint: check the identity's"] {
            assert!(ended.stderr.contains(told), "{told} is not told: {ended:?}");
        }
    }
}
