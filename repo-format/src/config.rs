//! The config of a repository (SPEC section 4).

use serde::{Deserialize, Serialize};

use crate::bytes::Writer;
use crate::error::FormatError;
use crate::geometry::{ChunkerName, ChunkerParams, Geometry};
use crate::ids::RepositoryId;
use crate::json::{Hex, Object, parse_object, render_object};
use crate::keys::{Keys, PublicKeys, equal_in_constant_time};
use crate::limits::CONFIG_LEN_MAX;

const KEEPSTONE: &str = "repository";

/// What all users of a repository agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The repository.
    pub repository: RepositoryId,
    /// When it was made.
    pub created: u64,
    /// How disks are cut and packs are closed.
    pub geometry: Geometry,
    /// The X25519 key that session keys are sealed to.
    pub data_public_key: [u8; 32],
    /// The Ed25519 key that signatures of the retention are checked with.
    pub retention_public_key: [u8; 32],
}

impl Config {
    /// Encodes the config with its MAC.
    ///
    /// # Panics
    /// If the keys are another repository's, or [`Geometry::check`] finds something wrong.
    #[must_use]
    pub fn encode(&self, keys: &Keys) -> Vec<u8> {
        self.geometry.check().expect("a config that is written is valid");
        assert_eq!(self.repository, keys.repository(), "the keys must be the repository's");
        assert_eq!(self.data_public_key, keys.data_public_key(), "the public key must be the repository's");
        assert_eq!(
            self.retention_public_key,
            keys.retention_public(),
            "the public key must be the repository's"
        );
        let Geometry { chunker, region_len, cell_len, pack_len } = self.geometry;
        let ChunkerParams { name, min, average, max } = chunker;
        render_object(&ConfigJson {
            keepstone: KEEPSTONE.to_owned(),
            format: 0,
            id: Hex(self.repository.0),
            created: self.created,
            chunker: Object(ChunkerJson { name: name.as_str().to_owned(), min, average, max }),
            region_len,
            cell_len,
            pack_len,
            data_public_key: Hex(self.data_public_key),
            retention_public_key: Hex(self.retention_public_key),
            mac: Hex(*keys.config_mac(&self.mac_body()).as_bytes()),
        })
    }

    /// CONF-3.
    fn mac_body(&self) -> Vec<u8> {
        let Geometry { chunker, region_len, cell_len, pack_len } = self.geometry;
        let mut writer = Writer::new();
        writer.put(b"keepstone config").u32(0).put(&self.repository.0).u64(self.created);
        writer.str8(chunker.name.as_str()).u32(chunker.min).u32(chunker.average).u32(chunker.max);
        writer.u32(region_len).u32(cell_len).u32(pack_len).put(&self.data_public_key);
        writer.put(&self.retention_public_key);
        writer.finish()
    }
}

/// A config whose MAC is not checked yet; it tells what is needed to open key slots and nothing more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UncheckedConfig {
    config: Config,
    mac: [u8; 32],
}

impl UncheckedConfig {
    /// Parses a config.
    ///
    /// # Errors
    /// Bytes that break SPEC section 4; [`FormatError::UnsupportedVersion`] for a newer format.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let json: ConfigJson = parse_object(bytes, KEEPSTONE, CONFIG_LEN_MAX)?;
        let ChunkerJson { name, min, average, max } = json.chunker.0;
        let chunker = ChunkerParams { name: ChunkerName::parse(&name)?, min, average, max };
        let ConfigJson { region_len, cell_len, pack_len, .. } = json;
        let geometry = Geometry { chunker, region_len, cell_len, pack_len };
        geometry.check()?;
        let config = Config {
            repository: RepositoryId(json.id.0),
            created: json.created,
            geometry,
            data_public_key: json.data_public_key.0,
            retention_public_key: json.retention_public_key.0,
        };
        Ok(Self { config, mac: json.mac.0 })
    }

    /// Returns the repository that the config claims to be of.
    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.config.repository
    }

    /// Returns the parameters that the config claims disks to be cut by.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.config.geometry
    }

    /// Returns the public keys that the config claims to be the repository's; its check shows whether they are.
    #[must_use]
    pub fn public_keys(&self) -> PublicKeys {
        PublicKeys { data: self.config.data_public_key, retention: self.config.retention_public_key }
    }

    /// Checks the config against the repository's keys.
    ///
    /// # Errors
    /// [`FormatError::MacMismatch`]; public keys that are not those of the keys (KEY-2).
    pub fn check(self, keys: &Keys) -> Result<Config, FormatError> {
        let expected = keys.config_mac(&self.config.mac_body());
        if self.config.repository != keys.repository()
            || !equal_in_constant_time(expected.as_bytes(), &self.mac)
        {
            return Err(FormatError::MacMismatch);
        }
        if self.config.data_public_key != keys.data_public_key() {
            return Err(FormatError::BadValue("the data public key is not that of the root key"));
        }
        if self.config.retention_public_key != keys.retention_public() {
            return Err(FormatError::BadValue("the retention public key is not that of the keys"));
        }
        Ok(self.config)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConfigJson {
    keepstone: String,
    format: u32,
    id: Hex<16>,
    created: u64,
    chunker: Object<ChunkerJson>,
    region_len: u32,
    cell_len: u32,
    pack_len: u32,
    data_public_key: Hex<32>,
    retention_public_key: Hex<32>,
    mac: Hex<32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChunkerJson {
    name: String,
    min: u32,
    average: u32,
    max: u32,
}
