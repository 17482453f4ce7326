//! Resources as the policy server makes them (`docs/seams.md`), for one inbound and one outbound listener.

use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::{Cluster, OutlierDetection};
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::transport_socket;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ConfigSource, ExtensionConfigSource, HttpProtocolOptions,
    SocketAddress, TransportSocket, TypedExtensionConfig,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::rbac::v3 as rules;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
};
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::google::protobuf::{Any, BoolValue, Struct, Value, value};
use envoy_types::util::pack_any;
use prost::Name;

use super::{CATALOG, TRUST_DOMAIN};

pub const COMMIT: &str = "3f2c9a1000000000000000000000000000000000";
pub const DENY: &str = "authz/bookstore/catalog/deny";
pub const ALLOW: &str = "authz/bookstore/catalog/allow";

pub fn from_ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

pub fn address(ip: &str, port: u32) -> Address {
    Address {
        address: Some(AddressKind::SocketAddress(SocketAddress {
            address: ip.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..SocketAddress::default()
        })),
    }
}

pub fn common_tls(pattern: MatchPattern) -> tls::CommonTlsContext {
    use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let tls13 = tls::tls_parameters::TlsProtocol::TlSv13 as i32;
    let name = tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Uri as i32,
        matcher: Some(StringMatcher {
            match_pattern: Some(pattern),
            ignore_case: false,
        }),
        oid: String::new(),
    };
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(tls::CertificateValidationContext {
            match_typed_subject_alt_names: vec![name],
            ..tls::CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(tls::SdsSecretConfig {
            name: format!("spiffe://{TRUST_DOMAIN}"),
            sds_config: None,
        }),
        ..CombinedCertificateValidationContext::default()
    };
    tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: tls13,
            tls_maximum_protocol_version: tls13,
            ..tls::TlsParameters::default()
        }),
        alpn_protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
        tls_certificate_sds_secret_configs: vec![tls::SdsSecretConfig {
            name: "svid".to_owned(),
            sds_config: None,
        }],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(combined)),
        ..tls::CommonTlsContext::default()
    }
}

pub fn transport_socket(config: Any) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(config)),
    }
}

pub fn upstream_tls() -> tls::UpstreamTlsContext {
    tls::UpstreamTlsContext {
        common_tls_context: Some(common_tls(MatchPattern::Exact(CATALOG.to_owned()))),
        sni: "catalog.bookstore".to_owned(),
        ..tls::UpstreamTlsContext::default()
    }
}

pub fn downstream_tls() -> tls::DownstreamTlsContext {
    let prefix = MatchPattern::Prefix(format!("spiffe://{TRUST_DOMAIN}/"));
    tls::DownstreamTlsContext {
        common_tls_context: Some(common_tls(prefix)),
        require_client_certificate: Some(BoolValue { value: true }),
        ..tls::DownstreamTlsContext::default()
    }
}

pub fn cluster(name: &str) -> Cluster {
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(from_ads()),
            service_name: name.to_owned(),
        }),
        outlier_detection: Some(OutlierDetection::default()),
        transport_socket: Some(transport_socket(pack_any(upstream_tls()))),
        ..Cluster::default()
    }
}

pub fn application() -> Cluster {
    Cluster {
        name: "application".to_owned(),
        load_assignment: Some(endpoints("application", &[8080])),
        ..Cluster::default()
    }
}

pub fn endpoints(name: &str, ports: &[u32]) -> ClusterLoadAssignment {
    let endpoint = |port: &u32| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address("127.0.0.1", *port)),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: ports.iter().map(endpoint).collect(),
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}

pub fn action(cluster: &str) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..RouteAction::default()
    }
}

pub fn route(action: RouteAction) -> Route {
    Route {
        name: "bookstore/catalog#default".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(Action::Route(action)),
        ..Route::default()
    }
}

pub fn virtual_host(domains: &[&str], routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: "bookstore/catalog".to_owned(),
        domains: domains.iter().map(ToString::to_string).collect(),
        routes,
        ..VirtualHost::default()
    }
}

pub fn routes(name: &str, domains: &[&str], cluster: &str) -> RouteConfiguration {
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![virtual_host(domains, vec![route(action(cluster))])],
        ..RouteConfiguration::default()
    }
}

pub fn router() -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(pack_any(
            Router::default(),
        ))),
        ..hcm::HttpFilter::default()
    }
}

pub fn rules_filter(name: &str) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::ConfigDiscovery(
            ExtensionConfigSource {
                config_source: Some(from_ads()),
                type_urls: vec![Rbac::type_url()],
                ..ExtensionConfigSource::default()
            },
        )),
        ..hcm::HttpFilter::default()
    }
}

/// An outbound one; [`inbound_manager`] makes of it an inbound one.
pub fn outbound_manager() -> hcm::HttpConnectionManager {
    use hcm::http_connection_manager::{PathWithEscapedSlashesAction, RouteSpecifier};
    hcm::HttpConnectionManager {
        stat_prefix: "outbound".to_owned(),
        normalize_path: Some(BoolValue { value: true }),
        merge_slashes: true,
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::RejectRequest as i32,
        strip_trailing_host_dot: true,
        common_http_protocol_options: Some(HttpProtocolOptions {
            headers_with_underscores_action: HeadersWithUnderscoresAction::RejectRequest as i32,
            ..HttpProtocolOptions::default()
        }),
        http_filters: vec![router()],
        route_specifier: Some(RouteSpecifier::Rds(hcm::Rds {
            config_source: Some(from_ads()),
            route_config_name: "outbound".to_owned(),
        })),
        ..hcm::HttpConnectionManager::default()
    }
}

pub fn inbound_manager() -> hcm::HttpConnectionManager {
    use hcm::http_connection_manager::{
        ForwardClientCertDetails, RouteSpecifier, SetCurrentClientCertDetails,
    };
    hcm::HttpConnectionManager {
        http_filters: vec![rules_filter(DENY), rules_filter(ALLOW), router()],
        forward_client_cert_details: ForwardClientCertDetails::SanitizeSet as i32,
        set_current_client_cert_details: Some(SetCurrentClientCertDetails {
            uri: true,
            ..SetCurrentClientCertDetails::default()
        }),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes(
            "inbound",
            &["*"],
            "application",
        ))),
        ..outbound_manager()
    }
}

pub fn listener(name: &str, port: u32, manager: hcm::HttpConnectionManager) -> Listener {
    Listener {
        name: name.to_owned(),
        address: Some(address("127.0.0.1", port)),
        // OUTBOUND
        traffic_direction: 2,
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: "envoy.filters.network.http_connection_manager".to_owned(),
                config_type: Some(filter::ConfigType::TypedConfig(pack_any(manager))),
            }],
            ..FilterChain::default()
        }],
        ..Listener::default()
    }
}

pub fn inbound(
    port: u32,
    manager: hcm::HttpConnectionManager,
    context: tls::DownstreamTlsContext,
) -> Listener {
    let mut listener = listener("inbound", port, manager);
    listener.traffic_direction = 1;
    listener.filter_chains[0].transport_socket = Some(transport_socket(pack_any(context)));
    listener
}

/// Rules without a policy: deny denies nothing, allow allows nothing.
pub fn rules(name: &str, action: rules::rbac::Action) -> TypedExtensionConfig {
    let rbac = Rbac {
        rules: Some(rules::Rbac {
            action: action as i32,
            ..rules::Rbac::default()
        }),
        ..Rbac::default()
    };
    TypedExtensionConfig {
        name: name.to_owned(),
        typed_config: Some(pack_any(rbac)),
    }
}

pub fn marker(commit: &str) -> TypedExtensionConfig {
    let value = Value {
        kind: Some(value::Kind::StringValue(commit.to_owned())),
    };
    let content = Struct {
        fields: [("commit".to_owned(), value)].into(),
    };
    TypedExtensionConfig {
        name: "garrison.commit".to_owned(),
        typed_config: Some(pack_any(content)),
    }
}

/// A whole client: what `garrison-proxy validate` reads.
pub fn whole() -> Vec<Any> {
    vec![
        pack_any(cluster("bookstore/catalog")),
        pack_any(application()),
        pack_any(endpoints("bookstore/catalog", &[9001, 9002])),
        pack_any(inbound(15006, inbound_manager(), downstream_tls())),
        pack_any(listener("outbound", 15001, outbound_manager())),
        pack_any(routes(
            "outbound",
            &["catalog.bookstore"],
            "bookstore/catalog",
        )),
        pack_any(rules(DENY, rules::rbac::Action::Deny)),
        pack_any(rules(ALLOW, rules::rbac::Action::Allow)),
        pack_any(marker(COMMIT)),
    ]
}
