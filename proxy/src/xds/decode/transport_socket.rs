//! TLS contexts: what they say must be what `tls` does anyway; what is taken from them is whom to expect.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::{Fault, fixed, only, open, required, take};
use crate::identity::spiffe_id::{SpiffeId, TrustDomain};

const NAMES: &str = "CertificateValidationContext.match_typed_subject_alt_names";

/// The trust domains whose workloads may connect: `DownstreamTlsContext`.
pub(super) fn downstream(socket: core::TransportSocket) -> Result<Vec<Arc<str>>, Fault> {
    take!(open(&payload(socket)?)?, "DownstreamTlsContext" => pb::DownstreamTlsContext {
        common_tls_context, require_client_certificate, disable_stateful_session_resumption, session_ticket_keys_type
    } unsupported {
        require_sni, session_timeout, ocsp_staple_policy, full_scan_certs_on_sni_mismatch, prefer_client_ciphers
    });
    // Sessions are never resumed here; Envoy has to be told.
    let _ = disable_stateful_session_resumption;
    match session_ticket_keys_type {
        None
        | Some(
            pb::downstream_tls_context::SessionTicketKeysType::DisableStatelessSessionResumption(
                true,
            ),
        ) => {}
        Some(_) => {
            return Err(Fault::Unsupported(
                "DownstreamTlsContext.session_ticket_keys_type".to_owned(),
            ));
        }
    }
    let required_certificate = require_client_certificate.is_some_and(|value| value.value);
    fixed(
        &required_certificate,
        &true,
        "DownstreamTlsContext.require_client_certificate",
    )?;
    names(common_tls_context)?
        .into_iter()
        .map(trust_domain)
        .collect()
}

fn trust_domain(pattern: MatchPattern) -> Result<Arc<str>, Fault> {
    let MatchPattern::Prefix(prefix) = pattern else {
        return Err(Fault::invalid(
            NAMES,
            "must be the prefix spiffe://TRUST_DOMAIN/",
        ));
    };
    prefix
        .strip_suffix('/')
        .and_then(|uri| TrustDomain::parse_uri(uri).ok())
        .map(|domain| domain.as_str().into())
        .ok_or_else(|| {
            let detail = format!("{prefix:?} is no prefix of a whole trust domain");
            Fault::invalid(NAMES, detail)
        })
}

/// The SPIFFE IDs one of which the server must have: `UpstreamTlsContext`.
pub(super) fn upstream(socket: core::TransportSocket) -> Result<Box<[Arc<str>]>, Fault> {
    take!(open(&payload(socket)?)?, "UpstreamTlsContext" => pb::UpstreamTlsContext {
        common_tls_context, sni, max_session_keys
    } unsupported { auto_host_sni, auto_sni_san_validation, allow_renegotiation, enforce_rsa_key_usage });
    // The server is found by its endpoint and known by its SPIFFE ID: it is sent no name.
    let _ = sni;
    if let Some(keys) = max_session_keys {
        fixed(&keys.value, &0, "UpstreamTlsContext.max_session_keys")?;
    }
    let ids = names(common_tls_context)?
        .into_iter()
        .map(|pattern| match pattern {
            MatchPattern::Exact(id) => SpiffeId::parse(&id)
                .map(|id| id.uri())
                .map_err(|error| Fault::invalid(NAMES, format!("{id:?}: {error}"))),
            _ => Err(Fault::invalid(NAMES, "must be exact SPIFFE IDs")),
        });
    ids.collect()
}

fn payload(socket: core::TransportSocket) -> Result<envoy_types::pb::google::protobuf::Any, Fault> {
    use core::transport_socket::ConfigType::TypedConfig;
    take!(socket, "TransportSocket" => core::TransportSocket { name, config_type } unsupported {});
    fixed(
        &name.as_str(),
        &"envoy.transport_sockets.tls",
        "TransportSocket.name",
    )?;
    let TypedConfig(config) = required(config_type, "TransportSocket.typed_config")?;
    Ok(config)
}

/// Check what both directions have in common, and give the names that it expects; at least one.
fn names(context: Option<pb::CommonTlsContext>) -> Result<Vec<MatchPattern>, Fault> {
    use pb::common_tls_context::ValidationContextType::CombinedValidationContext;
    take!(required(context, "common_tls_context")?, "CommonTlsContext" => pb::CommonTlsContext {
        tls_params, tls_certificate_sds_secret_configs, alpn_protocols, validation_context_type
    } unsupported {
        tls_certificates, tls_certificate_provider_instance, custom_tls_certificate_selector,
        tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance, custom_handshaker, key_log
    });
    only_tls13(required(tls_params, "CommonTlsContext.tls_params")?)?;
    let svid = only(
        tls_certificate_sds_secret_configs,
        "CommonTlsContext.tls_certificate_sds_secret_configs",
    )?;
    let pb::SdsSecretConfig {
        name,
        sds_config: _,
    } = svid;
    fixed(
        &name.as_str(),
        &"svid",
        "CommonTlsContext.tls_certificate_sds_secret_configs[0].name",
    )?;
    fixed(
        &alpn_protocols,
        &vec!["h2".to_owned(), "http/1.1".to_owned()],
        "CommonTlsContext.alpn_protocols",
    )?;
    match required(
        validation_context_type,
        "CommonTlsContext.combined_validation_context",
    )? {
        CombinedValidationContext(combined) => names_of_combined(combined),
        _ => Err(Fault::invalid(
            "CommonTlsContext.validation_context_type",
            "must be combined_validation_context",
        )),
    }
}

fn only_tls13(params: pb::TlsParameters) -> Result<(), Fault> {
    take!(params, "TlsParameters" => pb::TlsParameters {
        tls_minimum_protocol_version, tls_maximum_protocol_version, ecdh_curves
    } unsupported { cipher_suites, signature_algorithms, compliance_policies });
    // Which key exchanges Envoy prefers; here the post-quantum hybrid always comes first.
    let _ = ecdh_curves;
    let tls13 = pb::tls_parameters::TlsProtocol::TlSv13 as i32;
    fixed(
        &tls_minimum_protocol_version,
        &tls13,
        "TlsParameters.tls_minimum_protocol_version",
    )?;
    fixed(
        &tls_maximum_protocol_version,
        &tls13,
        "TlsParameters.tls_maximum_protocol_version",
    )
}

fn names_of_combined(
    combined: pb::common_tls_context::CombinedCertificateValidationContext,
) -> Result<Vec<MatchPattern>, Fault> {
    take!(combined, "CombinedCertificateValidationContext" =>
    pb::common_tls_context::CombinedCertificateValidationContext {
        default_validation_context, validation_context_sds_secret_config
    } unsupported {
        validation_context_certificate_provider, validation_context_certificate_provider_instance
    });
    let bundle = required(
        validation_context_sds_secret_config,
        "CombinedCertificateValidationContext.validation_context_sds_secret_config",
    )?;
    names_a_trust_domain(bundle)?;
    let context = required(
        default_validation_context,
        "CombinedCertificateValidationContext.default_validation_context",
    )?;
    take!(context, "CertificateValidationContext" => pb::CertificateValidationContext { match_typed_subject_alt_names }
    unsupported {
        trusted_ca, ca_certificate_provider_instance, system_root_certs, watched_directory,
        verify_certificate_spki, verify_certificate_hash, match_subject_alt_names,
        require_signed_certificate_timestamp, crl, allow_expired_certificate, trust_chain_verification,
        custom_validator_config, only_verify_leaf_cert_crl, max_verify_depth, suppress_client_ca_list
    });
    if match_typed_subject_alt_names.is_empty() {
        return Err(Fault::invalid(
            NAMES,
            "must not be empty: it would admit anyone",
        ));
    }
    match_typed_subject_alt_names
        .into_iter()
        .map(uri_pattern)
        .collect()
}

/// How Envoy gets the bundle of that name; here each name is verified by the bundle of its own trust domain.
fn names_a_trust_domain(bundle: pb::SdsSecretConfig) -> Result<(), Fault> {
    let pb::SdsSecretConfig {
        name,
        sds_config: _,
    } = bundle;
    match TrustDomain::parse_uri(&name) {
        Ok(_) => Ok(()),
        Err(_) => Err(Fault::invalid(
            "SdsSecretConfig.name",
            format!("{name:?} names no trust domain's bundle"),
        )),
    }
}

fn uri_pattern(name: pb::SubjectAltNameMatcher) -> Result<MatchPattern, Fault> {
    take!(name, "SubjectAltNameMatcher" => pb::SubjectAltNameMatcher { san_type, matcher } unsupported { oid });
    fixed(
        &san_type,
        &(pb::subject_alt_name_matcher::SanType::Uri as i32),
        "SubjectAltNameMatcher.san_type",
    )?;
    let matcher = required(matcher, "SubjectAltNameMatcher.matcher")?;
    take!(matcher, "StringMatcher" => StringMatcher { match_pattern } unsupported { ignore_case });
    required(match_pattern, "StringMatcher.match_pattern")
}
