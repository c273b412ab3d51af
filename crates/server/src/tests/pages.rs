//! What a browser is shown, and whose address is seen behind a proxy.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request, header};
use grid_core::team::Role;
use serde_json::json;

use super::place::on_both;
use super::teams::{invite, join, post, team};
use super::world::{Answer, HOST, Person, World, new_run};

on_both!(
    a_page_tells_what_a_link_is_for_and_no_more,
    an_invitation_says_into_which_team,
    the_page_of_a_run_is_the_same_for_every_run,
    behind_a_trusted_proxy_the_client_counts,
);

/// A browser opens an address.
async fn open(world: &World, path: &str) -> Answer {
    let request = Request::get(path).header(header::HOST, HOST);
    world
        .answer(request.body(Body::empty()).expect("a request"))
        .await
}

/// The text of a page, which must be harmless and complete.
fn page(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status.as_u16(), status);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(!policy.contains("script"), "{policy}");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert_eq!(answer.header("cache-control"), "no-store");
    let text = String::from_utf8(answer.bytes.to_vec()).expect("UTF-8");
    for needed in [
        "<html lang=\"en\">",
        "<title>",
        "<main>",
        "<h1>",
        "width=device-width",
    ] {
        assert!(text.contains(needed), "no {needed}: {text}");
    }
    for forbidden in ["<script", "src=", "url(", "{title}", "{body}", "{version}"] {
        assert!(!text.contains(forbidden), "{forbidden}: {text}");
    }
    text
}

async fn a_page_tells_what_a_link_is_for_and_no_more(world: World) {
    page(&open(&world, "/").await, 200);
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    team(&world, &bob, "secretlab").await;
    join(&world, &bob, "secretlab", "eve", &eve, Role::Member).await;
    let mut run = new_run("hush", &[]);
    run["team"] = json!("secretlab");
    world.post(&bob, "/runs", &run).await.ok();
    let link = async |person: &Person, life: serde_json::Value| {
        let made = post(&world, person, "/runs/bob:hush/shares", &life)
            .await
            .ok();
        let token = made["token"].as_str().expect("a token").to_owned();
        let id = made["share"]["id"].as_str().expect("an id").to_owned();
        (format!("/s/{token}"), id)
    };
    let (mine, id) = link(&bob, json!({})).await;
    let (hers, _) = link(&eve, json!({})).await;
    let text = page(&open(&world, &mine).await, 200);
    assert!(
        text.contains(&format!("grid status http://grid.example:8080{mine}")),
        "{text}"
    );
    for secret in ["secretlab", "hush", "bob", "eve"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    world.delete(&bob, &format!("/shares/{id}")).await.ok();
    world
        .delete(&bob, "/teams/secretlab/members/eve")
        .await
        .ok();
    let unknown = format!("/s/{}", "0".repeat(32));
    let none = page(&open(&world, &unknown).await, 404);
    for over in [&mine, &hers, "/s/x", "/s/%3Cscript%3E"] {
        let text = page(&open(&world, over).await, 404);
        assert_eq!(text, none, "{over}");
    }
    // What an address has is never part of a page unless it is what it should be.
    for path in [
        "/join/%3Cscript%3E",
        "/runs/%3Cscript%3E",
        "/experiments/%22x",
    ] {
        let answer = open(&world, path).await;
        assert_eq!(answer.status.as_u16(), 404, "{path}");
        assert!(!answer.bytes.windows(7).any(|seven| seven == b"<script"));
    }
}

async fn an_invitation_says_into_which_team(world: World) {
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    team(&world, &bob, "lab").await;
    let link = async |to: &str| {
        let made = invite(&world, &bob, "lab", to, Role::Viewer).await.ok();
        let url = made["url"].as_str().expect("a link").to_owned();
        (url.replace("http://grid.example:8080", ""), url)
    };
    let (path, url) = link("a@example.org").await;
    let text = page(&open(&world, &path).await, 200);
    for told in [
        "<strong>lab</strong> with it, as viewer",
        &format!("grid team join {url}\n"),
        &format!("grid team join {url} --username NAME"),
    ] {
        assert!(text.contains(told.trim_end()), "{told}: {text}");
    }
    assert!(
        !text.contains("bob") && !text.contains("a@example.org"),
        "{text}"
    );
    let none = page(
        &open(&world, &format!("/join/{}", "0".repeat(32))).await,
        404,
    );
    let accept = json!({ "token": url });
    world.post(&eve, "/invitations/accept", &accept).await.ok();
    let (revoked, _) = link("b@example.org").await;
    world
        .delete(&bob, "/teams/lab/invitations/b@example.org")
        .await
        .ok();
    for over in [path, revoked] {
        assert_eq!(page(&open(&world, &over).await, 404), none);
    }
    // It is only read: a program that opens links beforehand uses none up.
    let (path, url) = link("c@example.org").await;
    open(&world, &path).await;
    let kim = world.user("kim").await;
    let accept = json!({ "token": url });
    world.post(&kim, "/invitations/accept", &accept).await.ok();
}

async fn the_page_of_a_run_is_the_same_for_every_run(world: World) {
    let made = world.run(&world.ada, "hush", &[]).await;
    let run = made["run"]["id"].as_str().expect("an id");
    let experiment = made["experiments"][0]["id"].as_str().expect("an id");
    let none = "01arz3ndektsv4rrffq69g5fav";
    for (kind, id) in [("runs", run), ("experiments", experiment)] {
        let text = page(&open(&world, &format!("/{kind}/{id}")).await, 200);
        assert!(text.contains(&format!("grid status {id}")), "{text}");
        assert!(!text.contains("hush"), "{text}");
        let other = page(&open(&world, &format!("/{kind}/{none}")).await, 200);
        assert_eq!(text.replace(id, none), other);
    }
}

/// A request with a wrong key that comes from `peer`, which says that it is from others.
async fn knock(world: &World, user: &str, peer: &str, forwarded: &str, n: usize) -> u16 {
    let guess = Person::User {
        id: user.to_owned(),
        key: format!("00000000-0000-4000-8000-{n:012}"),
    };
    let peer: SocketAddr = peer.parse().expect("an address");
    let request = guess
        .request(Method::GET, "/user")
        .header("x-forwarded-for", forwarded)
        .extension(ConnectInfo(peer));
    let answer = world.answer(request.body(Body::empty()).expect("a request"));
    answer.await.status.as_u16()
}

async fn behind_a_trusted_proxy_the_client_counts(world: World) {
    let bob = world.user("bob").await;
    let Person::User { id, .. } = &bob else {
        panic!("bob has a key")
    };
    let tries = 30;
    let (proxy, stranger) = ("10.0.0.1:40000", "198.51.100.7:40000");
    // The one who guesses is shut out, whatever they say of themselves, and nobody else who
    // comes by the same proxy.
    for n in 0..tries {
        knock(&world, id, proxy, &format!("1.1.1.{n}, 203.0.113.1"), n).await;
    }
    assert_eq!(knock(&world, id, proxy, "203.0.113.1", tries).await, 429);
    assert_eq!(knock(&world, id, proxy, "203.0.113.2", tries).await, 401);
    // Who is no proxy of ours is believed nothing.
    for n in 0..tries {
        knock(&world, id, stranger, &format!("203.0.113.{n}"), n).await;
    }
    assert_eq!(
        knock(&world, id, stranger, "203.0.113.99", tries).await,
        429
    );
    // The audit log says where it came from.
    let request = bob
        .request(Method::POST, "/user/keys")
        .header("x-forwarded-for", "203.0.113.5, 10.0.0.9")
        .header("content-type", "application/json")
        .extension(ConnectInfo(
            proxy.parse::<SocketAddr>().expect("an address"),
        ));
    let body = Body::from(json!({ "name": "x" }).to_string());
    world
        .answer(request.body(body).expect("a request"))
        .await
        .ok();
    let log = world.get(&bob, "/audit?action=key.create").await.ok();
    assert_eq!(log["events"][0]["address"], "203.0.113.5");
}
