//! How a range of `_id`s is read: by the bounds `min` and `max` of `find`, which compare values of any type in the order of
//! the index, as a filter doesn't.

use bson::{Bson, Document, doc};

/// The options of `find` that read from `min`, inclusive, to `max`, exclusive, by the index that `hint` names.
pub(crate) fn bounded(hint: Option<Document>, min: Option<&Bson>, max: Option<&Bson>) -> Document {
    let mut query = Document::new();
    query.extend(hint.map(|hint| ("hint".to_owned(), Bson::Document(hint))));
    query.extend(min.map(|id| ("min".to_owned(), Bson::Document(doc! {"_id": id}))));
    query.extend(max.map(|id| ("max".to_owned(), Bson::Document(doc! {"_id": id}))));
    query
}

/// The same for each `find` that the whole range takes, one after the other: `min` without `max` leaves out the one
/// document whose `_id` is `MaxKey`.
pub(crate) fn queries(hint: Option<Document>, min: Option<&Bson>, max: Option<&Bson>) -> Vec<Document> {
    let mut all = vec![bounded(hint, min, max)];
    if min.is_some() && max.is_none() {
        all.push(doc! {"filter": {"_id": Bson::MaxKey}});
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_range_is_read_to_its_end() {
        let (low, high) = (Bson::Int32(1), Bson::Int32(9));
        let by_id = || Some(doc! {"_id": 1});
        let inner = doc! {"hint": {"_id": 1}, "min": {"_id": 1}, "max": {"_id": 9}};
        assert_eq!(queries(by_id(), Some(&low), Some(&high)), [inner]);
        assert_eq!(queries(by_id(), None, Some(&high)), [doc! {"hint": {"_id": 1}, "max": {"_id": 9}}]);
        let last = [doc! {"hint": {"_id": 1}, "min": {"_id": 1}}, doc! {"filter": {"_id": Bson::MaxKey}}];
        assert_eq!(queries(by_id(), Some(&low), None), last);
        assert_eq!(queries(None, None, None), [Document::new()]);
    }
}
