//! Endpoints (`envoy.config.endpoint.v3.ClusterLoadAssignment`).

use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use envoy_types::pb::envoy::config::endpoint::v3 as pb;

use super::{Fault, non_empty, required, socket_address, take, uint};
use crate::mesh::Endpoint;

/// The endpoints of one cluster, under the name by which the cluster asks for them.
pub fn assignment(
    assignment: pb::ClusterLoadAssignment,
) -> Result<(String, Box<[Endpoint]>), Fault> {
    take!(assignment, "ClusterLoadAssignment" => pb::ClusterLoadAssignment { cluster_name, endpoints } unsupported {
        named_endpoints, policy
    });
    let name = non_empty(cluster_name, "ClusterLoadAssignment.cluster_name")?;
    if endpoints.len() > 1 {
        return Err(Fault::invalid(
            "ClusterLoadAssignment.endpoints",
            "has more than one locality",
        ));
    }
    let mut found = Vec::new();
    for locality in endpoints {
        take!(locality, "LocalityLbEndpoints" => pb::LocalityLbEndpoints {
            locality, lb_endpoints, load_balancing_weight
        } unsupported { metadata, priority, proximity, lb_config });
        // With one locality, where it is and its weight decide nothing.
        let _ = (locality, load_balancing_weight);
        for endpoint in lb_endpoints {
            found.push(self::endpoint(endpoint)?);
        }
    }
    Ok((name, found.into()))
}

fn endpoint(endpoint: pb::LbEndpoint) -> Result<Endpoint, Fault> {
    take!(endpoint, "LbEndpoint" => pb::LbEndpoint { health_status, load_balancing_weight, host_identifier }
        unsupported { metadata });
    let endpoint = match required(host_identifier, "LbEndpoint.endpoint")? {
        pb::lb_endpoint::HostIdentifier::Endpoint(endpoint) => endpoint,
        pb::lb_endpoint::HostIdentifier::EndpointName(_) => {
            return Err(Fault::Unsupported("LbEndpoint.endpoint_name".to_owned()));
        }
    };
    take!(endpoint, "Endpoint" => pb::Endpoint { address } unsupported {
        health_check_config, hostname, additional_addresses, observability_name
    });
    let weight = uint(load_balancing_weight, 1);
    if weight == 0 {
        return Err(Fault::invalid(
            "LbEndpoint.load_balancing_weight",
            "must be more than 0",
        ));
    }
    Ok(Endpoint {
        address: socket_address(address)?,
        weight,
        healthy: is_healthy(health_status)?,
    })
}

fn is_healthy(status: i32) -> Result<bool, Fault> {
    match HealthStatus::try_from(status) {
        Ok(HealthStatus::Unknown | HealthStatus::Healthy | HealthStatus::Degraded) => Ok(true),
        Ok(HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout) => Ok(false),
        Err(_) => Err(Fault::invalid(
            "LbEndpoint.health_status",
            format!("{status} is not known"),
        )),
    }
}
