//! The commands of a random workload.

use super::{Command, Random};
use bson::{Bson, Document, doc};
use rand::RngExt;

/// Expiries that nothing here lives to see.
const FAR: i64 = 1_000_000_000;

impl Random {
    /// A command on a collection: its name is put in for the command's own.
    fn on_collection(&mut self, name: &str, rest: Document) -> Command {
        let mut body = doc! {name: self.coll()};
        body.extend(rest);
        Command { db: self.db(), body }
    }

    pub(super) fn insert(&mut self) -> Command {
        let count = if self.once_in(4) { 1 + self.below(40) } else { 1 };
        if self.once_in(15) {
            let measured = (0..count as i64).map(|n| {
                doc! {"t": bson::DateTime::from_millis(1_700_000_000_000 + n * 60_000), "m": n % 3, "v": self.value()}
            });
            let documents: Vec<Document> = measured.collect();
            return Command { db: self.db(), body: doc! {"insert": "series", "documents": documents} };
        }
        let documents: Vec<Document> = (0..count).map(|_| self.document()).collect();
        self.on_collection("insert", doc! {"documents": documents, "ordered": count % 2 == 0})
    }

    fn filter(&mut self) -> (Document, bool) {
        match self.below(8) {
            0 => (doc! {"a": {"$gte": self.rng.random_range(0..150)}}, true),
            1 => (doc! {"l": 3}, true),
            _ => (doc! {"_id": {"$eq": self.id()}}, false),
        }
    }

    pub(super) fn delete(&mut self) -> Command {
        if self.once_in(12) {
            let deletes = vec![doc! {"q": {"m": self.rng.random_range(0..3)}, "limit": 0}];
            return Command { db: self.db(), body: doc! {"delete": "series", "deletes": deletes} };
        }
        let (q, many) = self.filter();
        let limit = i32::from(!(many && self.once_in(2)));
        self.on_collection("delete", doc! {"deletes": [{"q": q, "limit": limit}]})
    }

    pub(super) fn update(&mut self) -> Command {
        let (q, many) = self.filter();
        match self.below(12) {
            0 => {
                let by_id = doc! {"_id": {"$eq": self.id()}};
                let rest = match self.below(3) {
                    0 => doc! {"query": by_id, "remove": true},
                    1 => doc! {"query": by_id, "update": self.fields(), "upsert": true},
                    _ => doc! {"query": by_id, "update": self.operators(), "new": true},
                };
                return self.on_collection("findAndModify", rest);
            }
            1 => {
                let fields = self.fields();
                let by_id = doc! {"_id": {"$eq": self.id()}};
                let upsert = self.once_in(2);
                return self.on_collection("update", doc! {"updates": [{"q": by_id, "u": fields, "upsert": upsert}]});
            }
            _ => {}
        }
        let mut statement = doc! {"q": q};
        match self.below(5) {
            0 => statement.insert("u", self.pipeline()),
            1 if self.once_in(3) => {
                statement.insert("u", doc! {"$set": {"l.$[e]": self.value()}});
                statement.insert("arrayFilters", vec![doc! {"e": {"$lt": 4}}])
            }
            _ => statement.insert("u", self.operators()),
        };
        statement.insert("multi", many);
        if !many && self.once_in(5) {
            statement.insert("upsert", true);
        }
        self.on_collection("update", doc! {"updates": [statement]})
    }

    /// An update document of one or two operators.
    fn operators(&mut self) -> Document {
        let mut update = self.operator();
        if self.once_in(3) {
            update.extend(self.operator());
        }
        update
    }

    fn operator(&mut self) -> Document {
        let (path, number) = (self.path(), self.rng.random_range(-5_i32..50));
        match self.below(22) {
            0..4 => doc! {"$set": {path: self.value()}},
            4 => doc! {"$set": {"zz": self.value(), "a": self.value(), "c": self.value()}},
            5 => doc! {"$set": {"n.y.z": number, "n.added": self.value(), "b": number}},
            6 => doc! {"$unset": {path: ""}},
            7 => doc! {"$unset": {"a": "", "n.x": "", "l.1": ""}},
            8 => doc! {"$inc": {path: number}},
            9 => doc! {"$mul": {path: 2}},
            10 => doc! {"$min": {path: number}},
            11 => doc! {"$max": {path: self.value()}},
            12 => doc! {"$rename": {path: self.one_of(&["b", "new", "n.w", "o.moved"])}},
            13 => doc! {"$push": {"l": self.value()}},
            14 => {
                let each = self.array();
                let mut push = doc! {"$each": each};
                let options = [
                    doc! {"$slice": 3},
                    doc! {"$slice": -3},
                    doc! {"$slice": 0},
                    doc! {"$position": 1},
                    doc! {"$sort": -1, "$slice": 5},
                ];
                push.extend(self.one_of(&options));
                doc! {"$push": {"l": push}}
            }
            15 => doc! {"$pop": {"l": self.one_of(&[1, -1])}},
            16 => doc! {"$pull": {"l": {"$gte": number % 9}}},
            17 => doc! {"$pullAll": {"l": [1, 3, number % 9]}},
            18 => doc! {"$addToSet": {"l": {"$each": self.array()}}},
            19 => doc! {"$bit": {path: {"xor": number.abs()}}},
            20 => doc! {"$currentDate": {"t": true, "ts": {"$type": "timestamp"}}},
            _ => doc! {"$setOnInsert": {"born": number}, "$set": {"l.20": number}},
        }
    }

    fn pipeline(&mut self) -> Vec<Document> {
        let literal = doc! {"$literal": self.value()};
        let set_field = |name: &str, value: Bson| {
            doc! {"$replaceWith": {"$setField": {"field": {"$literal": name}, "input": "$$ROOT", "value": value}}}
        };
        let all = [
            vec![doc! {"$set": {"zz": literal.clone(), "a": 1, "m": "$a"}}],
            vec![doc! {"$set": {"n.z": literal.clone(), "n.a": "$n.x"}}, doc! {"$unset": "b"}],
            vec![doc! {"$replaceWith": {"$mergeObjects": [{"first": literal.clone()}, "$$ROOT"]}}],
            vec![doc! {"$replaceWith": {"_id": "$_id", "a": literal.clone(), "l": "$l"}}],
            vec![doc! {"$project": {"a": 1, "n": 1, "l": 1}}],
            vec![doc! {"$set": {"l": {"$cond": [{"$isArray": "$l"}, {"$slice": ["$l", 2]}, []]}}}],
            vec![
                doc! {"$set": {"l": {"$cond": [{"$isArray": "$l"}, {"$concatArrays": [{"$slice": ["$l", 1]}, [7, null]]}, "$l"]}}},
            ],
            vec![set_field("n.x", literal.clone().into())],
            vec![set_field("$dollar", literal.into())],
            vec![doc! {"$unset": ["a", "n.x", "zz"]}, doc! {"$set": {"a": 5}}],
        ];
        self.one_of(&all)
    }

    pub(super) fn create(&mut self) -> Command {
        if self.once_in(6) {
            let series = [
                doc! {"timeField": "t", "metaField": "m"},
                doc! {"timeField": "t", "metaField": "m", "granularity": "minutes"},
                doc! {"timeField": "t"},
            ];
            return Command { db: self.db(), body: doc! {"create": "series", "timeseries": self.one_of(&series)} };
        }
        if self.once_in(4) {
            let views = [
                doc! {"pipeline": [{"$match": {"a": 1}}]},
                doc! {"pipeline": [], "collation": {"locale": "en", "strength": 2}},
                doc! {"pipeline": [{"$sort": {"a": 1}}, {"$limit": 3}]},
            ];
            let mut body = doc! {"create": format!("v{}", self.below(3))};
            let on = if self.once_in(3) { format!("v{}", self.below(3)) } else { self.coll() };
            body.insert("viewOn", on);
            body.extend(self.one_of(&views));
            return Command { db: self.db(), body };
        }
        let options = [
            doc! {},
            doc! {"capped": true, "size": 8192, "max": 30},
            doc! {"capped": true, "size": 100_000},
            doc! {"collation": {"locale": "en", "strength": 2}},
            doc! {"collation": {"locale": "fr", "strength": 1, "numericOrdering": true}},
            doc! {"validator": {"a": {"$exists": true}}, "validationAction": "warn"},
            doc! {"validator": {"b": {"$type": "number"}}, "validationLevel": "moderate"},
            doc! {"clusteredIndex": {"key": {"_id": 1}, "unique": true}},
            doc! {"changeStreamPreAndPostImages": {"enabled": true}},
        ];
        let options = self.one_of(&options);
        self.on_collection("create", options)
    }

    pub(super) fn drop_collection(&mut self) -> Command {
        match self.below(6) {
            0 => Command { db: self.db(), body: doc! {"drop": "series"} },
            1 => Command { db: self.db(), body: doc! {"drop": format!("v{}", self.below(3))} },
            _ => self.on_collection("drop", doc! {}),
        }
    }

    pub(super) fn rename(&mut self) -> Command {
        let db = self.db();
        let from = format!("{db}.{}", self.coll());
        let to_db = if self.once_in(4) { self.db() } else { db };
        let to = format!("{to_db}.{}", self.coll());
        let drop_target = !self.once_in(3);
        Command { db: "admin".to_owned(), body: doc! {"renameCollection": from, "to": to, "dropTarget": drop_target} }
    }

    pub(super) fn modify(&mut self) -> Command {
        if self.once_in(8) {
            let mut body = doc! {"collMod": format!("v{}", self.below(3)), "viewOn": self.coll()};
            body.insert("pipeline", self.one_of(&[vec![], vec![doc! {"$project": {"_id": 0}}]]));
            return Command { db: self.db(), body };
        }
        let changes = [
            doc! {"validator": {"a": {"$ne": "never"}}},
            doc! {"validator": {}},
            doc! {"validationLevel": "off"},
            doc! {"validationLevel": "strict", "validationAction": "warn"},
            doc! {"changeStreamPreAndPostImages": {"enabled": true}},
            doc! {"changeStreamPreAndPostImages": {"enabled": false}},
            doc! {"cappedSize": 50_000},
            doc! {"cappedMax": 12},
            doc! {"index": {"name": "ttl", "expireAfterSeconds": FAR * 2}},
            doc! {"index": {"name": "a", "hidden": true}},
            doc! {"index": {"name": "a", "hidden": false}},
            doc! {"index": {"name": "a", "expireAfterSeconds": FAR}},
            doc! {"index": {"name": "s", "prepareUnique": true}},
            doc! {"index": {"name": "s", "prepareUnique": false}},
            doc! {"index": {"name": "s", "unique": true}},
        ];
        let changes = self.one_of(&changes);
        self.on_collection("collMod", changes)
    }

    pub(super) fn create_indexes(&mut self) -> Command {
        let kinds = [
            doc! {"key": {"a": 1}, "name": "a"},
            doc! {"key": {"a": -1, "b": 1}, "name": "ab"},
            doc! {"key": {"l": 1}, "name": "multikey"},
            doc! {"key": {"s": "text", "c": "text"}, "name": "text", "weights": {"s": 5}},
            doc! {"key": {"n.$**": 1}, "name": "wildcard"},
            doc! {"key": {"p": "2dsphere"}, "name": "p"},
            doc! {"key": {"b": "hashed"}, "name": "hashed"},
            doc! {"key": {"c": 1}, "name": "sparse", "sparse": true},
            doc! {"key": {"d": 1}, "name": "partial", "partialFilterExpression": {"d": {"$gt": 5}}},
            doc! {"key": {"t": 1}, "name": "ttl", "expireAfterSeconds": FAR},
            doc! {"key": {"u": 1}, "name": "unique", "unique": true, "sparse": true},
            doc! {"key": {"u": 1, "_id": 1}, "name": "unique compound", "unique": true},
            doc! {"key": {"s": 1}, "name": "s"},
            doc! {"key": {"s": 1}, "name": "collated", "collation": {"locale": "de", "strength": 1}},
            doc! {"key": {"s": 1}, "name": "simple", "collation": {"locale": "simple"}},
            doc! {"key": {"zz": 1}, "name": "a", "hidden": true},
        ];
        let count = 1 + self.below(3);
        let indexes: Vec<Document> = (0..count).map(|_| self.one_of(&kinds)).collect();
        self.on_collection("createIndexes", doc! {"indexes": indexes})
    }

    pub(super) fn drop_indexes(&mut self) -> Command {
        let name = self.one_of(&["*", "*", "a", "s", "unique", "text", "p", "ttl"]);
        self.on_collection("dropIndexes", doc! {"index": name})
    }

    /// What writes a collection of another's documents.
    pub(super) fn rewrite(&mut self) -> Command {
        let (db, to) = (self.db(), self.coll());
        let pipeline = match self.below(7) {
            0 => return self.on_collection("convertToCapped", doc! {"size": 60_000}),
            1 => {
                let from = self.coll();
                let body = doc! {"cloneCollectionAsCapped": from, "toCollection": to, "size": 40_000};
                return Command { db, body };
            }
            2 => {
                let (map, reduce) = ("function() { emit(1, 1) }", "function(k, v) { return v.length }");
                return self.on_collection("mapReduce", doc! {"map": map, "reduce": reduce, "out": {"replace": to}});
            }
            3 => vec![doc! {"$match": {"a": {"$exists": true}}}, doc! {"$out": to}],
            4 => vec![doc! {"$limit": 10}, doc! {"$out": {"db": self.db(), "coll": to}}],
            5 => vec![doc! {"$set": {"merged": 1}}, doc! {"$merge": {"into": {"db": self.db(), "coll": to}}}],
            _ => {
                let matched = self.one_of(&["replace", "keepExisting", "merge"]);
                vec![doc! {"$merge": {"into": to, "whenMatched": matched, "whenNotMatched": "insert"}}]
            }
        };
        let from = self.coll();
        Command { db, body: doc! {"aggregate": from, "pipeline": pipeline, "cursor": {}} }
    }
}
