//! Indexes of every kind, and what becomes of them.

use super::{Case, case};
use bson::{Bson, Document, doc};

fn point(n: i32) -> Document {
    doc! {"type": "Point", "coordinates": [f64::from(n), f64::from(n)]}
}

fn decimal_one() -> Bson {
    Bson::Decimal128("1".parse().expect("a decimal"))
}

/// Indexes that every version has.
fn every_kind() -> Vec<Bson> {
    [
        doc! {"key": {"a": 1}, "name": "a_1"},
        doc! {"key": {"a": 1.0, "b": -1_i64}, "name": "number types"},
        doc! {"key": {"tags": 1, "a": -1}, "name": "multikey"},
        doc! {"key": {"t": "text", "u": "text"}, "name": "text", "weights": {"t": 10, "u": 3}, "default_language": "german", "language_override": "lang"},
        doc! {"key": {"$**": 1}, "name": "wildcard", "wildcardProjection": {"a": 1, "in.x": 1}},
        doc! {"key": {"in.$**": 1}, "name": "wildcard below"},
        doc! {"key": {"flat": "2d", "a": 1}, "name": "2d", "bits": 20, "min": -200.0, "max": 200.0},
        doc! {"key": {"p": "2dsphere"}, "name": "2dsphere"},
        doc! {"key": {"a": 1, "p": "2dsphere"}, "name": "2dsphere old", "2dsphereIndexVersion": 2},
        doc! {"key": {"a": "hashed"}, "name": "hashed"},
        doc! {"key": {"b": "hashed", "c": 1}, "name": "hashed compound"},
        doc! {"key": {"s": 1}, "name": "sparse", "sparse": true},
        doc! {"key": {"q": 1}, "name": "partial", "partialFilterExpression": {"q": {"$gt": 5}, "a": {"$exists": true}}},
        doc! {"key": {"h": 1}, "name": "hidden", "hidden": true},
        doc! {"key": {"when": 1}, "name": "ttl", "expireAfterSeconds": 1_000_000_000},
        doc! {"key": {"when2": 1}, "name": "ttl with double", "expireAfterSeconds": 1e6},
        doc! {"key": {"id2": 1}, "name": "unique", "unique": true},
        doc! {"key": {"id3": 1}, "name": "unique sparse", "unique": true, "sparse": true},
        doc! {"key": {"id4": 1, "a": 1}, "name": "unique partial", "unique": true, "partialFilterExpression": {"id4": {"$exists": true}}},
        doc! {"key": {"l": 1}, "name": "collated", "collation": {"locale": "de", "strength": 1, "numericOrdering": true}},
        doc! {"key": {"l": 1}, "name": "same key, no collation"},
        doc! {"key": {"old": 1}, "name": "version one", "v": 1},
        doc! {"key": {"engine": 1}, "name": "engine options", "storageEngine": {"wiredTiger": {"configString": ""}}},
    ]
    .map(Bson::from)
    .to_vec()
}

fn documents() -> impl Iterator<Item = Document> {
    (0..50).map(|n| {
        doc! {
            "_id": n, "a": n, "b": -n, "tags": [n, n + 1], "t": "das Haus", "u": "word", "in": {"x": n}, "flat": [n, n],
            "p": point(n), "q": n, "h": n, "id2": n, "id4": n, "l": "ä", "when": bson::DateTime::now(),
        }
    })
}

pub const CASES: &[Case] = &[
    case!("indexes_of_every_kind", p => { p.insert("c", documents()).await? }, p => {
        p.run(doc! {"createIndexes": "c", "indexes": every_kind()}).await?;
        p.insert("c", [doc! {"_id": "later", "id2": "x", "tags": [1, 2]}]).await?;
    }),
    case!("indexes_before_documents", p => { p.run(doc! {"createIndexes": "c", "indexes": every_kind()}).await? }, p => {
        p.insert("c", documents()).await?;
        p.update("c", doc! {"_id": 3}, doc! {"$set": {"id2": "x", "p": point(80), "in.x": 9}}).await?;
    }),
    case!("sixty_four_indexes", p => { p.insert("c", [doc! {"_id": 1}]).await? }, p => {
        let all: Vec<Document> = (0..63).map(|n| doc! {"key": {format!("f{n}"): 1}, "name": format!("f{n}")}).collect();
        p.run(doc! {"createIndexes": "c", "indexes": all}).await?;
        for n in 0..3 {
            p.run(doc! {"dropIndexes": "c", "index": format!("f{n}")}).await?;
            p.run(doc! {"createIndexes": "c", "indexes": [{"key": {format!("g{n}"): 1}, "name": format!("g{n}")}]}).await?;
        }
    }),
    case!("simple_index_on_a_collated_collection", p => {
        p.run(doc! {"create": "c", "collation": {"locale": "fr", "strength": 2}}).await?;
        p.insert("c", [doc! {"_id": 1, "a": "É", "t": "mot"}]).await?;
    }, p => {
        p.run(doc! {"createIndexes": "c", "indexes": [
            {"key": {"a": 1}, "name": "simple", "collation": {"locale": "simple"}}, {"key": {"a": 1}, "name": "inherited"},
            {"key": {"a": 1}, "name": "other", "collation": {"locale": "de"}},
            {"key": {"t": "text"}, "name": "text", "collation": {"locale": "simple"}},
            {"key": {"u": 1}, "name": "unique simple", "unique": true, "collation": {"locale": "simple"}},
        ]}).await?;
        p.insert("c", [doc! {"_id": 2, "a": "e", "u": "x"}, doc! {"_id": 3, "u": "X"}]).await?;
    }),
    case!("unique_beside_not_unique", p => { p.insert("c", (0..5).map(|n| doc! {"_id": n, "a": n})).await? }, p => {
        p.run(doc! {"createIndexes": "c", "indexes": [
            {"key": {"a": 1}, "name": "plain"}, {"key": {"b": 1}, "name": "b"}, {"key": {"a": 1}, "name": "unique", "unique": true},
            {"key": {"a": 1}, "name": "sparse", "sparse": true},
        ]}).await?;
        p.insert("c", [doc! {"_id": 9, "a": 9}]).await?;
    }).since(5, 0),
    case!("prepare_unique", p => {
        p.insert("c", (0..5).map(|n| doc! {"_id": n, "a": n})).await?;
        p.run(doc! {"createIndexes": "c", "indexes": [{"key": {"a": 1}, "name": "a"}, {"key": {"b": 1, "a": 1}, "name": "b"}]}).await?;
    }, p => {
        p.run(doc! {"collMod": "c", "index": {"name": "a", "prepareUnique": true}}).await?;
        p.run(doc! {"collMod": "c", "index": {"name": "b", "prepareUnique": true}}).await?;
        p.run(doc! {"collMod": "c", "index": {"name": "b", "unique": true}}).await?;
    }).since(6, 0),
    case!("modified_indexes", p => {
        p.insert("c", (0..5).map(|n| doc! {"_id": n, "a": n})).await?;
        p.run(doc! {"createIndexes": "c", "indexes": [
            {"key": {"a": 1}, "name": "ttl", "expireAfterSeconds": 1_000_000}, {"key": {"b": 1}, "name": "b"},
            {"key": {"h": 1}, "name": "h", "hidden": true},
        ]}).await?;
    }, p => {
        p.run(doc! {"collMod": "c", "index": {"name": "ttl", "expireAfterSeconds": 2_000_000}}).await?;
        p.run(doc! {"collMod": "c", "index": {"name": "b", "hidden": true}}).await?;
        p.run(doc! {"collMod": "c", "index": {"keyPattern": {"h": 1}, "hidden": false}}).await?;
    }),
    case!("plain_index_becomes_ttl", p => {
        p.run(doc! {"createIndexes": "c", "indexes": [{"key": {"a": 1}, "name": "a"}]}).await?;
    }, p => { p.run(doc! {"collMod": "c", "index": {"name": "a", "expireAfterSeconds": 5_000_000}}).await? }).since(6, 0),
    case!("created_and_dropped", p => {
        p.insert("c", (0..20).map(|n| doc! {"_id": n, "a": n})).await?;
        p.run(doc! {"createIndexes": "c", "indexes": [{"key": {"a": 1}, "name": "x"}, {"key": {"b": 1}, "name": "y"}, {"key": {"z": 1}, "name": "z"}]}).await?;
    }, p => {
        p.run(doc! {"dropIndexes": "c", "index": "x"}).await?;
        p.run(doc! {"createIndexes": "c", "indexes": [{"key": {"other": 1}, "name": "x", "unique": true, "sparse": true}]}).await?;
        p.run(doc! {"dropIndexes": "c", "index": {"b": 1}}).await?;
        p.run(doc! {"createIndexes": "c", "indexes": [{"key": {"b": 1}, "name": "new name"}]}).await?;
        p.insert("d", [doc! {"_id": 1}]).await?;
        p.run(doc! {"createIndexes": "d", "indexes": [{"key": {"a": 1}, "name": "a"}, {"key": {"b": 1}, "name": "b"}]}).await?;
        p.run(doc! {"dropIndexes": "d", "index": "*"}).await?;
        p.run(doc! {"createIndexes": "implicit", "indexes": [{"key": {"a": 1}, "name": "a"}]}).await?;
    }),
    // Documents that an index of a later or earlier time refuses.
    case!("documents_that_no_longer_fit_an_index", p => {
        p.insert("c", [doc! {"_id": 1, "p": "nowhere", "a": [1], "b": [2]}, doc! {"_id": 2, "p": point(1), "a": 1, "b": [2]}, doc! {"_id": 4, "h": [1]}]).await?;
        p.run(doc! {"createIndexes": "d", "indexes": [{"key": {"p": "2dsphere"}, "name": "p"}, {"key": {"a": 1, "b": 1}, "name": "ab"}]}).await?;
        p.insert("d", [doc! {"_id": 1, "p": point(1), "a": 1, "b": [1]}]).await?;
    }, p => {
        p.update("c", doc! {"_id": 1}, doc! {"$set": {"p": point(3), "a": 1}}).await?;
        p.update("c", doc! {"_id": 4}, doc! {"$set": {"h": 1}}).await?;
        p.run(doc! {"createIndexes": "c", "indexes": [
            {"key": {"p": "2dsphere"}, "name": "p"}, {"key": {"a": 1, "b": 1}, "name": "ab"}, {"key": {"h": "hashed"}, "name": "h"},
            {"key": {"a": 1, "t": "text"}, "name": "t"},
        ]}).await?;
        p.run(doc! {"dropIndexes": "d", "index": "p"}).await?;
        p.run(doc! {"dropIndexes": "d", "index": "ab"}).await?;
        p.update("d", doc! {"_id": 1}, doc! {"$set": {"p": "nowhere", "a": [1]}}).await?;
        p.insert("d", [doc! {"_id": 2, "a": [1], "b": [1], "p": {"type": "Point", "coordinates": [500, 500]}}]).await?;
    }),
    case!("text_index_against_a_later_array", p => {
        p.run(doc! {"createIndexes": "c", "indexes": [{"key": {"a": 1, "t": "text", "b": 1}, "name": "t"}]}).await?;
        p.insert("c", (0..5).map(|n| doc! {"_id": n, "a": n, "t": "a word", "b": n})).await?;
    }, p => {
        p.update("c", doc! {"_id": 0}, doc! {"$set": {"t": ["many", "words"]}}).await?;
        p.run(doc! {"dropIndexes": "c", "index": "t"}).await?;
        p.update("c", doc! {"_id": 1}, doc! {"$set": {"a": [1, 2], "b": [3]}}).await?;
        p.insert("c", [doc! {"_id": 9, "a": [1], "t": "x"}]).await?;
        p.update("c", doc! {"_id": 1}, doc! {"$set": {"a": 1, "b": 3}}).await?;
        p.delete("c", doc! {"_id": 9}).await?;
        p.run(doc! {"createIndexes": "c", "indexes": [{"key": {"a": 1, "t": "text", "b": 1}, "name": "t"}]}).await?;
    }),
    case!("failing_builds", p => { p.insert("c", [doc! {"_id": 1, "a": 1}, doc! {"_id": 2, "a": 1}]).await? }, p => {
        let failed = p.run(doc! {"createIndexes": "c", "indexes": [{"key": {"a": 1}, "name": "a", "unique": true}]}).await;
        assert!(failed.is_err());
        p.update("c", doc! {"_id": 2}, doc! {"$set": {"a": 2}}).await?;
        p.run(doc! {"createIndexes": "c", "indexes": [{"key": {"a": 1}, "name": "a", "unique": true}]}).await?;
    }),
    case!("options_written_as_numbers", p => { p.insert("c", documents()).await? }, p => {
        p.run(doc! {"createIndexes": "c", "indexes": [
            {"key": {"id2": 1}, "name": "unique", "unique": 1}, {"key": {"s": 1}, "name": "sparse", "sparse": 1.0},
            {"key": {"x": 1}, "name": "zeros", "unique": 0, "sparse": 0.0}, {"key": {"bg": 1}, "name": "background", "background": true},
            {"key": {"id4": 1}, "name": "false", "unique": false, "sparse": false, "hidden": false},
        ]}).await?;
        p.insert("c", [doc! {"_id": "later", "id2": "x"}]).await?;
    }),
    case!("many_options_of_one_index", p => { p.insert("c", documents()).await? }, p => {
        p.run(doc! {"createIndexes": "c", "indexes": [
            {"key": {"when3": 1}, "name": "all at once", "unique": true, "hidden": true, "expireAfterSeconds": 1_500_000_000,
                "partialFilterExpression": {"when3": {"$exists": true}, "q": {"$type": ["int", "double"]}},
                "collation": {"locale": "en", "strength": 3, "caseFirst": "upper", "alternate": "shifted", "backwards": true}},
            {"key": {"id2": 1, "q": -1}, "name": "hidden and unique", "unique": true, "hidden": true},
            {"key": {"b": 1}, "name": "half", "partialFilterExpression": {"$and": [{"b": {"$lte": 0}}, {"a": {"$eq": 3}}]}},
        ]}).await?;
    }),
    case!("odd_index_names_and_keys", p => { p.insert("c", documents()).await? }, p => {
        p.run(doc! {"createIndexes": "c", "indexes": [
            {"key": {"a": 2, "b": -0.5}, "name": "a.b $c"}, {"key": {"a": 7}, "name": "é\u{1F600} "},
            {"key": {"in.x": 1, "tags.0": 1}, "name": "n".repeat(200)}, {"key": {"_id": "hashed"}, "name": "_id_hashed"},
            {"key": {"b": decimal_one()}, "name": "decimal"}, {"key": {"a": i64::MAX}, "name": "large"}, {"key": {"_id": 1, "a": 1}, "name": "_id_2"},
        ]}).await?;
        p.run(doc! {"dropIndexes": "c", "index": "a.b $c"}).await?;
    }),
    case!("texts_of_every_version", p => {
        for coll in ["c", "d", "e"] {
            p.insert(coll, documents()).await?;
        }
    }, p => {
        let all = [
            ("c", doc! {"key": {"$**": "text"}, "name": "all", "weights": {"t": 5}, "textIndexVersion": 2}),
            ("d", doc! {"key": {"a": 1, "t": "text", "$**": "text", "b": -1}, "name": "within", "default_language": "none", "textIndexVersion": 3}),
            ("e", doc! {"key": {"_fts": "text", "_ftsx": 1}, "name": "as listed", "weights": {"t": 1, "u": 99}, "default_language": "french"}),
        ];
        for (coll, index) in all {
            p.run(doc! {"createIndexes": coll, "indexes": [index]}).await?;
            p.insert(coll, [doc! {"_id": "later", "t": ["viele", "Wörter"], "lang": "german"}]).await?;
        }
        p.run(doc! {"createIndexes": "c", "indexes": [{"key": {"p": "2dsphere"}, "name": "first", "2dsphereIndexVersion": 1, "sparse": true}]}).await?;
    }),
    case!("expiry_with_a_fraction", p => { p.insert("c", [doc! {"_id": 1, "when": "never"}]).await? }, p => {
        let index = doc! {"key": {"when": 1}, "name": "ttl", "expireAfterSeconds": 1_000_000.5};
        p.run(doc! {"createIndexes": "c", "indexes": [index]}).await?;
    }).since(5, 0),
];
