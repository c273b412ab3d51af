//! Where files are kept when that is not the data folder, and moving there.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use grid_engine::{Clock, SystemClock};
use grid_store::blobs::{Blobs, Bucket, BucketOptions, Settings as BlobSettings};
use serde::Deserialize;

use crate::config::{self, Options};
use crate::folder::Folder;

/// Bytes of a gibibyte.
const GIB: u64 = 1024 * 1024 * 1024;

/// What the section `[bucket]` of a settings file may say.  Nothing of it is secret.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {
    endpoint: Option<String>,
    region: Option<String>,
    path_style: Option<bool>,
    credentials: Option<PathBuf>,
    cache_gib: Option<u64>,
}

/// The bucket of this address, as far as a settings file says how to speak to it.
pub(crate) fn options(
    url: Option<String>,
    section: Option<Section>,
) -> Result<Option<BucketOptions>> {
    let Some(url) = url else {
        if section.is_some() {
            bail!(
                "there is a section [bucket] and no bucket: name it with blobs = \"s3://BUCKET/PREFIX\""
            );
        }
        return Ok(None);
    };
    let section = section.unwrap_or_default();
    let usual = BucketOptions::new(url);
    Ok(Some(BucketOptions {
        endpoint: section.endpoint,
        region: section.region,
        path_style: section.path_style.unwrap_or(usual.path_style),
        credentials: section.credentials,
        cache_bytes: section
            .cache_gib
            .map_or(usual.cache_bytes, |gib| gib.saturating_mul(GIB)),
        ..usual
    }))
}

/// How blobs are kept; nothing is asked of the bucket yet.
pub(crate) fn blob_settings(bucket: Option<&BucketOptions>) -> Result<BlobSettings> {
    let bucket = bucket.map(Bucket::new).transpose();
    Ok(BlobSettings {
        bucket: bucket.context("cannot use the bucket for files")?,
        ..BlobSettings::new(|| SystemClock.now())
    })
}

/// Moves the files of a data folder into the bucket, while no server works there.  What
/// was in the folder stays under another name.
pub async fn move_blobs(options: Options, out: &mut (dyn Write + Send)) -> Result<()> {
    let settings = config::settings(options, config::environment)?;
    let Some(bucket) = &settings.bucket else {
        bail!("there is no bucket to move files to: name it with --blobs s3://BUCKET/PREFIX");
    };
    let folder = Folder::existing(&settings.data)?;
    let _lock = folder.lock_or_refuse()?;
    let settings = blob_settings(Some(bucket))?;
    let tell = |moved: grid_store::blobs::Moved| {
        tracing::info!(
            blobs = moved.blobs,
            bytes = moved.bytes,
            "moving files into the bucket"
        );
    };
    let moved = Blobs::move_in(&folder.blobs(), settings, tell).await;
    let moved = moved.context("not all files were moved; run it again, and it goes on")?;
    writeln!(
        out,
        "moved {} blobs and chunks with {} bytes to {}",
        moved.blobs, moved.bytes, bucket.url
    )?;
    if moved.damaged > 0 {
        writeln!(
            out,
            "{} were damaged on disk and could not be moved",
            moved.damaged
        )?;
    }
    writeln!(
        out,
        "the old ones are still in {0}/packs.moved: delete them when `grid server doctor --deep` finds all well",
        folder.blobs().display()
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_without_a_bucket_is_a_mistake() {
        let section: Section = toml::from_str("region = 'eu-1'\ncache_gib = 2").expect("read");
        options(None, Some(section)).expect_err("no bucket");
        assert_eq!(options(None, None).expect("none"), None);
        let section: Section = toml::from_str("region = 'eu-1'\ncache_gib = 2").expect("read");
        let url = Some("s3://b/p".to_owned());
        let options = options(url, Some(section)).expect("options").expect("some");
        assert_eq!(options.region.as_deref(), Some("eu-1"));
        assert_eq!(options.cache_bytes, 2 * GIB);
        toml::from_str::<Section>("secret = 'x'").expect_err("no place for keys");
    }
}
