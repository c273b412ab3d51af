//! Zips: when their files were changed, and in which ways they are packed.

use super::made::one;
use super::{sent, taken, world};
use crate::world::assert_consistent;

/// What 7-Zip made of the numbers up to sixty by Deflate64.
const DEFLATE64: &str = "504b0304150000000900b7b6765dbd99d74459000000ab000000070000006665772e7478740d8e0701c0301002ad9c84f040867f63ad801b6230a16c0e978716121a641454b4d141173d66313f338c993065367398cb3cbcb0f0af340e2edef8e08b1f594464c85f0c29d9e4904b1e5d5474a8e93f54bae9a1973ef6e203504b01023f03150000000900b7b6765dbd99d74459000000ab000000070024000000000000002080a481000000006665772e7478740a0020000000000001001800939b2454d47add0100000000000000000000000000000000504b05060000000001000100590000007e0000000000";

/// What an entry says of itself.
#[derive(Clone, Copy)]
struct Line<'a> {
    name: &'a str,
    method: u16,
    flags: u16,
    /// A time and a day, as the clock on the wall showed them.
    clock: (u16, u16),
    extra: &'a [u8],
}

/// The afternoon of a day in 2023.
const LINE: Line<'_> = Line {
    name: "s",
    method: 0,
    flags: 0,
    clock: (17 << 11 | 13 << 5 | 10, 43 << 9 | 11 << 5 | 14),
    extra: b"",
};
const CLOCK_MS: i64 = 1_699_982_000_000;

/// A zip of one file with some text.
fn zip(line: &Line<'_>) -> Vec<u8> {
    const TEXT: &[u8] = b"text";
    let mut sum = flate2::Crc::new();
    sum.update(TEXT);
    let two = |number: usize| u16::try_from(number).expect("small").to_le_bytes();
    let four = |number: usize| u32::try_from(number).expect("small").to_le_bytes();
    let said = [
        &[20, 0][..],
        &line.flags.to_le_bytes(),
        &line.method.to_le_bytes(),
        &line.clock.0.to_le_bytes(),
        &line.clock.1.to_le_bytes(),
        &sum.sum().to_le_bytes(),
        &four(TEXT.len()),
        &four(TEXT.len()),
        &two(line.name.len()),
        &two(line.extra.len()),
    ]
    .concat();
    let name = line.name.as_bytes();
    let body = [b"PK\x03\x04", &said[..], name, line.extra, TEXT].concat();
    let list = [b"PK\x01\x02\x14\0", &said[..], &[0; 14], name, line.extra].concat();
    let end = [&two(1)[..], &two(1), &four(list.len()), &four(body.len())].concat();
    [&body[..], &list, b"PK\x05\x06\0\0\0\0", &end, b"\0\0"].concat()
}

/// A field behind the name of an entry.
fn field(id: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("small");
    [&id.to_le_bytes()[..], &length.to_le_bytes(), data].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_a_file_is_the_true_one_where_that_is_said() {
    const TRUE: u32 = 1_700_000_123;
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    let seconds = |time: u32| time.to_le_bytes();
    let unix = |time: u32| field(0x5455, &[&[1][..], &seconds(time)].concat());
    let windows =
        (116_444_736_000_000_000 + u64::from(TRUE) * 10_000_000 + 4_567_000).to_le_bytes();
    let windows = [&[0, 0, 0, 0, 1, 0, 24, 0][..], &windows, &[0; 16]].concat();
    let windows = field(10, &windows);
    let old = [seconds(1), seconds(TRUE)].concat();
    let true_ms = i64::from(TRUE) * 1_000;
    let late = (0, (2050 - 1980) << 9 | 1 << 5 | 1);
    for (clock, extra, expected) in [
        (LINE.clock, Vec::new(), CLOCK_MS),
        (LINE.clock, unix(TRUE), true_ms),
        (LINE.clock, windows.clone(), true_ms + 456),
        (LINE.clock, [windows, unix(TRUE)].concat(), true_ms),
        (LINE.clock, field(0x5855, &old), true_ms),
        (
            LINE.clock,
            field(0x000d, &[&old[..], &[0; 4]].concat()),
            true_ms,
        ),
        // Before 1970, which the clock cannot show; and after 2038, which it can.
        (LINE.clock, unix((-86_400_i32).cast_unsigned()), -86_400_000),
        (late, unix(2_524_608_000), 2_524_608_000_000),
        // No day that there is.
        ((0, 0), Vec::new(), 0),
        // What is no time, or too short for one.
        (LINE.clock, field(10, &[0; 5]), CLOCK_MS),
        (LINE.clock, field(0x5855, &[0; 5]), CLOCK_MS),
    ] {
        let extra = &extra[..];
        let version = sent(
            &world,
            zip(&Line {
                clock,
                extra,
                ..LINE
            }),
        )
        .await;
        let (modified_ms, bytes) = one(&world, &version.expect("taken"), "s").await;
        assert_eq!(
            (modified_ms, &bytes[..]),
            (expected, &b"text"[..]),
            "{extra:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ways_to_pack_that_are_not_taken_are_no_damage() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    let archive = (0..DEFLATE64.len() / 2)
        .map(|at| u8::from_str_radix(&DEFLATE64[at * 2..at * 2 + 2], 16).expect("a byte"));
    let version = sent(&world, archive.collect()).await.expect("taken");
    let (modified_ms, bytes) = one(&world, &version, "few.txt").await;
    let expected: String = (1..=60).map(|number| format!("{number} ")).collect();
    assert_eq!(String::from_utf8(bytes).as_deref(), Ok(&*expected));
    assert_eq!(modified_ms / 1_000, 1_795_388_025);
    for (method, flags, expected) in [
        (12, 0, "'s' of the archive is packed by bzip2"),
        (14, 0, "'s' of the archive is packed by LZMA"),
        (95, 0, "'s' of the archive is packed by xz"),
        (98, 0, "'s' of the archive is packed by PPMd"),
        (77, 0, "'s' of the archive is packed by way 77"),
        (0, 1, "'s' of the archive is locked with a password"),
        (99, 1, "'s' of the archive is locked with a password"),
    ] {
        let line = Line {
            method,
            flags,
            ..LINE
        };
        let said = taken(&world, zip(&line)).await.expect_err(expected);
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(
            said.contains("unpack it") && !said.contains("damaged"),
            "{said}"
        );
    }
    assert_consistent(&world.engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_no_disk_takes_are_shown_so_that_they_do_no_harm() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    for (name, expected) in [
        ("a\0b", r"'a\0b' (a name with a zero byte in it)"),
        ("/\u{1b}[2J", r"'/\u{1b}[2J' (an absolute path)"),
        ("a\0/", r"'a\0/' (a name with a zero byte in it)"),
        ("", "'' (no name for something that is no folder)"),
        (".", "'.' (no name for something that is no folder)"),
    ] {
        let said = taken(&world, zip(&Line { name, ..LINE })).await;
        let said = said.expect_err(expected);
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
