//! Multi-document transactions of the source.

use super::{Case, case, documents::sized};
use bson::{Document, doc};

pub const CASES: &[Case] = &[
    case!("transaction", p => { p.insert("a", (0..5).map(|n| doc! {"_id": n, "n": 0})).await?; p.insert("b", [doc! {"_id": 0}]).await? }, p => {
        let mut session = p.client.start_session().await?;
        session.start_transaction().await?;
        let (a, b) = (p.coll("a"), p.coll("b"));
        a.insert_one(doc! {"_id": 10, "n": 1}).session(&mut session).await?;
        a.update_one(doc! {"_id": 1}, doc! {"$set": {"n": 1, "deep.x": 2}}).session(&mut session).await?;
        a.update_one(doc! {"_id": 1}, doc! {"$inc": {"n": 5}}).session(&mut session).await?;
        b.delete_one(doc! {"_id": 0}).session(&mut session).await?;
        b.insert_one(doc! {"_id": 0.0, "again": true}).session(&mut session).await?;
        session.commit_transaction().await?;
        a.update_one(doc! {"_id": 1}, doc! {"$inc": {"n": 100}}).await?;
    }),
    case!("aborted_transaction", p => { p.insert("a", [doc! {"_id": 1, "n": 0}]).await? }, p => {
        let mut session = p.client.start_session().await?;
        session.start_transaction().await?;
        p.coll("a").insert_one(doc! {"_id": 2}).session(&mut session).await?;
        p.coll("a").update_one(doc! {"_id": 1}, doc! {"$set": {"n": 1}}).session(&mut session).await?;
        session.abort_transaction().await?;
    }),
    case!("transaction_over_16_mb", p => { p.insert("a", [doc! {"_id": 1, "n": 0}]).await?; p.run(doc! {"create": "b"}).await? }, p => {
        let mut session = p.client.start_session().await?;
        session.start_transaction().await?;
        for n in 0..6 {
            p.coll("a").insert_one(sized(format!("big{n}").into(), 4_000_000)).session(&mut session).await?;
        }
        let many: Vec<Document> = (0..5000).map(|n| doc! {"_id": format!("small{n}"), "n": n}).collect();
        p.coll("b").insert_many(many).session(&mut session).await?;
        p.coll("a").update_one(doc! {"_id": "big0"}, doc! {"$set": {"x": 1}}).session(&mut session).await?;
        session.commit_transaction().await?;
        p.coll("a").delete_one(doc! {"_id": "big5"}).await?;
    }),
    case!("collections_and_indexes_in_a_transaction", p => { p.run(doc! {"create": "a"}).await? }, p => {
        let mut session = p.client.start_session().await?;
        session.start_transaction().await?;
        let db = p.db();
        db.run_command(doc! {"create": "b"}).session(&mut session).await?;
        db.run_command(doc! {"createIndexes": "b", "indexes": [{"key": {"x": 1}, "name": "x"}]}).session(&mut session).await?;
        p.coll("b").insert_one(doc! {"_id": 1, "x": 1}).session(&mut session).await?;
        p.coll("implicit").insert_one(doc! {"_id": 1}).session(&mut session).await?;
        session.commit_transaction().await?;
    }),
];
