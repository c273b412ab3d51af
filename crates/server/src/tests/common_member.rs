//! Two teams with one member in both: she is no window from one into the other.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grid_core::team::Role;
use serde_json::{Value, json};

use super::place::on_both;
use super::teams::{join, post, team};
use super::world::{Person, World, new_run};

on_both!(
    lists_pages_and_counts_have_only_ones_own_team,
    a_place_in_anothers_list_opens_nothing,
    no_slip_is_answered_with_what_others_have,
    what_waits_ahead_is_counted_without_other_teams,
    the_same_file_in_two_teams_is_two_files,
);

/// Bob's team and Zoe's; Kim is in both.
struct Teams {
    world: World,
    bob: Person,
    zoe: Person,
    kim: Person,
}

impl Teams {
    async fn new(world: World) -> Self {
        let (bob, zoe) = (world.user("bob").await, world.user("zoe").await);
        let kim = world.user("kim").await;
        team(&world, &bob, "red").await;
        team(&world, &zoe, "blue").await;
        join(&world, &bob, "red", "kim", &kim, Role::Admin).await;
        join(&world, &zoe, "blue", "kim", &kim, Role::Admin).await;
        Self {
            world,
            bob,
            zoe,
            kim,
        }
    }

    async fn run(&self, person: &Person, team: &str, name: &str) -> Value {
        let mut run = new_run(name, &[]);
        run["team"] = json!(team);
        self.world.post(person, "/runs", &run).await.ok()
    }

    /// Runs of Kim's, by turns in one team and in the other, and one link to each.
    async fn busy(&self) {
        for n in 0..4 {
            for team in ["red", "blue"] {
                let name = format!("{team}-run-{n}");
                self.run(&self.kim, team, &name).await;
                let path = format!("/runs/{name}/shares");
                post(&self.world, &self.kim, &path, &json!({})).await.ok();
            }
        }
    }
}

/// All pages of a list with one thing on each, and the places between them.
async fn pages(
    world: &World,
    person: &Person,
    path: &str,
    list: &str,
) -> (Vec<Value>, Vec<String>) {
    let (mut all, mut places) = (Vec::new(), Vec::new());
    let mut at = format!("{path}limit=1");
    loop {
        let page = world.get(person, &at).await.ok();
        let items = page[list].as_array().expect("a list");
        assert!(items.len() <= 1, "{page}");
        all.extend(items.clone());
        let Some(next) = page["next"].as_str() else {
            return (all, places);
        };
        // A page without anything on it would tell that something is hidden.
        assert_eq!(items.len(), 1, "{at}: {page}");
        places.push(next.to_owned());
        at = format!("{path}limit=1&cursor={next}");
    }
}

const LISTS: [(&str, &str); 6] = [
    ("/runs?global=true&", "runs"),
    ("/runs?global=true&created_by=kim&", "runs"),
    ("/runs?global=true&active=true&", "runs"),
    ("/shares?global=true&", "shares"),
    ("/teams/red/audit?", "events"),
    ("/teams/red/audit?user=kim&", "events"),
];

async fn lists_pages_and_counts_have_only_ones_own_team(world: World) {
    let teams = Teams::new(world).await;
    teams.busy().await;
    let world = &teams.world;
    for (path, list) in LISTS {
        let (all, places) = pages(world, &teams.bob, path, list).await;
        assert!(all.len() >= 4, "{path}: {all:?}");
        if list != "events" {
            assert_eq!(all.len(), 4, "{path}: {all:?}");
        }
        assert_eq!(places.len() + 1, all.len(), "{path}");
        for one in &all {
            assert_eq!(one["team"], "red", "{path}: {one}");
            assert!(!one.to_string().contains("blue"), "{path}: {one}");
        }
        // What a place is made of: the time and the id of what was shown before it.
        for (place, shown) in places.iter().zip(&all) {
            let text = BASE64_URL_SAFE_NO_PAD.decode(place).expect("base64");
            let text = String::from_utf8(text).expect("text");
            let id = shown["id"].as_str().expect("an id");
            assert!(text.ends_with(id), "{path}: {text} is not of {id}");
        }
    }
    let kims = pages(world, &teams.kim, "/runs?global=true&", "runs").await;
    assert_eq!(kims.0.len(), 8, "she sees both");
    let size = &world.get(&teams.bob, "/teams").await.ok();
    let all = size["teams"].as_array().expect("teams");
    assert!(all.iter().all(|team| team["name"] != "blue"), "{size}");
    let red = world.get(&teams.bob, "/teams/red").await.ok().to_string();
    assert!(!red.contains("blue") && !red.contains("zoe"), "{red}");
}

async fn a_place_in_anothers_list_opens_nothing(world: World) {
    let teams = Teams::new(world).await;
    teams.busy().await;
    let world = &teams.world;
    for (path, list) in LISTS {
        let (_, places) = pages(world, &teams.kim, path, list).await;
        for place in places {
            let page = world
                .get(&teams.bob, &format!("{path}limit=100&cursor={place}"))
                .await
                .ok();
            let blue = page.to_string().contains("blue");
            assert!(!blue, "{path}: {page}");
        }
    }
}

async fn no_slip_is_answered_with_what_others_have(world: World) {
    let teams = Teams::new(world).await;
    let world = &teams.world;
    teams.run(&teams.kim, "blue", "kims-blue").await;
    teams.run(&teams.kim, "red", "kims-red").await;
    teams.run(&teams.zoe, "blue", "zoes").await;
    teams.run(&teams.bob, "red", "both").await;
    teams.run(&teams.zoe, "blue", "both").await;
    let hint = async |person: &Person, name: &str| {
        let told = world.get(person, &format!("/runs/{name}")).await;
        let runs = told.refused(404);
        let told = world
            .get(person, &format!("/experiments/{name}-exp0"))
            .await;
        let experiments = told.refused(404);
        let meant = |text: &str| text.contains("did you mean");
        assert_eq!(meant(&runs), meant(&experiments), "{runs} / {experiments}");
        runs
    };
    assert!(
        hint(&teams.bob, "kims-red")
            .await
            .contains("did you mean kim:kims-red?")
    );
    for (person, name) in [
        (&teams.bob, "kims-blue"),
        (&teams.bob, "zoes"),
        (&teams.zoe, "kims-red"),
    ] {
        let told = hint(person, name).await;
        assert!(!told.contains("did you mean"), "{told}");
    }
    // Two of her teammates have one of this name: neither is named.
    let told = hint(&teams.kim, "both").await;
    assert!(!told.contains("did you mean"), "{told}");
    // A clone of what only Kim may see says where it comes from to those only who may, too.
    let clone = json!({ "name": "copied" });
    world
        .post(&teams.kim, "/runs/kims-blue/clone", &clone)
        .await
        .ok();
    let seen = world.get(&teams.zoe, "/runs/kim:copied").await.ok();
    assert_eq!(seen["run"]["cloned_from"], "kims-blue");
    world.get(&teams.bob, "/runs/kim:copied").await.refused(404);
}

async fn what_waits_ahead_is_counted_without_other_teams(world: World) {
    let teams = Teams::new(world).await;
    let world = &teams.world;
    let big = |name: &str, team: &str, sweep: &str| {
        let mut run = new_run(name, &["--n", sweep]);
        run["team"] = json!(team);
        run["spec"]["resources"] = json!({ "cpus": 4 });
        run
    };
    let ahead = async || {
        let found = world.get(&teams.bob, "/experiments/mine-exp0").await.ok();
        let message = found["experiment"]["message"].as_str();
        message.unwrap_or_default().to_owned()
    };
    // All machines are taken by Kim, in the team that Bob is not in.
    let run = big("kims", "blue", "[1, 2, 3, 4, 5, 6]");
    world.post(&teams.kim, "/runs", &run).await.ok();
    let run = big("mine", "red", "[1]");
    world.post(&teams.bob, "/runs", &run).await.ok();
    let told = ahead().await;
    assert!(!told.contains("kim") && !told.contains("zoe"), "{told}");
    let run = big("kims-red", "red", "[1, 2]");
    world.post(&teams.kim, "/runs", &run).await.ok();
    let told = ahead().await;
    assert!(
        !told.contains("of kim"),
        "a number would count blue's: {told}"
    );
}

async fn the_same_file_in_two_teams_is_two_files(world: World) {
    let teams = Teams::new(world).await;
    let world = &teams.world;
    let text = b"a secret recipe";
    let hash = blake3::hash(text);
    let tree = json!({ "entries": [{
        "path": "recipe.txt", "kind": "file", "mode": 0o644, "size_bytes": text.len(),
        "content": hash.to_hex().to_string(),
    }] });
    let ask = async |person: &Person| world.post(person, "/snapshots", &tree).await.ok();
    let missing = json!([hash.to_hex().to_string()]);
    assert_eq!(ask(&teams.zoe).await["missing"], missing);
    let mut record = grid_api::blob::header(hash.as_bytes(), text.len() as u64).to_vec();
    record.extend_from_slice(text);
    world.put(&teams.zoe, "/blobs", record.clone()).await.ok();
    let zoes = ask(&teams.zoe).await;
    assert!(zoes["snapshot"].is_string(), "{zoes}");
    // Bob knows the hash, and is asked for the file all the same.
    assert_eq!(ask(&teams.bob).await["missing"], missing);
    let mut run = new_run("thief", &[]);
    run["spec"]["source"] = json!({ "kind": "snapshot", "id": zoes["snapshot"] });
    world.post(&teams.bob, "/runs", &run).await.refused(404);
    // Kim's team now is the first that she joined; in the other it is hers as well as Zoe's.
    assert_eq!(ask(&teams.kim).await["missing"], missing);
    let blue = json!({ "team": "blue" }).to_string();
    world.put(&teams.kim, "/user/team", blue).await.ok();
    assert_eq!(ask(&teams.kim).await["snapshot"], zoes["snapshot"]);
    // Who has the file sends it, once.
    world.put(&teams.bob, "/blobs", record).await.ok();
    let bobs = ask(&teams.bob).await;
    assert!(
        bobs["snapshot"].is_string() && bobs["snapshot"] != zoes["snapshot"],
        "{bobs}"
    );
    assert_eq!(ask(&teams.bob).await["snapshot"], bobs["snapshot"]);
}
