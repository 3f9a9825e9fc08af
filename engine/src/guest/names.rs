//! The names that a guest gives: any bytes.

use std::fmt::Write as _;

/// A name or path as text for a terminal: what could steer one, and what is no UTF-8, is written as escapes.
#[must_use]
pub fn shown(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for part in name.utf8_chunks() {
        for character in part.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                _ if steers(character) => text.extend(character.escape_unicode()),
                _ => text.push(character),
            }
        }
        for byte in part.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Controls, and what changes the direction of text or ends a line.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Whether a directory can have an entry of this name: not the ways back, nothing with a separator.
pub(super) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// The names that a path consists of, from the root.
pub(super) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// A path with one more name.
pub(super) fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = path.to_vec();
    if joined.last() != Some(&b'/') {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_written_out() {
        assert_eq!(shown(b"a b.txt"), "a b.txt");
        assert_eq!(shown("gr\u{fc}n \u{202e}txt".as_bytes()), "gr\u{fc}n \\u{202e}txt");
        assert_eq!(shown(b"\x1b[2J\n\\\xff\xc3"), "\\u{1b}[2J\\n\\\\\\xff\\xc3");
    }

    #[test]
    fn ways_back_and_separators_are_no_names() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
            assert!(!is_name(name), "{name:?}");
        }
        for name in [&b"..."[..], b".a", b"a\n", b"\xff", b"-rf"] {
            assert!(is_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_path_is_its_names() {
        let names: Vec<_> = components(b"//a/./b/../c/").collect();
        assert_eq!(names, [&b"a"[..], b"b", b"..", b"c"]);
        assert_eq!((joined(b"/", b"a"), joined(b"/a", b"b")), (b"/a".to_vec(), b"/a/b".to_vec()));
    }
}
