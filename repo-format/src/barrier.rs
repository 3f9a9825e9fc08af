//! What a repository knows of its replicas (SPEC 10.7).

use crate::bytes::{Reader, Writer, check_sorted, parse_all};
use crate::error::FormatError;
use crate::frame::check_limit;
use crate::ids::{ReplicaName, SessionId, WriterId};
use crate::keys::Keys;
use crate::limits::PLACE_LEN_MAX;
use crate::name::{BlobKind, BlobName};
use crate::retention::{RetentionKey, open_signed, seal_signed};
use crate::seal::SealedKind;

const CONFIRMED: &str = "the confirmed sessions";

/// One fact about a replica. Facts of one replica are numbered in the order in which they were told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// The replica.
    pub replica: ReplicaName,
    /// The fact's number among those of the replica, from 0.
    pub number: u32,
    /// When it was told.
    pub time: u64,
    /// What is told.
    pub fact: BarrierFact,
}

/// What is told of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BarrierFact {
    /// It is waited for from now on.
    Registered {
        /// Where it is, for people: at most 4096 bytes, without secrets.
        place: String,
    },
    /// It is not waited for any more.
    Removed,
    /// Sessions were found to be whole there.
    Confirmed {
        /// Each session and its writer, sorted.
        sessions: Vec<(SessionId, WriterId)>,
    },
}

impl BarrierFact {
    fn number(&self) -> u8 {
        match self {
            Self::Registered { .. } => 1,
            Self::Removed => 2,
            Self::Confirmed { .. } => 3,
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        match reader.u8()? {
            1 => Ok(Self::Registered { place: reader.str16()?.to_owned() }),
            2 => Ok(Self::Removed),
            3 => Ok(Self::Confirmed { sessions: reader.owned_sessions(CONFIRMED)? }),
            found => Err(FormatError::BadType { what: "a fact about a replica", found }),
        }
    }
}

impl Barrier {
    /// Checks the length of the place and the order of the sessions.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&self) -> Result<(), FormatError> {
        match &self.fact {
            BarrierFact::Registered { place } => {
                check_limit("length of a place", place.len() as u64, PLACE_LEN_MAX)
            }
            BarrierFact::Removed => Ok(()),
            BarrierFact::Confirmed { sessions } => check_sorted(CONFIRMED, sessions),
        }
    }

    /// Encodes the content: the plaintext but for the signature.
    ///
    /// # Panics
    /// If [`Barrier::check`] finds something wrong.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.check().expect("a fact that is written is valid");
        let mut writer = Writer::new();
        writer.str8(self.replica.as_str()).u32(self.number).u64(self.time).u8(self.fact.number());
        match &self.fact {
            BarrierFact::Registered { place } => writer.str16(place),
            BarrierFact::Removed => &mut writer,
            BarrierFact::Confirmed { sessions } => writer.owned_sessions(sessions),
        };
        writer.finish()
    }

    /// Parses the content.
    ///
    /// # Errors
    /// Bytes that break BAR-1.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let barrier = parse_all(bytes, |reader| {
            let replica = ReplicaName::new(reader.str8()?)?;
            let (number, time) = (reader.u32()?, reader.u64()?);
            Ok(Self { replica, number, time, fact: BarrierFact::parse(reader)? })
        })?;
        barrier.check()?;
        Ok(barrier)
    }

    /// Signs and seals the fact; returns the name of its blob and the blob.
    ///
    /// # Panics
    /// If [`Barrier::check`] finds something wrong, or the retention key is another repository's.
    #[must_use]
    pub fn seal(&self, keys: &Keys, retention: &RetentionKey, salt: [u8; 32]) -> (BlobName, Vec<u8>) {
        let name = BlobName::barrier(&self.replica, self.number);
        let blob = seal_signed(keys, retention, (SealedKind::Barrier, &name), salt, self.encode());
        (name, blob)
    }

    /// Opens the fact in the blob `name`.
    ///
    /// # Errors
    /// A blob that is not authentic, or not the fact that its name calls for; [`FormatError::BadSignature`].
    pub fn open(keys: &Keys, name: &BlobName, blob: &[u8]) -> Result<Self, FormatError> {
        let barrier = Self::parse(&open_signed(keys, SealedKind::Barrier, name, blob)?)?;
        match name.kind() {
            Some(BlobKind::Barrier { replica, number })
                if (&replica, number) == (&barrier.replica, barrier.number) =>
            {
                Ok(barrier)
            }
            _ => Err(FormatError::BadValue("the fact is not the one that its name calls for")),
        }
    }
}
