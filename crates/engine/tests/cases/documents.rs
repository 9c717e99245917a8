//! Documents of every kind, as they are inserted.

use super::{Case, case};
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, RawDocumentBuf, Regex, Timestamp, doc,
    oid::ObjectId, raw::cstr,
};

pub const CASES: &[Case] = &[
    case!("every_type", p => { p.run(doc! {"create": "c"}).await? }, p => {
        let values = every_value();
        p.insert("values", values.iter().enumerate().map(|(n, v)| doc! {"_id": n as i32, "v": v.clone(), "in": {"v": v.clone()}, "a": [v.clone()]})).await?;
        p.insert_new("ids", values.into_iter().filter(may_be_id).map(|v| doc! {"_id": v, "x": 1})).await?;
    }),
    case!("ids_of_every_type_updated", p => {
        p.insert_new("ids", every_value().into_iter().filter(may_be_id).map(|v| doc! {"_id": v, "x": 1})).await?;
    }, p => {
        for (n, id) in every_value().into_iter().filter(may_be_id).enumerate() {
            let q = doc! {"_id": {"$eq": id.clone()}};
            match n % 3 {
                0 => p.update("ids", q, doc! {"$set": {"nested.x": 2, "y": 3}}).await?,
                1 => p.update("ids", q, doc! {"$set": {"y": 3}}).await?,
                _ => p.delete("ids", q).await?,
            }
        }
    }),
    case!("equal_numbers_change_type", p => {
        p.insert("c", [doc! {"_id": 1, "n": "int"}, doc! {"_id": 2_i64, "n": "long"}, doc! {"_id": -0.0, "n": "zero"}]).await?;
    }, p => {
        for (old, new) in [(Bson::Int32(1), Bson::Double(1.0)), (Bson::Int64(2), decimal("2.00")), (Bson::Double(0.0), Bson::Int32(0))] {
            p.delete("c", doc! {"_id": old}).await?;
            p.insert("c", [doc! {"_id": new, "n": "again"}]).await?;
        }
        // Distinct, though equal as doubles.
        p.insert("c", (0..6).map(|n| doc! {"_id": (1_i64 << 53) + n, "n": n})).await?;
        for n in 0..6 {
            p.update("c", doc! {"_id": (1_i64 << 53) + n}, doc! {"$set": {"deep.er": n}}).await?;
        }
    }),
    case!("odd_names", p => { p.run(doc! {"create": "c"}).await? }, p => {
        p.insert("c", [
            doc! {"_id": 1, "": "empty", "a.b": 1, "in": {"": {"": 1}, "x.y": 2, "$z": 3, "1": 4}, "0": "zero", "a": {"b": 2}},
            doc! {"_id": 2, "é": 1, "\u{1F600}": 2, " ": 3, "a-b": 4, "__proto__": 5},
        ]).await?;
    }),
    case!("dollar_names", p => { p.run(doc! {"create": "c"}).await? }, p => {
        p.insert("c", [doc! {"_id": 1, "$set": {"a": 1}, "b": 1}, doc! {"_id": 2, "b": 1, "$inc": 2}, doc! {"$x": 1, "_id": 3}]).await?;
        p.update("c", doc! {"_id": 1}, doc! {"$set": {"b": 2}}).await?;
        p.update("c", doc! {"_id": 2}, vec![doc! {"$replaceWith": {"$setField": {"field": {"$literal": "$price"}, "input": "$$ROOT", "value": 7}}}]).await?;
    }).since(5, 0),
    case!("zero_timestamps", p => { p.insert("c", [doc! {"_id": 1, "t": 1, "z": 1}, doc! {"_id": 2, "t": 1, "z": 1}]).await? }, p => {
        p.update("c", doc! {"_id": 1}, doc! {"$set": {"t": Timestamp { time: 0, increment: 0 }}}).await?;
        p.update("c", doc! {"_id": 2}, doc! {"$set": {"t": {"in": Timestamp { time: 0, increment: 0 }}, "deep.t": Timestamp { time: 0, increment: 0 }}}).await?;
        p.insert("c", [doc! {"_id": {"t": Timestamp { time: 0, increment: 0 }}, "x": [Timestamp { time: 0, increment: 0 }]}]).await?;
    }),
    case!("same_fields_in_another_order", p => { p.run(doc! {"create": "c"}).await? }, p => {
        p.insert("c", [doc! {"_id": {"a": 1, "b": 2}, "v": {"x": 1, "y": 2}}, doc! {"_id": {"b": 2, "a": 1}, "v": {"y": 2, "x": 1}}]).await?;
        p.update("c", doc! {"_id": {"a": 1, "b": 2}}, doc! {"$set": {"v": {"y": 2, "x": 1}}}).await?;
    }),
    case!("deep_and_long", p => { p.run(doc! {"create": "c"}).await? }, p => {
        let deep = (0..95).fold(Bson::Int32(1), |inner, n| if n % 2 == 0 { doc! {"d": inner}.into() } else { vec![inner].into() });
        let long: Vec<i32> = (0..200_000).collect();
        p.insert("c", [doc! {"_id": 1, "deep": deep.clone()}, doc! {"_id": 2, "long": long}]).await?;
        p.update("c", doc! {"_id": 2}, doc! {"$set": {"long.150000": "changed", "deep": deep}}).await?;
        let wide: Document = (0..20_000).map(|n| (format!("field{n}"), Bson::Int32(n))).collect();
        p.insert("c", [wide]).await?;
    }),
    case!("as_large_as_may_be", p => { p.run(doc! {"create": "c"}).await? }, p => {
        for id in 1..=3 {
            p.insert("c", [sized(id.into(), LARGEST)]).await?;
        }
        p.insert("c", (0..40).map(|n| sized(format!("s{n}").into(), 700_000))).await?;
        p.update("c", doc! {"_id": 1}, doc! {"$set": {"x": "shorter"}}).await?;
        p.coll("c").replace_one(doc! {"_id": 2}, sized(2.into(), LARGEST)).await?;
        p.update("c", doc! {"_id": 3}, doc! {"$set": {"x": "y".repeat(LARGEST - 1000)}}).await?;
        p.update("c", doc! {"_id": 3}, doc! {"$set": {"n.m": 1}}).await?;
    }),
    case!("grid_fs", p => { p.run(doc! {"create": "fs.files"}).await? }, p => {
        let id = ObjectId::new();
        p.run(doc! {"createIndexes": "fs.chunks", "indexes": [{"key": {"files_id": 1, "n": 1}, "name": "files_id_1_n_1", "unique": true}]}).await?;
        p.insert("fs.chunks", (0..20).map(|n| doc! {"files_id": id, "n": n, "data": binary(BinarySubtype::Generic, 261_120)})).await?;
        p.insert("fs.files", [doc! {"_id": id, "length": 20 * 261_120, "chunkSize": 261_120, "filename": "a.bin"}]).await?;
    }),
    case!("ids_equal_under_a_collation", p => {
        p.run(doc! {"create": "c", "collation": {"locale": "en", "strength": 1}}).await?;
        p.insert("c", ["a", "b", "c", "d"].map(|id| doc! {"_id": id, "n": 0})).await?;
    }, p => {
        for (old, new) in [("a", "A"), ("b", "B"), ("c", "ç")] {
            p.update("c", doc! {"_id": old}, doc! {"$set": {"deep.n": 1}}).await?;
            p.delete("c", doc! {"_id": old}).await?;
            p.insert("c", [doc! {"_id": new, "n": 1}]).await?;
            p.update("c", doc! {"_id": new}, doc! {"$set": {"deep.n": 2}}).await?;
        }
        p.delete("c", doc! {"_id": "b"}).await?;
        p.insert("c", [doc! {"_id": "b", "n": 2}]).await?;
        p.insert("c", [doc! {"_id": {"x": "A"}, "n": 2}]).await?;
        p.delete("c", doc! {"_id": {"x": "a"}}).await?;
        p.insert("c", [doc! {"_id": {"x": "a"}, "n": 3}]).await?;
    }),
    case!("events_over_16_mb", p => { p.run(doc! {"create": "c"}).await? }, p => {
        let id = |c: &str| Bson::String(c.repeat(700_000));
        p.insert("c", [doc! {"_id": "small"}]).await?;
        p.insert("c", [sized(id("a"), 15_900_000)]).await?;
        p.insert("c", [sized(id("b"), 2_000_000)]).await?;
        p.update("c", doc! {"_id": id("b")}, doc! {"$set": {"x": "y".repeat(15_000_000)}}).await?;
        p.coll("c").replace_one(doc! {"_id": id("b")}, sized(id("b"), 15_900_000)).await?;
        p.update("c", doc! {"_id": "small"}, doc! {"$set": {"after": true}}).await?;
    }),
    case!("binaries_of_every_subtype", p => { p.insert("ids", every_binary().map(|v| doc! {"_id": v, "n": 0})).await? }, p => {
        p.insert("c", every_binary().enumerate().map(|(n, v)| doc! {"_id": n as i32, "v": v.clone(), "a": [v]})).await?;
        for (n, id) in every_binary().enumerate() {
            match n % 3 {
                0 => p.update("ids", doc! {"_id": id.clone()}, doc! {"$set": {"deep.v": id}}).await?,
                1 => p.delete("ids", doc! {"_id": id}).await?,
                _ => {}
            }
        }
    }),
    case!("decimals_of_every_form", p => { p.insert_new("ids", every_decimal().map(|v| doc! {"_id": v, "n": 0})).await? }, p => {
        p.insert("c", every_decimal().enumerate().map(|(n, v)| doc! {"_id": n as i32, "v": v.clone(), "a": [v]})).await?;
        for (n, id) in every_decimal().enumerate() {
            p.update("ids", doc! {"_id": id.clone()}, doc! {"$set": {"deep.v": id.clone()}}).await?;
            if n % 3 == 0 {
                p.delete("ids", doc! {"_id": id.clone()}).await?;
                p.insert_new("ids", [doc! {"_id": id, "n": "again"}]).await?;
            }
        }
    }),
    case!("as_deep_as_may_be", p => { p.insert("c", [doc! {"_id": 0}]).await? }, p => {
        let deep = |levels: i32| (0..levels).fold(Bson::Int32(1), |inner, n| if n % 3 == 0 { vec![inner].into() } else { doc! {"d": inner}.into() });
        for levels in [100, 150, DEEPEST] {
            p.insert("c", [doc! {"_id": levels, "deep": deep(levels)}, doc! {"_id": levels + 1000, "deep": deep(levels), "t": Timestamp { time: 0, increment: 0 }}]).await?;
            p.update("c", doc! {"_id": levels}, doc! {"$set": {"x": 1}}).await?;
            p.coll("c").replace_one(doc! {"_id": levels}, doc! {"other": deep(levels)}).await?;
        }
        p.update("c", doc! {"_id": 0}, doc! {"$set": {"deep": deep(DEEPEST)}}).await?;
        p.update("c", doc! {"_id": 0}, vec![doc! {"$set": {"z": 1, "a": 2}}]).await?;
    }),
    case!("names_that_come_twice", p => { p.run(doc! {"create": "c"}).await? }, p => {
        let raw = p.db().collection::<RawDocumentBuf>("c");
        for id in 0..3 {
            let mut twice = RawDocumentBuf::new();
            for (name, value) in [(cstr!("a"), 1), (cstr!("_id"), id), (cstr!("b"), 2), (cstr!("a"), 3), (cstr!("b"), 4)] {
                twice.append(name, value);
            }
            raw.insert_one(twice).await?;
        }
        p.update("c", doc! {"_id": 1}, doc! {"$set": {"c": 5}}).await?;
        p.update("c", doc! {"_id": 2}, doc! {"$set": {"a": 6}}).await?;
    }),
];

/// The server's limit.
pub const LARGEST: usize = 16 * 1024 * 1024;

/// A document of just this many bytes.
pub fn sized(id: Bson, bytes: usize) -> Document {
    let mut document = doc! {"_id": id, "x": ""};
    let empty = bson::RawDocumentBuf::try_from(&document).map(|raw| raw.as_bytes().len()).unwrap_or(0);
    document.insert("x", "x".repeat(bytes - empty));
    document
}

fn binary(subtype: BinarySubtype, len: usize) -> Bson {
    Bson::Binary(Binary { subtype, bytes: (0..len).map(|n| n as u8).collect() })
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse::<Decimal128>().unwrap_or_else(|_| panic!("{text} is a decimal")))
}

fn may_be_id(value: &Bson) -> bool {
    !matches!(value, Bson::Array(_) | Bson::RegularExpression(_) | Bson::Undefined)
}

/// Arrays and documents within the one that is stored; the server takes no more.
const DEEPEST: i32 = 178;

/// Later releases look into a column; one that is empty is a zero.
fn every_binary() -> impl Iterator<Item = Bson> {
    let bytes = |n: u8| if n == 7 { vec![0] } else { vec![n; 16] };
    (0..=u8::MAX).map(move |n| Bson::Binary(Binary { subtype: n.into(), bytes: bytes(n) }))
}

/// What no text gives: NaNs with a sign and with a payload, significands that are too large and count as zero, the same
/// number with different exponents.
fn every_decimal() -> impl Iterator<Item = Bson> {
    let halves: [(u64, u64); 18] = [
        (0x7C00_0000_0000_0000, 0),
        (0xFC00_0000_0000_0000, 0),
        (0x7C00_0000_0000_0000, 12),
        (0x7E00_0000_0000_0000, 0),
        (0xFE00_0000_0000_0001, 2),
        (0x7800_0000_0000_0000, 0),
        (0x7800_0000_0000_0000, 5),
        (0xF800_0000_0000_0000, 0),
        (0x3040_0000_0000_0000, 0),
        (0xB040_0000_0000_0000, 0),
        (0x5FFE_0000_0000_0000, 0),
        (0x6C10_0000_0000_0000, 7),
        (0xEC10_0000_0000_0000, 0),
        (0x3041_FFFF_FFFF_FFFF, u64::MAX),
        (0x3040_0000_0000_0000, 1),
        (0x303E_0000_0000_0000, 10),
        (0x3042_0000_0000_0000, 1),
        (0x3040_0000_0000_0000, 10),
    ];
    let bytes = |(high, low): (u64, u64)| (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
    halves.into_iter().map(move |form| Bson::Decimal128(Decimal128::from_bytes(bytes(form))))
}

/// Values of every type, with what is special in each.
fn every_value() -> Vec<Bson> {
    let mut values: Vec<Bson> = vec![
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Null,
        Bson::Undefined,
        true.into(),
        false.into(),
        f64::NAN.into(),
        f64::INFINITY.into(),
        f64::NEG_INFINITY.into(),
        f64::MIN_POSITIVE.into(),
        f64::MAX.into(),
        (-0.0).into(),
        0.1.into(),
        1.5.into(),
        i32::MIN.into(),
        i32::MAX.into(),
        i64::MIN.into(),
        i64::MAX.into(),
        "".into(),
        "NaN".into(),
        "a\0b".into(),
        "é\u{1F600}".into(),
        doc! {}.into(),
        doc! {"a": 1, "b": {"c": [1, 2]}}.into(),
        doc! {"b": 1, "a": 1}.into(),
        doc! {"$ref": "c", "$id": 1}.into(),
        Vec::<Bson>::new().into(),
        vec![Bson::Null, Bson::Int32(1)].into(),
        ObjectId::from_bytes([0; 12]).into(),
        ObjectId::from_bytes([255; 12]).into(),
        DateTime::from_millis(i64::MIN).into(),
        DateTime::from_millis(-1).into(),
        DateTime::from_millis(i64::MAX).into(),
        Timestamp { time: 1, increment: 2 }.into(),
        Timestamp { time: u32::MAX, increment: u32::MAX }.into(),
        Bson::RegularExpression(Regex {
            pattern: "^a".try_into().expect("plain"),
            options: "im".try_into().expect("plain"),
        }),
        Bson::JavaScriptCode("function() {}".into()),
        Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code: "f".into(), scope: doc! {"x": 1} }),
        Bson::Symbol("symbol".into()),
        binary(BinarySubtype::Generic, 0),
        binary(BinarySubtype::Generic, 300),
        binary(BinarySubtype::Function, 3),
        binary(BinarySubtype::BinaryOld, 3),
        binary(BinarySubtype::UuidOld, 16),
        binary(BinarySubtype::Uuid, 16),
        binary(BinarySubtype::Md5, 16),
        binary(BinarySubtype::UserDefined(0x80), 5),
        binary(BinarySubtype::UserDefined(0xFF), 5),
    ];
    values.extend(
        [
            "0E-6176",
            "-0",
            "1.10",
            "1.1E+6144",
            "NaN",
            "Infinity",
            "-Infinity",
            "9.999999999999999999999999999999999E+6144",
        ]
        .map(decimal),
    );
    values.push(Bson::DbPointer(pointer()));
    values
}

/// A DBPointer can't be made, only read.
fn pointer() -> bson::DbPointer {
    let bytes = [&[30_u8, 0, 0, 0, 0x0C, b'p', 0, 6, 0, 0, 0][..], b"d.col\0", &[7; 12], &[0]].concat();
    let document = bson::RawDocument::from_bytes(&bytes).and_then(Document::try_from);
    match document.map(|mut d| d.remove("p")) {
        Ok(Some(Bson::DbPointer(pointer))) => pointer,
        other => panic!("{other:?}"),
    }
}
