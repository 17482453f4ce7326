"""The kinds of resource files, and how a file becomes frozen values that know their lines."""

from garrison.policies.resources.documents import Document, Path
from garrison.policies.resources.http_route import HTTPRoute
from garrison.policies.resources.mesh import Mesh
from garrison.policies.resources.parse import KINDS, Placed, Resource, parse_resources
from garrison.policies.resources.registration import RegistrationEntry
from garrison.policies.resources.service import Service
from garrison.policies.resources.traffic_policy import TrafficPolicy

__all__ = [
    "KINDS",
    "Document",
    "HTTPRoute",
    "Mesh",
    "Path",
    "Placed",
    "RegistrationEntry",
    "Resource",
    "Service",
    "TrafficPolicy",
    "parse_resources",
]
