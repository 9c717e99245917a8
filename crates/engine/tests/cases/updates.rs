//! Updates that can be replayed from what the event says, and those that can't.

use super::{Case, case};
use bson::{Bson, Document, doc};

pub const CASES: &[Case] = &[
    case!("operators", p => {
        p.insert("c", (0..20).map(|n| doc! {"_id": n, "a": 1, "b": [1, 2, 3, 4, 5], "n": {"x": 1, "y": {"z": 2}}, "s": "text", "d": 2.5})).await?;
    }, p => {
        let updates = [
            doc! {"$inc": {"a": 1}}, doc! {"$mul": {"d": 2}}, doc! {"$min": {"a": -1}}, doc! {"$max": {"a": 100}},
            doc! {"$unset": {"a": ""}}, doc! {"$rename": {"a": "renamed"}}, doc! {"$rename": {"n.x": "n.w", "s": "a2"}},
            doc! {"$currentDate": {"when": true, "ts": {"$type": "timestamp"}}}, doc! {"$bit": {"a": {"xor": 5}}},
            doc! {"$set": {"n.y.z": 3, "n.y.new": 4, "n.a": 5}}, doc! {"$set": {"zz": 1, "aa": 2, "mm.deep": 3}},
            doc! {"$unset": {"n.y.z": "", "n.x": ""}}, doc! {"$set": {"n": 5}}, doc! {"$set": {"n": {"y": 1, "x": 2}}},
            doc! {"$set": {"a": "another type"}}, doc! {"$setOnInsert": {"never": 1}, "$set": {"a": 3}},
        ];
        for (n, update) in updates.into_iter().enumerate() {
            p.update("c", doc! {"_id": n as i32}, update).await?;
        }
        p.run(doc! {"update": "c", "updates": [{"q": {"_id": {"$gte": 10}}, "u": {"$inc": {"many": 1}}, "multi": true}]}).await?;
        p.run(doc! {"update": "c", "updates": [{"q": {"_id": "up"}, "u": {"$set": {"z": 1, "a": 2}}, "upsert": true}]}).await?;
        p.coll("c").find_one_and_delete(doc! {"_id": 19}).await?;
        p.coll("c").find_one_and_replace(doc! {"_id": 18}, doc! {"replaced": true, "a": 1}).await?;
    }),
    case!("arrays", p => {
        p.insert("c", (0..20).map(|n| doc! {"_id": n, "a": (0..10).collect::<Vec<i32>>(), "o": {"a": [1, 2, 3]}, "d": [{"k": 1, "v": 1}, {"k": 2, "v": 2}]})).await?;
    }, p => {
        let updates = [
            doc! {"$push": {"a": 10}}, doc! {"$push": {"a": {"$each": [], "$slice": 3}}},
            doc! {"$push": {"a": {"$each": [], "$slice": -3}}}, doc! {"$push": {"a": {"$each": [], "$slice": 0}}},
            doc! {"$push": {"a": {"$each": [5, 1], "$sort": -1, "$slice": 8}}}, doc! {"$pop": {"a": 1}}, doc! {"$pop": {"a": -1}},
            doc! {"$pull": {"a": {"$gte": 4}}}, doc! {"$pullAll": {"a": [1, 9]}}, doc! {"$set": {"a.3": "x"}},
            doc! {"$set": {"a.20": "past the end"}}, doc! {"$unset": {"a.2": ""}}, doc! {"$set": {"d.0.v": 5, "d.1.new": 6}},
            doc! {"$push": {"o.a": {"$each": [], "$slice": 1}}}, doc! {"$addToSet": {"o.a": {"$each": [3, 4]}}},
            doc! {"$set": {"d.$[e].v": 9}},
        ];
        for (n, update) in updates.into_iter().enumerate() {
            if update.to_string().contains("$[e]") {
                p.run(doc! {"update": "c", "updates": [{"q": {"_id": n as i32}, "u": update, "arrayFilters": [{"e.k": 2}]}]}).await?;
            } else {
                p.update("c", doc! {"_id": n as i32}, update).await?;
            }
        }
        let pipelines = [
            vec![doc! {"$set": {"a": {"$slice": ["$a", 4]}}}],
            vec![doc! {"$set": {"a": {"$slice": ["$a", 2]}, "o.a": {"$slice": ["$o.a", 1]}}}],
            vec![doc! {"$set": {"a": {"$concatArrays": [{"$slice": ["$a", 2]}, [7]]}}}],
            vec![doc! {"$set": {"a": []}}],
        ];
        for (n, update) in pipelines.into_iter().enumerate() {
            p.update("c", doc! {"_id": 16 + n as i32}, update).await?;
        }
    }),
    case!("numeric_names", p => {
        p.insert("c", [doc! {"_id": 1, "a": {"0": 1, "1": 2}}, doc! {"_id": 2, "a": [1, 2]}, doc! {"_id": 3, "7": 1}, doc! {"_id": 4}]).await?;
    }, p => {
        for id in 1..=2 {
            p.update("c", doc! {"_id": id}, doc! {"$set": {"a.0": "x", "a.5": "y"}}).await?;
        }
        p.update("c", doc! {"_id": 2}, doc! {"$set": {"a": {"0": 1}}}).await?;
        p.update("c", doc! {"_id": 2}, doc! {"$set": {"a.1": 1}}).await?;
        p.update("c", doc! {"_id": 3}, doc! {"$set": {"7": 2, "10": 1, "9": 1}}).await?;
        p.update("c", doc! {"_id": 4}, doc! {"$set": {"x.0.1": 1}}).await?;
    }),
    case!("field_order_of_pipelines", p => { p.insert("c", (0..8).map(|n| doc! {"_id": n, "m": 1, "n": {"k": 1}})).await? }, p => {
        p.update("c", doc! {"_id": 0}, vec![doc! {"$set": {"z": 1, "a": 2, "m": 3}}]).await?;
        p.update("c", doc! {"_id": 1}, vec![doc! {"$set": {"n.z": 1, "n.a": 2}}]).await?;
        p.update("c", doc! {"_id": 2}, vec![doc! {"$set": {"z": "$m", "lit": {"$literal": "$m"}}}, doc! {"$unset": "m"}]).await?;
        p.update("c", doc! {"_id": 3}, vec![doc! {"$replaceWith": {"_id": 3, "x": 1, "m": 1}}]).await?;
        p.update("c", doc! {"_id": 4}, vec![doc! {"$replaceWith": {"$mergeObjects": [{"first": 0}, "$$ROOT"]}}]).await?;
        p.update("c", doc! {"_id": 5}, vec![doc! {"$set": {"new": {"z": 1, "a": 2}, "B": 1, "b": 1}}]).await?;
        p.update("c", doc! {"_id": 6}, vec![doc! {"$project": {"n": 1}}]).await?;
        p.update("c", doc! {"_id": 7}, vec![doc! {"$set": {"m": "$$REMOVE", "y": 1, "x": 1}}]).await?;
    }),
    // What is removed and set again moves to the end: replayed on a document that is newer, the order must still come out.
    case!("fields_removed_and_set_again", p => { p.insert("c", (0..4).map(|n| doc! {"_id": n, "c": 0, "e": 0})).await? }, p => {
        for (field, value) in [("c", None), ("c", Some(1)), ("d", Some(1)), ("e", None), ("d", None), ("e", Some(2)), ("d", Some(3))] {
            for id in 0..4 {
                let update = match value {
                    Some(value) => doc! {"$set": {field: value}},
                    None => doc! {"$unset": {field: ""}},
                };
                p.update("c", doc! {"_id": id}, update).await?;
            }
        }
        p.update("c", doc! {"_id": 3}, doc! {"$rename": {"c": "f"}}).await?;
    }),
    case!("literal_dots", p => {
        p.insert("c", (0..6).map(|n| doc! {"_id": n, "a.b": 1, "a": {"b": 2, "c.d": 3}, "p": {"q": 1}})).await?;
    }, p => {
        let set = |field: &str, value: i32| doc! {"$setField": {"field": {"$literal": field}, "input": "$$ROOT", "value": value}};
        p.update("c", doc! {"_id": 0}, vec![doc! {"$replaceWith": set("a.b", 5)}]).await?;
        p.update("c", doc! {"_id": 1}, vec![doc! {"$replaceWith": set("p.q", 5)}]).await?;
        p.update("c", doc! {"_id": 2}, vec![doc! {"$replaceWith": {"$unsetField": {"field": "a.b", "input": "$$ROOT"}}}]).await?;
        p.update("c", doc! {"_id": 3}, doc! {"$set": {"a.b": 6}}).await?;
        p.update("c", doc! {"_id": 4}, vec![doc! {"$set": {"a": {"$setField": {"field": "c.d", "input": "$a", "value": 7}}}}]).await?;
        p.update("c", doc! {"_id": 5}, vec![doc! {"$replaceWith": set("$dollar", 8)}]).await?;
        p.update("c", doc! {"_id": 5}, vec![doc! {"$replaceWith": set("$dollar", 9)}]).await?;
    }).since(5, 0),
    case!("thousands_of_fields", p => {
        let wide = |n: i32| (0..3000).map(|f| (format!("f{f}"), Bson::Int32(n))).collect::<Document>();
        p.insert("c", [wide(1), wide(2)]).await?;
        p.insert("n", [doc! {"_id": 1, "in": wide(1)}]).await?;
    }, p => {
        let all = |name: &str| (0..3000).map(|f| (format!("{name}{f}"), Bson::Int32(f))).collect::<Document>();
        p.update("c", doc! {"f0": 1}, doc! {"$set": all("f")}).await?;
        p.update("c", doc! {"f0": 2}, doc! {"$set": all("g"), "$unset": all("f")}).await?;
        p.update("n", doc! {"_id": 1}, doc! {"$set": all("in.f")}).await?;
    }),
    case!("hot_documents", p => { p.insert("c", [doc! {"_id": "hot", "n": 0, "a": [0]}]).await? }, p => {
        for n in 0..200 {
            let update = match n % 5 {
                0 => doc! {"$inc": {"n": 1}},
                1 => doc! {"$push": {"a": n}},
                2 => doc! {"$set": {format!("f{n}"): n, "x": n}},
                3 => doc! {"$unset": {"x": ""}},
                _ => doc! {"$set": {"in.deep": n}},
            };
            p.update("c", doc! {"_id": "hot"}, update).await?;
            if n % 50 == 0 {
                p.delete("c", doc! {"_id": "cold"}).await?;
                p.insert("c", [doc! {"_id": "cold", "n": n}]).await?;
            }
        }
    }),
    case!("unique_values_swapped", p => {
        p.run(doc! {"createIndexes": "c", "indexes": [{"key": {"u": 1}, "name": "u", "unique": true}]}).await?;
        p.insert("c", (0..20).map(|n| doc! {"_id": n, "u": n})).await?;
    }, p => {
        for n in 0..10 {
            p.update("c", doc! {"_id": n}, doc! {"$set": {"u": -1}}).await?;
            p.update("c", doc! {"_id": 19 - n}, doc! {"$set": {"u": n}}).await?;
            p.update("c", doc! {"_id": n}, doc! {"$set": {"u": 19 - n}}).await?;
        }
        p.delete("c", doc! {"_id": 3}).await?;
        p.insert("c", [doc! {"_id": 30, "u": 16}]).await?;
    }),
    case!("arrays_within_arrays", p => {
        p.insert("c", (0..12).map(|n| doc! {"_id": n, "m": [[1, 2, 3], [4, [5, 6, 7]]], "d": [{"l": [1, 2, 3], "k": {"l": [4, 5]}}, {"l": []}]})).await?;
    }, p => {
        let updates = [
            doc! {"$set": {"m.0.1": 9}}, doc! {"$push": {"m.1.1": 8}}, doc! {"$push": {"d.0.l": {"$each": [], "$slice": 1}}},
            doc! {"$pop": {"m.1.1": -1}}, doc! {"$set": {"d.1.l.4": "past"}}, doc! {"$unset": {"m.0.0": ""}},
            doc! {"$push": {"d.0.k.l": {"$each": [], "$slice": 0}}, "$set": {"d.0.l.1": 7}}, doc! {"$set": {"m.3.x": 1}},
        ];
        for (n, update) in updates.into_iter().enumerate() {
            p.update("c", doc! {"_id": n as i32}, update).await?;
        }
        let shorter = doc! {"$map": {"input": "$m", "in": {"$slice": ["$$this", 1]}}};
        p.update("c", doc! {"_id": 8}, vec![doc! {"$set": {"m": shorter.clone()}}]).await?;
        p.update("c", doc! {"_id": 9}, vec![doc! {"$set": {"d": {"$map": {"input": "$d", "in": {"$mergeObjects": ["$$this", {"l": {"$slice": ["$$this.l", 1]}, "a": 0}]}}}}}]).await?;
        p.update("c", doc! {"_id": 10}, vec![doc! {"$set": {"m": shorter, "d": {"$slice": ["$d", 1]}, "z": 1, "a": 1}}]).await?;
        p.update("c", doc! {"_id": 11}, vec![doc! {"$set": {"m": {"$reverseArray": "$m"}}}]).await?;
    }),
];
