"""The tree keeps the shape that the build relies on."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
COMPONENTS = ("ca", "identity", "xds", "authz", "policies", "proxy", "deploy")


def test_garrison_is_a_namespace_without_an_init() -> None:
    assert not [root for root in COMPONENTS if (ROOT / root / "garrison" / "__init__.py").exists()]


def test_each_component_is_typed() -> None:
    assert all((ROOT / root / "garrison" / root / "py.typed").exists() for root in COMPONENTS)


def test_no_folder_beside_the_packages_can_be_imported() -> None:
    """An editable install puts each component's directory on sys.path."""
    strays = [
        file
        for root in COMPONENTS
        for file in (ROOT / root).rglob("*.py")
        if "garrison" not in file.relative_to(ROOT / root).parts and "target" not in file.parts
    ]
    assert strays == [ROOT / "proxy" / "hatch_build.py"]
