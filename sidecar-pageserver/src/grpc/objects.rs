//! `page.v1.PageService`, small objects: who may put one, and messages to storage and back.
//!
//! A compute whose term is over puts nothing, whether the log tells of the later term or a later compute's object does (SK-2).

use std::sync::Arc;

use strata_common::Term;
use strata_proto::convert::tenant_timeline;
use strata_proto::page::{
    GetObjectRequest, GetObjectResponse, ObjectName as WireName, PutObjectRequest, PutObjectResponse,
};
use tonic::Status;

use super::manage::status_of_storage;
use super::pages::{not_found, status_of_superseded};
use crate::node::Node;
use crate::storage::{ObjectName, StorageError};

pub(super) async fn put(node: &Arc<Node>, request: PutObjectRequest) -> Result<PutObjectResponse, Status> {
    let id = tenant_timeline(&request.tenant_id, &request.timeline_id)?;
    let name = name(request.name)?;
    let timeline = node.timeline(id).ok_or_else(|| not_found(id))?;
    let term = Term(request.term);
    if term == Term::ZERO {
        return Err(Status::invalid_argument("who puts an object must say in which term"));
    }
    timeline.check_term(term).map_err(|over| status_of_superseded(&over))?;
    on_node(node, async move { timeline.store.put_object(name, term, request.content).await }).await?;
    Ok(PutObjectResponse {})
}

pub(super) async fn get(node: &Arc<Node>, request: GetObjectRequest) -> Result<GetObjectResponse, Status> {
    let id = tenant_timeline(&request.tenant_id, &request.timeline_id)?;
    let name = name(request.name)?;
    let timeline = node.timeline(id).ok_or_else(|| not_found(id))?;
    let found = on_node(node, async move { timeline.store.get_object(name).await }).await?;
    Ok(found.map_or_else(GetObjectResponse::default, |object| GetObjectResponse {
        timeline_id: object.timeline.timeline.to_vec().into(),
        term: object.term.0,
        content: object.content,
    }))
}

fn name(number: i32) -> Result<ObjectName, Status> {
    match WireName::try_from(number) {
        Ok(WireName::LfcState) => Ok(ObjectName::LfcState),
        _ => Err(Status::invalid_argument(format!("there is no object of the name {number}"))),
    }
}

/// On the node's runtime: a page thread neither waits for the object store nor sums up megabytes.
async fn on_node<T: Send + 'static>(
    node: &Node,
    work: impl Future<Output = Result<T, StorageError>> + Send + 'static,
) -> Result<T, Status> {
    let done = node.runtime().spawn(work).await;
    done.map_err(|e| Status::internal(e.to_string()))?.map_err(|e| status_of_storage(&e))
}
