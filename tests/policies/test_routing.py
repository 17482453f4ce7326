"""What `explain` says of routes is what the compiled ones do."""

import pytest

from garrison.policies.resources.fields import Name
from garrison.policies.routing import RoutedRequest, route
from tests.policies.test_validation import mesh_of
from tests.policies.test_validation import route as route_text

ORDERS = Name("bookstore", "orders")


def met(matches: list[str], request: RoutedRequest) -> str | None:
    """Return the number of the match that a request meets."""
    rules = ",".join(
        f"{{name: r{number}, backendRefs: [{{name: orders}}], matches: [{match}]}}"
        for number, match in enumerate(matches)
    )
    found = route(mesh_of({"x.yaml": route_text("r", rules)}), ORDERS, request)
    return found.name.rpartition("#r")[2] if found else None


@pytest.mark.parametrize(
    ("match", "path", "is_met"),
    [
        ("{}", "/anything", True),
        ("{path: {value: /a}}", "/a", True),
        ("{path: {value: /a}}", "/a/", True),
        ("{path: {value: /a}}", "/a/b", True),
        ("{path: {value: /a/}}", "/a", True),
        ("{path: {value: /a}}", "/ab", False),
        ("{path: {type: Exact, value: /a}}", "/a", True),
        ("{path: {type: Exact, value: /a}}", "/a/", False),
        ("{path: {type: RegularExpression, value: '/a|/b'}}", "/b", True),
        ("{path: {type: RegularExpression, value: '/a|/b'}}", "/bc", False),
        ("{path: {type: RegularExpression, value: '/a|/b'}}", "/x/b", False),
    ],
)
def test_paths(match: str, path: str, is_met: bool) -> None:  # noqa: FBT001 -- a table
    assert (met([match], RoutedRequest("GET", path)) is not None) == is_met


@pytest.mark.parametrize(
    ("query", "is_met"),
    [
        ("q=1", True),
        ("a=2&q=1", True),
        ("q=1&q=1", True),
        ("q=1&q=2", False),
        ("q=11", False),
        ("q", False),
        ("Q=1", False),
        (None, False),
    ],
)
def test_query_parameters(query: str | None, is_met: bool) -> None:  # noqa: FBT001 -- a table
    request = RoutedRequest("GET", "/", query)
    assert (met(["{queryParams: [{name: q, value: '1'}]}"], request) is not None) == is_met


def test_headers_and_methods() -> None:
    matches = ["{headers: [{name: X-A, type: RegularExpression, value: 'a+'}]}", "{method: PUT}"]
    assert met(matches, RoutedRequest("GET", "/", None, {"x-a": "aa"})) == "0"
    assert met(matches, RoutedRequest("GET", "/", None, {"x-a": "ab"})) is None
    assert met(matches, RoutedRequest("PUT", "/")) == "1"


def test_the_most_specific_rule_is_met_whatever_its_place() -> None:
    matches = ["{}", "{path: {value: /a}}", "{path: {value: /a/b}}", "{method: GET}"]
    assert met(matches, RoutedRequest("GET", "/a/b/c")) == "2"
    assert met(matches, RoutedRequest("GET", "/x")) == "3"
    assert met(matches, RoutedRequest("PUT", "/x")) == "0"


def test_a_service_without_a_route_has_its_default() -> None:
    found = route(mesh_of({}), ORDERS, RoutedRequest("GET", "/"))
    assert found is not None
    assert (found.name, found.rule) == ("bookstore/orders#default", None)
    assert [str(backend.service) for backend in found.backends] == ["bookstore/orders"]
