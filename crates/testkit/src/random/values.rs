//! Documents, their `_id`s and their fields: few enough that they meet, of as many kinds as there are.

use super::Random;
use bson::{Binary, Bson, DateTime, Decimal128, Document, Regex, Timestamp, doc, oid::ObjectId, spec::BinarySubtype};
use rand::RngExt;

/// Fields that updates reach, nested ones and such whose names mean two things among them.
const PATHS: &[&str] = &[
    "a", "b", "c", "d", "zz", "é", "s", "n", "n.x", "n.y.z", "n.new", "l", "l.0", "l.3", "l.1.x", "0", "n.7", "m.0.1",
    "o.l", "p", "u",
];

/// Fields of a new document, in any order.
const NAMES: &[&str] = &["a", "b", "c", "d", "zz", "é", "s", "n", "l", "o", "0", "n.x", "p", "u", "t", ""];

impl Random {
    /// One of a few dozen, some of them equal to others, by number or under a collation.
    pub(super) fn id(&mut self) -> Bson {
        let n = self.rng.random_range(0_i32..8);
        match self.below(20) {
            0..5 => n.into(),
            5 => f64::from(n).into(),
            6 => i64::from(n).into(),
            7 => (f64::from(n) + 0.5).into(),
            8 => decimal(&format!("{n}.0")),
            9 => format!("s{n}").into(),
            10 => format!("S{n}").into(),
            11 => doc! {"a": n, "b": 1}.into(),
            12 => doc! {"b": 1, "a": n}.into(),
            13 => ObjectId::from_bytes([n as u8; 12]).into(),
            14 => DateTime::from_millis(i64::from(n) * 1_000_000_000).into(),
            15 => Timestamp { time: n as u32, increment: 1 }.into(),
            16 => binary(n),
            17 => (n % 2 == 0).into(),
            18 => self.one_of(&[
                Bson::Null,
                Bson::MinKey,
                Bson::MaxKey,
                f64::NAN.into(),
                f64::INFINITY.into(),
                (-0.0).into(),
            ]),
            _ => Bson::Symbol(format!("s{n}")),
        }
    }

    pub(super) fn value(&mut self) -> Bson {
        let n = self.rng.random_range(-20_i32..200);
        match self.below(18) {
            0..4 => n.into(),
            4 => i64::from(n).into(),
            5 => (f64::from(n) / 4.0).into(),
            6 => decimal(&format!("{n}.10")),
            7 => ["", "text", "Text", "ein langes Wort", "$a", "a.b"][n.unsigned_abs() as usize % 6].into(),
            8 => "x".repeat(n.unsigned_abs() as usize * 3).into(),
            9 => self.array(),
            10 => self.object(),
            11 => {
                self.one_of(&[Bson::Null, Bson::MinKey, f64::NAN.into(), true.into(), Bson::Undefined, (-0.0).into()])
            }
            12 => DateTime::from_millis(i64::from(n) * 86_400_000).into(),
            13 => self.one_of(&[Timestamp { time: 0, increment: 0 }, Timestamp { time: 5, increment: 1 }]).into(),
            14 => binary(n),
            15 => doc! {"type": "Point", "coordinates": [f64::from(n) / 2.0, f64::from(n) / 4.0]}.into(),
            16 => Bson::RegularExpression(Regex {
                pattern: "^a".try_into().expect("plain"),
                options: "i".try_into().expect("plain"),
            }),
            _ => Bson::ObjectId(ObjectId::from_bytes([n as u8; 12])),
        }
    }

    pub(super) fn array(&mut self) -> Bson {
        let len = self.below(7);
        let mut all: Vec<Bson> = (0..len).map(|_| self.rng.random_range(0..9).into()).collect();
        if self.once_in(3) {
            all.push(self.object());
        }
        if self.once_in(5) {
            all.push(Bson::Null);
        }
        all.into()
    }

    pub(super) fn object(&mut self) -> Bson {
        let all = [
            doc! {"x": 1, "y": {"z": 2}},
            doc! {"y": {"z": 2}, "x": 1},
            doc! {"0": 1, "7": 2},
            doc! {"x.y": 1, "x": {"y": 2}},
            doc! {"l": [1, 2, 3], "x": "text"},
            doc! {},
        ];
        self.one_of(&all).into()
    }

    /// A field or a path.
    pub(super) fn path(&mut self) -> &'static str {
        self.one_of(PATHS)
    }

    pub(super) fn document(&mut self) -> Document {
        let mut document = doc! {"_id": self.id()};
        document.extend(self.fields());
        document
    }

    /// Without an `_id`.
    pub(super) fn fields(&mut self) -> Document {
        let count = self.below(9);
        let mut fields = Document::new();
        for _ in 0..count {
            let value = match self.one_of(NAMES) {
                name @ ("l" | "t") => (name, self.array()),
                name @ ("n" | "o") => (name, self.object()),
                name => (name, self.value()),
            };
            fields.insert(value.0, value.1);
        }
        fields
    }
}

fn binary(n: i32) -> Bson {
    let subtype =
        [BinarySubtype::Generic, BinarySubtype::UserDefined(0x80), BinarySubtype::Md5][n.unsigned_abs() as usize % 3];
    Bson::Binary(Binary { subtype, bytes: vec![n as u8; n.unsigned_abs() as usize % 9] })
}

fn decimal(text: &str) -> Bson {
    text.parse::<Decimal128>().map_or(Bson::Null, Bson::Decimal128)
}
