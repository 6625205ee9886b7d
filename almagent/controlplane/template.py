"""ALM templates: what makes one valid, and the container sections of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from almagent.controlplane.errors import Malformed

Template = dict[str, Any]


def checked(body: Any) -> Template:
    """`body`, if it is a template that layers can be read from. Raises Malformed."""
    if not isinstance(body, dict):
        raise Malformed("cannot apply template: it must be a JSON object")
    layers = body.get("configurations")
    if not isinstance(layers, list) or not layers:
        raise Malformed("cannot apply template: configurations must be a list of layers")
    flags: set[str] = set()
    for number, layer in enumerate(layers, start=1):
        flags.add(_flag(layer, number, flags))
    return body


def _flag(layer: Any, number: int, seen: set[str]) -> str:
    where = f"cannot apply template: configurations/{number}"
    if not isinstance(layer, dict):
        raise Malformed(f"{where} must be an object")
    flag = layer.get("flag")
    if not isinstance(flag, str) or not flag:
        raise Malformed(f"{where}/flag must be a text")
    if flag in seen:
        raise Malformed(f"{where}/flag is that of an earlier layer")
    container = layer.get("container")
    if container and not isinstance(container, dict):
        raise Malformed(f"{where}/container must be an object")
    return flag


def sections(template: Template) -> dict[str, dict[str, Any]]:
    """flag -> the layer's container section; layers without one are left out."""
    return {
        layer["flag"]: layer["container"]
        for layer in template["configurations"]
        if layer.get("container")
    }


def with_vendor_of(template: Template, current: Template) -> Template:
    """`template` with the vendor that the stack was created with: it cannot be changed afterwards."""
    if "vendor" in current:
        return {**template, "vendor": current["vendor"]}
    return {key: value for key, value in template.items() if key != "vendor"}


def document(section: Mapping[str, Any], updated: int) -> dict[str, Any]:
    """What an agent gets: the section as it is written, `updated` added where it says none itself."""
    if "updated" in section or "container_updated" in section:
        return dict(section)
    return {**section, "updated": updated}
