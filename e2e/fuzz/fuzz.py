"""Fuzzes the API from its own description, as four users, against a server of its own.

The operator, an admin and a viewer of team A, and somebody outside it each get a world of their
own (`world.py`) and, for every operation of the description, the boundary values and a number of
random requests that schemathesis makes of it, filled with real ids (`fill.py`). Every answer is
checked (`checks.py`); what somebody outside is told about a thing of team A must be what they are
told about a thing that never was. Started by `cargo xtask fuzz`, which also looks at the server
afterwards. What is sent depends on the seed, and on the ids that the server has given out.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import logging
import multiprocessing
import pathlib
import sys
import time

import hypothesis
import requests
import schemathesis
from schemathesis.generation.hypothesis import builder

import checks
import things
from checks import Problem
from fill import Filler, levelled, twin
from world import PREFIX, ROLES, Builder, Person, World

# How long one answer may take.  Lower, and a busy machine fails; higher, and one that never
# comes is noticed late.
ANSWER_LIMIT_S = 30

# How often a request is sent without credentials.
ANONYMOUS = 0.04

# Failures of one kind that are shown; the rest is counted.
SHOWN = 2

# Operations that take away what others need come last, in this order.
LATE = [
    "run_stop",
    "experiment_stop",
    "experiment_delete",
    "experiment_restore",
    "run_delete",
    "run_restore",
    "datastore_part_put",
    "datastore_parts_put",
    "datastore_commit",
    "datastore_delete",
    "datastore_restore",
    "credential_delete",
    "share_revoke",
    "invitation_revoke",
    "service_account_remove",
    "key_revoke",
    "ssh_key_remove",
    "member_update",
    "member_remove",
    "user_set_team",
    "team_rename",
    "team_leave",
    "user_rotate_key",
]

# Where a name is taken, that is told to everybody: these names are one for the whole server.
NAMES_ARE_PUBLIC = {"user_create", "team_create", "team_rename", "invitation_register"}


class Fuzzer:
    """One user, in one world."""

    def __init__(self, world: World, worlds: list[World], role: str, options):
        self.world = world
        self.leaks = checks.Leaks(worlds)
        self.role = role
        self.options = options
        self.key = world.people[role].key
        self.filler = Filler(world, role)
        self.session = requests.Session()
        self.base = options.url + PREFIX
        self.problems: list[Problem] = []
        # Operations that were done at least once.
        self.reached: set[str] = set()
        # Operations that need an account.
        self.secured: set[str] = set()
        self.counts: collections.Counter[str] = collections.Counter()
        self.deadline = time.monotonic() + options.seconds

    def all(self, description: dict) -> None:
        self.secured = {item["operationId"] for item in items_of(description) if "security" in item}
        # Who asks is decided here, so no credentials are to be made up.
        for item in items_of(description):
            item.pop("security", None)
        schema = schemathesis.openapi.from_dict(description)
        # An endless stream says everything about itself in its first event.
        schema.config.max_stream_events = 1
        schema.config.output.sanitization.enabled = False
        operations = [result.ok() for result in schema.get_all_operations()]
        for operation in sorted(operations, key=order):
            self.operation(schema, operation)

    def operation(self, schema, operation) -> None:
        name = operation.definition.raw["operationId"]
        number = 0

        def one(case) -> None:
            nonlocal number
            number += 1
            if time.monotonic() > self.deadline:
                self.counts["left out"] += 1
            else:
                self.one(name, case, f"{self.options.seed}/{self.role}/{name}/{number}")

        settings = hypothesis.settings(
            max_examples=self.options.examples,
            deadline=None,
            database=None,
            derandomize=False,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
        )
        modes = builder.HypothesisTestMode
        config = builder.HypothesisTestConfig(
            project=schema.config,
            modes=[modes.COVERAGE, modes.FUZZING],
            settings=settings,
            seed=self.options.seed,
            apply_ci_profile=False,
        )
        builder.create_test(operation=operation, test_func=one, config=config)()

    def one(self, name: str, case, seed: str) -> None:
        ghosts = self.filler.fill(name, case, seed)
        anonymous = hash_of(seed) < ANONYMOUS
        headers = {} if anonymous else {"Authorization": f"Bearer {self.key}"}
        response = self.send(case, headers)
        if response is None:
            return
        self.counts[f"{response.status_code // 100}xx"] += 1
        if response.status_code < 400:
            self.reached.add(name)
        found = checks.described(case, response)
        declared = case.method == case.operation.method.upper()
        if name in self.secured and declared and anonymous != (response.status_code == 401):
            title = "Let in without a key" if anonymous else "Signed in, and not let in"
            found.append((title, response.text[:300]))
        if self.role == "outsider":
            found += self.leaks.of(response)
            if ghosts and not anonymous and name not in NAMES_ARE_PUBLIC:
                found += self.told_apart(response, ghosts)
        if name == "user_rotate_key" and response.status_code == 200:
            self.key = json.loads(response.text)["api_key"]
        for title, detail in found:
            self.problem(case, headers, title, detail)

    def send(self, case, headers: dict[str, str]):
        try:
            return case.call(
                base_url=self.base,
                session=self.session,
                headers=headers,
                timeout=ANSWER_LIMIT_S,
            )
        except requests.exceptions.InvalidHeader:
            # What cannot be written down as HTTP is not sent.
            self.counts["not sendable"] += 1
        except requests.exceptions.RequestException as error:
            self.problem(case, headers, "No answer", repr(error))
        return None

    def told_apart(self, response, ghosts) -> list[tuple[str, str]]:
        """Whether the answer shows that something of team A is there."""
        self.counts["twins"] += 1
        other = self.session.send(twin(response.request, ghosts), timeout=ANSWER_LIMIT_S)
        mine = (response.status_code, levelled(response.text, ghosts))
        theirs = (other.status_code, levelled(other.text, ghosts))
        if mine[0] != theirs[0] or (mine[0] >= 400 and mine[1] != theirs[1]):
            return [("Told apart from what never was", f"{mine}\n{theirs}"[:1500])]
        return []

    def problem(self, case, headers, title: str, detail: str) -> None:
        curl = case.as_curl_command(headers=headers, base_url=self.base)
        self.problems.append(Problem(case.operation.label, title, detail, curl))


def hash_of(seed: str) -> float:
    """A number between 0 and 1 that depends on the seed alone."""
    return int.from_bytes(hashlib.blake2s(seed.encode()).digest()[:4], "big") / 2**32


def items_of(description: dict) -> list[dict]:
    """All operations of the description."""
    items = [item for path in description["paths"].values() for item in path.values()]
    return [item for item in items if isinstance(item, dict)]


def order(operation) -> tuple[int, int, str]:
    name = operation.definition.raw["operationId"]
    if name in LATE:
        return (2, LATE.index(name), name)
    return (0 if operation.method.upper() == "GET" else 1, 0, name)


def worker(world, worlds, role, options, description, pipe) -> None:
    fuzzer = Fuzzer(world, worlds, role, options)
    begun = time.monotonic()
    fuzzer.all(description)
    pipe.send((fuzzer.problems, fuzzer.counts, fuzzer.reached, time.monotonic() - begun))


def fuzz(worlds: list[World], description: dict, options) -> list[tuple[str, list[Problem]]]:
    """All four at once, each in a process of its own."""
    started = []
    for role, world in zip(ROLES, worlds):
        mine, theirs = multiprocessing.Pipe(duplex=False)
        arguments = (world, worlds, role, options, description, theirs)
        process = multiprocessing.Process(target=worker, args=arguments, daemon=True)
        process.start()
        theirs.close()
        started.append((role, process, mine))
    found = []
    never = {item["operationId"] for item in items_of(description)}
    for role, process, pipe in started:
        try:
            problems, counts, reached, took = pipe.recv()
        except EOFError:
            problems = [Problem("all", "The fuzzing itself has failed", "see above", "")]
            counts, reached, took = {}, set(), 0.0
        process.join()
        numbers = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        print(f"{role:<9} {took:5.1f} s: {numbers}; {len(problems)} problems", flush=True)
        found.append((role, problems))
        # Who had no time for everything proves nothing.
        never = set() if counts.get("left out") else never - reached
    title, detail = "Never done", "no request of anybody got as far as being done"
    return [*found, ("all", [Problem(name, title, detail, "") for name in sorted(never)])]


def report(found: list[tuple[str, list[Problem]]]) -> None:
    for role, problems in found:
        kinds: dict[tuple[str, str], list[Problem]] = {}
        for problem in problems:
            kinds.setdefault((problem.operation, problem.title), []).append(problem)
        for (operation, title), same in kinds.items():
            print(f"\n── {role}: {operation}: {title} ({len(same)} times)")
            for problem in same[:SHOWN]:
                print(f"{problem.detail}\n\n    {problem.curl}\n")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", required=True, help="where the server listens")
    parser.add_argument("--operator", required=True, help="the file operator.json of the server")
    parser.add_argument("--grid", required=True, help="the program")
    parser.add_argument("--folder", required=True, help="an empty folder to work in")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--examples", type=int, required=True, help="random ones per operation")
    parser.add_argument("--seconds", type=int, required=True, help="then the rest is left out")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    folder = pathlib.Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    operator = json.loads(pathlib.Path(options.operator).read_text())
    person = Person(operator["username"], operator["user_id"], operator["api_key"])
    begun = time.monotonic()
    make = Builder(options.url, person, options.grid, folder)
    worlds = [make.build(number) for number in range(len(ROLES))]
    for world in worlds:
        make.settle(world)
        things.keep(make.api, world)
    make.hold()
    description = make.api(person).ask("GET", "/openapi.json")
    print(f"{len(worlds)} worlds in {time.monotonic() - begun:.1f} s", flush=True)
    found = fuzz(worlds, description, options)
    report(found)
    return 1 if any(problems for _, problems in found) else 0


if __name__ == "__main__":
    sys.exit(main())
