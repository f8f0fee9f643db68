//! The generator: contacts of about 526 bytes, made from a seed, an id and a version, and from nothing else.
//!
//! Promises: the same (seed, id, version, time) gives the same bytes on every machine; a new version changes `stage`,
//! `amount` and `updated_at` (every third one `phone` as well) and leaves the rest alone; writing a record allocates
//! nothing once the buffer has grown. Does not know which records exist: that is the [world](super::World).

use std::io::Write;
use syncline_engine::model::Timestamp;

/// Bytes up to and including `notes`: what does not change with the version is padded to this, so that records are of
/// one size whatever names they drew.
const STEADY_BYTES: usize = 448;

/// First `updated_at` of a generated record: 2026-01-01.
const EPOCH_SECONDS: i64 = 1_767_225_600;

const FIRST: [&str; 32] = [
    "Ada", "Bruno", "Chiara", "Dmitri", "Elena", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Katja", "Liam", "Mina",
    "Noor", "Oskar", "Paula", "Quentin", "Rosa", "Samir", "Tove", "Uma", "Viktor", "Wanda", "Xenia", "Yusuf", "Zoe",
    "Amara", "Bela", "Carmen", "Dario", "Edith", "Felix",
];
const LAST: [&str; 32] = [
    "Almeida",
    "Berger",
    "Costa",
    "Dietrich",
    "Eriksen",
    "Fontana",
    "Gruber",
    "Haddad",
    "Ivanova",
    "Jansen",
    "Keller",
    "Lindqvist",
    "Moreau",
    "Novak",
    "Okafor",
    "Petrov",
    "Quint",
    "Rossi",
    "Santos",
    "Tanaka",
    "Ulrich",
    "Vargas",
    "Weber",
    "Xu",
    "Yilmaz",
    "Zimmer",
    "Andersson",
    "Bianchi",
    "Castillo",
    "Dubois",
    "Esposito",
    "Fischer",
];
const COMPANY: [&str; 16] = [
    "Harbor Freightage",
    "Meadow Dairies",
    "Summit Optics",
    "Lantern Press",
    "Orchard Robotics",
    "Cobalt Tiles",
    "Willow Textiles",
    "Granite Hosting",
    "Juniper Foods",
    "Copper Cable",
    "Saffron Travel",
    "Birch Furniture",
    "Pebble Games",
    "Aurora Heating",
    "Thistle Labs",
    "Quarry Machines",
];
const CITY: [&str; 16] = [
    "Lisbon", "Graz", "Turin", "Bergen", "Malmo", "Ghent", "Porto", "Leeds", "Lyon", "Kyoto", "Tampere", "Bilbao",
    "Gdansk", "Zagreb", "Utrecht", "Cork",
];
const TAG: [&str; 12] = [
    "lead",
    "newsletter",
    "partner",
    "reseller",
    "trial",
    "renewal",
    "referral",
    "event",
    "priority",
    "archived",
    "pilot",
    "wholesale",
];
const STAGE: [&str; 6] = ["new", "contacted", "qualified", "proposal", "won", "lost"];
const WORD: [&str; 32] = [
    "called",
    "about",
    "the",
    "order",
    "and",
    "asked",
    "for",
    "a",
    "second",
    "offer",
    "with",
    "longer",
    "terms",
    "before",
    "summer",
    "wants",
    "samples",
    "delivered",
    "to",
    "warehouse",
    "prefers",
    "mail",
    "over",
    "phone",
    "meeting",
    "moved",
    "until",
    "contract",
    "is",
    "signed",
    "by",
    "both",
];

/// Makes contacts. Copy it freely: it holds nothing but the seed.
#[derive(Clone, Copy, Debug)]
pub struct Generator {
    seed: u64,
}

impl Generator {
    /// A generator of this seed.
    pub fn new(seed: u64) -> Self {
        Generator { seed }
    }

    /// The source's modified time of a version nobody gave another time to.
    pub fn modified_at(&self, id: u64, version: u32) -> Timestamp {
        let spread = i64::try_from(id % 86_400).unwrap_or(0);
        Timestamp::from_seconds(EPOCH_SECONDS + spread + i64::from(version) * 86_400)
    }

    /// Appends the JSON of version `version` of contact `id`.
    pub fn record(&self, buf: &mut Vec<u8>, id: u64, version: u32) {
        self.record_at(buf, id, version, self.modified_at(id, version));
    }

    /// As [`record`](Self::record), with the modified time given.
    pub fn record_at(&self, buf: &mut Vec<u8>, id: u64, version: u32, updated_at: Timestamp) {
        let start = buf.len();
        let mut steady = Draw::new(self.seed ^ id.wrapping_mul(0xd6e8_feb8_6659_fd93));
        let mut fresh =
            Draw::new(self.seed ^ id.rotate_left(17) ^ u64::from(version).wrapping_mul(0x9e6c_63d0_876a_68ee));
        let mut rare = Draw::new(self.seed ^ id.rotate_left(31) ^ u64::from(version / 3));
        let (first, last) = (steady.one_of(&FIRST), steady.one_of(&LAST));
        put(buf, format_args!("{{\"id\":\"{id}\",\"name\":\"{first} {last}\",\"email\":\""));
        lower(buf, first);
        buf.push(b'.');
        lower(buf, last);
        put(
            buf,
            format_args!(".{id}@example.com\",\"phone\":\"+{:02}-{:07}\"", 30 + rare.below(60), rare.below(10_000_000)),
        );
        put(
            buf,
            format_args!(
                ",\"company\":{{\"name\":\"{}\",\"city\":\"{}\",\"employees\":{},\"vat\":\"EU{:09}\"}}",
                steady.one_of(&COMPANY),
                steady.one_of(&CITY),
                1 + steady.below(5_000),
                steady.below(1_000_000_000),
            ),
        );
        put(
            buf,
            format_args!(
                ",\"tags\":[\"{}\",\"{}\",\"{}\"],\"notes\":\"",
                steady.one_of(&TAG),
                steady.one_of(&TAG),
                steady.one_of(&TAG)
            ),
        );
        prose(buf, start + STEADY_BYTES, &mut steady);
        put(
            buf,
            format_args!(
                ",\"stage\":\"{}\",\"amount\":{}.{}5,\"updated_at\":\"{updated_at}\"}}",
                STAGE[(fresh.below(3) as usize + version as usize * 3) % STAGE.len()],
                100 + fresh.below(90_000),
                fresh.below(10),
            ),
        );
    }
}

/// Words up to `end`, closing the string there. At least one word is written.
fn prose(buf: &mut Vec<u8>, end: usize, draw: &mut Draw) {
    buf.extend_from_slice(draw.one_of(&WORD).as_bytes());
    while buf.len() < end {
        buf.push(b' ');
        buf.extend_from_slice(draw.one_of(&WORD).as_bytes());
    }
    buf.truncate(end.max(buf.len().min(end)));
    // A cut word is harmless; a trailing blank would look like a mistake.
    if buf.last() == Some(&b' ') {
        buf.pop();
        buf.push(b's');
    }
    buf.push(b'"');
}

fn lower(buf: &mut Vec<u8>, text: &str) {
    buf.extend(text.bytes().map(|b| b.to_ascii_lowercase()));
}

fn put(buf: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = buf.write_fmt(text);
}

/// A row of numbers that depends on its start alone (splitmix64): quicker to set up than a seeded generator with state,
/// which matters because each record begins its own row.
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Draw(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        ((self.next() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    fn one_of(&mut self, from: &[&'static str]) -> &'static str {
        let at = self.below(from.len() as u64) as usize;
        from.get(at).copied().unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seed: u64, id: u64, version: u32) -> serde_json::Value {
        let mut buf = Vec::new();
        Generator::new(seed).record(&mut buf, id, version);
        serde_json::from_slice(&buf).expect("JSON")
    }

    #[test]
    fn records_are_ten_fields_of_about_526_bytes() {
        let mut buf = Vec::new();
        let mut total = 0;
        for id in 1..=1_000u64 {
            buf.clear();
            Generator::new(1).record(&mut buf, id * 997, 1);
            assert_eq!(
                serde_json::from_slice::<serde_json::Value>(&buf).expect("JSON").as_object().expect("object").len(),
                10
            );
            total += buf.len();
        }
        assert!((520..=532).contains(&(total / 1_000)), "{} bytes", total / 1_000);
    }

    #[test]
    fn a_version_changes_a_few_fields_only() {
        let changed = |id, a, b| {
            let (old, new) = (record(3, id, a), record(3, id, b));
            old.as_object().expect("object").iter().filter(|(k, v)| new.get(k.as_str()) != Some(*v)).count()
        };
        for id in 1..200 {
            let fields = changed(id, 0, 1);
            assert!((2..=3).contains(&fields), "contact {id}: {fields} fields");
            assert!(changed(id, 2, 3) <= 4);
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(record(9, 5, 2), record(9, 5, 2));
        assert_ne!(record(9, 5, 2), record(10, 5, 2));
    }
}
