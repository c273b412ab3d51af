"""What people of team A keep beside their runs: credentials, SSH keys, datastores."""

from __future__ import annotations

import base64
import io
import os
import pathlib
import struct
import tarfile
import time

import requests
from blake3 import blake3

from world import LOOK_EVERY_S, PREFIX, RUN_LIMIT_S, Api, World


def keep(api, world: World) -> None:
    """Makes them, as the member of the world; `api` is who answers as a person."""
    n, member = world.number, api(world.people["member"])
    who = world.people["member"].name
    role = {
        "kind": "s3_role",
        "role_arn": f"arn:aws:iam::123456789012:role/zqleakrole{n}",
        "external_id": f"zqleakexternal{n}",
    }
    made = member.ask("POST", "/credentials", {"name": f"zqleakcredential{n}", "content": role})
    world.add("credential", f"{who}:zqleakcredential{n}", made["credential"]["id"])
    _ssh_keys(api, world)
    _datastores(member, world, who)
    content = {"content": role | {"external_id": "zqleakother"}}
    world.ready["credential_create"] = [content | {"name": f"bbmade{n}-{i}"} for i in range(9)]
    world.ready["credential_update"] = [content]
    # Only who made an upload goes on with it.
    if world.fuzzer.name == f"zqleakadmin{n}":
        own = api(world.fuzzer)
        world.add("upload", *(_begin(own, f"bbupload{i}", "ours")["id"] for i in range(5)))
        # One that was sent something else than an archive has failed: there are plenty.
        archives = (_begin(own, f"bbarchive{i}", "ours", "stream") for i in range(20))
        world.add("archive", *(made["id"] for made in archives))
        cred = own.ask("POST", "/credentials", {"name": "bbcredential", "content": role})
        world.add("own_credential", "bbcredential", cred["credential"]["id"])
    source = {"source": "/data", "source_kind": "folder", "team": None}
    world.ready["datastore_create"] = [source | {"name": f"bbmade{n}-{i}"} for i in range(9)]
    world.ready["datastore_update"] = [{"name": f"bbrenamed{n}"}, {"description": "other"}]
    world.ready["datastore_part_put"] = [{"entries": [{"path": "a", "kind": "folder"}]}]
    # One part with one entry: an empty folder that is called "a".
    entry = b"gdb1" + bytes([0, 1, ord("a"), 0xED, 3, 0, 1])
    world.ready_bytes["datastore_parts_put"] = b"gdo1" + bytes([2, len(entry)]) + entry
    world.ready["datastore_file_fetch"] = [{"paths": [f"zqleakrow{n}-1"]}, {"paths": []}]
    world.ready_bytes["datastore_archive_put"] = archive()
    world.ready["datastore_commit"] = [{"parts": 0}, {"parts": 1}]
    world.add("machine", machine())
    world.ready_bytes["blob_near_upload"] = struct.pack("<Q", 5) + b"bytes"


def machine() -> str:
    """What a client on the server's machine calls that machine, to prove that it is there."""
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_bytes()
    return blake3(boot + b"grid").hexdigest()


def _ssh_keys(api, world: World) -> None:
    n = world.number
    theirs, own = f"zqleakssh{n}", f"bbssh{n}"
    body = {"name": theirs, "public_key": public_key(f"zqleakcomment{n}")}
    made = api(world.people["member"]).ask("POST", "/user/ssh-keys", body)["ssh_key"]
    world.add("ssh_key", made["id"], theirs)
    body = {"name": own, "public_key": public_key("bb")}
    made = api(world.fuzzer).ask("POST", "/user/ssh-keys", body)["ssh_key"]
    world.own["ssh_key"] = [made["id"], own]
    world.ready["ssh_key_create"] = [
        {"name": f"bbmade{n}-{i}", "public_key": public_key("bb")} for i in range(9)
    ]


def public_key(comment: str) -> str:
    """The line of a `.pub` file of nobody."""
    kind = b"ssh-ed25519"
    blob = struct.pack(">I", len(kind)) + kind + struct.pack(">I", 32) + os.urandom(32)
    return f"{kind.decode()} {base64.b64encode(blob).decode()} {comment}"


def archive() -> bytes:
    """A tar with one file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        entry = tarfile.TarInfo("file.txt")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"text\n"))
    return stream.getvalue()


def _begin(api: Api, name: str, source: str, kind: str = "folder") -> dict:
    body = {"name": name, "source": source, "source_kind": kind, "description": source}
    return api.ask("POST", "/datastores", body)["datastore"]


def _datastores(member: Api, world: World, who: str) -> None:
    """Two versions of one datastore, with the same file under two names."""
    n = world.number
    text = f"zqleakplain{n}\n".encode()
    known = next(h for p, h in world.files if p == f"zqleakweights{n}.bin")
    record = bytes.fromhex(known) + struct.pack("<Q", len(text)) + text
    response = requests.put(
        member.url + PREFIX + "/blobs",
        data=record,
        headers={
            "Authorization": f"Bearer {member.key}",
            "Content-Type": "application/octet-stream",
        },
        timeout=30,
    )
    response.raise_for_status()
    for version in (1, 2):
        made = _begin(member, f"zqleakdata{n}", f"/zqleaksource{n}")
        entry = {"path": f"zqleakrow{n}-{version}", "kind": "file", "content": known}
        entries = [entry | {"size_bytes": len(text), "mode": 0o644}]
        member.ask("PUT", f"/datastores/{made['id']}/parts/0", {"entries": entries})
        member.ask("POST", f"/datastores/{made['id']}/commit", {"parts": 1})
        _available(member, made["id"])
        world.add("data_path", f"zqleakrow{n}-{version}")
        world.add("datastore", f"{who}:zqleakdata{n}:{version}", made["id"])
    page = member.ask("GET", "/datastores", limit="1")
    world.add("cursor", *filter(None, [page.get("next")]))


def _available(api: Api, datastore: str) -> None:
    deadline = time.monotonic() + RUN_LIMIT_S
    while True:
        found = api.ask("GET", f"/datastores/{datastore}")["datastore"]
        if found["state"] == "available":
            return
        if found["state"] == "failed" or time.monotonic() > deadline:
            raise RuntimeError(f"a datastore does not become available: {found}")
        time.sleep(LOOK_EVERY_S)
