//! What to do after a failure to read a guest's files.

use keepstone_engine::guest::{GuestError, System};

/// How any program reads what is not read here.
const SERVE: &str = "`keepstone serve SNAPSHOT --disk KEY --socket disk.sock` lends the disk to other programs, and \
    `guestfish --ro -i --format=raw -a 'nbd://?socket=disk.sock'` finds and reads its file systems; docs/operations.md \
    shows other ways";

/// Chooses the advice; none for a disk that failed, whose error has its own.
pub(super) fn advice(error: &GuestError) -> Option<String> {
    Some(match error {
        GuestError::NoVolumes | GuestError::TableDamaged | GuestError::Unsupported { .. } => SERVE.to_owned(),
        GuestError::NothingRead { found } => {
            let telling = found.iter().find_map(|(_, system)| of_system(*system));
            telling.map_or_else(|| SERVE.to_owned(), |telling| format!("{telling}; {SERVE}"))
        }
        GuestError::NotRead { system, .. } => {
            of_system(*system).map_or_else(|| SERVE.to_owned(), |telling| format!("{telling}; {SERVE}"))
        }
        GuestError::NoSuchVolume { .. } => "`keepstone ls SNAPSHOT --disk KEY` lists the volumes".to_owned(),
        GuestError::SeveralVolumes { .. } => "name one of them with --volume".to_owned(),
        GuestError::NotFound { .. } => "`keepstone ls` lists what there is".to_owned(),
        GuestError::IsADirectory { .. } => "add -R to copy it with what is in it".to_owned(),
        GuestError::Special { .. } => "only files, directories and symbolic links are copied".to_owned(),
        GuestError::Damaged { .. } => {
            "the guest itself may have left it so: try an earlier snapshot, or repair a copy: `keepstone serve SNAPSHOT \
             --disk KEY --socket disk.sock --overlay FILE` can be written to"
                .to_owned()
        }
        _ => return None,
    })
}

/// What stands between a volume and the files in it.
fn of_system(system: System) -> Option<&'static str> {
    Some(match system {
        System::BitLocker | System::Luks => "it is encrypted, and its key is needed",
        System::Lvm | System::MdRaid | System::DynamicDisk | System::StorageSpaces => {
            "its volumes may lie on several disks of the VM, each of which has to be lent"
        }
        _ => return None,
    })
}
