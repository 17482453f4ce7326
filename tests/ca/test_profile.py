"""An SVID is exactly what X509-SVID asks for, by three opinions: here, OpenSSL's and Go's."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from garrison.ca.entries import Entitlement
from garrison.ca.keys import KeyType
from garrison.identity.peer import spiffe_id_of
from tests.ca.authorities import WEB, CaInDirectory, leaf_of, make_ca, web_order

NAMED = Entitlement(WEB, ("web.shop", "web.shop.svc"))


@pytest.fixture(scope="module", params=KeyType)
def each_ca(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CaInDirectory]:
    made = make_ca(tmp_path_factory.mktemp(request.param.value), request.param)
    yield made
    made.store.close()


def test_a_leaf_is_an_svid_and_no_more(each_ca: CaInDirectory) -> None:
    leaf = leaf_of(each_ca.issue(web_order(entitlement=NAMED)))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert leaf.subject == x509.Name([])
    assert list(names.value) == [
        x509.UniformResourceIdentifier(str(WEB)),
        x509.DNSName("web.shop"),
        x509.DNSName("web.shop.svc"),
    ]
    assert spiffe_id_of(leaf) == WEB
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.public_bytes().hex()) == (True, "03020780")
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert set(purposes.value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    assert len(leaf.extensions) == 6


def test_signing_certificates_authenticate_nobody(each_ca: CaInDirectory) -> None:
    for certificate, path_length in ((each_ca.authority.root, 1), (each_ca.authority.issuing, 0)):
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert constraints.value == x509.BasicConstraints(ca=True, path_length=path_length)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.public_bytes().hex() == "03020204"  # keyCertSign alone
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(names) == [x509.UniformResourceIdentifier("spiffe://example.org")]
        with pytest.raises(x509.ExtensionNotFound):
            extensions.get_extension_for_class(x509.NameConstraints)


def test_identifiers_point_up_the_chain(each_ca: CaInDirectory) -> None:
    leaf = leaf_of(each_ca.issue())
    for lower, upper in (
        (leaf, each_ca.authority.issuing),
        (each_ca.authority.issuing, each_ca.authority.root),
    ):
        pointer = lower.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        own = upper.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        assert pointer.key_identifier == own.digest
        lower.verify_directly_issued_by(upper)


def write_chain(ca: CaInDirectory, directory: Path) -> tuple[Path, Path, Path]:
    chain = ca.issue(web_order(entitlement=NAMED)).chain
    files = [directory / name for name in ("leaf.pem", "issuing.pem", "root.pem")]
    for file, pem in zip(files, chain, strict=True):
        file.write_text(pem)
    return files[0], files[1], files[2]


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_accepts_the_chain_strictly(
    each_ca: CaInDirectory, tmp_path: Path, purpose: str
) -> None:
    leaf, issuing, root = write_chain(each_ca, tmp_path)
    trust = ["-trusted", str(root), "-untrusted", str(issuing)]
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, *trust, str(leaf)]
    judged = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert judged.returncode == 0, judged.stderr
    wrong = ["openssl", "verify", "-x509_strict", "-trusted", str(leaf), str(issuing)]
    assert subprocess.run(wrong, capture_output=True, check=False, timeout=30).returncode != 0


GO_JUDGE = """
package main

import ("crypto/x509"; "encoding/json"; "encoding/pem"; "os"; "time")

func read(file string) *x509.Certificate {
	data, _ := os.ReadFile(file)
	block, _ := pem.Decode(data)
	found, err := x509.ParseCertificate(block.Bytes)
	if err != nil { panic(err) }
	return found
}

func main() {
	leaf, issuing, root := read(os.Args[1]), read(os.Args[2]), read(os.Args[3])
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	middle.AddCert(issuing)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle,
		CurrentTime: time.Now(), DNSName: "web.shop",
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	_, wrong := leaf.Verify(x509.VerifyOptions{Roots: middle, DNSName: "else.where"})
	uris := []string{}
	for _, each := range leaf.URIs { uris = append(uris, each.String()) }
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"ok": err == nil, "wrong": wrong == nil, "uris": uris, "ca": leaf.IsCA,
		"usage": leaf.KeyUsage, "unhandled": len(leaf.UnhandledCriticalExtensions)})
}
"""


def test_go_accepts_the_chain(each_ca: CaInDirectory, tmp_path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed")
    program = tmp_path / "judge.go"
    program.write_text(GO_JUDGE)
    files = [str(file) for file in write_chain(each_ca, tmp_path)]
    judged = subprocess.run(
        [go, "run", str(program), *files], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(judged.stdout) == {
        "ok": True,
        "wrong": False,
        "uris": [str(WEB)],
        "ca": False,
        "usage": 1,  # x509.KeyUsageDigitalSignature
        "unhandled": 0,
    }


def test_a_leaf_lives_six_hours_from_a_minute_ago(each_ca: CaInDirectory) -> None:
    leaf, now = leaf_of(each_ca.issue()), each_ca.clock()
    assert timedelta(hours=5, minutes=59) < leaf.not_valid_after_utc - now <= timedelta(hours=6)
    # A CA that is seconds old dates its leafs as far back as itself, which is a minute as well.
    assert timedelta(seconds=50) < now - leaf.not_valid_before_utc < timedelta(minutes=2)
    assert leaf.not_valid_before_utc >= each_ca.authority.issuing.not_valid_before_utc
