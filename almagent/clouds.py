"""The clouds this agent knows: what `cloud.provider` may say, and the class that asks that cloud.

Named, not imported: settings are checked without a single one of them, and a host loads what it needs.
In the order of preference, should more than one be recognised: the unmistakable ones first, and those
with an address of their own, which are silent everywhere else, last.
"""

from __future__ import annotations

CLOUDS = {
    "gcp": "almagent.adapters.metadata.gcp:Gcp",
    "azure": "almagent.adapters.metadata.azure:Azure",
    "aws": "almagent.adapters.metadata.aws:Aws",
    "k5": "almagent.adapters.metadata.k5:K5",
    "alicloud": "almagent.adapters.metadata.alicloud:Alicloud",
    "tencent": "almagent.adapters.metadata.tencent:Tencent",
}
