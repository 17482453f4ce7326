//! What makes a certificate an SVID, and each thing that does not (X509-SVID §5.2).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test may

mod support;

use std::time::{Duration, SystemTime};

use garrison_proxy::identity::spiffe_id::SpiffeIdError;
use garrison_proxy::identity::svid::{Presented, Refusal, Verified, verify};
use proptest::prelude::*;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use support::{Authority, CATALOG, Leaf, TRUST_DOMAIN, leaf_params, uri};

fn check(authority: &Authority, leaf: &Leaf) -> Result<Verified, Refusal> {
    let (first, rest) = leaf.chain.split_first().unwrap();
    verify(
        first,
        rest,
        Presented::ByClient,
        &authority.bundles(),
        UnixTime::now(),
    )
}

fn refusal(change: impl FnOnce(&mut CertificateParams)) -> Refusal {
    let authority = Authority::new(TRUST_DOMAIN);
    let mut params = leaf_params(CATALOG);
    change(&mut params);
    check(&authority, &authority.sign(&params)).unwrap_err()
}

#[test]
fn right_svid_is_accepted_in_both_roles() {
    let authority = Authority::new(TRUST_DOMAIN);
    let leaf = authority.sign(&leaf_params(CATALOG));
    for presented in [Presented::ByClient, Presented::ByServer] {
        let (first, rest) = leaf.chain.split_first().unwrap();
        let bundles = authority.bundles();
        let verified = verify(first, rest, presented, &bundles, UnixTime::now()).unwrap();
        assert_eq!(verified.id.as_str(), CATALOG);
        assert!(verified.not_before < SystemTime::now() && SystemTime::now() < verified.not_after);
    }
}

#[test]
fn other_kinds_of_name_beside_the_uri_are_no_identity() {
    let authority = Authority::new(TRUST_DOMAIN);
    let mut params = leaf_params(CATALOG);
    let name = Ia5String::try_from("catalog.bookstore".to_owned()).unwrap();
    params.subject_alt_names.push(SanType::DnsName(name));
    assert_eq!(
        check(&authority, &authority.sign(&params))
            .unwrap()
            .id
            .as_str(),
        CATALOG
    );
}

#[test]
fn attack_e1_two_uri_names_are_refused() {
    let two = refusal(|params| params.subject_alt_names.push(uri(support::WEB)));
    assert_eq!(two, Refusal::UriNames(2));
    let same_twice = refusal(|params| params.subject_alt_names.push(uri(CATALOG)));
    assert_eq!(same_twice, Refusal::UriNames(2));
}

#[test]
fn attack_e2_no_spiffe_id_of_a_workload_is_refused() {
    assert_eq!(
        refusal(|params| params.subject_alt_names.clear()),
        Refusal::UriNames(0)
    );
    for (name, reason) in [
        ("https://bookstore.example/x", SpiffeIdError::Scheme),
        ("spiffe://bookstore.example", SpiffeIdError::NoPath),
        ("spiffe://bookstore.example/", SpiffeIdError::EmptySegment),
        (
            "spiffe://bookstore.example/a/../b",
            SpiffeIdError::DotSegment,
        ),
        (
            "spiffe://bookstore.example/a%2fb",
            SpiffeIdError::PathCharacter,
        ),
        ("spiffe://Bookstore.example/a", SpiffeIdError::TrustDomain),
    ] {
        let refusal = refusal(|params| params.subject_alt_names = vec![uri(name)]);
        assert_eq!(refusal, Refusal::SpiffeId(reason), "{name}");
    }
}

#[test]
fn attack_e3_ca_as_leaf_is_refused() {
    let ca = refusal(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(ca, Refusal::CaAsLeaf);
    let signing = refusal(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign));
    assert_eq!(signing, Refusal::CaAsLeaf);
    let crl = refusal(|params| params.key_usages.push(KeyUsagePurpose::CrlSign));
    assert_eq!(crl, Refusal::KeyUsage);
    assert_eq!(
        refusal(|params| params.key_usages.clear()),
        Refusal::KeyUsage
    );
    let encipherment = refusal(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    assert_eq!(encipherment, Refusal::KeyUsage);
}

#[test]
fn attack_e5_svid_of_another_trust_domain_needs_that_domains_root() {
    let authority = Authority::new(TRUST_DOMAIN);
    // Signed by our root, but of a trust domain whose bundle we have not.
    let foreign = authority.sign(&leaf_params("spiffe://other.example/a"));
    let refusal = check(&authority, &foreign).unwrap_err();
    assert_eq!(refusal, Refusal::NoBundle("other.example".into()));
    // And whose bundle we have: it is verified by that one, not by ours.
    let other = Authority::new("other.example");
    let mut bundles = authority.bundles();
    let roots = other.bundles().get(&other.trust_domain).unwrap().clone();
    bundles.insert(other.trust_domain.clone(), roots);
    let (first, rest) = foreign.chain.split_first().unwrap();
    let refusal = verify(first, rest, Presented::ByClient, &bundles, UnixTime::now()).unwrap_err();
    assert!(matches!(refusal, Refusal::Chain(_)), "{refusal:?}");
    let own = other.sign(&leaf_params("spiffe://other.example/a"));
    let (first, rest) = own.chain.split_first().unwrap();
    assert!(verify(first, rest, Presented::ByClient, &bundles, UnixTime::now()).is_ok());
}

#[test]
fn foreign_root_of_the_same_name_is_refused() {
    let authority = Authority::new(TRUST_DOMAIN);
    let forged = Authority::new(TRUST_DOMAIN).sign(&leaf_params(CATALOG));
    let refusal = check(&authority, &forged).unwrap_err();
    assert!(matches!(refusal, Refusal::Chain(_)), "{refusal:?}");
}

#[test]
fn attack_e7_uri_name_constraints_are_refused() {
    let authority = Authority::new(TRUST_DOMAIN);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::IpAddress(CidrSubnet::V4(
            [10, 0, 0, 0],
            [255, 0, 0, 0],
        ))],
        excluded_subtrees: Vec::new(),
    });
    let key = KeyPair::generate().unwrap();
    let issuing = CertifiedIssuer::signed_by(params, key, &authority.root).unwrap();
    let mut leaf = leaf_params(CATALOG);
    leaf.subject_alt_names
        .push(SanType::IpAddress([127, 0, 0, 1].into()));
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &issuing).unwrap();
    let chain = vec![certificate.der().clone(), issuing.der().clone()];
    let refusal = check(&authority, &Leaf { chain, key }).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::Chain(webpki::Error::NameConstraintViolation)
    );
}

#[test]
fn attack_e8_one_sided_extended_key_usage_is_refused() {
    for only in [
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ] {
        let refusal = refusal(|params| params.extended_key_usages = vec![only]);
        assert_eq!(refusal, Refusal::ExtendedKeyUsage);
    }
}

#[test]
fn attack_e9_expired_and_future_svids_are_refused() {
    let now = SystemTime::now();
    let expired = refusal(|params| {
        params.not_before = (now - Duration::from_secs(100)).into();
        params.not_after = (now - Duration::from_secs(2)).into();
    });
    assert_eq!(expired, Refusal::Expired);
    let future = refusal(|params| params.not_before = (now + Duration::from_secs(100)).into());
    assert_eq!(future, Refusal::NotYetValid);
}

#[test]
fn attack_e10_long_chains_are_refused_before_they_are_verified() {
    let authority = Authority::new(TRUST_DOMAIN);
    let mut leaf = authority.sign(&leaf_params(CATALOG));
    while leaf.chain.len() < 6 {
        leaf.chain.push(authority.issuing.der().clone());
    }
    assert_eq!(check(&authority, &leaf).unwrap_err(), Refusal::ChainTooLong);
}

#[test]
fn issuer_that_may_not_sign_is_refused() {
    let authority = Authority::new(TRUST_DOMAIN);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().unwrap();
    let issuing = CertifiedIssuer::signed_by(params, key, &authority.root).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = leaf_params(CATALOG).signed_by(&key, &issuing).unwrap();
    let chain = vec![certificate.der().clone(), issuing.der().clone()];
    assert_eq!(
        check(&authority, &Leaf { chain, key }).unwrap_err(),
        Refusal::Issuer
    );
}

#[test]
fn workload_may_not_issue_for_another() {
    let authority = Authority::new(TRUST_DOMAIN);
    let workload = CertifiedIssuer::signed_by(
        leaf_params(support::WEB),
        KeyPair::generate().unwrap(),
        &authority.issuing,
    )
    .unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = leaf_params(CATALOG).signed_by(&key, &workload).unwrap();
    let chain = vec![
        certificate.der().clone(),
        workload.der().clone(),
        authority.issuing.der().clone(),
    ];
    assert_eq!(
        check(&authority, &Leaf { chain, key }).unwrap_err(),
        Refusal::Issuer
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_panic_and_no_damage_goes_unseen(position in any::<prop::sample::Index>(), bit in 0..8_u8, junk in any::<Vec<u8>>()) {
        let authority = Authority::new(TRUST_DOMAIN);
        let leaf = authority.sign(&leaf_params(CATALOG));
        let mut damaged = leaf.chain[0].to_vec();
        let length = damaged.len();
        damaged[position.index(length)] ^= 1 << bit;
        for der in [damaged, junk] {
            let chain = vec![CertificateDer::from(der), leaf.chain[1].clone()];
            let refused = check(&authority, &Leaf { chain, key: KeyPair::generate().unwrap() });
            prop_assert!(refused.is_err());
        }
    }
}
