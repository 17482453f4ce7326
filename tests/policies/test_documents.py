"""YAML is read without being trusted, and keeps its lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.policies.diagnostics import Diagnostics
from garrison.policies.resources.documents import Document, parse_documents


def parse(text: str) -> tuple[tuple[Document, ...], list[str]]:
    diagnostics = Diagnostics()
    documents = parse_documents("file.yaml", text, diagnostics)
    return documents, [f"{each.code}@{each.place.line}" for each in diagnostics]


def test_values_and_lines_of_several_documents() -> None:
    documents, found = parse("---\n---\na: 1\nb:\n  - c: text\n---\nd: true\n")
    assert found == []
    assert [document.value for document in documents] == [
        {"a": 1, "b": ({"c": "text"},)},
        {"d": True},
    ]
    assert documents[0].place(("b", 0, "c")).line == 5
    assert documents[1].place(("d",)).line == 7


def test_an_absent_field_has_the_line_of_what_should_hold_it() -> None:
    ((document,), _) = parse("a: 1\nb:\n  c: 1\n")
    place = document.place(("b", "x", 0))
    assert (place.line, place.field) == (2, "b.x[0]")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x: no", "no"),
        ("x: 010", "010"),
        ("x: 1:30", "1:30"),
        ("x: 2026-11-23", "2026-11-23"),
        ("x: '1'", "1"),
        ("x: 1", 1),
        ("x: -1.5", -1.5),
        ("x: false", False),
        ("x: null", None),
        ("x:", None),
    ],
)
def test_plain_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    ((document,), found) = parse(text)
    assert found == []
    assert document.value == {"x": value}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1\na: 2", ["yaml/duplicate-key@2"]),
        ("a: &x 1\nb: *x", ["yaml/alias@1"]),
        ("a: !!python/object:os.system x", ["yaml/tag@1"]),
        ("a: [1, 2", ["yaml/syntax@2"]),
        ("a: {b: c: d}", ["yaml/syntax@1"]),
        ("? [a, b]\n: c", ["yaml/key@1"]),
        ("a:\n" + "- " * 60 + "x", ["yaml/size@2"]),
        ("\x01", ["yaml/syntax@0"]),
    ],
)
def test_what_is_refused(text: str, found: list[str]) -> None:
    assert parse(text) == ((), found)


def test_nothing_of_a_file_with_a_finding_is_used() -> None:
    assert parse("a: 1\n---\nb: 1\nb: 2\n")[0] == ()


@given(st.text(alphabet=st.sampled_from("ab:-?[]{}&*!|>'\"#,\n \t\\%@~0.1"), max_size=60))
def test_junk_is_a_finding_and_never_a_traceback(text: str) -> None:
    documents, found = parse(text)
    assert not (documents and found)
