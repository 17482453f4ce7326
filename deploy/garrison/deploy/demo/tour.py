"""What the demo suggests to try while it stands."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from garrison.deploy.demo.stage import Stage

_ONE_OF_TWO = "catalog-2"  # another of its version stands in for it


def what_to_try(stage: Stage) -> Mapping[str, str]:
    """Return commands by what they are for, ready to be pasted into a shell, one after another."""
    places = stage.places
    web = stage.instances_of("bookstore/web")[0]
    as_web = f"curl -x http://{web.outbound}"
    book = "http://catalog.bookstore/books/7"
    request = "--from bookstore/web --to bookstore/catalog --method DELETE --path /books/7"
    servers = f"--policy http://{places.policy_admin} --ca http://{places.ca_admin}"
    return {
        "first: where this demo has its files, and the command line": (
            f"DEMO={shlex.quote(str(places.directory))} GARRISON={shlex.quote(_command_line())}"
        ),
        "call as web": f"{as_web} {book}",
        "call as web what nothing allows": f"{as_web} -X DELETE {book}",
        "why is it denied?": f"$GARRISON explain $DEMO/policies {request}",
        "who denied it, in the log of the side that did": (
            "grep -h inbound/denied $DEMO/logs/catalog-*.sidecar.out | tail -n 1"
        ),
        "the shop itself, and what it was answered": f"curl http://{web.application}/",
        "who enforces what": f"$GARRISON status {servers}",
        "metrics of a sidecar": f"curl http://{web.admin}/metrics",
        "its configuration, without secrets": f"curl http://{web.admin}/config",
        "its access log": f"tail -n 3 $DEMO/logs/{web.name}.sidecar.out",
        "change the mesh: a third of the readers get the new version": (
            "(cd $DEMO/policies && sed -i s/90/20/ routes/catalog.yaml && "
            "git commit -qam rollout && git push -q)"
        ),
        "make an instance fail; whoever calls it is answered by the other": (
            f"touch $DEMO/faults/{_ONE_OF_TWO}"
        ),
        "mend it": f"rm $DEMO/faults/{_ONE_OF_TWO}",
    }


def _command_line() -> str:
    """Return the path of `garrison` as this process was started, or the one beside Python."""
    started = Path(sys.argv[0])
    if started.name != "garrison":
        started = Path(sys.executable).with_name("garrison")
    return str(started.absolute())
