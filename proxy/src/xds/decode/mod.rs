//! From Envoy's protobuf to the types of `mesh`, strictly. Each message is taken apart field by field: what this proxy
//! does not do is refused by name when it is set, a field newer than these types is refused as unknown, and a field that
//! joins the types with an upgrade does not compile until it is decided here (CVE-2022-21679). Nothing is ignored.
#![allow(deprecated)] // each field is named, also those that Envoy has given up

pub mod cluster;
mod connection_manager;
pub mod endpoint;
pub mod extension;
pub mod listener;
mod matcher;
pub mod route;
mod transport_socket;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf as wkt;
use prost::{Message, Name};
use thiserror::Error;

/// Why a resource is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// Set, and not something that this proxy does.
    #[error("{0} is not supported")]
    Unsupported(String),
    #[error("{field}: {reason}")]
    Invalid { field: &'static str, reason: String },
    /// Fields newer than this proxy's types, or a form of encoding that hides something.
    #[error("{0} has fields that this proxy does not know")]
    UnknownFields(&'static str),
    #[error("{message} does not decode: {reason}")]
    Malformed {
        message: &'static str,
        reason: String,
    },
    #[error("type {0:?} is not supported here")]
    Type(String),
    /// It refers to something that is not there.
    #[error("{0}")]
    Unresolved(String),
}

impl Fault {
    pub fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            reason: reason.into(),
        }
    }
}

/// Take a message apart: the first list becomes variables, none of the second may be set.
macro_rules! take {
    ($message:expr, $label:literal => $type:path { $($taken:ident $(: $as:ident)?),* $(,)? } unsupported { $($other:ident),* $(,)? }) => {
        let $type { $($taken $(: $as)?,)* $($other,)* } = $message;
        $(
            if $crate::xds::decode::is_set(&$other) {
                return Err($crate::xds::decode::Fault::Unsupported(
                    concat!($label, ".", stringify!($other)).to_owned(),
                ));
            }
        )*
    };
}
use take;

fn is_set<T: Default + PartialEq>(value: &T) -> bool {
    *value != T::default()
}

/// Decode the payload of an `Any` of the one type that is expected.
pub fn open<M: Message + Name + Default>(any: &wkt::Any) -> Result<M, Fault> {
    if any.type_url != M::type_url() {
        return Err(Fault::Type(any.type_url.clone()));
    }
    decode(&any.value)
}

/// Decode a message, all of whose bytes must be accounted for by fields that these types know.
pub fn decode<M: Message + Name + Default>(bytes: &[u8]) -> Result<M, Fault> {
    let message = M::decode(bytes).map_err(|error| Fault::Malformed {
        message: M::NAME,
        reason: error.to_string(),
    })?;
    if message.encoded_len() != bytes.len() {
        return Err(Fault::UnknownFields(M::NAME));
    }
    Ok(message)
}

/// A message that must be there.
fn required<T>(value: Option<T>, field: &'static str) -> Result<T, Fault> {
    value.ok_or_else(|| Fault::invalid(field, "is required"))
}

fn non_empty(value: String, field: &'static str) -> Result<String, Fault> {
    if value.is_empty() {
        return Err(Fault::invalid(field, "must not be empty"));
    }
    Ok(value)
}

/// A setting of which this proxy has one fixed behaviour.
fn fixed<T: PartialEq + std::fmt::Debug>(
    value: &T,
    only: &T,
    field: &'static str,
) -> Result<(), Fault> {
    if value != only {
        return Err(Fault::invalid(
            field,
            format!("must be {only:?}, which is what this proxy does"),
        ));
    }
    Ok(())
}

fn only<T>(values: Vec<T>, field: &'static str) -> Result<T, Fault> {
    let count = values.len();
    match <[T; 1]>::try_from(values) {
        Ok([value]) => Ok(value),
        Err(_) => Err(Fault::invalid(
            field,
            format!("must have one element, has {count}"),
        )),
    }
}

fn uint(value: Option<wkt::UInt32Value>, default: u32) -> u32 {
    value.map_or(default, |value| value.value)
}

fn duration(value: wkt::Duration, field: &'static str) -> Result<Duration, Fault> {
    /// Protobuf's own bound on a duration, far below what would overflow an instant.
    const MAX_SECONDS: u64 = 315_576_000_000;
    let wkt::Duration { seconds, nanos } = value;
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos)) if seconds <= MAX_SECONDS && nanos < 1_000_000_000 => {
            Ok(Duration::new(seconds, nanos))
        }
        _ => Err(Fault::invalid(field, "is no duration from 0 on")),
    }
}

/// A duration where zero means nothing useful.
fn positive(
    value: Option<wkt::Duration>,
    default: Duration,
    field: &'static str,
) -> Result<Duration, Fault> {
    match value.map(|value| duration(value, field)).transpose()? {
        Some(Duration::ZERO) => Err(Fault::invalid(field, "must be more than 0")),
        Some(value) => Ok(value),
        None => Ok(default),
    }
}

fn socket_address(address: Option<core::Address>) -> Result<SocketAddr, Fault> {
    take!(required(address, "address")?, "Address" => core::Address { address } unsupported {});
    let address = match required(address, "Address.address")? {
        core::address::Address::SocketAddress(address) => address,
        core::address::Address::Pipe(_) => {
            return Err(Fault::Unsupported("Address.pipe".to_owned()));
        }
        core::address::Address::EnvoyInternalAddress(_) => {
            return Err(Fault::Unsupported(
                "Address.envoy_internal_address".to_owned(),
            ));
        }
    };
    take!(address, "SocketAddress" => core::SocketAddress { address, port_specifier }
        unsupported { protocol, resolver_name, ipv4_compat, network_namespace_filepath });
    let ip: IpAddr = address.parse().map_err(|_| {
        Fault::invalid(
            "SocketAddress.address",
            format!("{address:?} is no IP address"),
        )
    })?;
    match required(port_specifier, "SocketAddress.port_value")? {
        core::socket_address::PortSpecifier::PortValue(port) => match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(SocketAddr::new(ip, port)),
            _ => Err(Fault::invalid(
                "SocketAddress.port_value",
                format!("{port} is no port"),
            )),
        },
        core::socket_address::PortSpecifier::NamedPort(_) => {
            Err(Fault::Unsupported("SocketAddress.named_port".to_owned()))
        }
    }
}

/// A reference to another resource of the same stream: `ads {}`.
fn from_ads(source: Option<core::ConfigSource>, field: &'static str) -> Result<(), Fault> {
    use core::config_source::ConfigSourceSpecifier::{
        Ads, ApiConfigSource, Path, PathConfigSource, Self_,
    };
    take!(required(source, field)?, "ConfigSource" => core::ConfigSource {
        resource_api_version, config_source_specifier, initial_fetch_timeout
    } unsupported { authorities });
    // How long to wait for it: here a commit is complete before it is looked at.
    let _ = initial_fetch_timeout;
    if resource_api_version == core::ApiVersion::V2 as i32 {
        return Err(Fault::Unsupported(
            "ConfigSource.resource_api_version V2".to_owned(),
        ));
    }
    match required(config_source_specifier, "ConfigSource.ads")? {
        Ads(core::AggregatedConfigSource {}) => Ok(()),
        Path(_) | PathConfigSource(_) | ApiConfigSource(_) | Self_(_) => Err(Fault::invalid(
            field,
            "must be ads, the stream that this came by",
        )),
    }
}

/// A text that names one thing of `garrison`'s in `metadata.filter_metadata["garrison"]`.
fn garrison_metadata(metadata: Option<core::Metadata>, key: &str) -> Result<Option<String>, Fault> {
    use wkt::value::Kind::StringValue;
    let Some(metadata) = metadata else {
        return Ok(None);
    };
    take!(metadata, "Metadata" => core::Metadata { filter_metadata } unsupported { typed_filter_metadata });
    let mut found = None;
    for (filter, wkt::Struct { fields }) in filter_metadata {
        for (name, wkt::Value { kind }) in fields {
            match kind {
                Some(StringValue(value)) if filter == "garrison" && name == key => {
                    found = Some(value);
                }
                _ => {
                    return Err(Fault::Unsupported(format!(
                        "Metadata.filter_metadata[{filter:?}].{name}"
                    )));
                }
            }
        }
    }
    Ok(found)
}
