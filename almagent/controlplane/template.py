"""ALM templates: what makes one valid, and the container sections of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from almagent.controlplane import models

Template = dict[str, Any]


def _none_if_empty(value: Any) -> Any:
    return value or None  # PHP writes an empty object as a list


class _Layer(models.Model):
    flag: Annotated[str, Field(min_length=1)]
    container: Annotated[dict[str, Any] | None, BeforeValidator(_none_if_empty)] = None


def _one_layer_a_flag(layers: list[_Layer]) -> list[_Layer]:
    seen: set[str] = set()
    for number, layer in enumerate(layers, start=1):
        if layer.flag in seen:
            reason = "must not have a flag twice, as layer {number} has"
            raise PydanticCustomError("flag_twice", reason, {"number": number})
        seen.add(layer.flag)
    return layers


class _Template(models.Model):
    configurations: Annotated[
        list[_Layer], models.FIRST, Field(min_length=1), AfterValidator(_one_layer_a_flag)
    ]


def checked(body: Any) -> Template:
    """`body` as it is, if it is a template that layers can be read from. Raises Malformed."""
    models.checked(_Template, body, "apply template")
    return cast("Template", body)


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
