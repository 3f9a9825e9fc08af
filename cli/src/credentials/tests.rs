//! Which credential is taken.

use super::*;
use crate::exit::{Exit, code, describe};

const TENANT: (&str, &str) = ("AZURE_TENANT_ID", "tenant");
const CLIENT: (&str, &str) = ("AZURE_CLIENT_ID", "client");
const KEY: (&str, &str) = ("AZURE_STORAGE_KEY", "a2V5");

fn place() -> AzurePlace {
    AzurePlace::parse("azblob://account1/backups").expect("an azblob URI").expect("a place")
}

fn choose_of(
    kind: Option<AuthKind>,
    environment: &[(&str, &str)],
    profile: &Profile,
) -> anyhow::Result<Chosen> {
    let variable = |name: &str| {
        environment.iter().find(|(found, _)| *found == name).map(|(_, value)| OsString::from(value))
    };
    choose(Whose::Repository, kind, &variable, profile, place())
}

/// The credential, and what it was made of.
fn chosen(kind: Option<AuthKind>, environment: &[(&str, &str)], profile: &Profile) -> (String, String) {
    let chosen = choose_of(kind, environment, profile).expect("a credential");
    (format!("{:?}", chosen.credential), chosen.origin)
}

fn refused(kind: Option<AuthKind>, environment: &[(&str, &str)], profile: &Profile) -> String {
    let error = choose_of(kind, environment, profile).expect_err("no credential");
    assert_eq!(code(&error), Exit::Usage);
    describe(&error)
}

#[test]
fn the_only_whole_credential_is_taken() {
    let none = Profile::default();
    for (environment, credential, origin) in [
        (vec![("AZURE_STORAGE_SAS_TOKEN", "sig=x")], "Sas((secret))", "AZURE_STORAGE_SAS_TOKEN"),
        (vec![("AZURE_STORAGE_SAS_TOKEN_FILE", "/sas")], "SasFile(\"/sas\")", "AZURE_STORAGE_SAS_TOKEN_FILE"),
        (vec![KEY, TENANT, CLIENT], "AccountKey((secret))", "AZURE_STORAGE_KEY"),
        (
            vec![("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=a2V5")],
            "AccountKey((secret))",
            "AZURE_STORAGE_CONNECTION_STRING",
        ),
        (
            vec![TENANT, CLIENT, ("AZURE_CLIENT_SECRET", "x")],
            "ClientSecret { tenant: \"tenant\", client: \"client\", secret: (secret) }",
            "AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET",
        ),
        (
            vec![TENANT, CLIENT, ("AZURE_FEDERATED_TOKEN_FILE", "/token"), ("AZURE_STORAGE_KEY", "")],
            "WorkloadIdentity { tenant: \"tenant\", client: \"client\", token_file: \"/token\" }",
            "AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_FEDERATED_TOKEN_FILE",
        ),
    ] {
        assert_eq!(chosen(None, &environment, &none), (credential.to_owned(), origin.to_owned()));
    }
}

#[test]
fn what_the_machine_is_must_be_chosen() {
    let none = Profile::default();
    assert!(
        refused(None, &[TENANT, CLIENT], &none)
            .contains("AZURE_TENANT_ID, AZURE_CLIENT_ID, is not all of one")
    );
    let managed = chosen(Some(AuthKind::ManagedIdentity), &[KEY], &none);
    assert_eq!(managed.0, "ManagedIdentity { client: None }");
    let assigned = chosen(Some(AuthKind::ManagedIdentity), &[CLIENT], &none);
    assert_eq!(assigned.0, "ManagedIdentity { client: Some(\"client\") }");
    let profile = Profile { tenant_id: Some("other".to_owned()), ..Profile::default() };
    let cli = chosen(Some(AuthKind::AzureCli), &[KEY], &profile);
    assert_eq!(cli.0, "AzureCli { tenant: Some(\"other\") }");
}

#[test]
fn of_several_one_must_be_chosen() {
    let none = Profile::default();
    let sas = ("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=hidden");
    let told = refused(None, &[KEY, sas], &none);
    assert!(told.contains("sas (AZURE_STORAGE_SAS_TOKEN); key (AZURE_STORAGE_KEY)"), "{told}");
    assert!(told.contains("--auth") && !told.contains("hidden") && !told.contains("a2V5"), "{told}");
    assert_eq!(chosen(Some(AuthKind::Sas), &[KEY, sas], &none).0, "Sas((secret))");
    assert_eq!(chosen(Some(AuthKind::Key), &[KEY, sas], &none).0, "AccountKey((secret))");
    let told = refused(Some(AuthKind::Sas), &[sas, ("AZURE_STORAGE_SAS_TOKEN_FILE", "/sas")], &none);
    assert!(told.contains("leave only one of them"), "{told}");
}

#[test]
fn what_a_chosen_credential_lacks_is_named() {
    let none = Profile::default();
    let lacks = |kind, environment: &[(&str, &str)], names: &str| {
        let told = refused(Some(kind), environment, &none);
        assert!(told.contains(&format!(" needs {names}\n")), "{told}");
    };
    lacks(AuthKind::ClientSecret, &[TENANT], "AZURE_CLIENT_ID and AZURE_CLIENT_SECRET");
    lacks(AuthKind::ClientCertificate, &[TENANT, CLIENT], "AZURE_CLIENT_CERTIFICATE_PATH");
    lacks(AuthKind::WorkloadIdentity, &[TENANT, CLIENT], "AZURE_FEDERATED_TOKEN_FILE");
    lacks(AuthKind::Sas, &[KEY], "AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_SAS_TOKEN_FILE");
    lacks(AuthKind::Key, &[], "AZURE_STORAGE_KEY");
    lacks(AuthKind::ConnectionString, &[], "AZURE_STORAGE_CONNECTION_STRING");
}

#[test]
fn the_environment_comes_before_the_profile() {
    let profile = Profile {
        sas_token_file: Some("/profile/sas".into()),
        client_id: Some("of the profile".to_owned()),
        ..Profile::default()
    };
    assert_eq!(chosen(None, &[], &profile).1, "sas-token-file");
    assert_eq!(chosen(None, &[KEY], &profile).1, "AZURE_STORAGE_KEY");
    let sas = [("AZURE_STORAGE_SAS_TOKEN", "sig=x")];
    assert_eq!(chosen(Some(AuthKind::Sas), &sas, &profile).1, "AZURE_STORAGE_SAS_TOKEN");
    assert_eq!(chosen(Some(AuthKind::Sas), &[KEY], &profile).0, "SasFile(\"/profile/sas\")");
    let secret = [TENANT, ("AZURE_CLIENT_SECRET", "x")];
    let mixed = chosen(Some(AuthKind::ClientSecret), &secret, &profile);
    assert_eq!(mixed.0, "ClientSecret { tenant: \"tenant\", client: \"of the profile\", secret: (secret) }");
    assert!(refused(None, &secret, &profile).contains("more than one credential"));
}

#[test]
fn secrets_of_a_profile_are_in_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("secret");
    std::fs::write(&file, "DefaultEndpointsProtocol=https;AccountName=account1;AccountKey=a2V5\r\n")
        .expect("it is written");
    let profile = Profile { connection_string_file: Some(file), ..Profile::default() };
    assert_eq!(chosen(None, &[], &profile).0, "AccountKey((secret))");
    let profile = Profile { key_file: Some(directory.path().join("missing")), ..Profile::default() };
    let told = refused(None, &[], &profile);
    assert!(told.contains("could not read ") && told.contains("No such file"), "{told}");
}

#[test]
fn the_issuer_of_tokens_is_that_of_the_environment_or_else_the_profile() {
    let profile = Profile { authority_host: Some("https://b".to_owned()), ..Profile::default() };
    let authority = |environment: &[(&str, &str)]| {
        choose_of(None, environment, &profile).expect("a credential").authority
    };
    assert_eq!(authority(&[KEY]).as_deref(), Some("https://b"));
    assert_eq!(authority(&[KEY, ("AZURE_AUTHORITY_HOST", "https://a")]).as_deref(), Some("https://a"));
}

#[test]
fn the_other_repository_has_variables_of_its_own() {
    let environment = [
        KEY,
        ("KEEPSTONE_OTHER_AZURE_STORAGE_SAS_TOKEN", "sig=hidden"),
        ("KEEPSTONE_OTHER_AZURE_TENANT_ID", "x"),
    ];
    let variable = |name: &str| {
        environment.iter().find(|(found, _)| *found == name).map(|(_, value)| OsString::from(value))
    };
    let none = Profile::default();
    let of_other = choose(Whose::Other, None, &variable, &none, place()).expect("a credential");
    assert_eq!(format!("{:?}", of_other.credential), "Sas((secret))");
    assert_eq!(of_other.origin, "KEEPSTONE_OTHER_AZURE_STORAGE_SAS_TOKEN");
    assert!(is_any_there(Whose::Other, &variable) && !is_any_there(Whose::Other, &|_| None));
    let error = choose(Whose::Other, Some(AuthKind::ClientSecret), &variable, &none, place())
        .expect_err("half of a credential");
    let told = describe(&error);
    assert!(
        told.contains("needs KEEPSTONE_OTHER_AZURE_CLIENT_ID and KEEPSTONE_OTHER_AZURE_CLIENT_SECRET"),
        "{told}"
    );
    assert!(!told.contains("hidden"), "{told}");
}

#[test]
fn a_credential_where_a_file_is_to_be_named_is_not_told() {
    for named in ["sv=2026&sig=hidden", "AccountName=a;AccountKey=hidden", "hiddenhidden=="] {
        let environment = [("AZURE_STORAGE_SAS_TOKEN_FILE", named)];
        let error = choose_of(None, &environment, &Profile::default()).expect_err("no such file");
        let told = describe(&error);
        assert!(told.contains("AZURE_STORAGE_SAS_TOKEN_FILE") && !told.contains("hidden"), "{told}");
    }
}
