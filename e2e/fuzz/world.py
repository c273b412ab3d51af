"""One world per fuzzed user: a team A full of canary words, a team B, and the people of both.

Every name, address, parameter, file and printed line of team A holds a word that begins with
`zqleak` and ends with the number of the world.  Nothing else on the server does, so that such a
word in an answer to somebody outside has come out of team A.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import time
from dataclasses import dataclass, field

import requests

PREFIX = "/api/v1"

# How long the experiments of the worlds may take together.  Lower, and a busy machine counts as
# broken; higher, and a server that runs nothing is noticed late.
RUN_LIMIT_S = 120

# How often what the server does by itself is looked at again.
LOOK_EVERY_S = 0.05

# What every canary looks like, whatever letters it is written in.
CANARY = re.compile(r"zqleak[a-z]+\d", re.IGNORECASE)

# Who fuzzes, each in the world of the same number.
ROLES = ["operator", "admin", "viewer", "outsider"]

SCRIPT = """#!/bin/bash
# zqleakcode{n}
echo "zqleakline{n} $*"
echo "zqleakerror{n}" >&2
mkdir -p zqleakfolder{n}
echo "zqleakbytes{n}" > zqleakfolder{n}/zqleakfile{n}.txt
echo "zqleakplain{n}" > zqleakweights{n}.bin
[ "$2" != zqleakbad{n} ]
"""


class Api:
    """The server, as one of its users."""

    def __init__(self, url: str, key: str):
        self.url = url
        self.key = key
        self.session = requests.Session()

    def ask(self, method: str, path: str, body: object = None, **query: str) -> dict:
        response = self.session.request(
            method,
            self.url + PREFIX + path,
            json=body,
            params=query,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=30,
        )
        if not response.ok:
            raise RuntimeError(f"{method} {path}: {response.status_code} {response.text}")
        return response.json()


@dataclass
class Person:
    """A user of the server."""

    name: str
    user_id: str
    key: str


@dataclass
class World:
    """What there is, and the values that requests are filled with."""

    number: int
    people: dict[str, Person] = field(default_factory=dict)
    # By the name of a parameter or field: what stands in team A, and what in team B.
    theirs: dict[str, list[str]] = field(default_factory=dict)
    own: dict[str, list[str]] = field(default_factory=dict)
    # Path and hash of the files of the run.
    files: list[tuple[str, str]] = field(default_factory=list)
    # Tokens that let in whoever has them.
    open_tokens: list[str] = field(default_factory=list)
    # By operation: fields of bodies that are good for whoever fuzzes here.
    ready: dict[str, list[dict]] = field(default_factory=dict)
    # By operation: a body that is no JSON.
    ready_bytes: dict[str, bytes] = field(default_factory=dict)
    # By name: values of headers.
    headers: dict[str, list[str]] = field(default_factory=dict)

    @property
    def fuzzer(self) -> Person:
        """Who fuzzes in this world."""
        return self.people[ROLES[self.number]]

    def add(self, kind: str, *values: str) -> None:
        self.theirs.setdefault(kind, []).extend(values)

    def secrets(self) -> set[str]:
        """Ids and tokens of team A: long, made by the server, and as telling as a name."""
        kinds = ("run", "experiment", "team", "user", "invitation", "share", "token", "hash", "key")
        kinds += ("credential", "ssh_key", "datastore")
        values = [value for kind in kinds for value in self.theirs.get(kind, [])]
        values += self.open_tokens
        return {value for value in values if len(value) >= 12 and not CANARY.search(value)}


class Builder:
    """Fills the server, as the operator and as everybody it makes."""

    def __init__(self, url: str, operator: Person, grid: str, folder: pathlib.Path):
        self.url = url
        self.operator = operator
        self.grid = grid
        self.folder = folder

    def api(self, person: Person) -> Api:
        return Api(self.url, person.key)

    def user(self, name: str, canary: str | None = None) -> Person:
        body = {"username": name}
        if canary:
            body["email"] = f"zqleakmail{name[6:]}@zqleakhost{canary}.example"
            body["first_name"] = f"Zqleakfirst{canary}"
            body["last_name"] = f"Zqleaklast{canary}"
        made = self.api(self.operator).ask("POST", "/users", body)
        return Person(name, made["user_id"], made["api_key"])

    def run(self, person: Person, folder: pathlib.Path, name: str, *words: str) -> None:
        """`grid run`, in a folder that is sent as it is."""
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "GRID_URL": self.url,
            "GRID_USER_ID": person.user_id,
            "GRID_API_KEY": person.key,
        }
        line = [self.grid, "run", "--localdir", "--name", name, *words]
        ran = subprocess.run(line, cwd=folder, env=variables, capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(f"{' '.join(line)}: {ran.stdout}{ran.stderr}")

    def build(self, n: int) -> World:
        """The people, the teams, and the runs, which have not ended yet."""
        world = World(n)
        for role in ("owner", "admin", "member", "viewer", "decoy", "waiting"):
            world.people[role] = self.user(f"zqleak{role}{n}", str(n))
        world.people["outsider"] = self.user(f"bbout{n}")
        world.people["operator"] = self.operator
        self._team(world)
        self._others(world)
        self._doors(world)
        self._runs(world)
        return world

    def _team(self, world: World) -> None:
        n, people, team = world.number, world.people, f"zqleakteam{world.number}"
        owner = self.api(people["owner"])
        made = owner.ask("POST", "/teams", {"name": team})["team"]
        owner.ask("PUT", "/user/team", {"team": team})
        invitations = f"/teams/{team}/invitations"
        for role in ("admin", "member", "viewer", "decoy"):
            word = "member" if role == "decoy" else role
            owner.ask("POST", invitations, {"to": people[role].name, "role": word})
            api = self.api(people[role])
            api.ask("POST", "/invitations/accept", {"team": team})
            api.ask("PUT", "/user/team", {"team": team})
        address = f"zqleakguest{n}@zqleakhost{n}.example"
        open_ones = [
            owner.ask("POST", invitations, {"to": to}) for to in (address, people["waiting"].name)
        ]
        account = owner.ask("POST", f"/teams/{team}/service-accounts", {"name": f"zqleakbot{n}"})
        members = [person for role, person in people.items() if role != "operator"]
        world.add("team", team, made["id"])
        for person in members:
            if CANARY.search(person.name):
                world.add("user", person.name, person.user_id)
        world.add("invitation", *(made["invitation"]["id"] for made in open_ones), address)
        # A token lets in whoever has it: somebody outside gets only ones that were taken back.
        revoked = owner.ask("POST", invitations, {"to": f"zqleakgone{n}@zqleakhost{n}.example"})
        owner.ask("DELETE", f"{invitations}/{revoked['invitation']['id']}")
        world.add("token", revoked["token"])
        world.open_tokens += [made["token"] for made in open_ones if made.get("token")]
        world.add("account", account["username"], account["user_id"])
        for role in ("admin", "viewer", "member"):
            key = self.api(people[role]).ask("POST", "/user/keys", {"name": f"zqleakkey{n}"})
            world.add("key", key["key"]["id"])
        world.add("key", f"zqleakkey{n}", account["key"]["id"])

    def _others(self, world: World) -> None:
        """Team B, with one member and one open invitation."""
        n, api = world.number, self.api(world.people["outsider"])
        team = api.ask("POST", "/teams", {"name": f"bbteam{n}"})["team"]
        api.ask("PUT", "/user/team", {"team": team["name"]})
        to = {"to": f"bbguest{n}@example.org"}
        invited = api.ask("POST", f"/teams/bbteam{n}/invitations", to)
        key = api.ask("POST", "/user/keys", {"name": f"bbkey{n}"})
        world.own = {
            "team": [team["name"], team["id"]],
            "user": [world.people["outsider"].name],
            "invitation": [invited["invitation"]["id"]],
            "key": [key["key"]["id"], f"bbkey{n}"],
        }

    def _doors(self, world: World) -> None:
        """What whoever fuzzes comes in by: their key, and invitations to teams of no secrets."""
        n, person = world.number, world.fuzzer
        host = self.user(f"bbhost{n}")
        api = self.api(host)
        for team in ("bbsecond", "bbthird"):
            api.ask("POST", "/teams", {"name": f"{team}{n}"})
            api.ask("POST", f"/teams/{team}{n}/invitations", {"to": person.name})
        to = {"to": f"bbnew{n}@example.org"}
        token = api.ask("POST", f"/teams/bbsecond{n}/invitations", to)["token"]
        world.ready = {
            "user_login": [{"username": person.name, "api_key": person.key}],
            "invitation_accept": [{"team": f"bbsecond{n}"}],
            "invitation_decline": [{"team": f"bbthird{n}"}],
            "invitation_register": [{"token": token, "username": f"bbnew{n}"}],
            "user_create": [{"username": f"bbmade{n}-{i}"} for i in range(9)],
            "team_create": [{"name": f"bbmade{n}-{i}"} for i in range(9)],
            "team_rename": [{"name": f"{'bb' if person.name[:2] == 'bb' else 'zqleak'}renamed{n}"}],
            "user_set_team": [{"team": person.name}],
            "key_create": [{"name": f"bbmade{n}-{i}"} for i in range(9)],
            "service_account_create": [{"name": f"bbmade{n}-{i}"} for i in range(9)],
            "service_account_key_create": [{"name": f"bbmade{n}-{i}"} for i in range(9)],
            "invitation_create": [{"to": f"bbguest{n}{i}@example.org"} for i in range(9)],
        }

    def _runs(self, world: World) -> None:
        n, member = world.number, world.people["member"]
        folder = self.folder / f"zqleakwork{n}"
        folder.mkdir(parents=True)
        script = folder / f"zqleakscript{n}.sh"
        script.write_text(SCRIPT.format(n=n))
        script.chmod(0o755)
        words = ["--cpus", "1", "--env", f"ZQLEAKNAME{n}=zqleaksetting{n}", script.name]
        words += [f"--zqleakparam{n}", f"zqleakvalue{n}"]
        self.run(member, folder, f"zqleakrun{n}", *words)
        self.run(member, folder, f"zqleaktrash{n}", *words)
        self.run(member, folder, f"zqleakfails{n}", *words[:-1], f"zqleakbad{n}")

    def settle(self, world: World) -> None:
        """Waits for the experiments, then makes what hangs on them: links, the trash, cursors."""
        n, people = world.number, world.people
        member = self.api(people["member"])
        names = [f"{name}{n}" for name in ("zqleakrun", "zqleaktrash", "zqleakfails")]
        runs = [self._ended(member, name) for name in names]
        member.ask("DELETE", f"/runs/zqleaktrash{n}")
        for name, (run, experiment) in zip(names, runs):
            who = people["member"].name
            world.add("run", name, f"{who}:{name}", run["id"])
            world.add("experiment", f"{name}-exp0", f"{who}:{name}-exp0", experiment["id"])
        world.add("failed", f"{people['member'].name}:{names[2]}", runs[2][0]["id"])
        run, experiment = runs[0]
        listed = member.ask("GET", f"/experiments/{experiment['id']}/artifacts", limit="1")
        files = member.ask("GET", f"/experiments/{experiment['id']}/artifacts")["artifacts"]
        world.add("path", *(file["path"] for file in files))
        world.add("hash", *(file["blake3"] for file in files))
        world.files = [(file["path"], file["blake3"]) for file in files]
        share = member.ask("POST", f"/runs/{run['id']}/shares", {})
        gone = self._link(member, experiment, files)
        member.ask("DELETE", f"/shares/{member.ask('GET', '/shares')['shares'][0]['id']}")
        still = self._link(member, experiment, files)
        world.add("share_token", share["token"])
        # A link to a file lets in whoever has it: somebody outside gets one that was taken back.
        world.add("link_token", gone if world.fuzzer is people["outsider"] else still)
        world.add("token", share["token"], gone)
        world.open_tokens.append(still)
        shares = member.ask("GET", "/shares")["shares"]
        world.add("share", *(share["id"] for share in shares))
        source = member.ask("GET", f"/runs/{run['id']}")["run"]["spec"]["source"]
        world.add("snapshot", source["id"])
        code = source if world.fuzzer is not people["outsider"] else {"kind": "nothing"}
        spec = {"command": ["x.sh", "1"], "source": code, "max_duration_ms": 60_000}
        spec["resources"] = {"cluster": None, "instance_type": None, "cpus": 1}
        world.ready["run_create"] = [{"spec": spec}, {"spec": spec, "name": None, "team": None}]
        admin = self.api(people["admin"])
        pages = [
            admin.ask("GET", "/runs", **{"global": "true", "limit": "1", "deleted": "true"}),
            admin.ask("GET", f"/teams/zqleakteam{n}/audit", all="true", limit="1"),
            member.ask("GET", "/shares", limit="1"),
            listed,
            member.ask("GET", f"/experiments/{experiment['id']}/logs", limit="1"),
        ]
        world.add("log_cursor", pages[-1]["next"])
        world.headers = {
            "Range": ["bytes=0-3", "bytes=4-"],
            "If-None-Match": [f'"{files[0]["blake3"]}"'],
            "Last-Event-ID": [pages[-1]["next"]],
        }
        world.add("cursor", *(page["next"] for page in pages if page.get("next")))
        events = admin.ask("GET", f"/teams/zqleakteam{n}/audit", all="true")["events"]
        for event in events:
            world.add("resource", *filter(None, (event.get("thing_id"), event.get("thing"))))
        missing = [kind for kind, values in world.theirs.items() if not values]
        if missing:
            raise RuntimeError(f"world {n} has no {', '.join(missing)}")

    def _link(self, api: Api, experiment: dict, files: list[dict]) -> str:
        """The token of a new link to a file, which is then the newest link."""
        body = {"paths": [files[0]["path"]]}
        made = api.ask("POST", f"/experiments/{experiment['id']}/artifact-links", body)
        return made["links"][0]["url"].split("/links/")[1].split("/")[0]

    def _ended(self, api: Api, run: str) -> tuple[dict, dict]:
        deadline = time.monotonic() + RUN_LIMIT_S
        while True:
            found = api.ask("GET", f"/runs/{run}/experiments")["experiments"][0]
            if found["status"] == ("failed" if "fails" in run else "succeeded"):
                return api.ask("GET", f"/runs/{run}")["run"], found
            if time.monotonic() > deadline:
                raise RuntimeError(f"{run} has not ended as it should: {json.dumps(found)}")
            time.sleep(LOOK_EVERY_S)

    def hold(self) -> None:
        """Takes the only CPU for good: what the fuzzing submits waits and is never executed."""
        keeper = self.user("bbholder")
        folder = self.folder / "holder"
        folder.mkdir()
        script = folder / "hold.sh"
        script.write_text("#!/bin/bash\nexec sleep infinity\n")
        script.chmod(0o755)
        self.run(keeper, folder, "bbhold", "--cpus", "1", script.name)
        deadline = time.monotonic() + RUN_LIMIT_S
        api = self.api(keeper)
        while api.ask("GET", "/experiments/bbhold-exp0")["experiment"]["status"] != "running":
            if time.monotonic() > deadline:
                raise RuntimeError("the run that is to hold the machine does not start")
            time.sleep(LOOK_EVERY_S)
