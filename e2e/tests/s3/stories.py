"""What programs do that speak S3, told as stories: one by its name, with the key of the
environment.  A story ends with an error when anything is not as it says."""

import io
import os
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
BUCKET = "lab"
CATS = "datastores/ada/cats/1/"
DOGS = "datastores/ada/dogs/next/"
KEYS = [CATS + name for name in ("a b+ü.txt", "t.csv", "train/1.txt", "train/2.txt")]


def client(**more):
    config = Config(retries={"max_attempts": 1})
    return boto3.client("s3", endpoint_url=ENDPOINT, config=config, **more)


s3 = client()


def refused(code, ask):
    """Asks, and wants to be refused in this way."""
    try:
        answer = ask()
    except ClientError as error:
        found = error.response["Error"]["Code"]
        assert found == code, f"{found}, not {code}: {error}"
        return str(error)
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        assert f"<Code>{code}</Code>" in text, f"{text}, not {code}"
        return text
    raise AssertionError(f"not refused with {code}, but: {answer}")


def keys(operation, **wanted):
    """All keys and common prefixes, page by page."""
    found = []
    for page in s3.get_paginator(operation).paginate(Bucket=BUCKET, **wanted):
        found += [one["Key"] for one in page.get("Contents", [])]
        found += [one["Prefix"] for one in page.get("CommonPrefixes", [])]
    return found


def get(key, **more):
    return s3.get_object(Bucket=BUCKET, Key=key, **more)["Body"].read()


def put(key, body=b"", **more):
    return s3.put_object(Bucket=BUCKET, Key=key, Body=body, **more)


def open_link(link, **more):
    request = urllib.request.Request(link, **more)
    return urllib.request.urlopen(request).read()


def slow_links():
    """Where sixty files can be sent."""
    for number in range(60):
        wanted = {"Bucket": BUCKET, "Key": f"datastores/ada/slow/next/{number}"}
        print(client_v4().generate_presigned_url("put_object", Params=wanted, ExpiresIn=600))


def beside():
    """What somebody else does meanwhile."""
    birds = "datastores/bob/birds/next/"
    put(birds + "one", b"tweet")
    s3.upload_fileobj(io.BytesIO(bytes(20 << 20)), BUCKET, birds + "large.bin")
    put(birds + ".commit")
    assert get("datastores/bob/birds/1/one") == b"tweet"


def read():
    import pandas
    import pyarrow.csv
    import pyarrow.fs
    import s3fs

    # What there is.
    assert [one["Name"] for one in s3.list_buckets()["Buckets"]] == ["bob", BUCKET]
    assert s3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] is None
    s3.head_bucket(Bucket=BUCKET)
    for operation in ("list_objects_v2", "list_objects"):
        for size in (1, 2, 1000):
            pages = {"PaginationConfig": {"PageSize": size}}
            assert keys(operation, Prefix="datastores/", **pages) == KEYS
            assert keys(operation, Delimiter="/", **pages) == ["artifacts/", "datastores/"]
            below = keys(operation, Delimiter="/", Prefix=CATS, **pages)
            assert sorted(below) == KEYS[:2] + [CATS + "train/"], below
    artifacts = keys("list_objects_v2", Prefix="artifacts/")
    model = "artifacts/ada/bert/bert-exp0/model.txt"
    assert model in artifacts, artifacts
    after = s3.list_objects_v2(Bucket=BUCKET, Prefix="datastores/", StartAfter=KEYS[1])
    assert [one["Key"] for one in after["Contents"]] == KEYS[2:]
    # What is in it.
    assert get(model) == b"weights"
    assert get(KEYS[0]) == b"odd"
    csv = CATS + "t.csv"
    assert get(csv, Range="bytes=4-6") == b"1,2"
    assert get(csv, Range="bytes=-4") == b"3,4\n"
    refused("InvalidRange", lambda: get(csv, Range="bytes=99-"))
    head = s3.head_object(Bucket=BUCKET, Key=csv)
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=csv)["Contents"][0]
    assert head["ContentLength"] == listed["Size"] == 12
    assert head["ETag"] == listed["ETag"] and head["AcceptRanges"] == "bytes"
    assert head["LastModified"] == listed["LastModified"].replace(microsecond=0)
    refused("304", lambda: get(csv, IfNoneMatch=head["ETag"]))
    refused("304", lambda: get(csv, IfModifiedSince=head["LastModified"]))
    refused("PreconditionFailed", lambda: get(csv, IfMatch='"other"'))
    old = head["LastModified"] - timedelta(hours=1)
    refused("PreconditionFailed", lambda: get(csv, IfUnmodifiedSince=old))
    refused("NoSuchKey", lambda: get(CATS + "none"))
    # By other programs.
    told = {"client_kwargs": {"endpoint_url": ENDPOINT}}
    frame = pandas.read_csv(f"s3://{BUCKET}/{csv}", storage_options=told)
    assert frame["b"].tolist() == [2, 4]
    files = s3fs.S3FileSystem(endpoint_url=ENDPOINT)
    assert files.find(f"{BUCKET}/datastores") == [f"{BUCKET}/{key}" for key in KEYS]
    assert files.isdir(f"{BUCKET}/{CATS}train")
    assert files.cat(f"{BUCKET}/{csv}") == b"a,b\n1,2\n3,4\n"
    scheme, host = ENDPOINT.split("://")
    arrow = pyarrow.fs.S3FileSystem(endpoint_override=host, scheme=scheme, region="us-east-1")
    table = pyarrow.csv.read_csv(arrow.open_input_stream(f"{BUCKET}/{csv}"))
    assert table.to_pydict() == {"a": [1, 3], "b": [2, 4]}


def aws(*arguments):
    command = [os.environ["AWS"], *arguments]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
    return ran.stdout


def aws_read():
    assert BUCKET in aws("s3", "ls")
    assert "PRE train/" in aws("s3", "ls", f"s3://{BUCKET}/{CATS}")
    assert aws("s3", "cp", f"s3://{BUCKET}/{CATS}t.csv", "-") == "a,b\n1,2\n3,4\n"
    aws("s3", "sync", f"s3://{BUCKET}/{CATS}", "down")
    with open("down/train/2.txt") as file:
        assert file.read() == "two"
    again = aws("s3", "sync", f"s3://{BUCKET}/{CATS}", "down")
    assert again == "", again


def write():
    import pandas
    import pyarrow
    import pyarrow.dataset
    import pyarrow.fs
    import pyarrow.parquet
    import s3fs
    from boto3.s3.transfer import TransferConfig

    refused("InvalidRequest", lambda: put(DOGS + ".commit"))
    assert put(DOGS + "a.txt", b"hello")["ETag"] == '"5d41402abc4b2a76b9719d911017c592"'
    assert get(DOGS + "a.txt") == b"hello"
    # Nothing is kept that is not what was sent.
    put(DOGS + "md5", b"hello", ContentMD5="XUFAKrxLKna5cZ2REBfFkg==")
    bad = {"ContentMD5": "XUFAKrxLKna5cZ2REBfFkg=="}
    refused("BadDigest", lambda: put(DOGS + "bad", b"other", **bad))
    for algorithm in ("CRC32", "SHA1", "SHA256"):
        put(DOGS + "sum", b"hello", ChecksumAlgorithm=algorithm)
    refused("BadDigest", lambda: put(DOGS + "bad", b"hello", ChecksumCRC32="AAAAAA=="))
    refused("PreconditionFailed", lambda: put(DOGS + "a.txt", b"x", IfNoneMatch="*"))
    # What is there already is in the way of what cannot be beside it.
    refused("OperationAborted", lambda: put(DOGS + "a.txt/b", b"x"))
    refused("InvalidRequest", lambda: put(DOGS + "../b", b"x"))
    # Deleted, one by one and many.
    s3.delete_object(Bucket=BUCKET, Key=DOGS + "md5")
    s3.delete_object(Bucket=BUCKET, Key=DOGS + "never")
    both = [{"Key": DOGS + "sum"}, {"Key": KEYS[1]}]
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": both})
    assert [one["Key"] for one in answer["Deleted"]] == [DOGS + "sum"]
    assert [one["Key"] for one in answer["Errors"]] == [KEYS[1]]
    # What is finished never changes, and elsewhere nothing is written.
    for key in (KEYS[1], "artifacts/ada/bert/bert-exp0/x", "x", "datastores/ada/x"):
        refused("MethodNotAllowed", lambda: put(key, b"x"))
    refused("MethodNotAllowed", lambda: s3.delete_object(Bucket=BUCKET, Key=KEYS[1]))
    # In parts.
    big = os.urandom(11 << 20)
    parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    s3.upload_fileobj(io.BytesIO(big), BUCKET, DOGS + "big.bin", Config=parts)
    assert s3.head_object(Bucket=BUCKET, Key=DOGS + "big.bin")["ETag"].endswith('-3"')
    place = {"Bucket": BUCKET, "Key": DOGS + "x.bin"}
    upload = {**place, "UploadId": s3.create_multipart_upload(**place)["UploadId"]}
    etags = [
        (number, s3.upload_part(**upload, PartNumber=number, Body=body)["ETag"])
        for number, body in ((2, b"two"), (1, b"one"))
    ]
    assert [one["Size"] for one in s3.list_parts(**upload)["Parts"]] == [3, 3]
    assert s3.list_parts(**upload, MaxParts=1)["IsTruncated"]
    under_way = s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert [one["Key"] for one in under_way] == [place["Key"]]

    def complete(named):
        named = [{"PartNumber": number, "ETag": etag} for number, etag in named]
        return s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": named})

    refused("InvalidPartOrder", lambda: complete(etags))
    refused("InvalidPart", lambda: complete([(1, '"other"')]))
    refused("InvalidPart", lambda: complete([(3, etags[0][1])]))
    complete(sorted(etags))
    complete(sorted(etags))
    assert get(place["Key"]) == b"onetwo"
    upload["UploadId"] = s3.create_multipart_upload(**place)["UploadId"]
    s3.abort_multipart_upload(**upload)
    refused("NoSuchUpload", lambda: s3.abort_multipart_upload(**upload))
    refused("NoSuchUpload", lambda: complete(sorted(etags)))
    # By other programs.
    told = {"client_kwargs": {"endpoint_url": ENDPOINT}}
    frame = pandas.DataFrame({"x": range(1000)})
    frame.to_parquet(f"s3://{BUCKET}/{DOGS}x.parquet", storage_options=told)
    files = s3fs.S3FileSystem(endpoint_url=ENDPOINT)
    with files.open(f"{BUCKET}/{DOGS}by-s3fs.txt", "wb") as file:
        file.write(b"s3fs")
    scheme, host = ENDPOINT.split("://")
    arrow = pyarrow.fs.S3FileSystem(endpoint_override=host, scheme=scheme, region="us-east-1")
    table = pyarrow.table({"z": [1, 2, 3]})
    pyarrow.parquet.write_table(table, f"{BUCKET}/{DOGS}z.parquet", filesystem=arrow)
    pyarrow.dataset.write_dataset(
        table, f"{BUCKET}/{DOGS}set", filesystem=arrow, format="parquet"
    )
    # A version of all that.
    assert put(DOGS + ".commit")["VersionId"] == "1"
    made = "datastores/ada/dogs/1/"
    names = [key[len(made) :] for key in keys("list_objects_v2", Prefix=made)]
    wanted = ["a.txt", "big.bin", "by-s3fs.txt", "set/part-0.parquet", "x.bin", "x.parquet"]
    assert names == wanted + ["z.parquet"], names
    assert keys("list_objects_v2", Prefix=DOGS) == []
    assert get(made + "big.bin") == big
    frame = pandas.read_parquet(f"s3://{BUCKET}/{made}x.parquet", storage_options=told)
    assert frame["x"].sum() == 499500
    read = pyarrow.dataset.dataset(f"{BUCKET}/{made}set", filesystem=arrow).to_table()
    assert read.to_pydict() == table.to_pydict()


def copies():
    """Bytes that are there already go from key to key, and are not sent."""
    import pyarrow.fs
    import s3fs
    from boto3.s3.transfer import TransferConfig

    made, csv = "datastores/ada/copies/next/", CATS + "t.csv"
    model = "artifacts/ada/bert/bert-exp0/model.txt"
    head = s3.head_object(Bucket=BUCKET, Key=csv)

    def copy(source, key, bucket=BUCKET, **more):
        source = {"Bucket": BUCKET, "Key": source}
        return s3.copy_object(Bucket=bucket, Key=key, CopySource=source, **more)

    result = copy(csv, made + "t.csv")["CopyObjectResult"]
    copied = s3.head_object(Bucket=BUCKET, Key=made + "t.csv")
    assert result["ETag"] == copied["ETag"] == head["ETag"]
    assert copied["LastModified"] == result["LastModified"].replace(microsecond=0)
    # When it was changed last goes with it, until somebody says otherwise.
    assert copied["Metadata"] == head["Metadata"] and "mtime" in head["Metadata"]
    assert get(made + "t.csv") == b"a,b\n1,2\n3,4\n"
    copy(model, made + "odd/ü +%&.txt")
    assert get(made + "odd/ü +%&.txt") == b"weights"
    copy(made + "odd/ü +%&.txt", made + "odd/again", CopySourceIfMatch="*")
    noted = {"MetadataDirective": "REPLACE", "Metadata": {"mtime": "1600000000.5", "who": "me"}}
    copy(made + "t.csv", made + "t.csv", **noted)
    assert s3.head_object(Bucket=BUCKET, Key=made + "t.csv")["Metadata"] == noted["Metadata"]
    # In parts, of which some are ranges.
    big = os.urandom(11 << 20)
    put(made + "big", big)
    small = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    place = {"Bucket": BUCKET, "Key": made + "big"}
    s3.copy(place, BUCKET, made + "big2", Config=small)
    assert get(made + "big2") == big
    upload = {"Bucket": BUCKET, "Key": made + "twice"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    parts = []
    for number, ranged in ((1, {}), (2, {"CopySourceRange": "bytes=0-4"})):
        part = s3.upload_part_copy(**upload, PartNumber=number, CopySource=place, **ranged)
        parts.append({"PartNumber": number, "ETag": part["CopyPartResult"]["ETag"]})
    wrong = {"PartNumber": 3, "CopySource": place, "CopySourceRange": "bytes=0-99999999"}
    refused("InvalidRange", lambda: s3.upload_part_copy(**upload, **wrong))
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert get(made + "twice") == big + big[:5]
    # What may not be.
    refused("NoSuchKey", lambda: copy(CATS + "none", made + "x"))
    refused("NoSuchBucket", lambda: copy(csv, made + "x", bucket="no-team"))
    refused("MethodNotAllowed", lambda: copy(csv, CATS + "x"))
    refused("InvalidRequest", lambda: copy(csv, made + ".commit"))
    refused("PreconditionFailed", lambda: copy(csv, made + "x", CopySourceIfMatch='"x"'))
    refused("PreconditionFailed", lambda: copy(csv, made + "x", CopySourceIfNoneMatch="*"))
    refused("PreconditionFailed", lambda: copy(csv, made + "big", IfNoneMatch="*"))
    # By other programs.
    files = s3fs.S3FileSystem(endpoint_url=ENDPOINT)
    files.copy(f"{BUCKET}/{csv}", f"{BUCKET}/{made}by-s3fs")
    files.mv(f"{BUCKET}/{made}by-s3fs", f"{BUCKET}/{made}moved-by-s3fs")
    scheme, host = ENDPOINT.split("://")
    arrow = pyarrow.fs.S3FileSystem(endpoint_override=host, scheme=scheme, region="us-east-1")
    arrow.copy_file(f"{BUCKET}/{csv}", f"{BUCKET}/{made}by-arrow")
    arrow.move(f"{BUCKET}/{made}by-arrow", f"{BUCKET}/{made}moved-by-arrow")
    aws("s3", "cp", f"s3://{BUCKET}/{csv}", f"s3://{BUCKET}/{made}by-aws")
    aws("s3", "mv", f"s3://{BUCKET}/{made}by-aws", f"s3://{BUCKET}/{made}moved-by-aws")
    aws("s3", "cp", "--recursive", f"s3://{BUCKET}/{CATS}", f"s3://{BUCKET}/{made}all/")
    aws("s3", "mv", f"s3://{BUCKET}/{made}big", f"s3://{BUCKET}/{made}big3")
    assert get(made + "big3") == big
    assert put(made + ".commit")["VersionId"] == "1"
    done = made.replace("next", "1")
    wanted = ["all/a b+ü.txt", "all/t.csv", "all/train/1.txt", "all/train/2.txt"]
    wanted += ["big2", "big3", "moved-by-arrow", "moved-by-aws", "moved-by-s3fs"]
    wanted += ["odd/again", "odd/ü +%&.txt", "t.csv", "twice"]
    assert keys("list_objects_v2", Prefix=done) == [done + name for name in wanted]
    assert s3.head_object(Bucket=BUCKET, Key=done + "t.csv")["Metadata"]["mtime"] == "1600000000.500"
    assert get(done + "twice") == big + big[:5]


def folders():
    """Folders without files, and links: in a version that was made without S3, and in one that
    is made here."""
    import pyarrow.fs
    import s3fs

    tree = "datastores/ada/tree/1/"
    names = ["a-b/", "a-b.txt", "a.txt", "a/", "deep/one/", "deep/two.txt", "file", "link"]
    names = sorted(names + ["deep/up"], key=str.encode)
    listed = keys("list_objects_v2", Prefix=tree)
    assert listed == [tree + name for name in names], listed
    for size in (1, 2, 3):
        pages = {"PaginationConfig": {"PageSize": size}}
        for operation in ("list_objects_v2", "list_objects"):
            assert keys(operation, Prefix=tree, **pages) == listed, size
            top = keys(operation, Prefix=tree, Delimiter="/", **pages)
            assert sorted(top) == sorted(
                [tree + name for name in names if "/" not in name]
                + [tree + name for name in ("a-b/", "a/", "deep/")]
            ), top
    for at, key in enumerate(listed):
        after = s3.list_objects_v2(Bucket=BUCKET, Prefix=tree, StartAfter=key)
        assert [one["Key"] for one in after.get("Contents", [])] == listed[at + 1 :], key
    assert get(tree + "link") == get(tree + "deep/up") == get(tree + "file") == b"file"
    assert get(tree + "link", Range="bytes=1-2") == b"il"
    etags = {s3.head_object(Bucket=BUCKET, Key=tree + name)["ETag"] for name in ("file", "link")}
    assert len(etags) == 1
    assert get(tree + "a/") == b"" == get(tree + "deep/one/")
    for none in ("a", "file/", "around", "around/two.txt", "nowhere", "loop", "deep/"):
        refused("NoSuchKey", lambda: get(tree + none))
    # A folder that is written.
    made = "datastores/ada/woods/next/"
    put(made + "empty/")
    put(made + "full/")
    put(made + "full/x", b"x")
    put(made + "a-b", b"")
    put(made + "a/")
    refused("InvalidRequest", lambda: put(made + "bytes/", b"x"))
    refused("OperationAborted", lambda: put(made + "full/x/"))
    refused("OperationAborted", lambda: put(made + "empty", b"x"))
    refused("InvalidRequest", lambda: put(made + "a//", b""))
    wanted = ["a-b", "a/", "empty/", "full/", "full/x"]
    for size in (1, 2, 1000):
        pages = {"PaginationConfig": {"PageSize": size}}
        assert keys("list_objects_v2", Prefix=made, **pages) == [made + name for name in wanted]
    assert get(made + "empty/") == b""
    s3.delete_object(Bucket=BUCKET, Key=made + "empty")
    put(made + "gone/")
    s3.delete_object(Bucket=BUCKET, Key=made + "gone/")
    files = s3fs.S3FileSystem(endpoint_url=ENDPOINT)
    assert files.isdir(f"{BUCKET}/{made}empty") and files.isdir(f"{BUCKET}/{tree}a")
    scheme, host = ENDPOINT.split("://")
    arrow = pyarrow.fs.S3FileSystem(
        endpoint_override=host, scheme=scheme, region="us-east-1", allow_bucket_creation=False
    )
    arrow.create_dir(f"{BUCKET}/{made}by/arrow")
    assert arrow.get_file_info(f"{BUCKET}/{made}by/arrow").type == pyarrow.fs.FileType.Directory
    assert arrow.get_file_info(f"{BUCKET}/{tree}a").type == pyarrow.fs.FileType.Directory
    assert put(made + ".commit")["VersionId"] == "1"
    # Whoever asks again is told the same.
    assert put(made + ".commit")["VersionId"] == "1"
    done = made.replace("next", "1")
    wanted = ["a-b", "a/", "by/arrow/", "empty/", "full/x"]
    assert keys("list_objects_v2", Prefix=done) == [done + name for name in wanted]
    # By a program that begins everything in parts, until it is told otherwise.
    arrow = pyarrow.fs.S3FileSystem(
        endpoint_override=host, scheme=scheme, region="us-east-1", allow_delayed_open=True
    )
    for name, text in (("x", b"x"), (".commit", b"")):
        with arrow.open_output_stream(f"{BUCKET}/datastores/ada/arrows/next/{name}") as file:
            file.write(text)
    assert get("datastores/ada/arrows/1/x") == b"x"


def odd():
    """Names that are hard to write, and what is said of bytes."""
    made = "datastores/ada/odd/next/"
    names = ["100%.txt", "a&<b>\"'.txt", "a+b c", "a\tb", "ü/ä=?#", "~x", "%2F", "...", "雪"]
    for name in names:
        put(made + name, name.encode())
    names.sort(key=str.encode)
    for size in (1, 4, 1000):
        for operation in ("list_objects_v2", "list_objects"):
            pages = {"PaginationConfig": {"PageSize": size}}
            assert keys(operation, Prefix=made, **pages) == [made + name for name in names]
    for name in names:
        assert get(made + name) == name.encode()
    # The sum that is not everybody's, before the body; others are sent behind it.
    put(made + "sum", b"123456789", ChecksumCRC64NVME=crc64(b"123456789"))
    wrong = {"ChecksumCRC64NVME": crc64(b"other")}
    refused("BadDigest", lambda: put(made + "sum", b"123456789", **wrong))
    s3.delete_objects(
        Bucket=BUCKET, Delete={"Objects": [{"Key": made + name} for name in names], "Quiet": True}
    )
    assert keys("list_objects_v2", Prefix=made) == [made + "sum"]
    # What is noted beside a file is kept until it is committed.
    put(made + "sum", b"x", Metadata={"who": "me", "mtime": "1500000000"})
    head = s3.head_object(Bucket=BUCKET, Key=made + "sum")
    assert head["Metadata"] == {"who": "me", "mtime": "1500000000"}
    refused("EntityTooLarge", lambda: put(made + "much", b"x", Metadata={"a": "x" * 2049}))
    put(made + ".commit")
    head = s3.head_object(Bucket=BUCKET, Key=made.replace("next", "1") + "sum")
    assert head["LastModified"] == datetime.fromtimestamp(1500000000, timezone.utc)
    # Clocks.
    late = datetime.now(timezone.utc) - timedelta(hours=1)
    refused("RequestTimeTooSkewed", lambda: at(late, lambda: s3.list_buckets()))


def crc64(data):
    """CRC-64/NVME in Base64."""
    import base64

    crc = 0xFFFFFFFFFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x9A6C9329AC4BC9B5 if crc & 1 else 0)
    return base64.b64encode((crc ^ 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big")).decode()


def at(when, ask):
    """Asks at another time."""
    import botocore.auth
    from unittest import mock

    with mock.patch.object(botocore.auth, "get_current_datetime", lambda *_: when, create=True):
        return ask()


def aws_folders():
    """What was brought down and is not changed is brought neither up nor down again."""
    tree = f"s3://{BUCKET}/datastores/ada/tree/1/"
    aws("s3", "sync", tree, "tree")
    for name in ("link", "deep/up"):
        with open(f"tree/{name}") as file:
            assert file.read() == "file"
    for source, target in ((tree, "tree"), ("tree", tree)):
        again = aws("s3", "sync", source, target)
        assert again == "", again
    up = f"s3://{BUCKET}/datastores/ada/grown/next/"
    aws("s3", "sync", "tree", up)
    for source, target in (("tree", up), (up, "tree")):
        again = aws("s3", "sync", source, target)
        assert again == "", again


def aws_write():
    os.makedirs("up/sub", exist_ok=True)
    for name, text in (("a.txt", "A"), ("sub/b.txt", "B")):
        with open(f"up/{name}", "w") as file:
            file.write(text)
    place = f"s3://{BUCKET}/{DOGS}"
    aws("s3", "sync", "up", place)
    assert aws("s3", "sync", "up", place) == ""
    os.remove("up/sub/b.txt")
    os.rename("up/a.txt", "up/sub/c.txt")
    with open("up/a.txt", "w") as file:
        file.write("A2")
    aws("s3", "sync", "--delete", "up", place)
    assert keys("list_objects_v2", Prefix=DOGS) == [DOGS + "a.txt", DOGS + "sub/c.txt"]


def committed():
    assert get("datastores/ada/dogs/2/a.txt") == b"A2"
    assert s3.head_object(Bucket=BUCKET, Key=DOGS + ".commit")["ContentLength"] == 0


def links():
    """Prints a link that works for an hour."""
    wanted = {"Bucket": BUCKET, "Key": CATS + "t.csv"}
    newer = client_v4().generate_presigned_url("get_object", Params=wanted, ExpiresIn=3600)
    for link in (newer, s3.generate_presigned_url("get_object", Params=wanted)):
        assert open_link(link) == b"a,b\n1,2\n3,4\n"
        refused("SignatureDoesNotMatch", lambda: open_link(link.replace("t.csv", "u.csv")))
    refused("AccessDenied", lambda: open_link(f"{ENDPOINT}/{BUCKET}/{CATS}t.csv"))
    over = signed_at(datetime.now(timezone.utc) - timedelta(minutes=5), wanted, 60)
    assert "expired" in refused("AccessDenied", lambda: open_link(over))
    ahead = signed_at(datetime.now(timezone.utc) + timedelta(hours=1), wanted, 60)
    refused("RequestTimeTooSkewed", lambda: open_link(ahead))
    long = client_v4().generate_presigned_url("get_object", Params=wanted, ExpiresIn=604801)
    refused("AuthorizationQueryParametersError", lambda: open_link(long))
    place = {"Bucket": BUCKET, "Key": "datastores/ada/sent/next/x"}
    link = client_v4().generate_presigned_url("put_object", Params=place)
    open_link(link, data=b"by link", method="PUT")
    assert get(place["Key"]) == b"by link"
    refused("SignatureDoesNotMatch", lambda: wrong_secret().list_buckets())
    unknown = client(aws_access_key_id="GRIDNOBODY", aws_secret_access_key="x")
    refused("InvalidAccessKeyId", lambda: unknown.list_buckets())
    print(newer)


def client_v4():
    config = Config(signature_version="s3v4")
    return boto3.client("s3", endpoint_url=ENDPOINT, config=config)


def wrong_secret():
    return client(
        aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"], aws_secret_access_key="x" * 40
    )


def signed_at(when, wanted, life):
    """A link as it is made at another time."""
    from botocore.auth import S3SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    from unittest import mock

    keys = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    request = AWSRequest("GET", f"{ENDPOINT}/{wanted['Bucket']}/{wanted['Key']}")
    import botocore.auth

    with mock.patch.object(botocore.auth, "get_current_datetime", lambda *_: when, create=True):
        S3SigV4QueryAuth(keys, "s3", "us-east-1", expires=life).add_auth(request)
    return request.url


def outsider():
    """Whose team has nothing of this: there is no such bucket, whatever is asked."""
    mine = [one["Name"] for one in s3.list_buckets()["Buckets"]]
    assert BUCKET not in mine
    me = mine[0]
    for bucket in (BUCKET, "no-team-at-all"):
        place = {"Bucket": bucket, "Key": CATS + "t.csv"}
        next_version = {"Bucket": bucket, "Key": DOGS + "x"}
        own = {"Bucket": me, "Key": f"datastores/{me}/stolen/next/x"}
        for ask in (
            lambda: s3.list_objects_v2(Bucket=bucket),
            lambda: s3.list_objects(Bucket=bucket),
            lambda: s3.get_bucket_location(Bucket=bucket),
            lambda: s3.list_multipart_uploads(Bucket=bucket),
            lambda: s3.get_object(**place),
            lambda: s3.put_object(**place, Body=b"x"),
            lambda: s3.put_object(**next_version, Body=b"x"),
            lambda: s3.delete_object(**place),
            lambda: s3.delete_object(**next_version),
            lambda: s3.create_multipart_upload(**next_version),
            lambda: s3.copy_object(**next_version, CopySource=f"{bucket}/{CATS}t.csv"),
            lambda: s3.copy_object(**own, CopySource=f"{bucket}/{CATS}t.csv"),
            lambda: s3.get_object_tagging(**place),
        ):
            refused("NoSuchBucket", ask)
        refused("404", lambda: s3.head_bucket(Bucket=bucket))
        refused("404", lambda: s3.head_object(**place))


def teammate():
    """Who reads all of the team, and writes what is theirs."""
    assert get(CATS + "t.csv") == b"a,b\n1,2\n3,4\n"
    refused("AccessDenied", lambda: put("datastores/ada/cats/next/x", b"x"))
    refused("NoSuchKey", lambda: put("datastores/ada/none/next/x", b"x"))
    # What others are making is not seen.
    refused("NoSuchKey", lambda: get("datastores/ada/sent/next/x"))
    assert keys("list_objects_v2", Prefix="datastores/ada/sent/") == []
    put("datastores/bob/own/next/x", b"x")

    def copy(source, key):
        source = {"Bucket": BUCKET, "Key": source}
        return s3.copy_object(Bucket=BUCKET, Key=key, CopySource=source)

    copy(CATS + "t.csv", "datastores/bob/own/next/copied")
    refused("AccessDenied", lambda: copy(CATS + "t.csv", "datastores/ada/cats/next/x"))
    refused("NoSuchKey", lambda: copy("datastores/ada/sent/next/x", "datastores/bob/own/next/y"))
    assert put("datastores/bob/own/next/.commit")["VersionId"] == "1"


def narrow():
    """With a key that only reads."""
    assert get(CATS + "t.csv") == b"a,b\n1,2\n3,4\n"
    refused("AccessDenied", lambda: put(DOGS + "x", b"x"))
    refused("AccessDenied", lambda: put("datastores/ada/cats/next/x", b"x"))
    to = {"Bucket": BUCKET, "Key": DOGS + "x"}
    refused("AccessDenied", lambda: s3.copy_object(**to, CopySource=f"{BUCKET}/{CATS}t.csv"))


def revoked():
    refused("InvalidAccessKeyId", lambda: s3.list_buckets())
    refused("InvalidAccessKeyId", lambda: open_link(os.environ["LINK"]))


if __name__ == "__main__":
    globals()[sys.argv[1]]()
