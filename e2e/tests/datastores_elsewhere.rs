//! What was left in a bucket, read by the programs that speak S3 through the door of a server.

use std::process::{Command, Stdio};

use grid_e2e::s3::{Bucket, KEY, SECRET};
use grid_e2e::s3_clients::programs;
use grid_e2e::{Ran, Server};

/// Lists the version, and reads a file, a part of it, and what it is.
const READ: &str = r#"
import boto3, botocore, os, sys
s3 = boto3.client("s3", config=botocore.config.Config(retries={"max_attempts": 1}))
prefix = "datastores/ada/cats/1/"
listed = s3.list_objects_v2(Bucket="lab", Prefix=prefix)
print([(one["Key"][len(prefix):], one["Size"]) for one in listed["Contents"]])
key = prefix + "train/large.bin"
print(s3.head_object(Bucket="lab", Key=key)["ContentLength"])
try:
    whole = s3.get_object(Bucket="lab", Key=key)["Body"].read()
    part = s3.get_object(Bucket="lab", Key=key, Range="bytes=1000000-1000009")["Body"].read()
    print(whole == open(os.environ["SAME"], "rb").read(), part == whole[1000000:1000010])
except botocore.exceptions.ClientError as error:
    print("refused", error.response["Error"]["Code"])
except Exception as error:
    print("cut", type(error).__name__)
"#;

#[test]
fn what_stays_in_a_bucket_is_read_over_s3_as_it_was_listed() {
    let environment = [("GRID_SERVER_FETCH_PRIVATE", "true")];
    let server = Server::start_with(&["--s3-listen", "127.0.0.1:0"], &environment);
    let bucket = Bucket::start(&std::env::temp_dir());
    let large: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    bucket.put(&[("cats/a.txt", b"meow"), ("cats/train/large.bin", &large)]);
    std::fs::write(server.work().join("same"), &large).expect("written");
    std::fs::write(server.work().join("secret"), SECRET).expect("written");
    server.grid("ada", &["team", "create", "lab"]).ok();
    let endpoint = ["--endpoint", &bucket.url];
    let mut line = vec![
        "credential",
        "create",
        "--name",
        "keys",
        "--access-key-id",
        KEY,
    ];
    line.extend(["--secret-file", "secret"]);
    line.extend(endpoint);
    server.grid("ada", &line).ok();
    let create = ["datastore", "create", "s3://data/cats/", "--no-copy"];
    let mut line = create.to_vec();
    line.extend(["--credential", "keys", "--team", "lab"]);
    server.grid("ada", &line).ok();
    let made = ["user", "keys", "create", "reader", "--s3", "-o", "json"];
    let key = server.grid("ada", &made).json();
    let read = || {
        let word = |name: &str| key["s3"][name].as_str().expect("text").to_owned();
        let mut command = Command::new(programs().join("bin/python"));
        command
            .args(["-c", READ])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("SAME", server.work().join("same"))
            .env("AWS_ACCESS_KEY_ID", word("access_key_id"))
            .env("AWS_SECRET_ACCESS_KEY", word("secret_access_key"))
            .env("AWS_ENDPOINT_URL", word("endpoint"))
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null());
        Ran::of(&command.output().expect("python starts")).ok()
    };
    let listed = "[('a.txt', 4), ('train/large.bin', 3000000)]\n3000000\n";
    assert_eq!(read(), format!("{listed}True True\n"));
    // Nothing of it is stored here.
    let blobs = server.data().join("blobs");
    assert!(size(&blobs) < 100_000, "{}", size(&blobs));
    // Somebody overwrites the object: what comes is never something else than was listed.
    let mut other = large.clone();
    other[1_000_005] ^= 1;
    bucket.put(&[("cats/train/large.bin", &other)]);
    let said = read();
    let after = said.strip_prefix(listed).expect("the list is as it was");
    assert!(!after.contains("True"), "{said}");
    std::fs::remove_file(bucket.path("cats/train/large.bin")).expect("removed");
    let said = read();
    let after = said.strip_prefix(listed).expect("the list is as it was");
    assert!(
        after.starts_with("refused") || after.starts_with("cut"),
        "{said}"
    );
    server.doctor();
}

/// Bytes of all files below a folder.
fn size(folder: &std::path::Path) -> u64 {
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    let listed = std::fs::read_dir(folder).expect("listed");
    listed.flatten().map(of).sum()
}
