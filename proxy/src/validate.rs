//! `garrison-proxy validate`: would this proxy take these resources? The same code decides that decides it when they are
//! pushed, so that a commit which no proxy would enforce is never published.

use std::io::{self, BufRead, Read, Write};

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use prost::Message;
use serde::Serialize;
use thiserror::Error;

use crate::xds::resource::Refused;
use crate::xds::staging::check_whole;

/// More than any client's scope; a bound on what one answer may cost.
const MAX_CLIENT_BYTES: u64 = 256 << 20;
/// Of the length before each client's resources: ten digits and the line's end.
const MAX_LENGTH_BYTES: u64 = 11;

#[derive(Debug, Error)]
pub enum ValidateError {
    #[error("cannot read standard input")]
    Input(#[source] io::Error),
    #[error("one client's resources are over {MAX_CLIENT_BYTES} bytes")]
    TooLarge,
    #[error("standard input is no serialized envoy.service.discovery.v3.DiscoveryResponse")]
    Malformed(#[source] prost::DecodeError),
    #[error("client {0}: before its resources must be a line with their length in bytes")]
    Length(usize),
    #[error("client {0}: standard input ends within its resources")]
    Truncated(usize),
    #[error("client {0}: no serialized envoy.service.discovery.v3.DiscoveryResponse")]
    MalformedClient(usize, #[source] prost::DecodeError),
    #[error("cannot write standard output")]
    Output(#[source] io::Error),
}

#[derive(Serialize)]
struct Line<'a> {
    r#type: &'a str,
    name: &'a str,
    error: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    refused: Vec<Line<'a>>,
}

/// Read one client's resources, and write a line for each that is refused; whether there was none.
pub fn run(input: impl Read, mut output: impl Write) -> Result<bool, ValidateError> {
    let mut bytes = Vec::new();
    input
        .take(MAX_CLIENT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(ValidateError::Input)?;
    if bytes.len() as u64 > MAX_CLIENT_BYTES {
        return Err(ValidateError::TooLarge);
    }
    let response = DiscoveryResponse::decode(bytes.as_slice()).map_err(ValidateError::Malformed)?;
    let refused = check_whole(&response.resources);
    for refused in &refused {
        write_line(&mut output, &line_of(refused))?;
    }
    Ok(refused.is_empty())
}

/// Read the resources of many clients, each after its length, and write a line for each client, in order; whether nothing
/// was refused. Memory is that of the largest of them.
pub fn run_many(mut input: impl BufRead, mut output: impl Write) -> Result<bool, ValidateError> {
    let mut bytes = Vec::new();
    let mut all_good = true;
    for client in 1.. {
        let Some(length) = read_length(&mut input, client)? else {
            break;
        };
        bytes.clear();
        let mut resources = input.by_ref().take(length);
        resources
            .read_to_end(&mut bytes)
            .map_err(ValidateError::Input)?;
        if (bytes.len() as u64) < length {
            return Err(ValidateError::Truncated(client));
        }
        let response = DiscoveryResponse::decode(bytes.as_slice())
            .map_err(|error| ValidateError::MalformedClient(client, error))?;
        let refused = check_whole(&response.resources);
        all_good &= refused.is_empty();
        let refused = refused.iter().map(line_of).collect();
        write_line(&mut output, &Answer { refused })?;
    }
    Ok(all_good)
}

/// None at the end of the input.
fn read_length(input: &mut impl BufRead, client: usize) -> Result<Option<u64>, ValidateError> {
    let mut line = String::new();
    let read = input.take(MAX_LENGTH_BYTES).read_line(&mut line);
    if read.map_err(|_| ValidateError::Length(client))? == 0 {
        return Ok(None);
    }
    let digits = line.strip_suffix('\n').unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ValidateError::Length(client));
    }
    match digits.parse() {
        Ok(length) if length <= MAX_CLIENT_BYTES => Ok(Some(length)),
        Ok(_) | Err(_) => Err(ValidateError::TooLarge),
    }
}

fn write_line(output: &mut impl Write, line: &impl Serialize) -> Result<(), ValidateError> {
    serde_json::to_writer(&mut *output, line)
        .map_err(io::Error::from)
        .and_then(|()| output.write_all(b"\n"))
        .map_err(ValidateError::Output)
}

fn line_of(refused: &Refused) -> Line<'_> {
    Line {
        r#type: &refused.type_url,
        name: &refused.name,
        error: refused.fault.to_string(),
    }
}
