"""Whatever is in a repository, a commit is a snapshot or findings, and never a traceback."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.policies.commit_files import CommitFiles
from garrison.policies.compilation import compile_commit
from garrison.policies.diagnostics import MAX_DIAGNOSTICS, Diagnostic
from garrison.policies.errors import CommitRefusedError
from tests.policies.bookstore import COMMIT, example_texts, example_with
from tests.policies.test_validation import example

TEXTS = example_texts()


def refused(changes: dict[str, str | None]) -> CommitRefusedError:
    with pytest.raises(CommitRefusedError) as raised:
        compile_commit(example_with(changes))
    return raised.value


def test_findings_of_all_files_are_told_at_once() -> None:
    error = refused(
        {
            **example("services/web.yaml", "port: 80 ", "port: 0 "),
            **example("routes/catalog.yaml", "90", "-1"),
            **example("traffic/catalog.yaml", "LeastLatency", "Fastest"),
        }
    )
    assert [each.place.file for each in error.diagnostics] == [
        "routes/catalog.yaml",
        "services/web.yaml",
        "traffic/catalog.yaml",
    ]
    assert "routes/catalog.yaml:19: spec.rules[0].backendRefs[0].weight" in str(error)


def test_what_only_follows_from_another_finding_is_not_told() -> None:
    error = refused(example("services/orders.yaml", "protocol: http", "protocol: smtp"))
    assert [each.code for each in error.diagnostics] == ["resource/field"]


def test_what_does_not_follow_is_told_beside_it() -> None:
    backend = "        - {name: payments}\n      timeouts"
    error = refused(
        {
            **example("services/orders.yaml", "protocol: http", "protocol: smtp"),
            **example("routes/payments.yaml", backend, backend.replace("}", ", weight: 0}")),
        }
    )
    assert {each.code for each in error.diagnostics} == {"resource/field", "route/no-weight"}


def test_findings_of_authorization_are_told_with_those_of_files() -> None:
    files = example_with({"authz/x.csv": "p, alow, a/b, c/d, GET, /x\n"})
    with pytest.raises(CommitRefusedError) as raised:
        compile_commit(files)
    assert {each.place.file for each in raised.value.diagnostics} == {"authz/x.csv"}


def test_an_empty_commit_says_what_is_missing() -> None:
    with pytest.raises(CommitRefusedError, match=r"mesh.yaml: the repository has no Mesh"):
        compile_commit(CommitFiles(COMMIT, {}))


def test_findings_are_bounded() -> None:
    texts = {f"x{number}.yaml": "kind: Nothing" for number in range(MAX_DIAGNOSTICS + 10)}
    error = refused(dict(texts))
    assert len(error.diagnostics) == MAX_DIAGNOSTICS
    assert error.total == MAX_DIAGNOSTICS + 10
    assert str(error).endswith("and 10 more")


LINES = st.sampled_from(sorted({line for text in TEXTS.values() for line in text.splitlines()}))
JUNK = st.text("[]{}:,-#'\" ab/*!&", max_size=12)


def findings(texts: dict[str, str | None]) -> tuple[Diagnostic, ...]:
    try:
        assert compile_commit(example_with(texts)).commit == COMMIT
    except CommitRefusedError as error:
        return error.diagnostics
    return ()


@settings(max_examples=150)
@given(st.data())
def test_any_edit_of_the_example_compiles_or_is_refused(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(TEXTS)))
    lines = TEXTS[path].splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(lines) - 1)))
        replacement = data.draw(st.lists(LINES | JUNK, max_size=2))
        lines[at : at + data.draw(st.integers(0, 2))] = replacement
    for finding in findings({path: "\n".join(lines)}):
        assert finding.reason
        assert finding.remedy
