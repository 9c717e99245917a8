//! Collections created, dropped, renamed and made by aggregations.

use super::{Case, case};
use bson::doc;

pub const CASES: &[Case] = &[
    case!("created_and_dropped_again", p => { p.insert("again", [doc! {"_id": "first"}]).await? }, p => {
        p.run(doc! {"create": "empty"}).await?;
        p.insert("implicit", [doc! {"_id": 1}]).await?;
        for round in 0..3 {
            p.run(doc! {"drop": "again"}).await?;
            p.run(doc! {"create": "again", "validator": {"round": round}}).await?;
            p.run(doc! {"insert": "again", "documents": [{"_id": "again", "round": round}]}).await?;
            p.run(doc! {"createIndexes": "again", "indexes": [{"key": {format!("r{round}"): 1}, "name": "r"}]}).await?;
        }
        p.insert("gone", [doc! {"_id": 1}]).await?;
        p.run(doc! {"drop": "gone"}).await?;
    }),
    case!("ring_of_renames", p => {
        for n in 0..10 {
            p.insert(&format!("r{n}"), [doc! {"_id": n, "first": n}]).await?;
            p.run(doc! {"createIndexes": format!("r{n}"), "indexes": [{"key": {format!("f{n}"): 1}, "name": "f"}]}).await?;
        }
    }, p => {
        for _ in 0..2 {
            p.rename("r9", "spare").await?;
            for n in (0..9).rev() {
                p.rename(&format!("r{n}"), &format!("r{}", n + 1)).await?;
                p.insert(&format!("r{}", n + 1), [doc! {"after": n}]).await?;
            }
            p.rename("spare", "r0").await?;
        }
        for n in 0..10 {
            p.update(&format!("r{n}"), doc! {"first": {"$exists": true}}, doc! {"$set": {"in.x": n}}).await?;
        }
    }),
    case!("renamed_over", p => {
        p.insert("a", [doc! {"_id": "a"}]).await?;
        p.insert("b", [doc! {"_id": "b"}]).await?;
    }, p => {
        p.rename_over("a", "b", true).await?;
        p.insert("a", [doc! {"_id": "new a"}]).await?;
        p.insert("b", [doc! {"_id": "b again"}]).await?;
        p.rename_over("a", "b", true).await?;
        p.rename("b", "c").await?;
        p.update("c", doc! {"_id": "new a"}, doc! {"$set": {"x": 1}}).await?;
    }),
    case!("renamed_across_databases", p => {
        p.insert("a", (0..20).map(|n| doc! {"_id": n, "x": n})).await?;
        p.run(doc! {"createIndexes": "a", "indexes": [{"key": {"x": 1}, "name": "x", "unique": true}]}).await?;
        p.other().collection("there").insert_one(doc! {"_id": "is dropped"}).await?;
    }, p => {
        let (from, to) = (format!("{}.a", p.name), format!("{}2.there", p.name));
        p.admin(doc! {"renameCollection": from, "to": to, "dropTarget": true}).await?;
        p.other().collection("there").insert_one(doc! {"_id": "later"}).await?;
        p.other().collection::<bson::Document>("there").update_one(doc! {"_id": 3}, doc! {"$set": {"in.x": 3}}).await?;
        p.insert("a", [doc! {"_id": "made again"}]).await?;
    }),
    case!("written_by_out", p => {
        p.insert("c", (0..50).map(|n| doc! {"_id": n, "g": n % 5})).await?;
        p.insert("target", [doc! {"_id": "old"}]).await?;
        p.run(doc! {"createIndexes": "target", "indexes": [{"key": {"kept": 1}, "name": "kept"}]}).await?;
    }, p => {
        p.aggregate("c", vec![doc! {"$match": {"g": 1}}, doc! {"$out": "target"}]).await?;
        p.aggregate("c", vec![doc! {"$out": "fresh"}]).await?;
        p.update("fresh", doc! {"_id": 1}, doc! {"$set": {"n.x": 1}}).await?;
        p.aggregate("c", vec![doc! {"$match": {"g": 2}}, doc! {"$out": "fresh"}]).await?;
        p.aggregate("c", vec![doc! {"$out": {"db": format!("{}2", p.name), "coll": "elsewhere"}}]).await?;
        p.insert("target", [doc! {"_id": "later"}]).await?;
    }),
    case!("written_by_merge", p => {
        p.insert("c", (0..20).map(|n| doc! {"_id": n, "v": n})).await?;
        p.insert("into", (10..30).map(|n| doc! {"_id": n, "kept": n})).await?;
    }, p => {
        p.aggregate("c", vec![doc! {"$merge": {"into": "into"}}]).await?;
        p.aggregate("c", vec![doc! {"$merge": {"into": "into", "whenMatched": [{"$set": {"z": "$$new.v", "a": 1}}]}}]).await?;
        p.aggregate("c", vec![doc! {"$merge": {"into": "into", "whenMatched": "replace", "whenNotMatched": "discard"}}]).await?;
        p.aggregate("c", vec![doc! {"$merge": {"into": {"db": format!("{}2", p.name), "coll": "new"}}}]).await?;
    }),
    case!("written_by_map_reduce", p => {
        p.insert("c", (0..30).map(|n| doc! {"_id": n, "g": n % 3, "v": n})).await?;
    }, p => {
        for out in [doc! {"replace": "r"}, doc! {"merge": "m"}, doc! {"reduce": "m"}, doc! {"replace": "r"}] {
            let (map, reduce) = ("function() { emit(this.g, this.v) }", "function(k, v) { return Array.sum(v) }");
            p.run(doc! {"mapReduce": "c", "map": map, "reduce": reduce, "out": out}).await?;
        }
    }),
    case!("database_dropped_and_made_again", p => {
        p.insert("a", [doc! {"_id": 1}]).await?;
        p.insert("b", [doc! {"_id": 1}]).await?;
        p.run(doc! {"create": "v", "viewOn": "a", "pipeline": []}).await?;
        p.other().collection("x").insert_one(doc! {"_id": 1}).await?;
    }, p => {
        p.run(doc! {"dropDatabase": 1}).await?;
        p.insert("a", [doc! {"_id": 2}]).await?;
        p.run(doc! {"create": "b", "viewOn": "a", "pipeline": []}).await?;
        p.other().run_command(doc! {"dropDatabase": 1}).await?;
    }),
    case!("modified", p => {
        p.insert("c", [doc! {"_id": 1, "a": 1}]).await?;
    }, p => {
        p.run(doc! {"collMod": "c", "validator": {"a": 1}, "validationLevel": "moderate", "validationAction": "warn"}).await?;
        p.rename("c", "d").await?;
        p.run(doc! {"collMod": "d", "validator": {"a": 2}}).await?;
        p.insert("c", [doc! {"_id": "other"}]).await?;
        p.run(doc! {"collMod": "c", "validationLevel": "off"}).await?;
    }),
    case!("many_short_lives", p => { p.insert("kept", [doc! {"_id": 1}]).await? }, p => {
        for n in 0..8 {
            p.insert("short", [doc! {"_id": n}]).await?;
            p.run(doc! {"createIndexes": "short", "indexes": [{"key": {"a": 1}, "name": "a"}]}).await?;
            p.rename_over("short", "kept", true).await?;
            p.update("kept", doc! {"_id": n}, doc! {"$set": {"deep.x": n}}).await?;
        }
    }),
    case!("renamed_there_and_back", p => {
        p.insert("a", (0..10).map(|n| doc! {"_id": n, "x": n})).await?;
        p.run(doc! {"createIndexes": "a", "indexes": [{"key": {"x": 1}, "name": "x"}]}).await?;
        p.other().collection("kept").insert_one(doc! {"_id": 1}).await?;
    }, p => {
        let (here, there) = (format!("{}.a", p.name), format!("{}2.b", p.name));
        p.admin(doc! {"renameCollection": &here, "to": &there}).await?;
        p.other().collection::<bson::Document>("b").update_one(doc! {"_id": 3}, doc! {"$set": {"in.x": 3}}).await?;
        p.admin(doc! {"renameCollection": &there, "to": &here}).await?;
        p.update("a", doc! {"_id": 4}, doc! {"$set": {"in.x": 4}}).await?;
        p.run(doc! {"create": "v", "viewOn": "a", "pipeline": []}).await?;
        p.rename("a", "c").await?;
        p.insert("a", [doc! {"_id": "another"}]).await?;
    }),
    case!("map_reduce_into_another_database", p => {
        p.insert("c", (0..30).map(|n| doc! {"_id": n, "g": n % 3, "v": n})).await?;
        p.other().collection("m").insert_one(doc! {"_id": 1.0, "value": "old"}).await?;
    }, p => {
        for out in [doc! {"replace": "r", "db": format!("{}2", p.name)}, doc! {"merge": "m", "db": format!("{}2", p.name)}] {
            let (map, reduce) = ("function() { emit(this.g, this.v) }", "function(k, v) { return Array.sum(v) }");
            p.run(doc! {"mapReduce": "c", "map": map, "reduce": reduce, "out": out}).await?;
        }
    }),
];
