//! Collections of every kind and option.

use super::{Case, case};
use bson::{Bson, DateTime, Document, doc};

fn at(seconds: i64) -> DateTime {
    DateTime::from_millis(1_700_000_000_000 + seconds * 1000)
}

fn measurements(sensor: i32, from: i64, n: i64) -> impl Iterator<Item = Document> {
    (from..from + n)
        .map(move |k| doc! {"t": at(k * 60), "m": {"sensor": sensor}, "value": k as f64, "text": format!("v{k}")})
}

pub const CASES: &[Case] = &[
    case!("capped", p => {
        p.run(doc! {"create": "small", "capped": true, "size": 4096}).await?;
        p.run(doc! {"create": "max", "capped": true, "size": 1_000_000, "max": 20}).await?;
        p.run(doc! {"create": "huge", "capped": true, "size": 5_000_000_000_i64}).await?;
        p.run(doc! {"create": "odd size", "capped": true, "size": 5000}).await?;
        p.insert("max", (0..15).map(|n| doc! {"_id": 100 - n, "n": n})).await?;
        p.insert("small", (0..60).map(|n| doc! {"_id": 1000 - n, "x": "x".repeat(50)})).await?;
    }, p => {
        p.insert("max", (20..50).map(|n| doc! {"_id": n * 7 % 101 + 200, "n": n})).await?;
        p.insert("small", (0..60).map(|n| doc! {"_id": format!("{}", n * 7 % 61), "x": "y".repeat(50)})).await?;
        p.insert("huge", (0..10).map(|n| doc! {"_id": -n})).await?;
        p.update("max", doc! {"n": 45}, doc! {"$set": {"n": 46}}).await?;
        p.update("max", doc! {"n": 44}, doc! {"$inc": {"n": -100}}).await?;
        p.insert("max", [doc! {"_id": "again"}]).await?;
    }),
    case!("capped_deletes", p => {
        p.run(doc! {"create": "c", "capped": true, "size": 100_000}).await?;
        p.insert("c", (0..15).map(|n| doc! {"_id": n, "n": n})).await?;
    }, p => {
        p.delete("c", doc! {"n": {"$in": [3, 7]}}).await?;
        p.insert("c", [doc! {"_id": 3, "n": "again"}, doc! {"_id": "z"}]).await?;
        p.delete("c", doc! {"_id": 3}).await?;
        p.insert("c", [doc! {"_id": "y"}, doc! {"_id": 3, "n": "once more"}]).await?;
    }).since(6, 0),
    case!("capped_resized", p => {
        p.run(doc! {"create": "c", "capped": true, "size": 8192, "max": 50}).await?;
        p.insert("c", (0..80).map(|n| doc! {"_id": n, "x": "x".repeat(100)})).await?;
    }, p => {
        p.run(doc! {"collMod": "c", "cappedSize": 100_000}).await?;
        p.run(doc! {"collMod": "c", "cappedMax": 70}).await?;
        p.insert("c", (100..130).map(|n| doc! {"_id": n, "x": "x".repeat(100)})).await?;
    }).since(6, 0),
    case!("converted_to_capped", p => {
        p.insert("c", (0..30).map(|n| doc! {"_id": n, "a": n})).await?;
        p.run(doc! {"createIndexes": "c", "indexes": [{"key": {"a": 1}, "name": "a"}]}).await?;
    }, p => {
        p.run(doc! {"convertToCapped": "c", "size": 10_000}).await?;
        p.insert("c", [doc! {"_id": "later"}]).await?;
        p.insert("d", (0..5).map(|n| doc! {"_id": n})).await?;
        p.run(doc! {"cloneCollectionAsCapped": "d", "toCollection": "e", "size": 20_000}).await?;
    }),
    case!("clustered", p => {
        p.run(doc! {"create": "c", "clusteredIndex": {"key": {"_id": 1}, "unique": true, "name": "by id"}}).await?;
        p.run(doc! {"create": "expiring", "clusteredIndex": {"key": {"_id": 1}, "unique": true}, "expireAfterSeconds": 1_000_000_000_i64}).await?;
        p.insert("c", (0..30).map(|n| doc! {"_id": n, "a": n})).await?;
    }, p => {
        p.update("c", doc! {"_id": 3}, doc! {"$set": {"deep.x": 1}}).await?;
        p.delete("c", doc! {"_id": 4}).await?;
        p.insert("c", [doc! {"_id": "s"}, doc! {"_id": 2.5}, doc! {"_id": Bson::MaxKey}, doc! {"_id": Bson::Null}]).await?;
        p.insert("expiring", [doc! {"_id": DateTime::now()}]).await?;
        p.run(doc! {"createIndexes": "c", "indexes": [{"key": {"a": 1}, "name": "a"}]}).await?;
        p.run(doc! {"collMod": "expiring", "expireAfterSeconds": 900_000_000_i64}).await?;
        p.run(doc! {"create": "new", "clusteredIndex": {"key": {"_id": 1}, "unique": true}}).await?;
        p.insert("new", [doc! {"_id": 1}]).await?;
    }).since(6, 0),
    case!("time_series", p => {
        p.run(doc! {"create": "s", "timeseries": {"timeField": "t", "metaField": "m", "granularity": "seconds"}}).await?;
        p.run(doc! {"create": "expiring", "timeseries": {"timeField": "t"}, "expireAfterSeconds": 1_000_000_000_i64}).await?;
        p.insert("s", measurements(1, 0, 100)).await?;
    }, p => {
        p.insert("s", measurements(1, 100, 100)).await?;
        p.insert("s", measurements(2, 0, 50)).await?;
        p.insert("expiring", [doc! {"t": DateTime::now(), "v": 1}]).await?;
        p.run(doc! {"createIndexes": "s", "indexes": [{"key": {"m.sensor": 1, "t": -1}, "name": "by sensor"}, {"key": {"t": 1}, "name": "t"}]}).await?;
        p.run(doc! {"dropIndexes": "s", "index": "t"}).await?;
        p.run(doc! {"collMod": "s", "timeseries": {"granularity": "minutes"}}).await?;
        p.run(doc! {"collMod": "expiring", "expireAfterSeconds": 900_000_000_i64}).await?;
        p.run(doc! {"collMod": "s", "expireAfterSeconds": 800_000_000_i64}).await?;
        p.run(doc! {"create": "new", "timeseries": {"timeField": "t", "metaField": "m"}}).await?;
        p.insert("new", measurements(3, 0, 30)).await?;
        p.run(doc! {"create": "gone", "timeseries": {"timeField": "t"}}).await?;
        p.insert("gone", measurements(3, 0, 3)).await?;
        p.run(doc! {"drop": "gone"}).await?;
    }).since(5, 0),
    case!("time_series_updated", p => {
        p.run(doc! {"create": "s", "timeseries": {"timeField": "t", "metaField": "m"}}).await?;
        p.insert("s", measurements(1, 0, 100).chain(measurements(2, 0, 10))).await?;
    }, p => {
        p.update_many("s", doc! {"m.sensor": 2}, doc! {"$set": {"m.place": "roof"}}).await?;
        p.insert("s", measurements(2, 10, 10)).await?;
        p.run(doc! {"delete": "s", "deletes": [{"q": {"m.sensor": 1}, "limit": 0}]}).await?;
    }).since(6, 0),
    case!("time_series_dropped_and_made_again", p => {
        p.run(doc! {"create": "s", "timeseries": {"timeField": "t"}}).await?;
        p.insert("s", measurements(1, 0, 10)).await?;
    }, p => {
        p.run(doc! {"drop": "s"}).await?;
        p.run(doc! {"create": "s", "timeseries": {"timeField": "t", "metaField": "m", "granularity": "hours"}}).await?;
        p.insert("s", measurements(2, 0, 20)).await?;
    }).since(5, 0),
    case!("views", p => {
        p.insert("c", [doc! {"_id": 1, "a": "x"}]).await?;
        p.run(doc! {"create": "z first", "viewOn": "c", "pipeline": [{"$match": {"a": "x"}}]}).await?;
        p.run(doc! {"create": "a on view", "viewOn": "z first", "pipeline": []}).await?;
        p.run(doc! {"create": "changed", "viewOn": "c", "pipeline": []}).await?;
        p.run(doc! {"create": "dropped", "viewOn": "c", "pipeline": []}).await?;
        p.run(doc! {"create": "becomes a collection", "viewOn": "c", "pipeline": []}).await?;
        p.run(doc! {"create": "becomes a view"}).await?;
    }, p => {
        p.run(doc! {"create": "folded", "viewOn": "c", "pipeline": [{"$sort": {"a": 1}}], "collation": {"locale": "en", "strength": 2}}).await?;
        p.run(doc! {"create": "on folded", "viewOn": "folded", "pipeline": [], "collation": {"locale": "en", "strength": 2}}).await?;
        p.run(doc! {"create": "on nothing", "viewOn": "not there", "pipeline": [{"$lookup": {"from": "c", "localField": "a", "foreignField": "b", "as": "j"}}]}).await?;
        p.run(doc! {"collMod": "changed", "viewOn": "a on view", "pipeline": [{"$project": {"_id": 0}}]}).await?;
        p.run(doc! {"drop": "dropped"}).await?;
        p.run(doc! {"drop": "becomes a collection"}).await?;
        p.insert("becomes a collection", [doc! {"_id": 1}]).await?;
        p.run(doc! {"drop": "becomes a view"}).await?;
        p.run(doc! {"create": "becomes a view", "viewOn": "c", "pipeline": []}).await?;
    }),
    case!("views_on_time_series", p => { p.run(doc! {"create": "s", "timeseries": {"timeField": "t"}}).await? }, p => {
        p.run(doc! {"create": "a view", "viewOn": "s", "pipeline": [{"$limit": 3}]}).await?;
        p.insert("s", measurements(1, 0, 5)).await?;
    }).since(6, 0),
    case!("validators", p => {
        p.insert("violated", [doc! {"_id": 1, "a": "not a number"}]).await?;
        p.run(doc! {"create": "strict", "validator": {"$jsonSchema": {"required": ["a"]}}, "validationAction": "warn"}).await?;
        p.run(doc! {"create": "removed", "validator": {"a": 1}, "validationLevel": "moderate", "validationAction": "error"}).await?;
    }, p => {
        p.insert("strict", [doc! {"_id": 1}, doc! {"_id": 2, "a": 1}]).await?;
        p.run(doc! {"collMod": "violated", "validator": {"a": {"$type": "int"}}, "validationLevel": "strict"}).await?;
        p.run(doc! {"insert": "violated", "documents": [{"_id": 2, "a": "also not"}], "bypassDocumentValidation": true}).await?;
        p.run(doc! {"update": "violated", "updates": [{"q": {"_id": 1}, "u": {"$set": {"b.c": 1}}}], "bypassDocumentValidation": true}).await?;
        p.run(doc! {"collMod": "strict", "validationAction": "error", "validationLevel": "moderate"}).await?;
        p.run(doc! {"collMod": "removed", "validator": {}, "validationLevel": "off"}).await?;
        p.run(doc! {"create": "new", "validator": {"$expr": {"$lt": ["$a", "$b"]}}, "validationLevel": "off"}).await?;
    }),
    case!("collations", p => {
        p.run(doc! {"create": "c", "collation": {"locale": "en", "strength": 2, "numericOrdering": true}}).await?;
        p.insert("c", ["b10", "B2", "a"].map(|id| doc! {"_id": id})).await?;
    }, p => {
        p.insert("c", [doc! {"_id": "C"}]).await?;
        p.update("c", doc! {"_id": "A"}, doc! {"$set": {"x.y": 1}}).await?;
        p.run(doc! {"create": "de", "collation": {"locale": "de@collation=phonebook"}}).await?;
        p.run(doc! {"create": "simple", "collation": {"locale": "simple"}}).await?;
        p.insert("de", [doc! {"_id": "ä"}]).await?;
    }),
    case!("pre_images", p => {
        p.run(doc! {"create": "on", "changeStreamPreAndPostImages": {"enabled": true}}).await?;
        p.run(doc! {"create": "turned off", "changeStreamPreAndPostImages": {"enabled": true}}).await?;
        p.run(doc! {"create": "turned on"}).await?;
        p.insert("on", [doc! {"_id": 1}]).await?;
    }, p => {
        p.run(doc! {"collMod": "turned off", "changeStreamPreAndPostImages": {"enabled": false}}).await?;
        p.run(doc! {"collMod": "turned on", "changeStreamPreAndPostImages": {"enabled": true}}).await?;
        p.update("on", doc! {"_id": 1}, doc! {"$set": {"a": 1}}).await?;
    }).since(6, 0),
    case!("storage_options", p => { p.insert("c", [doc! {"_id": 1}]).await? }, p => {
        p.run(doc! {"create": "zlib", "storageEngine": {"wiredTiger": {"configString": "block_compressor=zlib"}}}).await?;
        p.run(doc! {"create": "defaults", "indexOptionDefaults": {"storageEngine": {"wiredTiger": {"configString": "prefix_compression=false"}}}}).await?;
        p.insert("zlib", [doc! {"_id": 1}]).await?;
    }),
    case!("odd_collection_names", p => { p.insert("with.dots.and spaces", [doc! {"_id": 1}]).await? }, p => {
        for name in ["é\u{1F600}", "123", "-", "system_a", "tmp.x", "UPPER", "upper"] {
            p.insert(name, [doc! {"_id": 1}]).await?;
            p.update(name, doc! {"_id": 1}, doc! {"$set": {"x.y": 1}}).await?;
        }
    }),
    case!("time_series_options", p => {
        p.run(doc! {"create": "folded", "timeseries": {"timeField": "t", "metaField": "m"}, "collation": {"locale": "en", "strength": 2}}).await?;
        p.run(doc! {"create": "kept", "timeseries": {"timeField": "t", "granularity": "hours"}, "expireAfterSeconds": 1_000_000_000_i64}).await?;
        p.insert("folded", [doc! {"t": at(0), "m": "a", "v": 1}, doc! {"t": at(1), "m": "A", "v": 2}]).await?;
    }, p => {
        p.run(doc! {"collMod": "kept", "expireAfterSeconds": "off"}).await?;
        p.insert("kept", [doc! {"t": at(0), "v": 1}]).await?;
        p.insert("folded", [doc! {"t": at(2), "m": "b", "v": 1}]).await?;
        p.run(doc! {"createIndexes": "folded", "indexes": [
            {"key": {"m.place": "2dsphere"}, "name": "place"}, {"key": {"m": 1}, "name": "plain", "collation": {"locale": "simple"}},
            {"key": {"m.a": 1}, "name": "hidden", "hidden": true},
        ]}).await?;
        p.run(doc! {"create": "deflated", "timeseries": {"timeField": "t"}, "storageEngine": {"wiredTiger": {"configString": "block_compressor=zlib"}}}).await?;
    }).since(6, 0),
    case!("clustered_without_expiry", p => {
        p.run(doc! {"create": "c", "clusteredIndex": {"key": {"_id": 1}, "unique": true}, "expireAfterSeconds": 1_000_000_000_i64}).await?;
    }, p => {
        p.run(doc! {"collMod": "c", "expireAfterSeconds": "off"}).await?;
        p.insert("c", [doc! {"_id": 1}]).await?;
        p.run(doc! {"create": "folded", "clusteredIndex": {"key": {"_id": 1}, "unique": true}, "collation": {"locale": "en", "strength": 2}}).await?;
        p.insert("folded", [doc! {"_id": "a"}, doc! {"_id": "B"}]).await?;
        p.update("folded", doc! {"_id": "A"}, doc! {"$set": {"x.y": 1}}).await?;
        p.delete("folded", doc! {"_id": "b"}).await?;
    }).since(6, 0),
    case!("id_index_of_the_first_version", p => {
        p.run(doc! {"create": "c", "idIndex": {"v": 1, "key": {"_id": 1}, "name": "_id_"}}).await?;
        p.insert("c", [doc! {"_id": 1}]).await?;
    }, p => {
        p.run(doc! {"create": "new", "idIndex": {"v": 1, "key": {"_id": 1}, "name": "_id_"}}).await?;
        p.insert("new", [doc! {"_id": 1}]).await?;
        p.insert("c", [doc! {"_id": 2}]).await?;
    }),
    case!("capped_and_indexed", p => {
        p.run(doc! {"create": "c", "capped": true, "size": 100_000}).await?;
        p.insert("c", (0..20).map(|n| doc! {"_id": -n, "u": n})).await?;
        p.run(doc! {"createIndexes": "c", "indexes": [{"key": {"u": 1}, "name": "u", "unique": true}]}).await?;
    }, p => {
        p.update("c", doc! {"_id": -3}, doc! {"$set": {"u": 100}}).await?;
        p.insert("c", [doc! {"_id": "later", "u": 3}]).await?;
        p.rename("c", "d").await?;
        p.insert("d", [doc! {"_id": "last", "u": -1}]).await?;
    }),
];
