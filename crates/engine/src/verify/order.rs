//! The order in which the server's `_id` index has values, so that two scans can be joined without a lookup. Numbers of
//! all types compare by value, everything else first by type. Collations are not known here: such collections are
//! compared by looking documents up. Nothing hangs on this order's being right but speed: what seems to be missing is
//! looked up before it counts.

use bson::{RawArray, RawBsonRef, RawDocument, spec::ElementType};
use std::cmp::Ordering;

/// How `a` and `b` compare in an index of simple collation.
pub(crate) fn compare(a: RawBsonRef<'_>, b: RawBsonRef<'_>) -> Ordering {
    rank(a.element_type()).cmp(&rank(b.element_type())).then_with(|| within(a, b))
}

/// Where a type stands among types.
fn rank(kind: ElementType) -> u8 {
    match kind {
        ElementType::MinKey => 0,
        ElementType::Undefined => 1,
        ElementType::Null => 2,
        ElementType::Double | ElementType::Int32 | ElementType::Int64 | ElementType::Decimal128 => 3,
        ElementType::String | ElementType::Symbol => 4,
        ElementType::EmbeddedDocument => 5,
        ElementType::Array => 6,
        ElementType::Binary => 7,
        ElementType::ObjectId => 8,
        ElementType::Boolean => 9,
        ElementType::DateTime => 10,
        ElementType::Timestamp => 11,
        ElementType::RegularExpression => 12,
        ElementType::DbPointer => 13,
        ElementType::JavaScriptCode => 14,
        ElementType::JavaScriptCodeWithScope => 15,
        ElementType::MaxKey => 16,
    }
}

/// Values of one rank.
fn within(a: RawBsonRef<'_>, b: RawBsonRef<'_>) -> Ordering {
    use RawBsonRef::{
        Array, Binary, Boolean, DateTime, Document, JavaScriptCode, JavaScriptCodeWithScope, ObjectId,
        RegularExpression, String, Symbol, Timestamp,
    };
    match (a, b) {
        (String(x) | Symbol(x), String(y) | Symbol(y)) | (JavaScriptCode(x), JavaScriptCode(y)) => {
            x.as_bytes().cmp(y.as_bytes())
        }
        (Document(x), Document(y)) => documents(x, y),
        (Array(x), Array(y)) => arrays(x, y),
        (Binary(x), Binary(y)) => {
            let key = |v: bson::RawBinaryRef<'_>| (v.bytes.len(), u8::from(v.subtype));
            key(x).cmp(&key(y)).then_with(|| x.bytes.cmp(y.bytes))
        }
        (ObjectId(x), ObjectId(y)) => x.bytes().cmp(&y.bytes()),
        (Boolean(x), Boolean(y)) => x.cmp(&y),
        (DateTime(x), DateTime(y)) => x.timestamp_millis().cmp(&y.timestamp_millis()),
        (Timestamp(x), Timestamp(y)) => (x.time, x.increment).cmp(&(y.time, y.increment)),
        (RegularExpression(x), RegularExpression(y)) => {
            (x.pattern.as_str(), x.options.as_str()).cmp(&(y.pattern.as_str(), y.options.as_str()))
        }
        (JavaScriptCodeWithScope(x), JavaScriptCodeWithScope(y)) => {
            x.code.as_bytes().cmp(y.code.as_bytes()).then_with(|| documents(x.scope, y.scope))
        }
        _ => match (Number::of(a), Number::of(b)) {
            (Some(x), Some(y)) => x.compare(&y),
            _ => Ordering::Equal,
        },
    }
}

/// Field by field: type, then name, then value; the shorter one first.
fn documents(a: &RawDocument, b: &RawDocument) -> Ordering {
    let (mut left, mut right) = (a.iter().flatten(), b.iter().flatten());
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some((name, x)), Some((other, y))) => {
                let types = rank(x.element_type()).cmp(&rank(y.element_type()));
                let order = types
                    .then_with(|| name.as_str().as_bytes().cmp(other.as_str().as_bytes()))
                    .then_with(|| within(x, y));
                if order.is_ne() {
                    return order;
                }
            }
        }
    }
}

fn arrays(a: &RawArray, b: &RawArray) -> Ordering {
    let (mut left, mut right) = (a.into_iter().flatten(), b.into_iter().flatten());
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) => {
                let order = compare(x, y);
                if order.is_ne() {
                    return order;
                }
            }
        }
    }
}

enum Number {
    Integer(i64),
    Double(f64),
    /// `NaN` is a [`Number::Double`].
    Decimal(Digits),
}

impl Number {
    fn of(value: RawBsonRef<'_>) -> Option<Self> {
        Some(match value {
            RawBsonRef::Int32(n) => Self::Integer(i64::from(n)),
            RawBsonRef::Int64(n) => Self::Integer(n),
            RawBsonRef::Double(n) => Self::Double(n),
            RawBsonRef::Decimal128(n) => match n.to_string().as_str() {
                "NaN" | "-NaN" => Self::Double(f64::NAN),
                "Infinity" => Self::Double(f64::INFINITY),
                "-Infinity" => Self::Double(f64::NEG_INFINITY),
                text => Self::Decimal(Digits::parse(text)),
            },
            _ => return None,
        })
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Double(a), Self::Double(b)) => doubles(*a, *b),
            (Self::Integer(a), Self::Double(b)) => integer_to_double(*a, *b),
            (Self::Double(a), Self::Integer(b)) => integer_to_double(*b, *a).reverse(),
            (Self::Double(a), Self::Decimal(_)) if !a.is_finite() => doubles(*a, 0.0),
            (Self::Decimal(_), Self::Double(b)) if !b.is_finite() => doubles(0.0, *b),
            (a, b) => a.digits().compare(&b.digits()),
        }
    }

    fn digits(&self) -> Digits {
        match self {
            Self::Integer(n) => Digits::parse(&n.to_string()),
            // Every double has an end within this many places.
            Self::Double(n) => Digits::parse(&format!("{n:.1074}")),
            Self::Decimal(digits) => digits.clone(),
        }
    }
}

/// `NaN` is before all numbers.
fn doubles(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

fn integer_to_double(a: i64, b: f64) -> Ordering {
    if b.is_nan() {
        return Ordering::Greater;
    }
    // From here on whole numbers don't fit.
    let limit = 9_223_372_036_854_775_808.0;
    if b >= limit {
        return Ordering::Less;
    }
    if b < -limit {
        return Ordering::Greater;
    }
    let whole = b.trunc();
    a.cmp(&(whole as i64)).then_with(|| doubles(0.0, b - whole))
}

/// A decimal number: its sign, its significant digits, and the power of ten of the first of them.
#[derive(Clone, Debug, PartialEq)]
struct Digits {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Digits {
    /// Of `-12.34E+5` and the like.
    fn parse(text: &str) -> Self {
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (number, power) = rest.split_once(['E', 'e']).unwrap_or((rest, "0"));
        let power: i64 = power.trim_start_matches('+').parse().unwrap_or(0);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let zeros = all.iter().take_while(|d| **d == b'0').count();
        let mut digits = all[zeros..].to_vec();
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Self { negative: false, digits, exponent: 0 };
        }
        Self { negative, digits, exponent: whole.len() as i64 - zeros as i64 + power }
    }

    fn compare(&self, other: &Self) -> Ordering {
        let sign = |d: &Self| if d.digits.is_empty() { 0 } else { 1 - 2 * i32::from(d.negative) };
        let by_sign = sign(self).cmp(&sign(other));
        if by_sign.is_ne() || sign(self) == 0 {
            return by_sign;
        }
        let size = self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits));
        if self.negative { size.reverse() } else { size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, RawDocumentBuf, doc};

    fn order(a: &Bson, b: &Bson) -> Ordering {
        let raw = |v: &Bson| RawDocumentBuf::try_from(&doc! {"": v.clone()}).expect("plain");
        let (a, b) = (raw(a), raw(b));
        compare(a.get("").expect("reads").expect("is there"), b.get("").expect("reads").expect("is there"))
    }

    #[test]
    fn values_are_in_the_order_of_the_index() {
        let decimal = |text: &str| Bson::Decimal128(text.parse().expect("a decimal"));
        let sorted: Vec<Bson> = vec![
            Bson::MinKey,
            Bson::Null,
            f64::NAN.into(),
            f64::NEG_INFINITY.into(),
            decimal("-1E+400"),
            i64::MIN.into(),
            Bson::Double(-1.5),
            decimal("-0.1"),
            0.into(),
            decimal("0.1"),
            Bson::Double(0.1), // a little more than a tenth
            1.into(),
            decimal("1.5"),
            Bson::Int64(9_007_199_254_740_992),
            Bson::Int64(9_007_199_254_740_993),
            Bson::Double(9_007_199_254_740_994.0),
            i64::MAX.into(),
            Bson::Double(9_223_372_036_854_775_808.0),
            f64::INFINITY.into(),
            "".into(),
            "A".into(),
            "a".into(),
            "aa".into(),
            doc! {}.into(),
            doc! {"a": 1}.into(),
            doc! {"a": 1, "b": 1}.into(),
            doc! {"b": 0}.into(),
            doc! {"a": "x"}.into(),
            Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![9] }),
            Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![1, 1] }),
            bson::oid::ObjectId::from_bytes([1; 12]).into(),
            false.into(),
            true.into(),
            bson::DateTime::from_millis(-1).into(),
            bson::DateTime::from_millis(1).into(),
            Bson::Timestamp(bson::Timestamp { time: 1, increment: 1 }),
            Bson::MaxKey,
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(order(a, b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn what_the_server_holds_equal_is_equal() {
        let one: bson::Decimal128 = "1.00".parse().expect("a decimal");
        for same in [Bson::Int64(1), Bson::Double(1.0), Bson::Decimal128(one)] {
            assert_eq!(order(&Bson::Int32(1), &same), Ordering::Equal, "{same:?}");
        }
        assert_eq!(order(&Bson::Double(-0.0), &Bson::Int32(0)), Ordering::Equal);
        assert_eq!(order(&doc! {"a": 1}.into(), &doc! {"a": 1.0}.into()), Ordering::Equal);
        assert_eq!(order(&Bson::Double(f64::NAN), &Bson::Double(-f64::NAN)), Ordering::Equal);
    }
}
