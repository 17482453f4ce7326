//! `garrison-proxy validate`: would this proxy take these resources? The same code decides that decides it when they are
//! pushed, so that a commit which no proxy would enforce is never published.

use std::io::{self, Read, Write};

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use prost::Message;
use serde::Serialize;
use thiserror::Error;

use crate::xds::resource::Refused;
use crate::xds::staging::check_whole;

/// More than any client's scope; a bound on what one run may cost.
const MAX_INPUT_BYTES: u64 = 256 << 20;

#[derive(Debug, Error)]
pub enum ValidateError {
    #[error("cannot read standard input")]
    Input(#[source] io::Error),
    #[error("standard input is over {MAX_INPUT_BYTES} bytes")]
    TooLarge,
    #[error("standard input is no serialized envoy.service.discovery.v3.DiscoveryResponse")]
    Malformed(#[source] prost::DecodeError),
    #[error("cannot write standard output")]
    Output(#[source] io::Error),
}

#[derive(Serialize)]
struct Line<'a> {
    r#type: &'a str,
    name: &'a str,
    error: String,
}

/// Read one client's resources, and write a line for each that is refused; whether there was none.
pub fn run(input: impl Read, mut output: impl Write) -> Result<bool, ValidateError> {
    let mut bytes = Vec::new();
    input
        .take(MAX_INPUT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(ValidateError::Input)?;
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        return Err(ValidateError::TooLarge);
    }
    let response = DiscoveryResponse::decode(bytes.as_slice()).map_err(ValidateError::Malformed)?;
    let refused = check_whole(&response.resources);
    for refused in &refused {
        let line = line_of(refused);
        serde_json::to_writer(&mut output, &line)
            .map_err(io::Error::from)
            .and_then(|()| output.write_all(b"\n"))
            .map_err(ValidateError::Output)?;
    }
    Ok(refused.is_empty())
}

fn line_of(refused: &Refused) -> Line<'_> {
    Line {
        r#type: &refused.type_url,
        name: &refused.name,
        error: refused.fault.to_string(),
    }
}
