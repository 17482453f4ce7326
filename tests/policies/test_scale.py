"""A large mesh: compiled in seconds, and each identity still gets only what it may call."""

import time

from garrison.policies.acceptance import BINDING, identities_of
from garrison.policies.commit_files import CommitFiles
from garrison.policies.compilation import compile_commit
from garrison.policies.snapshot import CLUSTER, ROUTES
from tests.policies.bookstore import COMMIT
from tests.policies.large_mesh import LINES, NAMESPACES, SERVICES, large_mesh

CPU_SECONDS = 60.0  # catches a quadratic pass; 2.6 to compile and 1.9 for all views on idle cores


def test_a_thousand_services_and_ten_thousand_lines() -> None:
    files = CommitFiles(COMMIT, large_mesh())
    start = time.process_time()
    snapshot = compile_commit(files)
    identities = identities_of(snapshot)
    views = [snapshot.view_for(each, BINDING, "garrison-proxy") for each in identities]
    assert time.process_time() - start < CPU_SECONDS
    assert len(views) == NAMESPACES * SERVICES
    for view in views:
        assert len(view.resources[CLUSTER]) == LINES + 1  # and the application
        assert len(view.resources[ROUTES]["outbound"].body) < LINES * 1000
