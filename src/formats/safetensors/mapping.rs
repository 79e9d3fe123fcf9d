//! Which files may be mapped without being asked to.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

/// Permission to write: of the owner, of the group, of everybody.
const WRITABLE: u32 = 0o222;

/// True where nobody can make the file shorter while it is mapped, short of giving himself the right to: it lies on a disk of
/// this machine, and nobody has the permission to write it (`chmod 0444`). On file systems that are made once and never
/// written (squashfs, erofs, ISO 9660) permissions do not matter.
///
/// A mount that is read-only is not enough: it is so for this process or container, and whoever mounted the same files
/// elsewhere can still write them.
pub fn may_map(file: &File) -> bool {
    match medium(file) {
        Medium::Immutable => true,
        Medium::Local => file.metadata().is_ok_and(|facts| facts.mode() & WRITABLE == 0),
        Medium::Unknown => false,
    }
}

/// What a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "only Linux tells")]
enum Medium {
    /// Made once and never written.
    Immutable,
    /// On a disk, or in the memory, of this machine.
    Local,
    /// Across a network, or whatever it may be.
    Unknown,
}

#[cfg(target_os = "linux")]
fn medium(file: &File) -> Medium {
    let facts = rustix::fs::fstatfs(file).ok();
    let magic = facts.and_then(|facts| u32::try_from(facts.f_type & 0xFFFF_FFFF).ok());
    magic.map_or(Medium::Unknown, by_magic)
}

#[cfg(not(target_os = "linux"))]
fn medium(_: &File) -> Medium {
    Medium::Unknown
}

/// By the numbers of `statfs(2)`.
#[cfg(target_os = "linux")]
fn by_magic(magic: u32) -> Medium {
    match magic {
        // squashfs, erofs, ISO 9660
        0x7371_7368 | 0xE0F5_E1E2 | 0x9660 => Medium::Immutable,
        // ext2 to ext4, XFS, Btrfs, tmpfs, ramfs, overlayfs, F2FS, ZFS, bcachefs
        0xEF53 | 0x5846_5342 | 0x9123_683E | 0x0102_1994 | 0x8584_58F6 | 0x794C_7630 | 0xF2F5_2010
        | 0x2FC1_2FC1 | 0xCA45_1A4E => Medium::Local,
        _ => Medium::Unknown,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_somebody_may_write_is_not_mapped_by_itself() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(medium(file.as_file()), Medium::Local, "this test wants a local disk");
        for (mode, expected) in [(0o644, false), (0o444, true), (0o464, false), (0o446, false), (0o400, true)]
        {
            fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            assert_eq!(may_map(file.as_file()), expected, "{mode:o}");
        }
    }

    #[test]
    fn what_lies_elsewhere_is_not_mapped_by_itself() {
        // NFS, SMB, CIFS, FUSE, 9p, Ceph; /proc as one that can be opened here.
        for magic in [0x6969, 0x517B, 0xFF53_4D42, 0x6573_5546, 0x0102_1997, 0x00C3_6400] {
            assert_eq!(by_magic(magic), Medium::Unknown, "{magic:x}");
        }
        assert!(!may_map(&File::open("/proc/version").unwrap()));
    }
}
