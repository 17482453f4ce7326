"""What the demo suggests to try while it stands."""

from __future__ import annotations

import sys

from garrison.deploy.demo.stage import Stage

_GARRISON = sys.argv[0] if sys.argv[0].endswith("garrison") else "garrison"
_LAST = "catalog-3"  # the instance of the new version


def what_to_try(stage: Stage) -> str:
    """Return commands and addresses, ready to be pasted."""
    places = stage.places
    web = stage.instances_of("bookstore/web")[0]
    request = "--from bookstore/web --to bookstore/catalog --method DELETE --path /books/7"
    as_web = f"curl -x http://{web.outbound}"
    commands = {
        "the files of this demo, for what follows": f"DEMO={places.directory}",
        "call as web": f"{as_web} http://catalog.bookstore/books/7",
        "call as web what nothing allows": f"{as_web} -X DELETE http://catalog.bookstore/books/7",
        "why it is denied": f"{_GARRISON} explain $DEMO/policies {request}",
        "see the shop itself": f"curl http://{web.application}/",
        "who enforces what": f"{_GARRISON} status --policy http://{places.policy_admin} "
        f"--ca http://{places.ca_admin}",
        "metrics and configuration of a sidecar": f"curl http://{web.admin}/metrics "
        f"http://{web.admin}/config",
        "its access log": f"tail -f $DEMO/logs/{web.name}.sidecar.out",
        "change the mesh": "cd $DEMO/policies, edit, git commit -a, git push",
        "make an instance fail": f"touch $DEMO/faults/{_LAST}, and rm it again",
        "join a service of your own": "see README.md and $DEMO/join",
    }
    lines = (f"  # {purpose}\n  {command}\n" for purpose, command in commands.items())
    return "\nThe mesh runs, until Ctrl-C. In another terminal:\n\n" + "\n".join(lines)
