"""What the demo suggests to try while it stands."""

from __future__ import annotations

from garrison.deploy.demo.stage import Stage


def what_to_try(stage: Stage) -> str:
    """Return commands and addresses, ready to be pasted."""
    web = stage.instances_of("bookstore/web")[0]
    clone = stage.policies.clone
    identity = f"spiffe://{stage.population.trust_domain}/ns/bookstore/sa/web"
    return f"""
The mesh runs. In another terminal:

  a call as web                curl -x http://{web.outbound} http://catalog.bookstore/books/7
  one that nothing allows      curl -x http://{web.outbound} -X DELETE http://catalog.bookstore/books/7
  web itself                   curl http://{web.application}/
  who enforces what            garrison status --policy http://{stage.places.policy_admin} \\
                                 --ca http://{stage.places.ca_admin}
  why                          garrison explain {clone} --from {identity} \\
                                 --to bookstore/catalog --method DELETE --path /books/7
  metrics of a sidecar         curl http://{web.admin}/metrics
  its access log               tail -f {stage.places.output(web.name + ".sidecar")}
  change the mesh              cd {clone}, edit, git commit -a, git push

Ctrl-C ends all of it.
"""
