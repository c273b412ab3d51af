//! Which bytes teams have sent, and what is forgotten of it.

use super::conformance;
use super::place::{at, somebody};
use super::trash::a_blob;
use crate::db::{Db, team_blob};

conformance!(what_is_gone_is_forgotten_for_each_team_by_itself);

async fn what_is_gone_is_forgotten_for_each_team_by_itself(db: Db) {
    let (_, one) = somebody(&db, "ada").await;
    let (_, other) = somebody(&db, "bob").await;
    let mut tx = db.write().await.unwrap();
    let sent: Vec<_> = (1..=5).map(a_blob).collect();
    team_blob::put_many(&mut tx, one, &sent, at(10))
        .await
        .unwrap();
    let few = &sent[1..3];
    team_blob::put_many(&mut tx, other, few, at(11))
        .await
        .unwrap();
    // Page by page, all of them come once.
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = team_blob::all(&mut tx, after, 2).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some(*last);
        listed.extend(page);
    }
    let mut expected: Vec<_> = sent.iter().map(|blob| (one, *blob)).collect();
    expected.extend(few.iter().map(|blob| (other, *blob)));
    expected.sort_by_key(|(team, blob)| (team.to_string(), blob.to_string()));
    assert_eq!(listed, expected);

    let gone = [sent[1], sent[4], a_blob(9)];
    assert_eq!(team_blob::remove(&mut tx, one, &gone).await.unwrap(), 2);
    let unsent = team_blob::not_sent(&mut tx, one, &sent).await.unwrap();
    assert_eq!(unsent, [sent[1], sent[4]]);
    let unsent = team_blob::not_sent(&mut tx, other, few).await.unwrap();
    assert!(unsent.is_empty());
    tx.commit().await.unwrap();
}
