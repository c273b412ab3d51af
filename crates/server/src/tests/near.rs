//! Who is on the server's machine sends files as they are.

use std::fs::File;
use std::io;
use std::path::Path;

use grid_api::error::{ErrorCode, ErrorDetail};
use grid_api::handover::{FILE_BYTES_MIN, Giver, Offer, PROOF_BYTES, Told};
use grid_api::upload::machine;
use grid_core::blob::BlobId;
use serde_json::{Value, json};

use super::world::{LIMIT, Person, World};
use crate::handover::CONNECTIONS_OF_ONE_MAX;

fn route() -> String {
    let machine = machine().expect("Linux says which machine it is");
    format!("/blobs/near?machine={machine}")
}

fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn body(files: &[Vec<u8>]) -> Vec<u8> {
    let framed = |bytes: &Vec<u8>| [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat();
    files.iter().flat_map(framed).collect()
}

fn names(files: &[Vec<u8>]) -> Vec<String> {
    let name = |bytes: &Vec<u8>| blake3::hash(bytes).to_hex().to_string();
    files.iter().map(name).collect()
}

/// Offers a part with these files; says what is missing.
async fn offer(world: &World, person: &Person, store: &str, files: &[Vec<u8>]) -> Value {
    let new = json!({ "name": store, "source": "here", "source_kind": "folder" });
    let made = world.post(person, "/datastores", &new).await.ok();
    let id = made["datastore"]["id"].as_str().expect("an id").to_owned();
    let entry = |(number, (bytes, name)): (usize, (&Vec<u8>, String))| {
        json!({ "path": format!("{number}.bin"), "kind": "file", "mode": 0o644,
            "modified_ms": 1, "size_bytes": bytes.len(), "content": name })
    };
    let entries = files.iter().zip(names(files)).enumerate().map(entry);
    let part = json!({ "entries": entries.collect::<Vec<_>>() }).to_string();
    let path = format!("/datastores/{id}/parts/0");
    let missing = world.put(person, &path, part).await.ok()["missing"].take();
    if missing == json!([]) {
        let path = format!("/datastores/{id}/commit");
        let done = world.post(person, &path, &json!({ "parts": 1 })).await.ok();
        assert_eq!(done["datastore"]["state"], "available", "{done}");
    }
    missing
}

#[tokio::test]
async fn files_are_taken_as_they_are_from_the_same_machine() {
    let world = World::new().await;
    let (ada, bob) = (world.ada.clone(), world.user("bob").await);
    let files = [content(1, 0), content(2, 5_000), content(3, 3_000_000)];
    let size: usize = files.iter().map(Vec::len).sum();
    let asked = world.put(&ada, &route(), Vec::new()).await.ok();
    assert_eq!(
        (&asked["blobs"], &asked["new_bytes"]),
        (&json!([]), &json!(0))
    );

    let sent = world.put(&ada, &route(), body(&files)).await.ok();
    assert_eq!(sent, json!({ "blobs": names(&files), "new_bytes": size }));
    let again = world.put(&ada, &route(), body(&files)).await.ok();
    assert_eq!(again, json!({ "blobs": names(&files), "new_bytes": 0 }));
    assert_eq!(offer(&world, &ada, "digits", &files).await, json!([]));
    // The version before shows that they were sent; their hashes give them to nobody else.
    assert_eq!(offer(&world, &ada, "digits", &files[1..]).await, json!([]));
    let missing = offer(&world, &bob, "digits", &files).await;
    assert_eq!(missing.as_array().map(Vec::len), Some(3), "{missing}");
}

#[tokio::test]
async fn files_of_other_machines_and_halves_are_refused() {
    let world = World::new().await;
    let ada = world.ada.clone();
    let files = [content(1, 3_000_000)];
    let whole = body(&files);
    for machine in ["", "0", "x%00"] {
        let path = format!("/blobs/near?machine={machine}");
        let said = world.put(&ada, &path, whole.clone()).await.refused(409);
        assert!(said.contains("machine"), "{said}");
    }
    for cut in [3, 8, 100_000, whole.len() - 1] {
        let half = whole[..cut].to_vec();
        let said = world.put(&ada, &route(), half).await.refused(400);
        assert!(said.contains("middle of a file"), "{said}");
    }
    let huge = u64::MAX.to_le_bytes().to_vec();
    world.put(&ada, &route(), huge).await.refused(413);
    let id: BlobId = names(&files)[0].parse().expect("a hash");
    let ask = json!({ "blobs": [id.to_string()] });
    assert_eq!(world.post(&ada, "/blobs/missing", &ask).await.ok(), ask);
}

/// Where open files are taken from `person`.
async fn door(world: &World, person: &Person) -> Offer {
    let asked = world.put(person, &route(), Vec::new()).await.ok();
    serde_json::from_value(asked["handover"].clone()).expect("an offer")
}

/// What the server says in the end, and how many bytes it said it had read.
fn end_of(giver: &mut Giver) -> io::Result<(u64, Told)> {
    let mut read = 0;
    loop {
        match giver.hear()? {
            Told::Read(bytes) => read += bytes,
            told => return Ok((read, told)),
        }
    }
}

/// Hands these over, each with a length, and ends the batch.
async fn hand_over(offer: Offer, files: Vec<(File, u64)>) -> io::Result<(u64, Told)> {
    let handing = move || {
        let mut giver = match Giver::connect(&offer)? {
            Ok(giver) => giver,
            Err(refused) => return Ok((0, Told::Failed(refused))),
        };
        for (file, length) in &files {
            // Whoever is refused hears why below.
            let _ = giver.give(file, *length);
        }
        let _ = giver.end();
        end_of(&mut giver)
    };
    tokio::task::spawn_blocking(handing).await.expect("it ends")
}

fn refused(told: io::Result<(u64, Told)>) -> ErrorDetail {
    match told {
        Ok((_, Told::Failed(detail))) => detail,
        other => panic!("not refused: {other:?}"),
    }
}

fn written(dir: &Path, name: &str, bytes: &[u8]) -> File {
    std::fs::write(dir.join(name), bytes).expect("written");
    File::open(dir.join(name)).expect("there")
}

#[tokio::test]
async fn large_files_are_handed_over_open() {
    let world = World::new().await;
    let (ada, bob) = (world.ada.clone(), world.user("bob").await);
    let dir = tempfile::tempdir().expect("a folder");
    let contents = [content(1, 9_000_000), content(2, 300_000)];
    let files = || {
        let open = |(number, bytes): (usize, &Vec<u8>)| {
            let file = written(dir.path(), &number.to_string(), bytes);
            // Nobody needs to find it by a name.
            std::fs::remove_file(dir.path().join(number.to_string())).expect("removed");
            (file, bytes.len() as u64)
        };
        contents.iter().enumerate().map(open).collect::<Vec<_>>()
    };
    for new_bytes in [9_300_000, 0] {
        let offer = door(&world, &ada).await;
        let (read, told) = hand_over(offer, files()).await.expect("an answer");
        let Told::Named(named) = told else {
            panic!("refused: {told:?}");
        };
        assert_eq!(
            (named.blobs, named.new_bytes),
            (names(&contents), new_bytes)
        );
        assert_eq!(read, 9_300_000);
    }
    assert_eq!(offer(&world, &ada, "digits", &contents).await, json!([]));
    let missing = offer(&world, &bob, "digits", &contents).await;
    assert_eq!(missing.as_array().map(Vec::len), Some(2), "{missing}");
}

#[tokio::test]
async fn who_has_no_ticket_and_what_is_no_file_is_refused() {
    let world = World::new().await;
    let ada = world.ada.clone();
    let dir = tempfile::tempdir().expect("a folder");
    let bytes = content(1, 1_000_000);
    let file = || written(dir.path(), "file", &bytes);
    let offer = door(&world, &ada).await;
    for ticket in ["", "x", &offer.ticket[1..]] {
        let strange = Offer {
            ticket: ticket.to_owned(),
            ..offer.clone()
        };
        let told = hand_over(strange, vec![(file(), 1_000_000)]).await;
        assert_eq!(refused(told).code, ErrorCode::Forbidden, "{ticket}");
    }
    let null = || File::open("/dev/zero").expect("there");
    let folder = || File::open(dir.path()).expect("there");
    let seen = || File::open("/proc/self/maps").expect("there");
    let cases = [
        (null(), FILE_BYTES_MIN),
        (folder(), FILE_BYTES_MIN),
        (seen(), FILE_BYTES_MIN),
        // Longer than it is, and too short to be handed over.
        (file(), 1_000_001),
        (file(), FILE_BYTES_MIN - 1),
    ];
    for (strange, length) in cases {
        let told = hand_over(offer.clone(), vec![(file(), 1_000_000), (strange, length)]).await;
        assert_eq!(refused(told).code, ErrorCode::Conflict, "{length}");
    }
    // Nothing is given to who has only the name.
    let other = Offer {
        proof: "0".repeat(PROOF_BYTES),
        ..offer.clone()
    };
    let told = hand_over(other, vec![(file(), 1_000_000)]).await;
    let kind = told.expect_err("another server").kind();
    assert_eq!(kind, io::ErrorKind::PermissionDenied);
    // Of a batch that is not ended nothing counts.
    let id = names(std::slice::from_ref(&bytes)).remove(0);
    let ask = json!({ "blobs": [id] });
    assert_eq!(world.post(&ada, "/blobs/missing", &ask).await.ok(), ask);
}

#[tokio::test]
async fn one_user_does_not_take_all_places() {
    let world = World::new().await;
    let (ada, bob) = (world.ada.clone(), world.user("bob").await);
    let dir = tempfile::tempdir().expect("a folder");
    let bytes = content(1, 1_000_000);
    let file = || vec![(written(dir.path(), "file", &bytes), 1_000_000)];
    let offer = door(&world, &ada).await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_OF_ONE_MAX {
        let offer = offer.clone();
        let connecting = tokio::task::spawn_blocking(move || Giver::connect(&offer));
        let connected = connecting.await.expect("it ends").expect("an answer");
        let giver = connected.expect("connected");
        // Whoever hears something has a place.
        giver.give(&file()[0].0, 1_000_000).expect("given");
        let heard = tokio::task::spawn_blocking(move || {
            let mut giver = giver;
            let told = giver.hear().expect("something");
            assert!(matches!(told, Told::Read(1_000_000)), "{told:?}");
            giver
        });
        held.push(heard.await.expect("it hears"));
    }
    let told = hand_over(offer.clone(), file()).await;
    assert_eq!(refused(told).code, ErrorCode::TooMany);
    let of_bob = door(&world, &bob).await;
    let (_, told) = hand_over(of_bob, file()).await.expect("an answer");
    assert!(matches!(told, Told::Named(_)), "{told:?}");
    drop(held);
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        match hand_over(offer.clone(), file()).await {
            Ok((_, Told::Named(_))) => break,
            told => assert!(tokio::time::Instant::now() < deadline, "{told:?}"),
        }
        tokio::task::yield_now().await;
    }
}
