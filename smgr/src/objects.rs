//! Small objects of the timeline in the object store, put and got by calls of the page service.
//!
//! Each call has a connection of its own, so that megabytes never stand before a page, and ends in bounded time (P1). Knows nothing of
//! what an object means.

use std::time::Duration;

use bytes::Bytes;
use strata_common::TimelineId;
use strata_proto::OBJECT_BYTES_MAX;
use strata_proto::page::page_service_client::PageServiceClient;
use strata_proto::page::{GetObjectRequest, PutObjectRequest};
use tonic::transport::Channel;

use crate::client::{ClientConfig, connect};

pub use strata_proto::page::ObjectName;

/// Enough for the largest object on a slow line.
const CALL_WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// No call was made.
    #[error("{0}")]
    NotAsked(String),
    #[error("the pageserver gave no answer within {} s", CALL_WAIT_MAX.as_secs())]
    NoAnswer,
    #[error("{0}")]
    Refused(String),
    /// What the object store has is not what was put.
    #[error("{0}")]
    Damaged(String),
    #[error("this server writes in no term")]
    NoWriter,
    #[error("{bytes} bytes are more than the {OBJECT_BYTES_MAX} of a small object")]
    TooLarge { bytes: usize },
    #[error("the answer makes no sense: {0}")]
    Malformed(String),
}

impl From<tonic::Status> for ObjectError {
    fn from(status: tonic::Status) -> ObjectError {
        let text = status.message().to_owned();
        match status.code() {
            tonic::Code::DataLoss => ObjectError::Damaged(text),
            _ => ObjectError::Refused(text),
        }
    }
}

/// What was put last, and on which timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Got {
    pub timeline: TimelineId,
    pub content: Bytes,
}

async fn open(config: &ClientConfig) -> Result<PageServiceClient<Channel>, ObjectError> {
    let channel = connect(&config.address).await.map_err(ObjectError::NotAsked)?;
    Ok(PageServiceClient::new(channel).max_decoding_message_size(strata_proto::MESSAGE_BYTES_MAX))
}

async fn in_time<T>(call: impl Future<Output = Result<T, ObjectError>>) -> Result<T, ObjectError> {
    tokio::time::timeout(CALL_WAIT_MAX, call).await.unwrap_or(Err(ObjectError::NoAnswer))
}

/// Puts an object in the writer's term.
pub async fn put(config: &ClientConfig, name: ObjectName, content: Bytes) -> Result<(), ObjectError> {
    let writer = config.writer.ok_or(ObjectError::NoWriter)?;
    if content.len() > OBJECT_BYTES_MAX {
        return Err(ObjectError::TooLarge { bytes: content.len() });
    }
    let request = PutObjectRequest {
        tenant_id: config.timeline.tenant.to_vec().into(),
        timeline_id: config.timeline.timeline.to_vec().into(),
        name: name.into(),
        term: writer.term.0,
        content,
    };
    in_time(async { Ok(open(config).await?.put_object(request).await.map(drop)?) }).await
}

/// What was put last on the timeline, or on its nearest ancestor that has one.
pub async fn get(config: &ClientConfig, name: ObjectName) -> Result<Option<Got>, ObjectError> {
    let request = GetObjectRequest {
        tenant_id: config.timeline.tenant.to_vec().into(),
        timeline_id: config.timeline.timeline.to_vec().into(),
        name: name.into(),
    };
    let answer = in_time(async { Ok(open(config).await?.get_object(request).await?) }).await?.into_inner();
    if answer.timeline_id.is_empty() {
        return Ok(None);
    }
    let timeline = TimelineId::try_from(&answer.timeline_id[..]);
    let timeline = timeline.map_err(|error| ObjectError::Malformed(format!("timeline_id: {error}")))?;
    Ok(Some(Got { timeline, content: answer.content }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Writer;
    use strata_common::{Lsn, TenantId, TenantTimelineId, Term};

    #[tokio::test]
    async fn what_cannot_be_put_is_refused_here() {
        let timeline = TenantTimelineId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]) };
        let address = "nowhere.invalid:1".to_owned();
        let reader = ClientConfig { address, timeline, writer: None };
        let refused = async |config: &ClientConfig, content| {
            put(config, ObjectName::LfcState, content).await.expect_err("refused").to_string()
        };
        assert_eq!(refused(&reader, Bytes::new()).await, "this server writes in no term");
        let writer = ClientConfig { writer: Some(Writer { term: Term(1), start_lsn: Lsn(8) }), ..reader };
        let long = Bytes::from(vec![0; OBJECT_BYTES_MAX + 1]);
        assert_eq!(refused(&writer, long).await, "8388609 bytes are more than the 8388608 of a small object");
        let away = refused(&writer, Bytes::new()).await;
        assert!(away.starts_with("cannot reach the pageserver at nowhere.invalid:1"), "{away}");
    }
}
