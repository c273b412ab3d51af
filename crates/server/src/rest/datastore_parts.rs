//! Parts of the list of an upload that are blocks of it, many in one request.

use axum::Json;
use axum::extract::State;
use grid_api::datastore::{DatastoreOffered, DatastoreOffers, DatastoreOffersResponse};
use grid_engine::Engine;
use grid_engine::datastore::{self, Offered, Taken};

use crate::auth::Caller;
use crate::error::Result;
use crate::extract::{BytesBody, Path, Query, Unread};

/// The largest body: the largest block twice, with long paths.  Higher: it takes memory;
/// lower: lists of long paths cannot be sent.
const OFFERS_BYTES_MAX: usize = 32 << 20;

/// Send parts of the list of an upload that are blocks of it
///
/// For clients that cut the list where the server does: a part may name a block of the version
/// before, with what is different. The format is that of `grid_manifest::Offer`, and may change
/// with the version of the server: send single parts as JSON where that matters.
#[utoipa::path(put, path = "/datastores/{datastore}/parts", tag = "datastores",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("datastore" = String, Path, description = "`NAME:VERSION`, or id"), DatastoreOffers),
    responses((status = 200, body = DatastoreOffersResponse)))]
pub(super) async fn datastore_parts_put(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    Query(query): Query<DatastoreOffers>,
    body: Unread<BytesBody<OFFERS_BYTES_MAX>>,
) -> Result<Json<DatastoreOffersResponse>> {
    if body.may_be_large() {
        datastore::takes_parts(&engine, &caller, &name).await?;
    }
    let BytesBody(body) = body.read().await?;
    let offered = Offered {
        from: query.from.unwrap_or_default(),
        parts: body,
        sent_bytes: query.sent_bytes.unwrap_or_default(),
    };
    let taken = datastore::put_parts(&engine, &caller, &name, offered).await?;
    Ok(Json(DatastoreOffersResponse {
        parts: taken.iter().map(view).collect(),
    }))
}

fn view(taken: &Taken) -> DatastoreOffered {
    DatastoreOffered {
        block: taken.block.map(|block| block.to_string()),
        missing: taken.missing.iter().map(ToString::to_string).collect(),
        unknown: taken.is_unknown,
    }
}
