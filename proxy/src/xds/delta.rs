//! The client's end of a delta discovery stream, whichever service it is of: requests out, responses in, and an answer to
//! each (<https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>, "Incremental xDS").

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};
use envoy_types::pb::google::rpc;
use http::Uri;
use http::uri::PathAndQuery;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::control_plane::{Link, LinkError};

/// The largest response that is taken; servers split what is larger.
const MAX_RESPONSE_BYTES: usize = 32 << 20;
/// More than the first requests of all types, and the answer to the one response in flight of each.
const QUEUE: usize = 32;

#[derive(Debug)]
pub(crate) struct DeltaStream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

/// Why a stream ended.
#[derive(Debug, Error)]
pub(crate) enum StreamError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the server ended the stream: {:?}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    #[error("the server ended the stream")]
    Ended,
    #[error("the server reads no answers")]
    Deaf,
}

/// A subscription to all resources of a type, and what of it is already here, by version.
pub(crate) fn subscribe_to_all(
    type_url: String,
    held: HashMap<String, String>,
) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url,
        resource_names_subscribe: vec!["*".to_owned()],
        initial_resource_versions: held,
        ..DeltaDiscoveryRequest::default()
    }
}

impl DeltaStream {
    /// Open the stream with its first requests, the first of which names the node.
    pub async fn open(
        link: Link,
        origin: Uri,
        method: &'static str,
        node: Node,
        first: Vec<DeltaDiscoveryRequest>,
    ) -> Result<Self, StreamError> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let mut node = Some(node);
        for mut request in first {
            request.node = node.take();
            requests.try_send(request).map_err(|_| StreamError::Deaf)?;
        }
        let mut client = tonic::client::Grpc::with_origin(link, origin)
            .max_decoding_message_size(MAX_RESPONSE_BYTES);
        client.ready().await.map_err(LinkError::Broken)?;
        let codec: ProstCodec<DeltaDiscoveryRequest, DeltaDiscoveryResponse> =
            ProstCodec::default();
        let responses = client
            .streaming(
                Request::new(ReceiverStream::new(queue)),
                PathAndQuery::from_static(method),
                codec,
            )
            .await
            .map_err(|status| StreamError::Status(Box::new(status)))?
            .into_inner();
        Ok(Self {
            requests,
            responses,
        })
    }

    pub async fn next(&mut self) -> Result<DeltaDiscoveryResponse, StreamError> {
        match self.responses.message().await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(StreamError::Ended),
            Err(status) => Err(StreamError::Status(Box::new(status))),
        }
    }

    /// ACK, or NACK with the reason. A server that does not read answers is given up.
    pub fn answer(
        &self,
        type_url: String,
        nonce: String,
        verdict: Result<(), String>,
    ) -> Result<(), StreamError> {
        let request = DeltaDiscoveryRequest {
            type_url,
            response_nonce: nonce,
            error_detail: verdict.err().map(|message| rpc::Status {
                code: Code::InvalidArgument as i32,
                message,
                details: Vec::new(),
            }),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests
            .try_send(request)
            .map_err(|_| StreamError::Deaf)
    }
}
