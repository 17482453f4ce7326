"""Authorization of a commit: hands the files to `garrison.authz`, and its findings back as ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from garrison import authz
from garrison.identity.spiffe_id import namespace_and_account
from garrison.policies.catalogue import Catalogue
from garrison.policies.diagnostics import Diagnostics, Place
from garrison.policies.mesh import Mesh

MODEL = "authz/model.conf"
_POLICY = re.compile(r"authz/[^/]*\.csv")


def compile_rules(
    texts: Mapping[str, str], mesh: Mesh, catalogue: Catalogue, diagnostics: Diagnostics
) -> authz.Compiled | None:
    """Compile the rules of every service that is carried; None, with findings, if refused."""
    if MODEL not in texts:
        remedy = "add it; policies/examples/bookstore has the default model"
        diagnostics.add(Place(MODEL), "authz/no-model", "there is no model", remedy)
        return None
    carried = [str(s.name) for s in mesh.services.values() if s.is_carried and not s.is_version]
    principals = {str(namespace_and_account(entry.spiffe_id)) for entry in mesh.entries}
    try:
        compiled = authz.compile_authorization(
            _sources(texts), mesh.trust_domain.name, carried, sorted(principals)
        )
    except authz.AuthorizationRefusedError as error:
        _report(error.diagnostics, texts, catalogue, diagnostics)
        return None
    _report(compiled.findings, texts, catalogue, diagnostics)
    return compiled


def _sources(texts: Mapping[str, str]) -> authz.AuthorizationSources:
    return authz.AuthorizationSources(
        authz.SourceFile(MODEL, texts[MODEL]),
        tuple(authz.SourceFile(path, texts[path]) for path in sorted(texts) if _POLICY.match(path)),
    )


def _report(
    found: Iterable[authz.Diagnostic],
    texts: Mapping[str, str],
    catalogue: Catalogue,
    diagnostics: Diagnostics,
) -> None:
    opaque = {
        str(name): service.place("spec", "protocol")
        for name, service in catalogue.own_services()
        if service.value.spec.protocol == "tcp"
    }
    lines = {path: text.splitlines() for path, text in texts.items() if path.startswith("authz/")}
    for each in found:
        place = Place(each.file, each.line, f"column {each.column}" if each.column > 1 else "")
        line = lines.get(each.file, [])[each.line - 1 : each.line]
        named = opaque.keys() & {word.strip() for text in line for word in text.split(",")}
        for name in sorted(named):
            diagnostics.add(
                place,
                "authz/opaque-service",
                f"{name} is declared tcp at {opaque[name]}: it has no methods and paths",
                "remove the line, or declare http, http2 or grpc there",
            )
        if not named:
            diagnostics.add(place, _code(each.code), each.reason, each.remedy)


def _code(code: str) -> str:
    return code if "/" in code else f"authz/{code}"
