//! Vector files, as `repo-format/tests/vectors/README.md` tells; the tests of `engine` read them with this as well.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A vector: one rule and one scenario.
pub struct Vector {
    /// The name of its file, without the extension.
    pub name: String,
    pub rule: String,
    /// What `bytes` are, or what else the vector is about.
    pub object: String,
    /// `ok` or the kind of failure.
    pub expect: String,
    /// The bytes, or the text as it is stored.
    pub bytes: Vec<u8>,
    /// What the bytes decode to.
    pub fields: BTreeMap<String, String>,
    inputs: Vec<(String, String)>,
}

impl Vector {
    /// Reads all vectors, sorted by name.
    pub fn all() -> Vec<Self> {
        // The package that has this file may be one or two levels below the workspace.
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let directory = package.ancestors().map(|above| above.join("repo-format/tests/vectors"));
        let directory = directory.into_iter().find(|path| path.is_dir()).expect("the vectors are there");
        let files = fs::read_dir(directory)
            .expect("the vectors are there")
            .map(|entry| entry.expect("a file").path());
        let mut vectors: Vec<Self> = files
            .filter(|path| path.extension().is_some_and(|end| end == "txt"))
            .map(|path| Self::read(&path))
            .collect();
        vectors.sort_by(|a, b| a.name.cmp(&b.name));
        vectors
    }

    fn read(path: &Path) -> Self {
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name of plain characters");
        Self::parse(name, &fs::read_to_string(path).expect("a vector is text"))
    }

    /// Takes the text of a vector.
    pub fn parse(name: &str, text: &str) -> Self {
        let name = name.to_owned();
        let mut vector = Self {
            name,
            rule: String::new(),
            object: String::new(),
            expect: String::new(),
            bytes: Vec::new(),
            fields: BTreeMap::new(),
            inputs: Vec::new(),
        };
        // Not `lines`, which would take a carriage return as part of the line's end.
        for line in text.strip_suffix('\n').expect("a vector ends with a newline").split('\n') {
            vector.take(line);
        }
        vector
    }

    fn take(&mut self, line: &str) {
        let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("{}: {line}", self.name));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match key {
            "rule" => self.rule = value,
            "object" => self.object = value,
            "expect" => self.expect = value,
            "bytes" => self.bytes.extend(unhex(&value)),
            "text" => self.bytes.extend([value.as_bytes(), b"\n"].concat()),
            "pad" => {
                let (count, byte) = value.split_once(' ').expect("a count and a byte");
                let len = self.bytes.len() + count.parse::<usize>().expect("a count");
                self.bytes.resize(len, unhex(byte)[0]);
            }
            _ => match key.strip_prefix('.') {
                Some(field) => assert_eq!(self.fields.insert(field.to_owned(), value), None, "{}", self.name),
                None => self.inputs.push((key.to_owned(), value)),
            },
        }
    }

    /// The value of an input that may be missing.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.inputs.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// The value of an input.
    pub fn input(&self, key: &str) -> &str {
        self.get(key).unwrap_or_else(|| panic!("{} has no {key}", self.name))
    }

    /// The values of an input that is there several times.
    #[allow(dead_code, reason = "not every test binary has such inputs")]
    pub fn inputs(&self, key: &str) -> impl Iterator<Item = &str> {
        self.inputs.iter().filter(move |(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// The value of an input that is a number.
    pub fn number<T: TryFrom<u64>>(&self, key: &str) -> T {
        let number: u64 =
            self.input(key).parse().unwrap_or_else(|_| panic!("{}: {key} is no number", self.name));
        T::try_from(number).unwrap_or_else(|_| panic!("{}: {key} is too large", self.name))
    }

    /// The value of an input that is hexadecimal.
    #[allow(dead_code, reason = "not every test binary has such inputs")]
    pub fn array<const N: usize>(&self, key: &str) -> [u8; N] {
        unhex(self.input(key)).try_into().unwrap_or_else(|_| panic!("{}: {key} is not {N} bytes", self.name))
    }
}

/// Reads hexadecimal digits.
pub fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    let pairs = (0..text.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap_or_else(|_| panic!("{text}"))).collect()
}
