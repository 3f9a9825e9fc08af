//! The vectors of SPEC.md as inputs of targets: what is taken, and what is not and comes close.

use crate::vector::Vector;

/// The longest input that is worth mutating; vectors of limits are longer.
const INPUT_LEN_MAX: usize = 64 << 10;

/// A vector as a target takes it.
#[derive(Clone, Debug)]
pub struct VectorInput {
    /// The target's name.
    pub target: &'static str,
    /// The vector's name.
    pub name: String,
    /// The bytes for the target.
    pub input: Vec<u8>,
    /// Whether the decoder takes them; `None` where that depends on keys, which are others here.
    pub taken: Option<bool>,
}

/// Returns the vectors that a target has a use for.
///
/// # Panics
/// If the vectors are not there, or one is not what their README tells.
#[must_use]
pub fn vectors() -> Vec<VectorInput> {
    Vector::all().iter().filter_map(of_vector).filter(|input| input.input.len() <= INPUT_LEN_MAX).collect()
}

fn of_vector(vector: &Vector) -> Option<VectorInput> {
    let bytes = vector.bytes.as_slice();
    let (target, front): (_, Vec<u8>) = match vector.object.as_str() {
        _ if vector.get("name").is_some() && vector.object != "pack" => ("sealed_object", Vec::new()),
        "intent" => ("intent", Vec::new()),
        "decision" => ("decision", Vec::new()),
        "index" => ("index", Vec::new()),
        "tombstone" => ("session_objects", vec![0]),
        "condemned" => ("session_objects", vec![1]),
        "result" => ("session_objects", vec![2]),
        "repack" => ("session_objects", vec![3]),
        "config" => ("config", Vec::new()),
        "key-slot" => ("key_slot", Vec::new()),
        "name" => ("blob_name", Vec::new()),
        "page" => ("page", page_front(vector)),
        "node" => ("node", node_front(vector)),
        "pack-header" | "pack" => ("pack_header", Vec::new()),
        "directory" => ("pack_directory", directory_front(vector)),
        "payload" => ("chunk_frame", payload_front(vector)),
        _ => return None,
    };
    let depends_on_keys = matches!(target, "sealed_object" | "config" | "key_slot" | "node");
    // Of a pack, the target needs no more than the header.
    let taken = (!depends_on_keys && vector.object != "pack").then_some(vector.expect == "ok");
    let bytes = if target == "blob_name" { bytes.strip_suffix(b"\n").unwrap_or(bytes) } else { bytes };
    Some(VectorInput { target, name: vector.name.clone(), input: [&front, bytes].concat(), taken })
}

fn page_front(vector: &Vector) -> Vec<u8> {
    let (size, cell): (u64, u64) = (vector.number("disk-size"), vector.number("cell"));
    let geometry = match vector.number("region-len") {
        4096_u32 => 1_u8,
        8192 => 3,
        other => panic!("{}: the target has no geometry with regions of {other} bytes", vector.name),
    };
    [&size.to_le_bytes()[..], &cell.to_le_bytes(), &[geometry]].concat()
}

fn node_front(vector: &Vector) -> Vec<u8> {
    let (level, count): (u8, u8) = (vector.number("level"), vector.number("children"));
    let (_, own_len) = vector.input("pack").split_once(' ').expect("a pack and its length");
    let own_len: u32 = own_len.parse().expect("a length");
    [&[level, count][..], &own_len.to_le_bytes()].concat()
}

fn directory_front(vector: &Vector) -> Vec<u8> {
    let (kind, offset): (u8, u32) = (vector.number("pack-kind"), vector.number("directory-offset"));
    [&[kind - 1][..], &offset.to_le_bytes()].concat()
}

fn payload_front(vector: &Vector) -> Vec<u8> {
    let (codec, plain_len): (u8, u32) = (vector.number("codec"), vector.number("plain-length"));
    [&[codec - 1][..], &plain_len.to_le_bytes()].concat()
}
