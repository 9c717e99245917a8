//! The order in which the server's `_id` index has values, so that two scans can be joined without a lookup. Numbers of
//! all types compare by value, everything else first by type. Collations are not known here: such collections are
//! compared by looking documents up. Nothing hangs on this order's being right but speed: what seems to be missing is
//! looked up before it counts.

use crate::mongo::raw_value::{self, Value, elements};
use std::cmp::Ordering;

/// How `a` and `b` compare in an index of simple collation.
pub(crate) fn compare(a: Value<'_>, b: Value<'_>) -> Ordering {
    rank(a.kind).cmp(&rank(b.kind)).then_with(|| within(a, b))
}

/// Where a type stands among types.
fn rank(kind: u8) -> u8 {
    match kind {
        raw_value::MIN_KEY => 0,
        raw_value::UNDEFINED => 1,
        raw_value::NULL => 2,
        raw_value::DOUBLE | raw_value::INT32 | raw_value::INT64 | raw_value::DECIMAL => 3,
        raw_value::STRING | raw_value::SYMBOL => 4,
        raw_value::DOCUMENT => 5,
        raw_value::ARRAY => 6,
        raw_value::BINARY => 7,
        raw_value::OBJECT_ID => 8,
        raw_value::BOOLEAN => 9,
        raw_value::DATE => 10,
        raw_value::TIMESTAMP => 11,
        raw_value::REGEX => 12,
        raw_value::DB_POINTER => 13,
        raw_value::CODE => 14,
        raw_value::CODE_WITH_SCOPE => 15,
        _ => 16,
    }
}

/// Values of one rank.
fn within(a: Value<'_>, b: Value<'_>) -> Ordering {
    let signed = |v: Value<'_>| v.bytes.first_chunk().copied().map(i64::from_le_bytes);
    let unsigned = |v: Value<'_>| v.bytes.first_chunk().copied().map(u64::from_le_bytes);
    match a.kind {
        raw_value::STRING | raw_value::SYMBOL | raw_value::CODE => a.text().cmp(&b.text()),
        raw_value::DOCUMENT => documents(a.bytes, b.bytes),
        raw_value::ARRAY => arrays(a.bytes, b.bytes),
        // Its length, its subtype, what it holds.
        raw_value::BINARY => (a.bytes.len(), a.bytes.get(4..)).cmp(&(b.bytes.len(), b.bytes.get(4..))),
        raw_value::DATE => signed(a).cmp(&signed(b)),
        raw_value::TIMESTAMP => unsigned(a).cmp(&unsigned(b)),
        raw_value::CODE_WITH_SCOPE => scoped(a.bytes, b.bytes),
        raw_value::OBJECT_ID | raw_value::BOOLEAN | raw_value::REGEX | raw_value::DB_POINTER => a.bytes.cmp(b.bytes),
        _ => match (Number::of(a), Number::of(b)) {
            (Some(x), Some(y)) => x.compare(&y),
            _ => Ordering::Equal,
        },
    }
}

/// Field by field: type, then name, then value; the shorter one first.
fn documents(a: &[u8], b: &[u8]) -> Ordering {
    one_by_one(a, b, |(name, x), (other, y)| {
        rank(x.kind).cmp(&rank(y.kind)).then_with(|| name.cmp(other)).then_with(|| within(x, y))
    })
}

fn arrays(a: &[u8], b: &[u8]) -> Ordering {
    one_by_one(a, b, |(_, x), (_, y)| compare(x, y))
}

type Element<'a> = (&'a [u8], Value<'a>);

/// By the first elements that differ; the shorter one first.
fn one_by_one<'a>(a: &'a [u8], b: &'a [u8], order: impl Fn(Element<'a>, Element<'a>) -> Ordering) -> Ordering {
    let (mut left, mut right) = (elements(a), elements(b));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) => {
                let order = order(x, y);
                if order.is_ne() {
                    return order;
                }
            }
        }
    }
}

/// Code, then its scope.
fn scoped(a: &[u8], b: &[u8]) -> Ordering {
    let split = |bytes| raw_value::scoped(bytes).unwrap_or_default();
    let ((x, left), (y, right)) = (split(a), split(b));
    x.cmp(y).then_with(|| documents(left, right))
}

enum Number {
    Integer(i64),
    Double(f64),
    /// `NaN` is a [`Number::Double`].
    Decimal(Digits),
}

impl Number {
    fn of(value: Value<'_>) -> Option<Self> {
        Some(match value.number()? {
            raw_value::Number::Integer(n) => Self::Integer(n),
            raw_value::Number::Double(n) => Self::Double(n),
            raw_value::Number::Decimal(n) => match n.to_string().as_str() {
                "NaN" | "-NaN" => Self::Double(f64::NAN),
                "Infinity" => Self::Double(f64::INFINITY),
                "-Infinity" => Self::Double(f64::NEG_INFINITY),
                text => Self::Decimal(Digits::parse(text)),
            },
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
        let only = |document: &RawDocumentBuf| {
            elements(document.as_bytes()).next().map(|(_, value)| (value.kind, value.bytes.to_vec()))
        };
        let ((a, x), (b, y)) = (only(&a).expect("is there"), only(&b).expect("is there"));
        compare(Value { kind: a, bytes: &x }, Value { kind: b, bytes: &y })
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
