//! Which route a request takes: virtual host by authority, then the first route whose matches all hold.
//!
//! A header or query parameter that occurs more than once matches only if each of its values does, on its own; values
//! are never joined. A header that is absent matches an inverted match only.

use http::HeaderMap;
use std::sync::Arc;

use super::route::{
    HeaderMatch, PathMatch, QueryMatch, Route, RouteMatch, RouteTable, ValueMatch, VirtualHost,
    WeightedCluster,
};
use crate::http::canonical::CanonicalRequest;

/// The port that `http` means when none is named (RFC 9110 §4.2.1).
const HTTP_PORT: u16 = 80;

/// Why no route was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    /// No virtual host has this authority.
    UnknownHost,
    /// The virtual host has no route that matches.
    NoMatch,
}

impl RouteTable {
    pub fn find(&self, request: &CanonicalRequest) -> Result<&Arc<Route>, NoRoute> {
        let host = self
            .virtual_host(&request.host, request.port)
            .ok_or(NoRoute::UnknownHost)?;
        host.routes
            .iter()
            .find(|route| route.matcher.matches(request))
            .ok_or(NoRoute::NoMatch)
    }

    fn virtual_host(&self, host: &str, port: Option<u16>) -> Option<&VirtualHost> {
        let named = match port {
            None => self.by_domain.get(host),
            Some(port) => {
                let exact = self.by_domain.get(format!("{host}:{port}").as_str());
                exact.or_else(|| {
                    (port == HTTP_PORT)
                        .then(|| self.by_domain.get(host))
                        .flatten()
                })
            }
        };
        self.virtual_hosts.get(named.copied().or(self.any_domain)?)
    }
}

impl RouteMatch {
    pub fn matches(&self, request: &CanonicalRequest) -> bool {
        self.path.matches(&request.path)
            && self
                .methods
                .as_ref()
                .is_none_or(|methods| methods.contains(&request.method))
            && self
                .headers
                .iter()
                .all(|header| header.matches(&request.headers))
            && self
                .query
                .iter()
                .all(|query| query.matches(request.query.as_deref()))
    }
}

impl PathMatch {
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *path,
            Self::Prefix(prefix) => path.starts_with(&**prefix),
            Self::SegmentPrefix(prefix) => path.strip_prefix(&**prefix).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')
            }),
            Self::Regex(regex) => matches_whole(regex, path),
        }
    }
}

impl HeaderMatch {
    fn matches(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter().peekable();
        if values.peek().is_none() {
            return self.invert;
        }
        values.all(|value| {
            value
                .to_str()
                .is_ok_and(|text| self.value.matches(text) != self.invert)
        })
    }
}

impl QueryMatch {
    fn matches(&self, query: Option<&str>) -> bool {
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut values = pairs
            .filter(|(name, _)| *name == &*self.name)
            .map(|(_, value)| value)
            .peekable();
        values.peek().is_some() && values.all(|value| self.value.matches(value))
    }
}

impl ValueMatch {
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(exact) => **exact == *value,
            Self::Prefix(prefix) => value.starts_with(&**prefix),
            Self::Suffix(suffix) => value.ends_with(&**suffix),
            Self::Contains(part) => value.contains(&**part),
            Self::Regex(regex) => matches_whole(regex, value),
        }
    }
}

/// The decoder compiled it anchored (`^(?:…)$`); that the match is the whole text is checked here again, because a
/// regex that matches a part only would send a request elsewhere.
fn matches_whole(regex: &regex::Regex, text: &str) -> bool {
    regex
        .find(text)
        .is_some_and(|found| found.start() == 0 && found.end() == text.len())
}

/// The cluster on which `draw`, a number below the sum of the weights, falls.
pub fn pick_weighted(clusters: &[WeightedCluster], draw: u64) -> Option<&WeightedCluster> {
    let mut left = draw;
    clusters.iter().find(|cluster| {
        let weight = u64::from(cluster.weight);
        let is_hit = left < weight;
        left = left.saturating_sub(weight);
        is_hit
    })
}

pub fn total_weight(clusters: &[WeightedCluster]) -> u64 {
    clusters
        .iter()
        .map(|cluster| u64::from(cluster.weight))
        .sum()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use http::{HeaderName, HeaderValue, Method};
    use regex::Regex;

    use super::super::route::Action;
    use super::*;

    fn request(
        host: &str,
        port: Option<u16>,
        path: &str,
        headers: &[(&'static str, &'static str)],
    ) -> CanonicalRequest {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(path, query)| (path, Some(query.into())));
        CanonicalRequest {
            method: Method::GET,
            host: host.into(),
            port,
            path: path.into(),
            query,
            headers: map,
        }
    }

    fn matcher(path: PathMatch) -> RouteMatch {
        RouteMatch {
            path,
            methods: None,
            headers: Box::default(),
            query: Box::default(),
        }
    }

    fn table(
        domains: &[(&str, usize)],
        any_domain: Option<usize>,
        matchers: Vec<RouteMatch>,
    ) -> RouteTable {
        let host = |index: usize, matcher| VirtualHost {
            name: format!("h{index}").into(),
            routes: vec![Arc::new(Route {
                name: format!("r{index}").into(),
                matcher,
                action: Action::Respond {
                    status: http::StatusCode::OK,
                    body: "".into(),
                },
            })],
        };
        RouteTable {
            name: "outbound".into(),
            by_domain: domains
                .iter()
                .map(|&(domain, index)| (domain.into(), index))
                .collect::<HashMap<_, _>>(),
            any_domain,
            virtual_hosts: matchers
                .into_iter()
                .enumerate()
                .map(|(index, matcher)| host(index, matcher))
                .collect(),
        }
    }

    fn all() -> RouteMatch {
        matcher(PathMatch::Prefix("/".into()))
    }

    #[test]
    fn the_host_is_chosen_by_authority() {
        let table = table(&[("a.b", 0), ("a.b:8080", 1)], None, vec![all(), all()]);
        let found = |host, port| {
            table
                .find(&request(host, port, "/", &[]))
                .map(|route| route.name.to_string())
        };
        assert_eq!(found("a.b", None), Ok("r0".into()));
        assert_eq!(found("a.b", Some(80)), Ok("r0".into()));
        assert_eq!(found("a.b", Some(8080)), Ok("r1".into()));
        assert_eq!(found("a.b", Some(8081)), Err(NoRoute::UnknownHost));
        assert_eq!(found("b.a", None), Err(NoRoute::UnknownHost));
    }

    #[test]
    fn a_single_service_takes_any_host() {
        let table = table(&[], Some(0), vec![matcher(PathMatch::Exact("/x".into()))]);
        assert!(table.find(&request("whatever", Some(1), "/x", &[])).is_ok());
        assert_eq!(
            table
                .find(&request("whatever", None, "/y", &[]))
                .unwrap_err(),
            NoRoute::NoMatch
        );
    }

    #[test]
    fn paths_match_by_their_kind() {
        assert!(
            PathMatch::Exact("/a".into()).matches("/a")
                && !PathMatch::Exact("/a".into()).matches("/a/")
        );
        assert!(PathMatch::Prefix("/a".into()).matches("/ab"));
        let segments = PathMatch::SegmentPrefix("/a".into());
        assert!(segments.matches("/a") && segments.matches("/a/b") && !segments.matches("/ab"));
        let regex = PathMatch::Regex(Regex::new("/a|/abc").unwrap());
        assert!(regex.matches("/a") && !regex.matches("/ab") && !regex.matches("x/a"));
    }

    #[test]
    fn each_value_of_a_header_is_matched_on_its_own() {
        let with = |value, invert| {
            let header = HeaderMatch {
                name: HeaderName::from_static("x-v"),
                value,
                invert,
            };
            move |values: &[&'static str]| {
                let pairs: Vec<_> = values.iter().map(|value| ("x-v", *value)).collect();
                header.matches(&request("a", None, "/", &pairs).headers)
            }
        };
        let two = with(ValueMatch::Exact("2".into()), false);
        assert!(
            two(&["2"]) && two(&["2", "2"]) && !two(&["2", "1"]) && !two(&["1", "2"]) && !two(&[])
        );
        assert!(!two(&["2,2"]));
        let not_two = with(ValueMatch::Exact("2".into()), true);
        assert!(not_two(&["1"]) && not_two(&[]) && !not_two(&["1", "2"]));
        let absent = with(ValueMatch::Present, true);
        assert!(absent(&[]) && !absent(&["1"]));
    }

    #[test]
    fn query_parameters_match_by_name_and_value() {
        let query = QueryMatch {
            name: "v".into(),
            value: ValueMatch::Exact("2".into()),
        };
        assert!(
            query.matches(Some("a=1&v=2")) && !query.matches(Some("v=1")) && !query.matches(None)
        );
        assert!(!query.matches(Some("v=2&v=1")) && !query.matches(Some("vv=2")));
    }

    #[test]
    fn weights_are_proportions() {
        let cluster = |name: &str, weight| WeightedCluster {
            name: name.into(),
            weight,
        };
        let clusters = [cluster("a", 90), cluster("none", 0), cluster("b", 10)];
        let picked: Vec<_> = (0..total_weight(&clusters))
            .filter_map(|draw| pick_weighted(&clusters, draw))
            .collect();
        let count = |name: &str| {
            picked
                .iter()
                .filter(|cluster| &*cluster.name == name)
                .count()
        };
        assert_eq!((count("a"), count("none"), count("b")), (90, 0, 10));
        assert!(pick_weighted(&clusters, 100).is_none());
    }
}
