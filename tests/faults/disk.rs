//! A disk that loses its power, simulated: what was synced is there, and of what came after it any part. It reads the log that `disk.c` writes.
//! What is asked of the files afterwards is in `power.rs`.

use std::collections::{BTreeMap, BTreeSet};

/// What a disk writes or does not write at once.
const SECTOR: usize = 512;

/// Numbers that look random and follow from a seed alone (SplitMix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number from 0 up to, but without, `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(end).unwrap()).unwrap()
    }
}

/// A change of a file.
#[derive(Clone, Copy)]
pub(crate) enum Change<'a> {
    Write { at: usize, bytes: &'a [u8] },
    Resize(usize),
}

/// A line of the log.
#[derive(Clone, Copy)]
pub(crate) enum Record<'a> {
    Changed(&'a str, Change<'a>),
    Synced(&'a str),
    Removed(&'a str),
    /// What the process had been told, and told others.
    Reported(&'a str),
}

/// Everything that a log says.
pub(crate) fn records(mut log: &[u8]) -> Vec<Record<'_>> {
    let mut records = Vec::new();
    while let Some(end) = log.iter().position(|&byte| byte == b'\n') {
        let line = std::str::from_utf8(&log[..end]).unwrap();
        log = &log[end + 1..];
        let (kind, rest) = line.split_once(' ').unwrap();
        let number = |text: &str| text.parse::<usize>().unwrap();
        let words: Vec<&str> = rest.split(' ').collect();
        records.push(match (kind, words.as_slice()) {
            ("W", [name, at, length]) => {
                let (bytes, behind) = log.split_at(number(length));
                log = behind;
                Record::Changed(name, Change::Write { at: number(at), bytes })
            }
            ("T", [name, size]) => Record::Changed(name, Change::Resize(number(size))),
            ("S", [name]) => Record::Synced(name),
            ("U", [name]) => Record::Removed(name),
            ("R", _) => Record::Reported(rest),
            _ => panic!("{line}"),
        });
    }
    assert!(log.is_empty(), "the log ends within a line");
    records
}

/// What a sync does not do, though it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    /// Of files whose names end so.
    About(&'static str),
}

#[derive(Default)]
struct File<'a> {
    synced: Vec<u8>,
    since: Vec<Change<'a>>,
}

impl Change<'_> {
    /// Makes it, or those sectors of it that are `kept`.
    fn make(self, content: &mut Vec<u8>, kept: &mut impl FnMut() -> bool) {
        match self {
            Change::Resize(size) if kept() => content.resize(size, 0),
            Change::Resize(_) => {}
            Change::Write { mut at, mut bytes } => {
                while !bytes.is_empty() {
                    let (piece, rest) = bytes.split_at(bytes.len().min(SECTOR - at % SECTOR));
                    if kept() {
                        content.resize(content.len().max(at + piece.len()), 0);
                        content[at..at + piece.len()].copy_from_slice(piece);
                    }
                    (at, bytes) = (at + piece.len(), rest);
                }
            }
        }
    }
}

impl File<'_> {
    fn sync(&mut self) {
        self.since.drain(..).for_each(|change| change.make(&mut self.synced, &mut || true));
    }

    /// Its bytes with those changes since it was synced that are `kept`.
    fn with(&self, kept: &mut impl FnMut() -> bool) -> Vec<u8> {
        let mut content = self.synced.clone();
        self.since.iter().for_each(|change| change.make(&mut content, kept));
        content
    }
}

/// Names and contents.
pub(crate) type Files<'a> = BTreeMap<&'a str, Vec<u8>>;

/// A folder on a disk. A file and its name are two things: each is there for certain once it was synced, the name by a sync of the folder.
pub(crate) struct Disk<'a> {
    lie: Lie,
    files: Vec<File<'a>>,
    names: BTreeMap<&'a str, usize>,
    synced_names: BTreeMap<&'a str, usize>,
}

impl<'a> Disk<'a> {
    pub(crate) fn new(lie: Lie) -> Self {
        Self { lie, files: Vec::new(), names: BTreeMap::new(), synced_names: BTreeMap::new() }
    }

    pub(crate) fn follow(&mut self, record: Record<'a>) {
        match record {
            Record::Synced(name) if matches!(self.lie, Lie::About(end) if name.ends_with(end)) => {}
            Record::Synced(".") => self.synced_names = self.names.clone(),
            Record::Synced(name) => {
                // A file that is still empty was never mentioned.
                if let Some(&file) = self.names.get(name) {
                    self.files[file].sync();
                }
            }
            Record::Changed(name, change) => {
                let file = *self.names.entry(name).or_insert_with(|| {
                    self.files.push(File::default());
                    self.files.len() - 1
                });
                self.files[file].since.push(change);
            }
            Record::Removed(name) => drop(self.names.remove(name)),
            Record::Reported(_) => {}
        }
    }

    /// What everybody reads while there is power.
    pub(crate) fn now(&self) -> Files<'a> {
        self.names.iter().map(|(&name, &file)| (name, self.files[file].with(&mut || true))).collect()
    }

    /// What is left when the power goes in this moment.
    pub(crate) fn after_a_loss_of_power(&self, dice: &mut Dice) -> Files<'a> {
        // Of ten sectors: none, half, almost all, all.
        let odds = [0, 5, 9, 10][dice.below(4)];
        let mut left = Files::new();
        let names: BTreeSet<&str> = self.names.keys().chain(self.synced_names.keys()).copied().collect();
        for name in names {
            let either = [self.names.get(name), self.synced_names.get(name)];
            if let Some(&file) = either[dice.below(2)] {
                left.insert(name, self.files[file].with(&mut || dice.below(10) < odds));
            }
        }
        left
    }
}
