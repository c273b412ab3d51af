//! The operations: each one call, and a translation.

use std::sync::Arc;

use grid_engine::{Caller, objects};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput, CreateBucketInput,
    CreateBucketOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput,
    DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, GetBucketLocationInput,
    GetBucketLocationOutput, GetObjectInput, GetObjectOutput, GetObjectTaggingInput,
    GetObjectTaggingOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput,
    ListBucketsInput, ListBucketsOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput,
    ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, ListPartsInput,
    ListPartsOutput, Owner, PutObjectInput, PutObjectOutput, UploadPartCopyInput,
    UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::late::Late;
use super::read::time;
use super::{copy, error, read, write};
use crate::rest::App;

/// The region that buckets are said to be in: what clients take that ask none.
const REGION: &str = "us-east-1";

/// What answers.
pub(super) struct Door {
    app: App,
    late: Arc<Late>,
}

impl Door {
    pub(super) fn new(app: App, late: Arc<Late>) -> Self {
        Self { app, late }
    }
}

/// Who was let in.
fn caller<T>(request: &S3Request<T>) -> S3Result<Caller> {
    let caller = request.extensions.get::<Caller>();
    caller.cloned().ok_or_else(|| s3_error!(AccessDenied))
}

fn ok<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

#[async_trait::async_trait]
impl S3 for Door {
    async fn list_buckets(
        &self,
        request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let caller = caller(&request)?;
        let prefix = request.input.prefix.unwrap_or_default();
        let buckets = objects::buckets(&caller).into_iter();
        let buckets = buckets.filter(|bucket| bucket.name.starts_with(&prefix));
        let bucket = |bucket: objects::Bucket| Bucket {
            name: Some(bucket.name),
            creation_date: Some(time(bucket.created_at.as_millis())),
            bucket_region: None,
        };
        ok(ListBucketsOutput {
            buckets: Some(buckets.map(bucket).collect()),
            owner: Some(Owner {
                display_name: Some(caller.user.username.clone()),
                id: Some(caller.user.id.to_string()),
            }),
            ..ListBucketsOutput::default()
        })
    }

    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let caller = caller(&request)?;
        let bucket = &request.input.bucket;
        Err(
            match objects::bucket(&self.app.engine, &caller, bucket).await {
                Ok(_) => s3_error!(BucketAlreadyOwnedByYou, "a bucket is a team of yours"),
                Err(objects::Error::NoBucket) => s3_error!(
                    AccessDenied,
                    "a bucket is a team, and it has those of your teams: `grid team create` makes one"
                ),
                Err(other) => error::of(other),
            },
        )
    }

    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        let caller = caller(&request)?;
        let bucket = &request.input.bucket;
        let found = objects::bucket(&self.app.engine, &caller, bucket).await;
        found.map_err(error::of)?;
        ok(HeadBucketOutput {
            bucket_region: Some(REGION.to_owned()),
            ..HeadBucketOutput::default()
        })
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        let caller = caller(&request)?;
        let bucket = &request.input.bucket;
        let found = objects::bucket(&self.app.engine, &caller, bucket).await;
        found.map_err(error::of)?;
        // None stands for the one above.
        ok(GetBucketLocationOutput::default())
    }

    async fn list_objects(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let caller = caller(&request)?;
        ok(read::list(&self.app.engine, &caller, request.input).await?)
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let caller = caller(&request)?;
        ok(read::list_v2(&self.app.engine, &caller, request.input).await?)
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let caller = caller(&request)?;
        ok(read::head(&self.app.engine, &caller, request.input).await?)
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let caller = caller(&request)?;
        ok(read::get(&self.app.engine, &caller, request.input).await?)
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let caller = caller(&request)?;
        let said = (&request.headers, request.trailing_headers);
        ok(write::put(&self.app.engine, &caller, request.input, said, &self.late).await?)
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let caller = caller(&request)?;
        let (input, headers) = (request.input, &request.headers);
        ok(copy::object(&self.app.engine, &caller, input, headers, &self.late).await?)
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let caller = caller(&request)?;
        ok(copy::part(&self.app.engine, &caller, request.input, &self.late).await?)
    }

    async fn get_object_tagging(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let caller = caller(&request)?;
        ok(read::tags(&self.app.engine, &caller, request.input).await?)
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let caller = caller(&request)?;
        let (bucket, key) = (&request.input.bucket, &request.input.key);
        let removed = objects::remove(&self.app.engine, &caller, bucket, key).await;
        removed.map_err(error::of)?;
        ok(DeleteObjectOutput::default())
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let caller = caller(&request)?;
        ok(write::delete_many(&self.app.engine, &caller, request.input).await?)
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        let (place, notes) = ((&*input.bucket, &*input.key), write::notes(input.metadata));
        let begun = objects::begin(&self.app.engine, &caller, place, &notes).await;
        let upload = begun.map_err(error::of)?;
        ok(CreateMultipartUploadOutput {
            upload_id: Some(upload.id.to_string()),
            bucket: Some(input.bucket),
            key: Some(input.key),
            ..CreateMultipartUploadOutput::default()
        })
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let caller = caller(&request)?;
        let said = (&request.headers, request.trailing_headers);
        let etag = write::put_part(&self.app.engine, &caller, request.input, said).await?;
        ok(UploadPartOutput {
            e_tag: Some(etag),
            ..UploadPartOutput::default()
        })
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let caller = caller(&request)?;
        ok(write::complete(&self.app.engine, &caller, request.input).await?)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let caller = caller(&request)?;
        let input = request.input;
        let place = (input.bucket.as_str(), input.key.as_str());
        let done = objects::abort(&self.app.engine, &caller, place, &input.upload_id).await;
        done.map_err(error::of)?;
        ok(AbortMultipartUploadOutput::default())
    }

    async fn list_parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let caller = caller(&request)?;
        ok(write::parts(&self.app.engine, &caller, request.input).await?)
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let caller = caller(&request)?;
        ok(write::incoming(&self.app.engine, &caller, request.input).await?)
    }
}
